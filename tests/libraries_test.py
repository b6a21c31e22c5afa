"""A small battery on every CPU library of llama.cpp that this processor can load, and on the one it would choose itself: the native
engine against it, and an audit of it. Libraries differ in rounding and in the precision of products, so none diverges; none is at
fault."""
from driver import Case, main, run

PROMPT = "And God said, Let there be light"
# Rows are multiples of 32: matrix units, where a processor has them, take those shapes and round in their own way.
SHAPE = ("--layers", 1, "--d-model", 256, "--d-ff", 256, "--heads", 4, "--kv-heads", 2, "--vocab", 512, "--context", 512)


class Libraries(Case):
    def fixture(self, architecture, weights, distribution):
        path = self.folder / f"{architecture}-{weights.lower()}.gguf"
        result = run("gen-fixtures", "--out", path, "--architecture", architecture, "--distribution", distribution, "--weights", weights,
                     *SHAPE)
        self.assertEqual(result.code, 0, result)
        return path

    def loadable(self, model):
        """What the reference says of this processor: its CPU libraries, of which it chose one."""
        result = self.crossval("--model", model, "--reference", "llama.cpp", "--prompt", "a")
        facts = next(engine for engine in result.json["engines"] if engine["role"] == "reference")["description"]
        names = facts["cpu.libraries"]["value"].split()
        self.assertIn(facts["isa"]["value"], names)
        return names

    def battery(self, model):
        names = self.loadable(model)
        for engine in ["llama.cpp", *(f"llama.cpp,cpu.library={name}" for name in names)]:
            with self.subTest(model=model.name, engine=engine):
                result = self.crossval("--model", model, "--candidate", "native", "--reference", engine, "--prompt", PROMPT, "-n", 2)
                self.assertEqual(result.code, 0, result)
                self.assertIn(result.json["verdict"], ("match", "drift"), result)
                self.assertGreater(result.json["coverage"]["compared"], 0, result)
                audit = run("audit", "--format", "json", "--model", model, "--engine", engine, "--prompt", PROMPT)
                self.assertEqual(audit.code, 0, audit)
                self.assertEqual(audit.json["blame"], "none", audit)

    def test_ternary_weights(self):
        self.battery(self.fixture("bitnet", "TQ2_0", "ternary"))

    def test_f16_weights(self):
        self.battery(self.fixture("llama", "F16", "gaussian"))

    def test_q8_0_weights_and_an_f16_output(self):
        self.battery(self.fixture("llama", "Q8_0", "gaussian"))


if __name__ == "__main__":
    main()

"""`paritybit inspect` and `paritybit convert`: what a model file holds, and its weights in another type."""
import hashlib

from driver import SILU, Case, main, run
from gguf_edit import Gguf
from tiny_gguf import ARRAY, F32, F64, I32, STRING, U32, tiny, vector

TQ2_0 = SILU / "tiny-bitnet-silu-tq2_0.gguf"
I2_S = SILU / "tiny-bitnet-silu-i2_s.gguf"


class Inspect(Case):
    def json(self, path, *args):
        result = run("inspect", path, "--format", "json", *args)
        self.assertEqual((result.code, result.json["exit_code"]), (0, 0), result)
        return result.json

    def test_metadata_as_it_was_written(self):
        file = tiny()
        file.set("a.f32", F32, 0.1)
        file.set("a.f64", F64, 0.1)
        file.set("a.negative", I32, -3)
        file.set("a.list", ARRAY, list(range(20)), U32)
        seen = {pair["key"]: pair for pair in self.json(file.write(self.folder / "m.gguf"))["metadata"]}
        self.assertEqual(list(seen), list(file.values))
        self.assertEqual((seen["a.f32"]["type"], seen["a.f32"]["value"]), ("f32", 0.1))
        self.assertEqual(seen["a.f64"]["value"], 0.1)
        self.assertEqual(seen["a.negative"]["value"], -3)
        self.assertEqual((seen["a.list"]["element"], seen["a.list"]["length"], seen["a.list"]["value"]), ("u32", 20, list(range(8))))
        full = {pair["key"]: pair for pair in self.json(self.folder / "m.gguf", "--full")["metadata"]}
        self.assertEqual(full["a.list"]["value"], list(range(20)))
        self.assertEqual(full["tokenizer.ggml.tokens"]["value"], file.values["tokenizer.ggml.tokens"][1])

    def test_tensors_and_digests(self):
        seen = self.json(TQ2_0, "--digests")
        self.assertEqual(seen["file"]["sha256"], hashlib.sha256(TQ2_0.read_bytes()).hexdigest())
        gguf = Gguf(TQ2_0)
        self.assertEqual([t["name"] for t in seen["tensors"]], list(gguf.tensors))
        for t in seen["tensors"]:
            kind, shape, at, size = gguf.tensors[t["name"]]
            self.assertEqual((t["type_id"], t["shape"], t["byte"], t["bytes"]), (kind, shape, at, size))
            self.assertEqual(t["sha256"], hashlib.sha256(gguf.data[at:at + size]).hexdigest())
        self.assertNotIn("sha256", self.json(TQ2_0)["tensors"][0])

    def test_text_fits_and_is_safe(self):
        file = tiny()
        file.set("general.name", STRING, "\x1b[31mred\u202e " + "long " * 40)
        file.tensors["blk.0.\x1bevil"] = vector([1.0])
        path = file.write(self.folder / "m.gguf")
        result = run("inspect", path)
        self.assertEqual(result.code, 0, result)
        self.assertNotIn("\x1b", result.out)
        self.assertLessEqual(max(map(len, result.out.splitlines()[2:])), 80, result)
        self.assertIn("blk.0.ffn_down.weight              F16      128 x 64", result.out)

    def test_a_file_that_was_cut(self):
        path = self.folder / "cut.gguf"
        path.write_bytes(TQ2_0.read_bytes()[:1200000])
        seen = self.json(path)
        self.assertEqual(len(seen["tensors"]), 68)
        self.assertGreater(len(seen["faults"]), 0)
        self.assertIsNone(seen["tensors"][-1]["byte"])
        path.write_bytes(b"no model")
        self.assertEqual(run("inspect", path).code, 5)

    def test_the_documented_statistics_are_verify_s(self):
        for flag in ("--ln-stats", "--gate", "--policy"):
            result = run("inspect", TQ2_0, flag)
            self.assertEqual(result.code, 2, result)
            self.assertIn("paritybit verify", result.err)

    def test_the_model_is_named_once(self):
        self.assertEqual(run("inspect", "--model", TQ2_0).out, run("inspect", TQ2_0).out)
        self.assertEqual(run("inspect", TQ2_0, "--model", TQ2_0).code, 2)
        self.assertEqual(run("inspect").code, 2)


class Convert(Case):
    def convert(self, *args, code=0):
        result = run("convert", *args, "--format", "json")
        self.assertEqual(result.code, code, result)
        return result.json

    def test_there_and_back(self):
        """Ternary weights change no value on the way, so I2_S -> F16 -> TQ2_0 gives the bundled file's tensors."""
        f16, tq2 = self.folder / "f16/m.gguf", self.folder / "tq2/m.gguf"
        first = self.convert(I2_S, "--weights", "f16", "--out", f16)
        self.assertEqual(first["converted"], {"tensors": 42, "inexact": 0, "max_change": 0.0})
        self.convert("--model", f16, "--weights", "TQ2_0", "--out", tq2)
        bundled, made = Gguf(TQ2_0), Gguf(tq2)
        for name, (kind, shape, at, size) in bundled.tensors.items():
            there = made.tensors[name]
            self.assertEqual((kind, shape, bytes(bundled.data[at:at + size])),
                             (there[0], there[1], bytes(made.data[there[2]:there[2] + there[3]])), name)
        self.assertEqual(run("verify", tq2, "--strict").code, 0)

    def test_the_older_spelling_writes_the_same_file(self):
        self.convert(TQ2_0, "--weights", "Q8_0", "--out", self.folder / "a.gguf")
        old = run("gen-fixtures", "--convert", TQ2_0, "--weights", "Q8_0", "--out", self.folder / "b.gguf")
        self.assertEqual(old.code, 0, old)
        self.assertEqual((self.folder / "a.gguf").read_bytes(), (self.folder / "b.gguf").read_bytes())

    def test_what_makes_no_sense(self):
        out = self.folder / "o.gguf"
        for args, code in (((TQ2_0, "--weights", "Q9_9", "--out", out), 2), ((TQ2_0, "--out", out), 2), (("--weights", "F16", "--out", out), 2),
                           ((self.folder / "none.gguf", "--weights", "F16", "--out", out), 5), ((__file__, "--weights", "F16", "--out", out), 5)):
            self.convert(*args, code=code)
            self.assertFalse(out.exists())
        own = self.folder / "own.gguf"
        own.write_bytes(TQ2_0.read_bytes())
        self.convert(own, "--weights", "F16", "--out", own, code=2)
        self.assertEqual(own.read_bytes(), TQ2_0.read_bytes())


if __name__ == "__main__":
    main()

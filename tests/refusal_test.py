"""What an engine refuses by name is nobody's fault: incomplete, exit 3, in the same words in every command, and the next line works
when it is pasted."""
import random
import shlex
import struct

from driver import SILU, Case, main, run
from gguf_edit import F32, FLOAT32, IQ3_S, STRING, UINT16, Gguf, rewrite

PROMPT = "and the"
WIDTH = 256


def iq3_s(n_values):
    """Random codes: d, then 108 bytes of codes, signs and scales."""
    r = random.Random(6)
    block = lambda: struct.pack("<e", 2**-13) + r.randbytes(108)
    return b"".join(block() for _ in range(n_values // 256))


class Refused(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        import pathlib
        import tempfile
        cls.holder = tempfile.TemporaryDirectory(prefix="paritybit-refusal-")
        cls.addClassCleanup(cls.holder.cleanup)
        folder = pathlib.Path(cls.holder.name)
        plain = folder / "llama" / "m.gguf"
        made = run("gen-fixtures", "--out", plain, "--weights", "F16", "--architecture", "llama", "--d-model", WIDTH, "--heads", 4,
                   "--kv-heads", 2, "--d-ff", 512, "--layers", 2, "--vocab", 512)
        assert made.code == 0, made
        shape = Gguf(plain).tensors["token_embd.weight"][1]
        bias = struct.pack(f"<{WIDTH}f", *[0.001] * WIDTH)
        cls.models = {
            "levels": (rewrite(plain, folder / "levels" / "m.gguf", tensors={
                "token_embd.weight": (IQ3_S, shape, iq3_s(shape[0] * shape[1]))}), "weight type IQ3_S of token_embd.weight"),
            "clamp": (rewrite(plain, folder / "clamp" / "m.gguf", keys={"llama.attention.clamp_kqv": (FLOAT32, 20.0)}),
                      "key llama.attention.clamp_kqv (a limit on queries, keys and values)"),
            "norm_bias": (rewrite(plain, folder / "norm_bias" / "m.gguf", tensors={"blk.0.attn_norm.bias": (F32, [WIDTH], bias)}),
                          "the bias blk.0.attn_norm.bias"),
            "cohere2": (rewrite(plain, folder / "cohere2" / "m.gguf", keys={"general.architecture": (STRING, "cohere2")},
                               rename=("llama.", "cohere2.")), 'architecture "cohere2"'),
        }

    def refused(self, result, words):
        self.assertEqual((result.code, result.json["verdict"], result.codes()[0]), (3, "incomplete", "unsupported"), result)
        self.assertIn(words, result.json["reasons"][0]["text"])
        self.assertIn(result.json.get("blame", "none"), ("none", None))
        return result.json["reasons"][0]["text"], result.json["next"]

    def pasted(self, line):
        words = shlex.split(line)
        self.assertEqual(words[0], "paritybit")
        return run(*words[1:], "--format", "json", cwd=self.folder)

    def test_every_command_says_the_same(self):
        for name, (model, words) in self.models.items():
            with self.subTest(name):
                asked = ["--model", model, "--format", "json"]
                texts, nexts = set(), {}
                for command in (["crossval", "--reference", "llama.cpp"], ["diagnose", "--reference", "llama.cpp"], ["audit"],
                                ["noise"], ["trace", "--out", self.folder / "t"], ["infer"],
                                ["repro", "--reference", "llama.cpp", "--out", self.folder / "r"]):
                    prompt = [] if command[0] == "noise" else ["--prompt", PROMPT]
                    result = run(*command, *asked, *prompt)
                    if command[0] == "repro":  # its one reason begins with what was not written
                        self.assertEqual((result.code, result.codes()), (3, ["unsupported"]), result)
                        self.assertIn(texts.copy().pop(), result.json["reasons"][0]["text"])
                        continue
                    text, nexts[command[0]] = self.refused(result, words)
                    texts.add(text)
                self.assertEqual(len(texts), 1, texts)
                self.assertTrue(all(nexts.values()), nexts)

    def test_two_libraries_of_the_reference_do_work(self):
        for name in ("levels", "clamp"):
            with self.subTest(name):
                model, words = self.models[name]
                _, following = self.refused(self.crossval("--model", model, "--reference", "llama.cpp", "--prompt", PROMPT), words)
                self.assertIn("--candidate llama.cpp,cpu.library=", following[0])
                result = self.pasted(following[0])
                self.assertIn(result.code, (0, 1), result)  # judged: two of the reference's libraries may differ, none is refused
                self.assertGreater(result.json["coverage"]["compared"], 0, result)

    def test_the_reference_alone_does_work(self):
        model, words = self.models["levels"]
        for command in (["infer", "-n", "2"], ["trace", "--out", self.folder / "t"]):
            result = run(*command, "--model", model, "--prompt", PROMPT, "--format", "json")
            _, following = self.refused(result, words)
            self.assertEqual(self.pasted(following[0]).code, 0)
        told = run("infer", "--model", model, "--prompt", PROMPT)
        self.assertIn("next: paritybit infer", told.err)
        self.assertIn("INCOMPLETE  (exit 3)", told.err)

    def test_the_official_bitnet_file_is_converted(self):
        model = SILU / "tiny-bitnet-silu-i2_s.gguf"
        # With the config.json that declares its activation, as the one beside it does.
        result = self.crossval("--model", model, "--reference", "llama.cpp,cpu.library=sandybridge", "--prompt", PROMPT)
        text, following = self.refused(result, "of type 36")
        convert, compare = following
        self.assertIn("gen-fixtures --convert", convert)
        self.assertEqual(self.pasted(convert).json["converted"]["inexact"], 0)
        self.assertIn("--set act.quant=q8_k", compare)
        judged = self.pasted(compare)
        self.expect(judged, "match", 0)
        # Without the setting they run different schemes; the next line says which makes them equal.
        other = self.crossval("--model", model, "--reference-model", self.folder / "tiny-bitnet-silu-tq2_0.gguf", "--reference",
                              "llama.cpp,cpu.library=sandybridge", "--prompt", PROMPT)
        self.expect(other, "incomplete", 3, "settings-differ")
        self.assertIn("--set act.quant=q8_k", other.json["next"][0])
        self.expect(self.pasted(other.json["next"][0]), "match", 0)
        for command in ("audit", "noise", "infer"):
            prompt = [] if command == "noise" else ["--prompt", PROMPT]
            one = run(command, "--model", model, "--engine", "llama.cpp", *prompt, "--format", "json")
            one_text, lines = self.refused(one, "of type 36")
            self.assertEqual((one_text.split("cannot do")[1], lines[0]), (text.split("cannot do")[1], convert))

    def test_a_setting_that_is_not_offered(self):
        model = SILU / "tiny-bitnet-silu-tq2_0.gguf"
        for command in (["crossval", "--reference", "native"], ["infer"], ["audit"], ["noise"]):
            prompt = [] if command[0] == "noise" else ["--prompt", PROMPT]
            result = run(*command, "--model", model, *prompt, "--set", "attn.flash=on", "--format", "json")
            _, following = self.refused(result, "attn.flash=on")
            self.assertNotIn("attn.flash", following[0])
            typed = run(*command, "--model", model, *prompt, "--set", "no.such=1", "--format", "json")
            self.assertEqual((typed.code, typed.codes()), (2, ["usage"]), typed)


if __name__ == "__main__":
    main()

"""What a model's files say is heard, in every command: activation keys, contradictions, unknown keys, NaN that no text uses, BOS twice."""
import json

from driver import RELU2, Case, main, run
from tiny_gguf import BOOL, F32, STRING, U32, config_of, tiny, vector

PROMPT = "and the other end"
HASWELL = "llama.cpp,cpu.library=haswell"
NATIVE_PAIR = ("--candidate", "native", "--reference", "native")


class Declared(Case):
    def model(self, file, name="m", config=None):
        """A folder of its own with the file and, where one is given, a config.json."""
        path = file.write(self.folder / name / "m.gguf")
        if config is not None:
            (path.parent / "config.json").write_text(config)
        return path

    def command(self, name, *args):
        result = run(name, "--format", "json", *args)
        self.assertTrue(result.out, result)
        return result

    def notes(self, result):
        return "\n".join(result.json["notes"])


class Activation(Declared):
    def ternary(self, arch, act, config=None):
        file = tiny(arch, d=256, ff=256, weights="TQ2_0")
        if act:
            file.set(f"{arch}.hidden_activation", STRING, act)
        return self.model(file, f"{arch}-{act}", config)

    def test_the_files_key_declares_it(self):
        relu2 = self.crossval("--model", self.ternary("bitnet", "relu2"), "--reference", HASWELL, "--prompt", PROMPT)
        self.expect(relu2, "diverged", 1)
        first = relu2.json["first_divergence"]
        self.assertEqual((first["layer"], first["stage"], relu2.json["blame"]), (0, "ffn_gated", "reference"), relu2)
        self.assertIn("SiLU", relu2.json["diagnosis"]["sentence"])
        facts = relu2.json["engines"][0]["model_facts"]
        self.assertEqual(facts["ffn.activation"], {"value": "relu2", "origin": "metadata"})
        silu = self.crossval("--model", self.ternary("bitnet", "silu"), "--reference", HASWELL, "--prompt", PROMPT)
        self.expect(silu, "match", 0)
        self.assertEqual(silu.json["notes"], [])

    def test_other_architectures_and_spellings(self):
        for arch, act, runs in (("bitnet-25", "squared_relu", "relu2"), ("bitnet-b1.58", "swish", "silu"), ("llama", "relu^2", "relu2")):
            with self.subTest(arch=arch):
                path = self.ternary(arch, act)
                audited = self.command("audit", "--model", path, "--prompt", PROMPT)
                self.expect(audited, "match", 0)
                self.assertIn(runs, run("audit", "--model", path, "--prompt", PROMPT).out)

    def test_a_config_that_says_otherwise_contradicts_it(self):
        file = tiny("bitnet")
        file.set("bitnet.hidden_activation", STRING, "relu2")
        path = self.model(file, config=config_of(file, hidden_act="silu"))
        result = self.crossval("--model", path, *NATIVE_PAIR, "--prompt", PROMPT)
        self.expect(result, "incomplete", 3, "contradicted")
        self.assertIn("hidden_act", result.json["reasons"][0]["text"])
        for act in ("silu", "relu2"):
            decided = self.crossval("--model", path, *NATIVE_PAIR, "--set", f"ffn.activation={act}", "--set-reference",
                                    f"ffn.activation={act}", "--prompt", PROMPT)
            self.expect(decided, "match", 0)

    def test_a_setting_that_overrides_a_declaration_is_shown(self):
        told = ("--model", RELU2 / "tiny-bitnet-relu2-tq2_0.gguf", "--set", "ffn.activation=silu", "--prompt", "And")
        text = run("crossval", *told, "--reference", HASWELL)
        self.assertEqual(text.code, 0, text)
        self.assertIn("ffn silu [set]", text.out)
        self.assertIn("the model declares relu2 [config.json]", " ".join(text.out.split()))
        result = self.crossval(*told, "--reference", HASWELL)
        self.assertIn({"key": "ffn.activation", "value": "silu", "origin": "flag --set"}, result.json["choices"])
        self.assertIn("ffn.activation is set to silu; the model declares relu2 [config.json]", self.notes(result))
        infer = self.command("infer", *told, "-n", "1")
        self.assertIn("the model declares relu2", self.notes(infer))


class Contradictions(Declared):
    def write(self, name, drop=(), **fields):
        file = tiny()
        for key in drop:
            file.drop(key)
        return self.model(file, name, config_of(file, **fields))

    def theta(self):
        """A converter that did not know where transformers 5 keeps the base wrote none."""
        return self.write("theta", ["llama.rope.freq_base"], rope_theta=None,
                          rope_parameters={"rope_type": "default", "rope_theta": 500000.0})

    def expect_told(self, text, path, key, values):
        """By key, with both files and both values."""
        for part in (key, path, path.parent / "config.json", *values):
            self.assertIn(str(part), text)

    def test_are_incomplete_in_every_command_that_judges(self):
        path, values = self.theta(), ("500000", "10000", "llama.rope.freq_base")
        key = "rope_parameters.rope_theta"
        judged = (("crossval", *NATIVE_PAIR), ("crossval", *NATIVE_PAIR, "--scope", "logits-only"),
                  ("crossval-per-token", *NATIVE_PAIR), ("audit", "--engine", "native"), ("noise", "--engine", "native"),
                  ("diagnose", *NATIVE_PAIR))
        for name, *args in judged:
            with self.subTest(command=name):
                result = self.command(name, "--model", path, "--prompt", PROMPT, *args)
                self.assertEqual((result.code, result.json["verdict"]), (3, "incomplete"), result)
                texts = [r["text"] for r in result.json["reasons"] if r["code"] == "contradicted"]
                self.assertEqual(len(texts), 1, result)
                self.expect_told(texts[0], path, key, values)
        text = run("audit", "--model", path, "--prompt", PROMPT)
        self.assertEqual(text.code, 3)
        self.assertIn("INCOMPLETE", text.out)
        bundle = run("repro", "--model", path, "--prompt", PROMPT, *NATIVE_PAIR, "--out", self.folder / "bundle")
        self.assertEqual(bundle.code, 3, bundle)
        self.assertIn(key, "".join((bundle.out + bundle.err).split()))
        quiet = run("crossval", "--model", path, *NATIVE_PAIR, "--prompt", PROMPT, "-q")
        self.assertEqual((quiet.code, quiet.out.count("\n")), (3, 1), quiet)
        self.expect_told(quiet.out, path, key, values)

    def test_are_noted_where_nothing_is_judged(self):
        path = self.theta()
        infer = self.command("infer", "--model", path, "--prompt", PROMPT, "-n", "1")
        trace = self.command("trace", "--model", path, "--prompt", PROMPT, "--level", "digest", "--out", self.folder / "t")
        for result in (infer, trace):
            self.assertEqual(result.code, 0, result)
            self.expect_told(self.notes(result), path, "rope_parameters.rope_theta", ("500000", "10000"))

    def test_what_is_set_decides_and_is_shown(self):
        path = self.theta()
        audit = ("audit", "--model", path, "--prompt", PROMPT, "--set")
        for base in ("10000", "500000"):
            result = self.command(*audit, f"rope.base={base}")
            self.expect(result, "match", 0)
            self.assertIn("rope.base is set, and counts", self.notes(result))
            self.assertIn(f"{base} [set]", run(*audit, f"rope.base={base}").out)
        # A setting that no file contradicts stays an engine's own mistake.
        self.expect(self.command(*audit, "rope.base=10000", "--set", "norm.eps=0.1"), "diverged", 1)

    def test_the_reference_may_be_told_or_is_blamed(self):
        path = self.theta()
        crossval = ("--model", path, "--reference", HASWELL, "--prompt", PROMPT)
        self.expect(self.crossval(*crossval), "incomplete", 3, "contradicted")
        self.expect(self.crossval(*crossval, "--set", "rope.base=10000"), "match", 0)
        both = self.crossval(*crossval, "--set", "rope.base=500000", "--set-reference", "rope.base=500000")
        self.expect(both, "match", 0)
        alone = self.crossval(*crossval, "--set", "rope.base=500000")
        self.expect(alone, "diverged", 1)
        self.assertEqual(alone.json["blame"], "reference", alone)
        self.assertIn(alone.json["first_divergence"]["stage"], ("q_rope", "k_rope"), alone)
        eps = self.write("eps", rms_norm_eps=1e-3)
        crossval = ("--model", eps, "--reference", HASWELL, "--prompt", PROMPT)
        self.expect(self.crossval(*crossval), "incomplete", 3, "contradicted")
        self.expect(self.crossval(*crossval, "--set", "norm.eps=1e-3", "--set-reference", "norm.eps=1e-3"), "match", 0)

    def test_the_next_command_decides(self):
        path = self.theta()
        result = self.crossval("--model", path, *NATIVE_PAIR, "--prompt", PROMPT)
        self.assertEqual([line.split("--set ")[1] for line in result.json["next"]], ["rope.base=500000", "rope.base=10000"])

    def test_a_config_can_be_left_out(self):
        heads = self.write("heads", num_key_value_heads=4, attention_bias=True)
        result = self.crossval("--model", heads, *NATIVE_PAIR, "--prompt", PROMPT)
        self.expect(result, "incomplete", 3, "contradicted")
        texts = "\n".join(r["text"] for r in result.json["reasons"])
        self.assertIn("num_key_value_heads", texts)
        self.assertIn("attention_bias", texts)
        alone = self.crossval("--model", heads, *NATIVE_PAIR, "--hf-config", "none", "--prompt", PROMPT)
        self.expect(alone, "match", 0)
        self.assertIn("is not read: hf.config is set to none", self.notes(alone))
        self.expect(self.command("audit", "--model", heads, "--engine", "native", "--hf-config", "none", "--prompt", PROMPT), "match", 0)

    def test_a_window_matters_beyond_its_length(self):
        window = self.write("window", sliding_window=8)
        short = self.crossval("--model", window, *NATIVE_PAIR, "--prompt", "and")
        self.expect(short, "match", 0)
        self.assertIn("sliding_window", self.notes(short))
        self.expect(self.crossval("--model", window, *NATIVE_PAIR, "--prompt", PROMPT), "incomplete", 3, "contradicted")

    def test_a_reference_model_has_its_own_config(self):
        good = self.write("good")
        result = self.crossval("--model", good, "--reference-model", self.theta(), *NATIVE_PAIR, "--prompt", PROMPT)
        self.expect(result, "incomplete", 3, "contradicted")

    def test_other_architectures_too(self):
        file = tiny("qwen2", add_bos=False, pre="qwen2", base=10000.0)
        path = self.model(file, config=json.dumps({"model_type": "qwen2", "rope_theta": 1e6, "rms_norm_eps": 1e-5}))
        pair = ("--candidate", HASWELL, "--reference", HASWELL)
        for name in ("q", "k", "v"):
            rows = file.tensors[f"blk.0.attn_{name}.weight"].shape[1]
            file.tensors[f"blk.0.attn_{name}.bias"] = vector([0.1] * rows)
        file.write(path)
        result = self.crossval("--model", path, *pair, "--prompt", PROMPT)
        self.expect(result, "incomplete", 3, "contradicted")
        self.assertIn("qwen2.rope.freq_base", result.json["reasons"][0]["text"])
        self.expect(self.crossval("--model", path, *pair, "--set", "rope.base=10000", "--prompt", PROMPT), "match", 0)


class Unheard(Declared):
    def test_a_key_that_nothing_here_knows(self):
        file = tiny()
        file.set("llama.something_new", F32, 2.0)
        path = self.model(file)
        judged = self.crossval("--model", path, *NATIVE_PAIR, "--prompt", PROMPT)
        self.expect(judged, "incomplete", 3, "unheard")
        self.assertIn("llama.something_new", judged.json["reasons"][0]["text"])
        self.expect(self.command("audit", "--model", path, "--engine", HASWELL, "--prompt", PROMPT), "incomplete", 3, "unheard")
        engines = self.crossval("--model", path, "--candidate", HASWELL, "--reference", HASWELL, "--prompt", PROMPT)
        self.expect(engines, "match", 0)
        self.assertIn("llama.something_new", self.notes(engines))

    def test_a_field_of_a_config_that_is_unknown_or_not_offered(self):
        for field in ({"something_new": 3}, {"final_logit_softcapping": 30.0}, {"model_type": "gemma2"}):
            with self.subTest(field=field):
                file = tiny()
                path = self.model(file, f"m{len(str(field))}", config_of(file, **field))
                self.expect(self.crossval("--model", path, *NATIVE_PAIR, "--prompt", PROMPT), "incomplete", 3, "unheard")

    def test_what_decides_nothing_is_silent(self):
        file = tiny()
        for key, kind, value in (("general.file_type", U32, 1), ("quantize.imatrix.file", STRING, "x"), ("split.count", U32, 0),
                                 ("mradermacher.quantized_by", STRING, "x"), ("llama.rope.scaling.finetuned", BOOL, False),
                                 ("tokenizer.ggml.padding_token_id", U32, 1)):
            file.set(key, kind, value)
        path = self.model(file, config=config_of(file, final_logit_softcapping=None, quantization_config={"quant_method": "x"}))
        result = self.crossval("--model", path, *NATIVE_PAIR, "--prompt", PROMPT)
        self.expect(result, "match", 0)
        self.assertEqual(result.json["notes"], [])


class HostileConfig(Declared):
    def test_is_malformed_and_named(self):
        file = tiny()
        for i, text in enumerate(('{"rope_theta": 1e999}', '{"a": ' + "[" * 200000 + "]" * 200000 + "}", '{"hidden_size": []}', "[1]",
                                  '{"rope_theta": 1, "rope_theta": 2}', '{"hidden_size": 1' + "0" * 400 + "}", "")):
            path = self.model(file, f"m{i}", text)
            for command in (("crossval", *NATIVE_PAIR), ("audit",)):
                result = run(*command, "--model", path, "--prompt", PROMPT)
                self.assertEqual(result.code, 5, (text[:40], result))
                self.assertIn("config.json", result.err)
        path = self.model(file, "bytes")
        (path.parent / "config.json").write_bytes(b'{"hidden_act": "\xff"}')
        result = run("crossval", *NATIVE_PAIR, "--model", path, "--prompt", PROMPT)
        self.assertEqual(result.code, 5, result)


class UnusedNaN(Declared):
    def spoilt(self, kind):
        file = tiny(d=256, ff=256, embedding=kind, weights=kind, tied=False, n_vocab=320)
        row = file.row("token_embd.weight", 300)
        size = {"Q8_0": 2, "TQ2_0": 2, "F16": 2, "F32": 4, "BF16": 2, "Q4_1": 2}[kind]
        value = {"F32": b"\x00\x00\xc0\x7f", "BF16": b"\xc0\x7f"}.get(kind, b"\x00\x7e")
        at = row.start + (64 if kind == "TQ2_0" else 0)
        file.tensors["token_embd.weight"].data[at:at + size] = value
        return self.model(file, kind)

    def test_is_a_note_and_no_verdict(self):
        path = self.spoilt("Q8_0")
        note = "token_embd.weight, row 300, holds NaN"
        matched = self.crossval("--model", path, "--reference", HASWELL, "--prompt", PROMPT)
        self.expect(matched, "match", 0)
        self.assertIn(note, self.notes(matched))
        for command in (("audit",), ("noise",), ("infer", "-n", "1"),
                        ("trace", "--level", "digest", "--out", self.folder / "t")):
            result = self.command(*command, "--model", path, "--prompt", PROMPT)
            self.assertEqual(result.code, 0, result)
            self.assertIn(note, self.notes(result), command[0])

    def test_of_every_type(self):
        for kind in ("F32", "F16", "BF16", "Q4_1", "TQ2_0"):
            with self.subTest(type=kind):
                result = self.crossval("--model", self.spoilt(kind), *NATIVE_PAIR, "--prompt", "and")
                self.assertIn("token_embd.weight, row 300, holds NaN", self.notes(result))


class BeginningAndEnd(Declared):
    TWICE = "begins with BOS twice (id 264): the text has it, and the tokeniser adds one"

    def test_bos_twice_is_told_wherever_text_is_read(self):
        path = self.model(tiny())
        text = "<|begin_of_text|>and"
        for command in (("crossval", *NATIVE_PAIR), ("crossval-per-token", *NATIVE_PAIR), ("audit",), ("noise",), ("infer", "-n", "1"),
                        ("trace", "--level", "digest", "--out", self.folder / "t")):
            result = self.command(*command, "--model", path, "--prompt", text)
            self.assertEqual(result.code, 0, result)
            self.assertIn(self.TWICE, self.notes(result), command[0])
        once = self.crossval("--model", path, *NATIVE_PAIR, "--prompt", "and")
        self.assertEqual(once.json["notes"], [])
        own = self.model(tiny(add_bos=False), "own")
        self.assertEqual(self.crossval("--model", own, *NATIVE_PAIR, "--prompt", text).json["notes"], [])

    def test_eos_at_the_end_is_told(self):
        file = tiny()
        file.set("tokenizer.ggml.add_eos_token", BOOL, True)
        result = self.crossval("--model", self.model(file), *NATIVE_PAIR, "--prompt", "and")
        self.assertIn("ends with EOS (id 265)", self.notes(result))


if __name__ == "__main__":
    main()

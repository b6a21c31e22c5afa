"""One engine judged alone: what is right passes whatever rounds it, what is wrong is found at its op, named, and blamed right.

Fails, never skips, where the reference is missing.
"""
import json
import pathlib
import shutil
import struct
import tempfile

import defects
from driver import PLUGINS, RELU2, SILU, Case, main, run

PROMPT = "And God said, Let there be light: and there was light. And God saw the light, that it was good."
SILU_MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
RELU2_MODEL = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
CPU_LIBRARIES = ("llama.cpp", "llama.cpp,cpu.library=haswell", "llama.cpp,cpu.library=sse42", "llama.cpp,cpu.library=x64")


class Audit(Case):
    def audit(self, *args, **kwargs):
        result = run("audit", "--format", "json", *args, **kwargs)
        self.assertTrue(result.out, result)
        self.assertEqual(result.code, result.json["exit_code"], result)
        return result

    def expect_match(self, result, unobservable=(), expected=None):
        self.expect(result, "match", 0, "ops-within-bounds")
        coverage = result.json["coverage"]
        self.assertEqual((coverage["compared"], coverage["missing"], coverage["unmapped"]), (coverage["expected"], [], []))
        self.assertEqual(tuple(u.split(":")[0] for u in coverage["unobservable"]), tuple(unobservable))
        if expected:
            self.assertEqual(coverage["expected"], expected)
        self.assertEqual((result.json["blame"], result.json["findings"], result.json["first_divergence"]), ("none", [], None))
        return result

    def first(self, result, blame="engine", verdict="diverged", code=1):
        """The first finding, at the verdict's own place."""
        self.expect(result, verdict, code)
        self.assertEqual(result.json["blame"], blame, result)
        finding, place = result.json["findings"][0], result.json["first_divergence"]
        self.assertEqual(finding["blame"], blame)
        for key in ("layer", "stage", "position", "feature", "prompt"):
            self.assertEqual(finding["place"][key], place[key], key)
        return finding


class Benign(Audit):
    """Whatever rounds, computes what the model declares."""

    def test_native(self):
        for weights in ("tq2_0", "tq1_0", "i2_s"):
            with self.subTest(weights):
                result = self.audit("--model", SILU / f"tiny-bitnet-silu-{weights}.gguf", "--prompt", PROMPT, "--max-tokens", 3)
                self.expect_match(result, expected=4 * (6 * 20 + 3))  # 20 ops in each of 6 layers, 3 outside, 4 evaluations

    def test_paths_that_it_did_not_go_through(self):
        plain = self.audit("--model", SILU_MODEL, "--engine", "native", "--prompt", "And God said").json["paths"]["not_taken"]
        self.assertLess({"decode", "2 to 3 tokens at once", "two threads"}, set(plain))
        more = self.audit("--model", SILU_MODEL, "--engine", "native", "--prompt", "And God said", "--max-tokens", 2,
                          "--set", "threads=2").json["paths"]["not_taken"]
        self.assertEqual(set(plain) - set(more), {"decode", "two threads"})
        text = " ".join(run("audit", "--model", SILU_MODEL, "--engine", "native", "--prompt", "And God said").out.split())
        self.assertIn("paths not gone through: decode; 2 to 3 tokens at once; 32 or more at once; and", text)

    def test_native_settings(self):
        for setting in ("act.quant=bitnet", "act.quant=none", "act.quant=f16", "act.quant=q8_0", "kv.type=f32", "noise.seed=7", "ubatch=5"):
            with self.subTest(setting):
                self.expect_match(self.audit("--model", RELU2_MODEL, "--prompt", PROMPT, "--set", setting, "--max-tokens", 2))

    def test_llama_cpp(self):
        f16 = self.folder / "f16.gguf"
        shutil.copy(SILU / "config.json", self.folder)
        made = run("gen-fixtures", "--convert", SILU_MODEL, "--weights", "F16", "--out", f16)
        self.assertEqual(made.code, 0, made)
        for model in (SILU_MODEL, SILU / "tiny-bitnet-silu-tq1_0.gguf", f16):
            for engine in CPU_LIBRARIES:
                with self.subTest(engine, model=model.name):
                    result = self.audit("--model", model, "--engine", engine, "--prompt", PROMPT, "--max-tokens", 2)
                    self.expect_match(result, unobservable=["ffn_act"])
                    self.assertEqual(result.json["recomputed"], ["ffn_act"])

    def test_smollm2(self):
        model = run("setup-crossval", "--format", "json", timeout=1800).json["model"]
        for engine in ("native", *CPU_LIBRARIES):
            with self.subTest(engine):
                result = self.audit("--model", model, "--engine", engine, "--prompt", PROMPT, "--prompt", "2+2=", "--max-tokens", 1)
                self.expect_match(result, unobservable=[] if engine == "native" else ["ffn_act"])

    def test_awkward_shape(self):
        model = self.folder / "awkward.gguf"
        made = run("gen-fixtures", "--out", model, "--weights", "TQ2_0", "--architecture", "bitnet", "--d-model", 768, "--heads", 12,
                   "--kv-heads", 4, "--d-ff", 1280, "--layers", 3, "--vocab", 777, "--activation", "silu")
        self.assertEqual(made.code, 0, made)
        for engine in ("native", "llama.cpp"):
            result = self.audit("--model", model, "--engine", engine, "--prompt", "abc def")
            self.expect_match(result, unobservable=[] if engine == "native" else ["ffn_act"])


class Wrong(Audit):
    def test_an_activation_that_the_model_does_not_declare(self):
        result = self.audit("--model", RELU2_MODEL, "--engine", "llama.cpp", "--prompt", PROMPT)
        finding = self.first(result)
        self.assertEqual((finding["place"]["layer"], finding["place"]["stage"]), (0, "ffn_gated"))
        self.assertEqual(finding["sentence"], "layer 0, gated product (ffn_gated): the engine runs SiLU, the model declares squared ReLU; "
                                              "agreement restored with SiLU")
        self.assertEqual([h["name"] for h in finding["hypotheses"] if h["restores"]], ["ffn.activation=silu"])
        self.assertEqual([(p["layer"], p["stage"]) for p in finding["also"]], [(i, "ffn_gated") for i in range(1, 6)])
        self.assertEqual(len(result.json["findings"]), 1)
        beyond = {(p["layer"], p["stage"]) for p in result.json["points"] if p["bound_ratio"] is None or p["bound_ratio"] > 1}
        self.assertEqual(beyond, {(i, "ffn_gated") for i in range(6)})

    def test_a_setting_that_deviates(self):
        result = self.audit("--model", SILU_MODEL, "--set", "ffn.activation=gelu", "--prompt", PROMPT)
        finding = self.first(result)
        self.assertEqual((finding["place"]["layer"], finding["place"]["stage"], finding["named"]), (0, "ffn_act", "ffn.activation=gelu"))

    def test_text(self):
        result = run("audit", "--model", RELU2_MODEL, "--engine", "llama.cpp", "--prompt", "And God said", "--all")
        self.assertEqual(result.code, 1, result)
        text = " ".join(result.out.split())
        for words in ("the engine runs SiLU, the model declares squared ReLU",
                      "DIVERGED llama.cpp runs SiLU, the model declares squared ReLU (exit 1) at layer 0, gated product (ffn_gated), from "
                      "the first token; blame: engine", "the same explains 5 more points, in layers 1, 2, 3, 4, 5",
                      "where exact zeros are expected"):
            self.assertIn(words, text)
        self.assertNotIn("bound 0", text)
        self.assertNotRegex(text, r"e\+[1-9][0-9]")

    def test_another_file_than_the_good_one(self):
        """What a file does wrong is seen where a good one is named, at its op and feature, and is the file's fault."""
        same = self.audit("--model", SILU_MODEL, "--prompt", PROMPT)
        tokens = self.expect_match(same).json["prompts"][0]["tokens"]
        position = next(i for i in range(5, len(tokens)) if tokens.count(tokens[i]) == 1)
        absent = next(t for t in range(300, 2000) if t not in tokens)
        shutil.copy(SILU / "config.json", self.folder)
        for defect in defects.defects(tokens[position], position, absent):
            with self.subTest(defect.name):
                spoilt = self.folder / "spoilt.gguf"
                defects.write(SILU_MODEL, spoilt, defect)
                finding = self.first(self.audit("--model", spoilt, "--reference-model", SILU_MODEL, "--prompt", PROMPT), "model-file")
                place = finding["place"]
                self.assertEqual((place["layer"], place["feature"]), (defect.layer, defect.feature), place)
                self.assertIn(place["stage"], defect.stages)
                if defect.position is not None:
                    self.assertEqual(place["position"], defect.position)
                self.assertTrue(finding["file_differences"], finding)


class Traces(Audit):
    def record(self, model, *args, level="full", name="trace"):
        folder = self.folder / name
        made = run("trace", "--model", model, "--prompt", PROMPT, "--max-tokens", 2, "--level", level, "--out", folder, *args)
        self.assertEqual(made.code, 0, made)
        return folder

    def test_a_trace_is_judged_as_its_engine_is(self):
        for engine, model in (("native", SILU_MODEL), ("llama.cpp", RELU2_MODEL)):
            trace = self.record(model, "--engine", engine, name=engine)
            live = self.audit("--model", model, "--engine", engine, "--prompt", PROMPT, "--max-tokens", 2)
            stored = self.audit("--trace", trace)
            for field in ("verdict", "exit_code", "reasons", "coverage", "first_divergence", "blame", "recomputed"):
                self.assertEqual(stored.json[field], live.json[field], field)
            by_place = [sorted(r.json["points"], key=lambda p: (p["step"], p["layer"], p["stage"])) for r in (stored, live)]
            self.assertEqual(*by_place)
            self.assertEqual([f["sentence"] for f in stored.json["findings"]], [f["sentence"] for f in live.json["findings"]])

    def test_a_trace_of_another_file(self):
        spoilt = self.folder / "spoilt.gguf"
        shutil.copy(SILU / "config.json", self.folder)
        model = defects.Model(SILU_MODEL)
        model.scale_rows("blk.3.ffn_up.weight", 1.05)
        model.save(spoilt)
        trace = self.record(spoilt)
        self.expect_match(self.audit("--trace", trace))  # by its own file it is right
        finding = self.first(self.audit("--trace", trace, "--reference-model", SILU_MODEL), "model-file")
        self.assertEqual((finding["place"]["layer"], finding["place"]["stage"]), (3, "up_proj"))
        self.assertIn("1.05", finding["sentence"])

    def test_less_than_everything(self):
        # Keys are missing: what is made of them cannot be judged, all else is.
        rules = [f"--filter=stage={stage}" for stage in ("embeddings", "*norm", "q_*", "v_proj", "k_proj", "attn_*", "ffn*", "gate_proj",
                                                          "up_proj", "down_proj", "layer_out", "logits")]
        part = self.audit("--trace", self.record(SILU_MODEL, *rules, name="part"))
        self.expect(part, "incomplete", 3, "points-missing")
        self.assertEqual(part.json["coverage"]["missing"][0], "k_rope: the trace does not have it")
        sketch = run("audit", "--trace", self.record(SILU_MODEL, level="sketch", name="sketch"))
        self.assertNotEqual(sketch.code, 0)
        self.assertIn("level sketch", sketch.err)
        self.assertEqual(run("audit", "--trace", self.folder / "sketch", "--prompt", "a").code, 2)

    def test_a_folder_without_a_trace(self):
        empty, foreign = self.folder / "empty", self.folder / "foreign"
        empty.mkdir()
        foreign.mkdir()
        (foreign / "a.trace").write_text(json.dumps({"name": "blk0/q_proj", "shape": [1, 1], "dtype": "F32", "blake3": "0" * 64,
                                                     "rms": 1.0, "num_elements": 1}))
        for folder, word in ((empty, "holds no trace"), (self.folder / "none", "no such folder"), (foreign, "no manifest")):
            for model in ([], ["--model", SILU_MODEL]):  # the model is not what is missing
                result = run("audit", "--trace", folder, *model)
                self.assertEqual((result.code, result.out), (5, ""), result)
                self.assertIn(word, result.err)
                self.assertIn(f"paritybit trace --model MODEL --engine ENGINE --prompt TEXT --level full --out {folder}", result.err)


class FailsClosed(Audit):
    def test_an_activation_left_open(self):
        model = self.folder / "model.gguf"
        shutil.copy(RELU2_MODEL, model)
        for engine, open_ops in (("native", ["ffn_act"]), ("llama.cpp", ["ffn_gated"])):
            result = self.audit("--model", model, "--engine", engine, "--prompt", PROMPT)
            self.expect(result, "incomplete", 3, "undeclared")
            coverage = result.json["coverage"]
            self.assertEqual([m.split(":")[0] for m in coverage["missing"]], open_ops)
            self.assertEqual(coverage["expected"] - coverage["compared"], 6)  # of all else every point was judged
            self.assertEqual(any("ffn.activation=relu2" in command for command in result.json["next"]), engine == "native")
        self.expect_match(self.audit("--model", model, "--prompt", PROMPT, "--set", "ffn.activation=relu2"))
        self.expect_match(self.audit("--model", model, "--prompt", PROMPT, "--hf-config", RELU2 / "config.json"))
        told = self.audit("--model", model, "--engine", "llama.cpp", "--prompt", PROMPT, "--hf-config", RELU2 / "config.json")
        self.assertEqual(self.first(told)["named"], "ffn.activation=silu")

    def test_nothing_to_judge(self):
        self.expect(self.audit("--model", SILU_MODEL, "--prompt", ""), "invalid", 3, "empty-prompt")
        none = self.folder / "none"
        none.write_text("")
        self.expect(self.audit("--model", SILU_MODEL, "--prompts", none), "invalid", 3, "no-prompts")
        self.assertEqual(run("audit", "--model", SILU_MODEL).code, 2)

    def test_an_engine_that_fails(self):
        faulty = PLUGINS / "faulty.so"
        result = self.audit("--model", SILU_MODEL, "--engine", f"{faulty},faulty.mode=crash,faulty.at=eval", "--prompt", "a")
        self.expect(result, "engine-failed", 4, "engine-failed")
        self.assertEqual(result.json["blame"], "engine")
        self.assertTrue(result.json["engines"][0]["error"])

    def test_an_engine_of_another_model(self):
        """The faulty plugin computes a model of its own, whatever the file: no op of it can pass for the file's."""
        result = self.audit("--model", SILU_MODEL, "--engine", PLUGINS / "faulty.so", "--prompt", "a")
        self.assertNotEqual(result.code, 0, result)
        self.assertNotEqual(result.json["verdict"], "match")

    def test_a_file_with_nan_is_the_files_fault(self):
        spoilt = self.folder / "spoilt.gguf"
        shutil.copy(SILU / "config.json", self.folder)
        model = defects.Model(SILU_MODEL)
        model.set_norm("blk.2.ffn_norm.weight", 7, struct.unpack("<f", b"\x00\x00\xc0\x7f")[0])
        model.save(spoilt)
        for engine in ("native", "llama.cpp"):
            finding = self.first(self.audit("--model", spoilt, "--engine", engine, "--prompt", PROMPT), "model-file", "invalid", 3)
            self.assertEqual((finding["place"]["layer"], finding["place"]["stage"]), (2, "ffn_norm"))

    def test_a_damaged_file_is_no_engines_fault(self):
        short = self.folder / "short.gguf"
        short.write_bytes(SILU_MODEL.read_bytes()[:-5000])
        result = run("audit", "--format", "json", "--model", short, "--prompt", "a")
        self.assertEqual(result.code, 5, result)

    def test_unknown_settings(self):
        self.assertEqual(run("audit", "--model", SILU_MODEL, "--prompt", "a", "--set", "no.such=1").code, 2)
        self.assertEqual(run("audit", "--model", SILU_MODEL, "--prompt", "a", "--engine", "no-such-engine").code, 2)


if __name__ == "__main__":
    main()

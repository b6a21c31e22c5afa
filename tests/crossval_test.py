"""The main job on real models against the real llama.cpp. Fails, never skips, where the reference or the model is missing."""
import pathlib
import re
import shutil
import struct

from driver import BY_THE_TABLE, RELU2, ROOT, SILU, Case, main, run
from gguf_edit import Gguf

TEXT = (ROOT / "models" / "heldout.txt").read_text()


def smollm2():
    result = run("setup-crossval", "--format", "json", timeout=1800)
    assert result.code == 0, result
    return pathlib.Path(result.json["model"])


class Engine(Case):
    @classmethod
    def setUpClass(cls):
        cls.smollm2 = smollm2()

    def match(self, *args, exact=False, reference="llama.cpp"):
        result = self.crossval(*args, "--reference", reference)
        self.assertIn(result.json["verdict"], ("match",) if exact else ("match", "near-tie"), result)
        self.assertEqual(result.code, 0)
        self.assertEqual(result.json["coverage"]["compared"], result.json["coverage"]["expected"])
        self.assertEqual(result.json["non_finite_numbers"], 0)
        self.assertEqual((result.json["scope"], result.json["coverage"]["unit"]), ("local", "points"))
        # the one point that llama.cpp computes inside another op
        self.assertEqual([name.split(":")[0] for name in result.json["coverage"]["unobservable"]], ["ffn_act"])
        self.assertEqual(result.json["coverage"]["missing"] + result.json["coverage"]["unmapped"], [])
        # watching changes nothing in either engine
        for prompt in result.json["prompts"]:
            part = prompt["candidate_watched_positions"] is not None
            self.assertEqual(prompt["logits_sha256_untapped" if part else "logits_sha256"], prompt["logits_sha256_tapped"])
        floor = result.json["noise_floor"]
        if not floor["partial"]:
            self.assertGreaterEqual(floor["n_runs"], 8)
            self.assertGreaterEqual(floor["n_calibration"], 400)
        self.assertFalse(floor["weaker"])
        return result

    def tokens(self, result):
        return [len(prompt["tokens"]) for prompt in result.json["prompts"]]

    def lines(self, *prompts):
        path = self.folder / "prompts.txt"
        path.write_text("".join(prompt + "\n" for prompt in prompts))
        return path


class SmolLM2(Engine):
    def test_512_tokens_and_32_decode_steps_match(self):
        text = self.folder / "text.txt"
        text.write_text(TEXT[:2350])
        result = self.match("--model", self.smollm2, "--prompt-file", text, "--max-tokens", "32", "-v")
        self.assertGreaterEqual(self.tokens(result)[0], 512)
        self.assertEqual(len(result.json["positions"]), self.tokens(result)[0] + 32)
        row = result.json["reference_default"]
        self.assertFalse(row["decides"])
        self.assertIsNone(row["error"], row)
        # One run of the reference's noise over these tokens shows it; the other seven could only allow more.
        floor = result.json["noise_floor"]
        self.assertEqual((floor["partial"], floor["n_runs"], floor["n_positions"]), (True, 1, len(result.json["positions"])))
        self.assertIsNone(result.json["distance"])
        # The long passes say how much of them there is, so that the time left is known.
        n = len(result.json["positions"])
        for what, of in (("reference with taps", n), ("run with taps", 130), ("lock-step", n)):
            self.assertRegex(result.err, rf"{what}: \d+ of {of}\b")
        # Where an op was in doubt, as with a library that rounds codes the other way at a boundary, all was watched.
        doubted = "explained-by-codes" in {reason["code"] for reason in result.json["reasons"]}
        self.assertEqual(result.json["prompts"][0]["candidate_watched_positions"], None if doubted else 130)

    def test_short_prompts_match(self):
        # 1, 2, 9 and 64 tokens
        prompts = ["The", "The quick", "The quick brown fox jumps over the lazy dog", " ".join(TEXT.split()[:54])]
        result = self.match("--model", self.smollm2, "--prompts", self.lines(*prompts))
        counts = self.tokens(result)
        self.assertEqual(counts[:3], [1, 2, 9], counts)
        self.assertTrue(60 <= counts[3] <= 68, counts)
        # The whole floor says the same, and allows no less.
        whole = self.match("--model", self.smollm2, "--prompts", self.lines(*prompts), "--noise", "whole")
        self.assertFalse(whole.json["noise_floor"]["partial"])
        self.assertEqual(whole.json["verdict"], result.json["verdict"])
        self.assertEqual(whole.json["positions"], result.json["positions"])
        def limits(of):  # of a mean there is one for each number of positions
            return {(limit["name"], *re.findall(r"any (\d+)-position window", limit["origin"])): limit["value"] for limit in of.json["limits"]}

        self.assertEqual(limits(result).keys(), limits(whole).keys())
        for name, value in limits(result).items():
            self.assertLessEqual(value, limits(whole)[name], name)

    def test_infer_streams_from_either_engine(self):
        def infer(engine):
            result = run("infer", "--engine", engine, "--model", self.smollm2, "--chat", "--prompt",
                         "Say hello.", "--max-tokens", "48", "--ignore-eos", "--format", "json")
            self.assertEqual(result.code, 0, result)
            return result.json

        native, reference = infer("native"), infer("llama.cpp")
        self.assertIn("Hello", native["text"])
        self.assertIn("Hello", reference["text"])
        self.assertEqual(native["prompt_tokens"], reference["prompt_tokens"])


class TinyBitNet(Engine):
    def test_every_format_that_the_reference_knows_matches(self):
        f16 = self.folder / "f16" / "tiny-f16.gguf"
        f16.parent.mkdir()
        source = SILU / "tiny-bitnet-silu-tq2_0.gguf"
        self.assertEqual(run("gen-fixtures", "--convert", source, "--weights", "F16", "--out", f16).code, 0)
        for model in (source, SILU / "tiny-bitnet-silu-tq1_0.gguf", f16):
            with self.subTest(model=model.name):
                # 2, 9 and 64 tokens and longer text; the tokeniser adds BOS
                prompts = ["And", "And God said, Let there be light", " ".join(TEXT.split()[1000:1040]), TEXT[5000:6500]]
                result = self.match("--model", model, "--prompts", self.lines(*prompts), "--max-tokens", "16", reference=BY_THE_TABLE)
                self.assertEqual(self.tokens(result)[:2], [2, 9])

    def test_every_weight_type_takes_its_own_activations(self):
        """By ggml's table: F32 none, F16 to f16, BF16 to bfloat16, Q8_0 as Q8_0, Q4_1 as Q8_1, the ternary types as Q8_K; against two of
        its CPU libraries, and by the arbiter alone."""
        for weights in ("F32", "F16", "BF16", "Q8_0", "Q4_1", "TQ1_0", "TQ2_0"):
            with self.subTest(weights):
                model = self.folder / weights / "model.gguf"
                model.parent.mkdir()
                spread = "ternary" if weights.startswith("TQ") else "gaussian"
                made = run("gen-fixtures", "--out", model, "--weights", weights, "--distribution", spread, "--d-model", 256, "--d-ff", 512)
                self.assertEqual(made.code, 0, made)
                self.match("--model", model, "--prompt", TEXT[:120], "--max-tokens", "2", reference=BY_THE_TABLE)
                for library in ("haswell", "x64"):
                    audit = run("audit", "--model", model, "--engine", f"llama.cpp,cpu.library={library}", "--prompt", TEXT[:120])
                    self.assertEqual(audit.code, 0, audit)

    def test_batches_of_different_size_are_no_observer_effect(self):
        """llama.cpp's bits depend on its batches, and the watched passes are as short as the shorter batch."""
        for candidate in ["llama.cpp,ubatch=1", "native,ubatch=2,noise.seed=5"]:
            with self.subTest(candidate):
                result = self.crossval("--model", SILU / "tiny-bitnet-silu-tq2_0.gguf", "--candidate", candidate, "--reference",
                                       "llama.cpp", "--prompt", "And God said, Let there be light", "--max-tokens", "2")
                self.assertEqual((result.json["verdict"], result.code), ("match", 0), result)
                prompt = result.json["prompts"][0]
                self.assertEqual(prompt["logits_sha256_tapped"], prompt["logits_sha256_untapped"])

    def test_i2_s_equals_tq2_0_under_one_scheme(self):
        result = self.crossval("--model", SILU / "tiny-bitnet-silu-i2_s.gguf", "--reference-model",
                               SILU / "tiny-bitnet-silu-tq2_0.gguf", "--candidate", "native,act.quant=q8_k", "--reference",
                               "native,act.quant=q8_k", "--prompt", TEXT[:1500], "--max-tokens", "8")
        self.assertIn(result.json["verdict"], ("match", "near-tie"), result)
        self.assertTrue(all(not row["above_limit"] for row in result.json["positions"]))

    def test_i2_s_is_refused_by_a_reference_that_lacks_it(self):
        result = self.crossval("--model", SILU / "tiny-bitnet-silu-i2_s.gguf", "--reference", "llama.cpp", "--prompt", "And")
        self.expect(result, "incomplete", 3, "unsupported")
        self.assertEqual(result.json["blame"], "none")
        self.assertTrue(any("--convert" in command for command in result.json["next"]), result.json["next"])

    def test_a_real_defect_of_a_real_engine(self):
        """llama.cpp's bitnet graph runs SiLU; this model declares squared ReLU."""
        model = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
        prompt = "And God said, Let there be light"
        result = self.crossval("--model", model, "--reference", "llama.cpp", "--prompt", prompt)
        self.expect(result, "diverged", 1)
        place = result.json["first_divergence"]
        self.assertEqual((place["position"], place["layer"], place["stage"]), (0, 0, "ffn_gated"))
        self.assertTrue(result.json["next"])
        asked_for_less = self.crossval("--model", model, "--reference", "llama.cpp", "--prompt", prompt, "--scope", "logits-only")
        self.expect(asked_for_less, "diverged", 1)
        place = asked_for_less.json["first_divergence"]
        self.assertEqual((asked_for_less.json["scope"], place["position"], place["stage"]), ("logits-only", 0, None))
        told = self.match("--model", model, "--prompt", prompt, "--set", "ffn.activation=silu")
        self.assertEqual(self.tokens(told), [9])

    def test_without_its_config_json_the_same_model_is_incomplete(self):
        alone = self.folder / "model.gguf"
        shutil.copy(RELU2 / "tiny-bitnet-relu2-tq2_0.gguf", alone)
        result = self.crossval("--model", alone, "--reference", "llama.cpp", "--prompt", "And God said")
        self.expect(result, "incomplete", 3, "undeclared")
        # two builds of an engine that agree on what nobody declared show nothing either
        alike = self.crossval("--model", alone, "--candidate", "llama.cpp,cpu.library=x64", "--reference", "llama.cpp", "--prompt",
                              "And God said")
        self.expect(alike, "incomplete", 3, "undeclared")

    def test_per_token_view_enforces_its_limit(self):
        args = ["crossval-per-token", "--model", SILU / "tiny-bitnet-silu-tq2_0.gguf", "--reference", "llama.cpp", "--prompt",
                "And God said", "--max-tokens", "4", "--format", "json"]
        lenient = run(*args, "--cos-tolerance", "0.99")
        self.assertEqual((lenient.code, lenient.json["verdict"]), (0, "match"), lenient)
        self.assertEqual([p["phase"] for p in lenient.json["positions"]][-4:], ["decode"] * 4)
        told = run(*args[:-2], env={"COLUMNS": 120})
        self.assertRegex(told.out, r"max abs +1-cos +top-k")
        # stricter than the rounding of logits allows: the limit must bite
        strict = run(*args, "--cos-tolerance", "1")
        self.assertEqual((strict.code, strict.json["verdict"]), (1, "diverged"), strict)
        # As a tolerance, how far below 1: a candidate whose logits are some thousandths off lies beyond one of 1e-4, not of 1e-1.
        far = [*args, "--candidate", "mutant,mutant.defect=factor_1.05,mutant.stage=down_proj,mutant.layer=5", "--scope", "logits-only",
               "--kl-mean", "9", "--kl-worst", "9"]
        for tolerance, code in (("1e-4", 1), ("0.1", 0)):
            result = run(*far, "--cos-tolerance", tolerance)
            self.assertEqual(result.code, code, result)
            limit = next(l for l in result.json["limits"] if l["name"] == "cosine.min")
            self.assertAlmostEqual(limit["value"], 1 - float(tolerance))


class EndOfText(Engine):
    def test_every_token_that_ends_a_text_stops_either_engine(self):
        """A word the model says is renamed to <EOT>: no eos by number, but an end by llama.cpp's list of texts."""
        def said(engine, model):
            result = run("infer", "--engine", engine, "--model", model, "--prompt", "And God said", "-n", "40", "--format", "json")
            self.assertEqual(result.code, 0, result)
            return result.json

        source = SILU / "tiny-bitnet-silu-tq2_0.gguf"
        word, end = " the".replace(" ", "\u0120").encode(), b"<EOT>"
        data = source.read_bytes()
        self.assertEqual(data.count(struct.pack("<Q", len(word)) + word), 1)
        renamed = self.folder / "renamed.gguf"
        renamed.write_bytes(data.replace(struct.pack("<Q", len(word)) + word, struct.pack("<Q", len(end)) + end))
        shutil.copy(SILU / "config.json", self.folder)
        for engine in ("native", "llama.cpp"):
            with self.subTest(engine=engine):
                whole, stopped = said(engine, source), said(engine, renamed)
                self.assertFalse(whole["stopped"])
                self.assertTrue(stopped["stopped"])
                self.assertEqual(stopped["text"], whole["text"].split(" the")[0])
                self.assertEqual(stopped["tokens"], whole["tokens"][:len(stopped["tokens"])])


class ReferenceModel(Engine):
    def setUp(self):
        super().setUp()
        self.tq2_0 = SILU / "tiny-bitnet-silu-tq2_0.gguf"
        self.f16 = self.folder / "f16.gguf"
        self.assertEqual(run("gen-fixtures", "--convert", self.tq2_0, "--weights", "F16", "--out", self.f16).code, 0)

    def test_two_files_of_the_same_weights_under_one_scheme_match(self):
        self.match("--model", self.tq2_0, "--reference-model", self.f16, "--set", "act.quant=f16", "--prompt", TEXT[:800],
                   reference=BY_THE_TABLE)

    def test_two_schemes_are_incomplete(self):
        result = self.crossval("--model", self.tq2_0, "--reference-model", self.f16, "--reference", "llama.cpp", "--prompt",
                               "And God said")
        self.expect(result, "incomplete", 3, "settings-differ")

    def test_a_scaled_attention_output_is_diverged(self):
        bad = Gguf(self.tq2_0)
        bad.scale_ternary("blk.3.attn_output.weight", 1.5)
        path = self.folder / "scaled.gguf"
        bad.save(path)
        shutil.copy(SILU / "config.json", self.folder / "config.json")
        result = self.crossval("--model", path, "--reference-model", self.tq2_0, "--reference", "llama.cpp", "--prompt",
                               "And God said, Let there be light: and there was light.")
        self.expect(result, "diverged", 1)
        place = result.json["first_divergence"]
        self.assertEqual((place["position"], place["layer"], place["stage"]), (0, 3, "attn_out"))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""ik_llama.cpp, a fork whose ops have other names than llama.cpp's or none, are partly one, and round otherwise: set up from its package,
proved, and judged op by op on models in F16.

ik_test.py BUILD_DIRECTORY"""
import pathlib
import tempfile

import driver
from driver import SILU, run

PROMPT = "And God said, Let there be light"
OPS = {"attn_norm", "q_proj", "k_proj", "v_proj", "q_rope", "k_rope", "attn_scores", "attn_scores_softmax", "attn_context", "attn_out",
       "attn_residual", "ffn_norm", "gate_proj", "up_proj", "ffn_gated", "down_proj", "layer_out", "embeddings", "final_norm", "logits"}


class Ik(driver.Case):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="paritybit-test-")
        cls.addClassCleanup(holder.cleanup)
        folder = pathlib.Path(holder.name)
        cls.env = {"PARITYBIT_CACHE": folder / "cache"}
        cls.made = run("setup-cpp-auto", "--version", "ik-0.1.5", "--name", "ik", env=cls.env, timeout=900)
        assert cls.made.code == 0, cls.made
        cls.tiny, cls.llama = folder / "tiny/tiny.gguf", folder / "llama/llama.gguf"
        for command in (("convert", SILU / "tiny-bitnet-silu-tq2_0.gguf", "--weights", "F16", "--out", cls.tiny),
                        ("gen-fixtures", "--weights", "F16", "--embedding", "F16", "--distribution", "gaussian", "--vocab", "320",
                         "--layers", "3", "--out", cls.llama)):
            made = run(*command)
            assert made.code == 0, made

    def compare(self, model, *args):
        return self.crossval("--model", model, "--prompt", PROMPT, "-n", "3", *args, env=self.env)

    def test_it_is_proved_in_a_type_that_it_reads(self):
        self.assertIn("in F16, as it opens no TQ2_0", self.made.err)

    def test_every_op_is_seen_in_every_layer_and_right(self):
        for model, norms in ((self.tiny, {"attn_sub_norm", "ffn_sub_norm"}), (self.llama, set())):
            result = self.compare(model, "--reference", "ik")
            self.assertEqual((result.code, result.json["scope"], result.json["blame"]), (0, "local", "none"), result)
            self.assertIn("ops-within-bounds", result.codes(), result)
            self.assertEqual({p["stage"] for p in result.json["points"]}, OPS | norms)
            self.assertEqual(result.json["coverage"]["compared"], result.json["coverage"]["expected"])
            audit = run("audit", "--model", model, "--engine", "ik", "--prompt", PROMPT, "-n", "3", "--format", "json", env=self.env)
            self.assertEqual((audit.json["verdict"], audit.json["blame"], audit.code), ("match", "none", 0), audit)

    def test_experts_that_it_does_not_show_are_no_fault_of_it(self):
        model = self.llama.parent.parent / "experts/experts.gguf"
        made = run("gen-fixtures", "--architecture", "qwen3moe", "--weights", "F16", "--embedding", "F16", "--distribution", "gaussian",
                   "--vocab", "320", "--out", model)
        self.assertEqual(made.code, 0, made)
        result = self.compare(model, "--reference", "ik")
        self.assertIn(result.json["blame"], ("none", "undetermined"), result)
        audit = run("audit", "--model", model, "--engine", "ik", "--prompt", PROMPT, "--format", "json", env=self.env)
        self.assertEqual((audit.json["verdict"], audit.json["blame"], audit.code), ("incomplete", "none", 3), audit)

    def test_what_is_wrong_against_it_is_found(self):
        for defect, stage in (("rope_late", "q_rope"), ("rows_exchanged", "down_proj")):
            result = self.compare(self.llama, "--reference", "ik", "--candidate", f"mutant,mutant.defect={defect},mutant.stage={stage},mutant.layer=1")
            self.assertEqual((result.json["verdict"], result.json["blame"]), ("diverged", "candidate"), result)
            place = result.json["first_divergence"]
            self.assertEqual((place["layer"], place["stage"]), (1, stage), result)


if __name__ == "__main__":
    driver.main()

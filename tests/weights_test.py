#!/usr/bin/env python3
"""Weight types that people's files have: the native engine and the reference on the same file, op by op; a defect in such a file's
product; an embedding of another type than the layers, as the reference's quantiser leaves it.

weights_test.py BUILD_DIRECTORY"""
import pathlib
import struct
import tempfile

import driver
import gguf_edit
from driver import run

REFERENCE = "llama.cpp,cpu.library=haswell"
PROMPT = "the quick brown fox jumps over the lazy dog"
# By what their products do: whole codes with a half float (packed for the kernels), a minimum with stored sums, K blocks with and
# without minima, a table of levels, four-bit floats, ternary and binary.
TYPES = ("Q4_0", "Q5_1", "Q2_K", "Q4_K", "Q6_K", "IQ4_XS", "MXFP4", "Q1_0", "Q2_0")


class Weights(driver.Case):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="paritybit-test-")
        cls.addClassCleanup(holder.cleanup)
        cls.folder = pathlib.Path(holder.name)

    def model(self, weights, *more, distribution="gaussian"):
        path = self.folder / "-".join((weights, *more)).replace("--", "") / "model.gguf"
        made = run("gen-fixtures", "--out", path, "--weights", weights, "--distribution", distribution, "--vocab", "320", *more)
        self.assertEqual(made.code, 0, made)
        return path

    def agree(self, result):
        """A top-1 that flips between tokens as good as equal is no difference of engines."""
        self.assertEqual(result.code, 0, result)
        self.assertIn(result.json["verdict"], ("match", "near-tie"), result)
        self.assertIn("ops-within-bounds", result.codes(), result)

    def test_both_engines_agree_op_by_op(self):
        for weights in TYPES:
            with self.subTest(weights):
                result = self.crossval("--model", self.model(weights), "--prompt", PROMPT, "-n", "2", "--reference", REFERENCE)
                self.agree(result)

    def test_a_ternary_model_with_an_embedding_of_six_bits(self):
        """Most ternary files on the hubs: the reference's quantiser gives them a Q6_K or Q4_K embedding, which is the output matrix, too."""
        for embedding in ("Q6_K", "Q4_K"):
            model = self.model("TQ2_0", "--embedding", embedding, "--architecture", "bitnet", distribution="ternary")
            result = self.crossval("--model", model, "--prompt", PROMPT, "-n", "2", "--reference", REFERENCE)
            self.agree(result)

    def test_a_massive_activation_that_meets_weights_of_zero(self):
        """Trained models have single activations a thousand times the rest. The reference multiplies codes as they are stored, from 0
        on, and takes the offset off in another lane: where the weight is 0, its float sums are large and cancel."""
        for weights, distribution in (("TQ2_0", "ternary"), ("Q6_K", "gaussian")):
            path = self.model(weights, "--architecture", "bitnet", "--activation", "silu", "--d-ff", "1536", distribution=distribution)
            model = gguf_edit.Gguf(path)
            kind, _, offset, _ = model.tensors["blk.1.ffn_sub_norm.weight"]
            self.assertEqual(kind, gguf_edit.F32)
            # Of this column lanes of the product and of the sums differ.
            struct.pack_into("<f", model.data, offset + 4 * 205, 1e4)
            path.write_bytes(model.data)
            audit = run("audit", "--model", path, "--engine", REFERENCE, "--prompt", "a", "--format", "json")
            self.assertEqual((audit.code, audit.json["verdict"]), (0, "match"), audit)
            self.agree(self.crossval("--model", path, "--prompt", "a", "--reference", REFERENCE))

    def test_a_defect_in_such_a_product_is_placed_and_named(self):
        for weights in ("Q4_K", "IQ4_XS"):
            result = self.crossval("--model", self.model(weights, "--seed", "2"), "--prompt", PROMPT, "--candidate",
                                   "mutant,mutant.defect=factor_1.05,mutant.stage=up_proj,mutant.layer=1", "--reference", REFERENCE)
            self.assertEqual((result.json["verdict"], result.json["blame"]), ("diverged", "candidate"), result)
            place = result.json["first_divergence"]
            self.assertEqual((place["layer"], place["stage"]), (1, "up_proj"))
            self.assertEqual(result.json["diagnosis"]["named"], "factor=1.05", result)

    def test_rows_that_are_no_whole_blocks_are_refused_with_the_shape_that_would_do(self):
        made = run("gen-fixtures", "--out", self.folder / "odd" / "model.gguf", "--weights", "Q6_K", "--d-model", "96")
        self.assertEqual(made.code, 2, made)
        self.assertIn("256", made.err)


if __name__ == "__main__":
    driver.main()

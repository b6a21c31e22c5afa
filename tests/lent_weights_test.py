#!/usr/bin/env python3
"""Weights of types that nothing here decodes (IQ1 to IQ3, NVFP4): an engine lends its decoder, the arbiter judges with it, and what it
cannot know it does not say.

lent_weights_test.py BUILD_DIRECTORY"""
import pathlib
import tempfile

import driver
from driver import paste, run
from reference_blocks import TYPES, Blocks

HASWELL, SANDYBRIDGE = "llama.cpp,cpu.library=haswell", "llama.cpp,cpu.library=sandybridge"
PROMPT = "the quick brown fox jumps over the lazy dog"


def spoiled(name, blocks):
    """A row's first block of one matrix, its scale changed."""
    if name != "blk.1.ffn_up.weight":
        return blocks
    raw = bytearray(blocks)
    raw[1] ^= 4  # the exponent of the f16 that each of these blocks begins with
    return bytes(raw)


class LentWeights(driver.Case):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="paritybit-test-")
        cls.addClassCleanup(holder.cleanup)
        folder = pathlib.Path(holder.name)
        source = folder / "source/model.gguf"
        made = run("gen-fixtures", "--out", source, "--weights", "F32", "--distribution", "gaussian", "--vocab", "320")
        assert made.code == 0, made
        cls.model, cls.other = folder / "lent/model.gguf", folder / "other/model.gguf"
        blocks = Blocks(source)
        # 14 matrices: every type.
        cls.types = blocks.convert(source, cls.model, list(TYPES))
        one = [t for t in TYPES if t.startswith("IQ2")]
        blocks.convert(source, cls.other, one, spoiled)
        cls.good = folder / "good/model.gguf"
        blocks.convert(source, cls.good, one)
        cls.plain = cls.good.with_name("model-f32.gguf")

    def notes(self, result):
        return [note for note in result.json["notes"] if "are decoded by the code of" in note]

    def test_two_libraries_agree_and_the_report_says_whose_decoder_it_was(self):
        result = self.crossval("--model", self.model, "--prompt", PROMPT, "-n", "2", "--candidate", SANDYBRIDGE, "--reference", HASWELL)
        self.assertEqual((result.code, result.json["scope"]), (0, "local"), result)
        self.assertIn("ops-within-bounds", result.codes(), result)
        notes = self.notes(result)
        self.assertEqual(len(notes), 1, result)
        for name in set(self.types.values()):
            self.assertIn(name, notes[0])
        self.assertIn("llama.cpp", notes[0])

    def test_an_audit_of_the_reference_judges_every_op(self):
        for engine in (HASWELL, SANDYBRIDGE):
            audit = run("audit", "--model", self.model, "--engine", engine, "--prompt", PROMPT, "-n", "2", "--format", "json")
            self.assertEqual((audit.json["verdict"], audit.code, audit.json["blame"]), ("match", 0, "none"), audit)
            self.assertEqual(len(self.notes(audit)), 1, audit)
            products = {point["stage"] for point in audit.json["points"]}
            self.assertLessEqual({"q_proj", "k_proj", "v_proj", "attn_out", "gate_proj", "up_proj", "down_proj"}, products)

    def test_the_native_engine_refuses_by_name_and_the_next_line_works(self):
        result = self.crossval("--model", self.model, "--prompt", PROMPT, "--reference", HASWELL)
        self.expect(result, "incomplete", 3, "unsupported")
        self.assertRegex(result.json["reasons"][0]["text"], r"weight type (IQ\w+|NVFP4) of blk\.\d+\.\w+\.weight is not supported")
        self.assertEqual(result.json["blame"], "none", result)
        following = paste(result.json["next"][0])
        self.assertEqual(following.code, 0, following)

    def test_files_that_differ_are_found_and_neither_is_blamed(self):
        result = self.crossval("--model", self.other, "--reference-model", self.good, "--prompt", PROMPT, "--candidate", HASWELL,
                               "--reference", HASWELL)
        self.assertEqual((result.json["verdict"], result.json["blame"]), ("diverged", "undetermined"), result)
        place = result.json["first_divergence"]
        self.assertEqual((place["layer"], place["stage"]), (1, "up_proj"), result)
        self.assertIn("decoded by the code of llama.cpp", result.json["diagnosis"]["sentence"], result)
        audit = run("audit", "--model", self.other, "--reference-model", self.good, "--engine", HASWELL, "--prompt", PROMPT, "--format", "json")
        self.assertEqual((audit.json["verdict"], audit.json["blame"]), ("diverged", "undetermined"), audit)

    def test_a_defect_in_such_a_product_is_placed_blamed_and_named(self):
        """The candidate multiplies what the blocks stand for, in float32, with the same rounding of activations."""
        for defect, stage, layer, verdict, cause in (("", "", 0, "match", ""), ("factor_1.05", "v_proj", 1, "diverged", "factor=1.05"),
                                                     ("row_lost", "down_proj", 0, "diverged", "zero")):
            engine = "native,act.quant=q8_k" if not defect else \
                f"mutant,act.quant=q8_k,mutant.defect={defect},mutant.stage={stage},mutant.layer={layer}"
            result = self.crossval("--model", self.plain, "--reference-model", self.good, "--prompt", PROMPT, "--candidate", engine,
                                   "--reference", HASWELL)
            self.assertEqual(result.json["verdict"], verdict, result)
            if defect:
                place = result.json["first_divergence"]
                self.assertEqual((result.json["blame"], place["layer"], place["stage"]), ("candidate", layer, stage), result)
                self.assertTrue(result.json["diagnosis"]["named"].startswith(cause), result)


if __name__ == "__main__":
    driver.main()

#!/usr/bin/env python3
"""Architectures that paritybit has no row for: the reference on two of its CPU libraries, and a defect in the file of one.

unlisted_test.py BUILD_DIRECTORY"""
import pathlib
import random
import struct
import tempfile

import driver
from driver import run
from gguf_edit import ARRAY, F32, STRING, UINT32, Gguf, rewrite
from tiny_gguf import tiny

HASWELL, OTHER = "llama.cpp,cpu.library=haswell", "llama.cpp,cpu.library=sse42"
PROMPT = "the quick brown fox jumps over the lazy dog"
WIDTH, HEADS, KV_HEADS, HEAD_DIM, FF = 256, 4, 2, 64, 512


def values(shape, seed, mean=0.0):
    draw = random.Random(seed)
    n = 1
    for extent in shape:
        n *= extent
    return F32, list(shape), struct.pack(f"<{n}f", *(draw.gauss(mean, 0.05) for _ in range(n)))


class Unlisted(driver.Case):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="paritybit-test-")
        cls.addClassCleanup(holder.cleanup)
        cls.folder_of_models = pathlib.Path(holder.name)
        cls.made = {}
        for name in ("llama", "qwen2", "qwen3"):
            path = cls.made[name] = cls.folder_of_models / name / "model.gguf"
            shape = ("--d-model", WIDTH, "--heads", HEADS, "--kv-heads", KV_HEADS, "--d-ff", FF, "--vocab", 320)
            result = run("gen-fixtures", "--out", path, "--architecture", name, "--weights", "F32", "--distribution", "gaussian", *shape)
            assert result.code == 0, result

    def renamed(self, source, architecture, keys=None, tensors=None):
        """A generated file under another architecture's name, for which its tensors serve."""
        return rewrite(self.made[source], self.folder_of_models / architecture / "model.gguf",
                       {"general.architecture": (STRING, architecture), **(keys or {})}, tensors, (source + ".", architecture + "."))

    def hybrid(self):
        """Two layers, of which the first convolves where the second attends."""
        mixer = {f"blk.0.{name}.weight": None for name in ("attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm")}
        mixer.update({"blk.0.shortconv.conv.weight": values((3, WIDTH), 1), "blk.0.shortconv.in_proj.weight": values((WIDTH, 3 * WIDTH), 2),
                      "blk.0.shortconv.out_proj.weight": values((WIDTH, WIDTH), 3)})
        norm = {"output_norm.weight": None, "token_embd_norm.weight": values((WIDTH,), 4, 1.0)}
        heads = struct.pack("<IQ2i", 5, 2, 0, KV_HEADS)
        return self.renamed("qwen3", "lfm2", {"lfm2.shortconv.l_cache": (UINT32, 3), "lfm2.attention.head_count_kv": (ARRAY, heads)},
                            {**mixer, **norm})

    def compare(self, model, *args, code=0):
        result = self.crossval("--model", model, "--candidate", HASWELL, "--reference", OTHER, "--prompt", PROMPT, *args)
        self.assertEqual(result.code, code, result)
        return result

    def judged(self, result):
        return {(point["stage"], point["layer"]) for point in result.json["points"] if point["bound"] > 0}

    def test_layers_of_two_kinds_are_compared_by_what_each_shows(self):
        model = self.hybrid()
        result = self.compare(model, "-n", "2")
        self.assertEqual((result.json["verdict"], result.json["scope"]), ("match", "local"), result)
        judged = self.judged(result)
        for stage in ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "q_rope", "k_rope", "attn_scores", "attn_context", "attn_out",
                      "attn_residual"):
            self.assertEqual({layer for name, layer in judged if name == stage}, {1}, stage)
        for stage in ("attn_norm", "ffn_norm", "gate_proj", "up_proj", "ffn_gated", "down_proj"):
            self.assertEqual({layer for name, layer in judged if name == stage}, {0, 1}, stage)
        hidden = result.json["coverage"]["unobservable"]
        self.assertIn("q_proj in 1 of 2 layers: reference: no node of this graph is known to be it", hidden)
        # What a defect changes is placed where it is, in a layer of either kind.
        gguf = Gguf(model)
        for name, layer, stage in (("blk.1.attn_k.weight", 1, "k_proj"), ("blk.0.ffn_up.weight", 0, "up_proj"),
                                   ("blk.0.shortconv.out_proj.weight", None, None)):
            with self.subTest(name):
                kind, shape, at, size = gguf.tensors[name]
                changed = struct.pack(f"<{size // 4}f", *(1.01 * v for v in struct.unpack_from(f"<{size // 4}f", gguf.data, at)))
                other = rewrite(model, self.folder / name / "model.gguf", {}, {name: (kind, shape, changed)})
                found = self.compare(other, "--reference-model", model, code=1).json["first_divergence"]
                if stage:
                    self.assertEqual((found["layer"], found["stage"]), (layer, stage))

    def test_a_recording_of_such_layers_stands_for_the_engine(self):
        model, kept = self.hybrid(), self.folder / "kept"
        self.compare(model, "--keep-traces", kept)
        result = self.crossval("--model", model, "--candidate", HASWELL, "--reference", f"replay,trace={kept / 'reference'}", "--prompt",
                               PROMPT)
        self.assertEqual((result.json["verdict"], result.json["scope"]), ("match", "local"), result)
        self.assertIn(("gate_proj", 0), self.judged(result))
        same = run("trace-diff", kept / "candidate", kept / "reference", "--format", "json")
        self.assertEqual(same.code, 0, same)
        # every node, of which some have no values: the states of a sequence that does not go on
        for engine, out in ((HASWELL, "one"), (OTHER, "other")):
            made = run("trace", "--model", model, "--engine", engine, "--prompt", PROMPT, "-n", "2", "--level", "full", "--out", self.folder / out)
            self.assertEqual(made.code, 0, made)
        self.assertEqual(run("trace-diff", self.folder / "one", self.folder / "other").code, 0)

    def test_positions_that_a_bias_of_the_scores_tells(self):
        """ALiBi, in place of a rotation: the softmax adds it, and is judged with it (attention_test.py has its values)."""
        result = self.compare(self.renamed("llama", "refact"), "-n", "2")
        self.assertEqual((result.json["verdict"], result.json["scope"]), ("match", "local"), result)
        self.assertLessEqual({(stage, layer) for stage in ("attn_scores", "attn_scores_softmax") for layer in (0, 1)}, self.judged(result))

    def test_codes_that_libraries_round_otherwise(self):
        """Of weights in blocks a library without AVX rounds a few activations the other way: the matrices are found by their names, and
        tell that nothing else differs. A weight that does differ is placed."""
        for kind in ("Q8_0", "Q4_1"):
            with self.subTest(kind):
                file = tiny("xverse", layers=2, d=WIDTH, ff=FF, heads=HEADS, kv_heads=KV_HEADS, weights=kind, tied=False)
                model = file.write(self.folder / kind / "model.gguf")
                text = "The quick brown fox jumps over the lazy dog and then it sat down."
                args = ("--candidate", HASWELL, "--reference", OTHER, "--prompt", text, "-n", "2")
                result = self.crossval("--model", model, *args)
                self.assertEqual((result.code, result.json["scope"]), (0, "local"), result)
                self.assertIn("explained-by-codes", result.codes())
                row = file.row("blk.1.ffn_up.weight", 7)
                file.tensors["blk.1.ffn_up.weight"].data[row.start:row.start + 2] = struct.pack("<e", 1.0)  # a block's scale
                other = file.write(self.folder / kind / "other.gguf")
                found = self.crossval("--model", other, "--reference-model", model, *args)
                self.expect(found, "diverged", 1)
                place = found.json["first_divergence"]
                self.assertEqual((place["layer"], place["stage"], place["feature"]), (1, "up_proj", 7), found)

    def test_a_norm_behind_the_rotation(self):
        result = self.compare(self.renamed("qwen3", "maincoder"), "-n", "2")
        self.assertEqual((result.json["verdict"], result.json["scope"]), ("match", "local"), result)

    def test_a_model_without_memory_is_refused_by_name(self):
        result = self.compare(self.renamed("qwen2", "dream"), code=3)
        self.assertEqual(result.json["verdict"], "incomplete")
        self.assertIn("keeps nothing of earlier tokens for architecture \"dream\"", result.json["reasons"][0]["text"])

    def test_who_needs_the_arithmetic_says_that_it_is_missing(self):
        model = self.hybrid()
        for args in (("audit", "--engine", HASWELL), ("crossval", "--reference", HASWELL)):
            with self.subTest(args[0]):
                result = run(*args, "--model", model, "--prompt", PROMPT, "--format", "json")
                self.assertEqual((result.code, result.json["verdict"]), (3, "incomplete"), result)
                self.assertIn("architecture \"lfm2\" is not supported", result.json["reasons"][0]["text"])
                self.assertIn("--candidate llama.cpp,cpu.library=", result.json["next"][0])


if __name__ == "__main__":
    driver.main()

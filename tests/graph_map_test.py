#!/usr/bin/env python3
"""What the adapter takes the nodes of a graph for, where a port leaves an op out and the builder gives its name to what stands there:
graphs made with the reference's own functions, mapped by the adapter as it was compiled against the reference's headers.

graph_map_test.py BUILD_DIRECTORY"""
import json
import pathlib
import subprocess
import tempfile

import driver
from driver import BUILD, CACHE, ROOT

REFERENCES = (pathlib.Path(CACHE.name) / "references").resolve()
# What each stage's node is in a whole graph.
WHOLE = {"attn_norm": "MUL", "q_proj": "MUL_MAT", "k_proj": "MUL_MAT", "v_proj": "MUL_MAT", "q_rope": "ROPE", "k_rope": "ROPE",
         "attn_scores": "MUL_MAT", "attn_scores_softmax": "SOFT_MAX", "attn_context": "CONT", "attn_sub_norm": "MUL", "attn_out": "MUL_MAT",
         "attn_residual": "ADD", "ffn_norm": "MUL", "gate_proj": "MUL_MAT", "up_proj": "MUL_MAT", "ffn_gated": "SWIGLU",
         "ffn_sub_norm": "MUL", "down_proj": "MUL_MAT", "layer_out": "ADD"}
# The op left out, as the builder names it: the stage, and the op whose node stands for it, in a layer behind the first.
LEFT_OUT = {
    "llama": {"attn_norm": ("attn_norm", "ADD"), "attn_sub_norm": ("attn_sub_norm", "CONT"), "ffn_norm": ("ffn_norm", "ADD"),
              "ffn_sub_norm": ("ffn_sub_norm", "SWIGLU"), "rope_k": ("k_rope", "MUL_MAT"), "rope_q": ("q_rope", "MUL_MAT"),
              "ffn_inp": ("attn_residual", "MUL_MAT"), "l_out": ("layer_out", "MUL_MAT")},
    "gemma": {"attn_norm": ("attn_norm", "ADD"), "Qcur_normed": ("q_norm", "MUL_MAT"), "Kcur_normed": ("k_norm", "MUL_MAT"),
              "rope_k": ("k_rope", "MUL"), "attn_post_norm": ("attn_post_norm", "MUL_MAT"), "ffn_inp": ("attn_residual", "MUL"),
              "ffn_norm": ("ffn_norm", "ADD"), "ffn_post_norm": ("ffn_post_norm", "MUL_MAT"), "l_out": ("layer_out", "MUL")}}


class GraphMap(driver.Case):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="paritybit-test-")
        cls.addClassCleanup(holder.cleanup)
        package = REFERENCES / json.loads((REFERENCES / "llama.cpp/reference.json").read_text())["root"]
        cls.program, share = pathlib.Path(holder.name) / "probe", BUILD / "share/paritybit"
        subprocess.run(["g++", "-std=c++20", "-O1", f"-I{share}", "-isystem", package / "include", ROOT / "tests/graph_map_probe.cc",
                        *(share / "llama_cpp" / f"{name}.cc" for name in ("graph", "graph_find", "graph_node", "stage_table")), "-o", cls.program, f"-L{package / 'lib'}", "-lggml-base",
                        f"-Wl,-rpath,{package / 'lib'}", "-Wl,--allow-shlib-undefined"], check=True)

    def map(self, model, *left_out):
        """{(stage, layer): op of its node}"""
        lines = subprocess.run([self.program, model, *left_out], check=True, capture_output=True, text=True).stdout.splitlines()
        points = [line.rsplit(" ", 2) for line in lines]
        self.assertEqual(len(points), len({(stage, layer) for stage, layer, _ in points}), "a point twice")
        return {(stage, int(layer)): op for stage, layer, op in points}

    def whole(self, model="llama"):
        stages = WHOLE if model == "llama" else {
            **{stage: op for stage, op in WHOLE.items() if "sub_norm" not in stage}, "q_norm": "MUL", "k_norm": "MUL", "attn_post_norm": "MUL",
            "ffn_post_norm": "MUL"}
        points = {(stage, layer): op for stage, op in stages.items() for layer in (0, 1)}
        return {**points, ("embeddings", -1): "GET_ROWS", ("final_norm", -1): "MUL", ("logits", -1): "MUL_MAT"}

    def test_a_whole_graph(self):
        for model in LEFT_OUT:
            self.assertEqual(self.map(model), self.whole(model))

    def test_an_op_left_out_in_one_layer_is_its_input_there_and_nothing_else_moves(self):
        for model, ops in LEFT_OUT.items():
            for op, (stage, instead) in ops.items():
                with self.subTest(f"{model} {op}"):
                    self.assertEqual(self.map(model, f"{op}@1"), {**self.whole(model), (stage, 1): instead})

    def test_an_op_left_out_in_all_layers(self):
        for model, ops in LEFT_OUT.items():
            for op, (stage, instead) in ops.items():
                with self.subTest(f"{model} {op}"):
                    wanted = {**self.whole(model), (stage, 1): instead, (stage, 0): instead}
                    if op == "attn_norm":
                        wanted["attn_norm", 0] = "GET_ROWS"
                    self.assertEqual(self.map(model, op), wanted)

    def test_the_final_norm(self):
        self.assertEqual(self.map("llama", "result_norm"), {**self.whole(), ("final_norm", -1): "ADD"})

    def test_a_model_without_rotation_has_none(self):
        found = self.map("llama", "rope_q", "rope_k")
        self.assertNotIn(("q_rope", 0), found)


if __name__ == "__main__":
    driver.main()

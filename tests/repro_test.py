"""Bundles of `paritybit repro`: each is compiled with warnings as errors and run; what it prints must be what these lines compute
with NumPy from the published formulas, its weights those of the model file, its inputs those that were recorded.

Known defects: the reference's own activation, files with one defect (defects.py), and recorded traces in which one value of one op
was changed, for every op of the vocabulary. Fails, never skips, where the reference is missing.
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

import numpy as np

import defects
from driver import RELU2, ROOT, SILU, Case, main, run

sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python/tests")]
import paritybit as pb  # noqa: E402
from gguf_weights import read_gguf  # noqa: E402
from paritybit import blake3  # noqa: E402

PROMPT = "And God said, Let there be light: and there was light."
RELU2_MODEL = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
SILU_MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 64
F32 = np.float32


class Data(dict):
    """data.txt: name -> words."""

    def __init__(self, folder):
        for line in (folder / "data.txt").read_text().splitlines():
            if not line.startswith("#"):
                name, *words = line.split()
                self[name] = words

    def text(self, name):
        return " ".join(self[name])

    def numbers(self, name, side=""):
        return np.array(self.get(side + name, self.get(name)), F32).astype(np.float64)

    def number(self, name):
        (value,) = self.numbers(name)
        return value


def quantise(x, scheme):
    """ggml-quants.c (quantize_row_q8_0, q8_1, q8_K) and BitNet b1.58's absmax; x as float64 that is exact in float32."""
    x = x.astype(F32)
    if scheme == "none":
        return x.astype(np.float64)
    if scheme == "f16":
        return x.astype(np.float16).astype(np.float64)
    if scheme == "bf16":  # the upper half of a float32, to the nearest, ties to even
        bits = x.view(np.uint32)
        return ((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000).astype(np.uint32).view(F32).astype(np.float64)
    if scheme == "bitnet":
        scale = F32(127) / max(np.abs(x).max(), F32(1e-5))
        return np.clip(np.rint(x * scale), -128, 127).astype(np.float64) / np.float64(scale)
    blocks = x.reshape(-1, 256 if scheme == "q8_k" else 32)
    out = []
    for block in blocks:
        largest = block[np.abs(block).argmax()]
        if scheme == "q8_k":
            inverse = F32(-127) / largest
            out.append(np.minimum(127, np.rint(inverse * block)).astype(np.float64) * np.float64(F32(1) / inverse))
        else:
            magnitude = np.abs(largest)
            codes = np.rint(block * (F32(127) / magnitude)).astype(np.float64)
            out.append(codes * np.float64(np.float16(magnitude / F32(127))))
    return np.concatenate(out)


def expected(d, side=""):
    """The op's values at the bundle's features."""
    feature = np.array(d["feature"], int)
    n = len(feature)
    half = (lambda v, precision: v.astype(np.float16).astype(np.float64) if d.text(precision) == "f16" else v)
    formula = d.text("formula")
    if formula == "copy":
        return d.numbers("weight", side)
    if formula == "norm":
        x = d.numbers("x")
        return (x / np.sqrt(np.mean(x * x) + d.numbers("eps", side)))[feature] * d.numbers("weight", side)
    if formula == "product":
        x = quantise(d.numbers("x"), d.text("scheme"))
        y = d.numbers("weight", side).reshape(n, -1) @ x
        if "minimum" in d:  # Q4_1: the minimum meets the stored sum of a block
            x32 = d.numbers("x").astype(F32).reshape(-1, 32)
            scale = np.abs(x32).max(1) / F32(127)
            codes = np.rint(x32 * (F32(127) / np.abs(x32).max(1))[:, None])
            stored = (scale * codes.sum(1)).astype(np.float16).astype(np.float64)
            y += d.numbers("minimum").reshape(n, -1) @ (stored - x.reshape(-1, 32).sum(1))
        return y * d.number("scale")
    if formula == "rotate":
        x, dims = d.numbers("x"), int(d.number("rope_dims"))
        angle = d.number("position") / d.number("rope_scale") * d.numbers("rope_base", side)**(-2 * np.arange(dims // 2) / dims)
        adjacent = d.text("rope_pairing") == "adjacent"
        a, b = (slice(0, dims, 2), slice(1, dims, 2)) if adjacent else (slice(0, dims // 2), slice(dims // 2, dims))
        turned = (x[a] + 1j * x[b]) * np.exp(1j * angle)
        y = x.copy()
        y[a], y[b] = turned.real, turned.imag
        return y[feature]
    if formula == "scores":
        q, k = half(d.numbers("q"), "attention_precision"), half(d.numbers("k"), "cache_precision")
        return np.where(feature > d.number("position"), -np.inf, k.reshape(n, -1) @ q / np.sqrt(len(q)))
    if formula == "softmax":
        e = np.exp(d.numbers("x") - d.numbers("x").max())
        return (e / e.sum())[feature]
    if formula == "context":
        p, v = half(d.numbers("p"), "attention_precision"), half(d.numbers("v"), "cache_precision")
        return v.reshape(n, -1) @ p
    if formula == "add":
        return d.numbers("a") + d.numbers("b")
    gate = d.numbers("gate")
    active = {"silu": lambda: gate / (1 + np.exp(-gate)), "relu2": lambda: np.maximum(gate, 0)**2, "identity": lambda: gate}
    return active[d.text("activation")]() * (d.numbers("up") if "up" in d else 1)


SHARED = tempfile.TemporaryDirectory(prefix="paritybit-repro-")


class Bundles(Case):
    shared = pathlib.Path(SHARED.name)
    programs = {}  # of equal text one is compiled

    @classmethod
    def setUpClass(cls):
        shutil.copy(SILU / "config.json", cls.shared)

    def repro(self, *args, code=1, **kwargs):
        """Writes a bundle; its folder and the report."""
        out = self.folder / "bundle"
        shutil.rmtree(out, ignore_errors=True)
        result = run("repro", "--format", "json", "--out", out, *args, **kwargs)
        self.assertEqual((result.code, result.json["exit_code"]), (code, code), result)
        return out, result

    def compiled(self, bundle):
        text = (bundle / "repro.cc").read_bytes()
        key = hashlib.sha256(text).hexdigest()
        if key not in Bundles.programs:
            program = Bundles.programs[key] = self.shared / key
            subprocess.run(["g++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", bundle / "repro.cc", "-o", program], check=True)
        return Bundles.programs[key]

    def execute(self, bundle, code):
        done = subprocess.run([self.compiled(bundle)], cwd=bundle, capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def check(self, bundle, last):
        """Compiles and runs it; its table against NumPy; what it says last. The data."""
        out, d = self.execute(bundle, 1), Data(bundle)
        self.assertEqual(out.splitlines()[-1], f"DEFECT: {last}")
        rows = np.array([[float(w) for w in line.split()] for line in out.splitlines() if re.match(r" *\d+ +\S+ +\S+ +\S+", line)])
        self.assertEqual(list(rows[:, 0].astype(int)), [int(d.number("first_feature")) + int(f) for f in d["feature"]])
        two = "reference.expected" in d
        columns = [expected(d)] + ([expected(d, "reference.")] if two else [])
        for i, column in enumerate(columns):
            # printed in nine digits; the sum of a product may cancel
            np.testing.assert_allclose(rows[:, 1 + i], column, rtol=1e-8, atol=1e-8 * np.abs(column[np.isfinite(column)]).max(initial=0))
            given = d.numbers("expected", "reference." if i else "")
            np.testing.assert_allclose(given, column, rtol=1e-6, atol=1e-6 * np.abs(column[np.isfinite(column)]).max(initial=0))
        np.testing.assert_allclose(rows[:, -3], d.numbers("candidate"), rtol=1e-8)
        np.testing.assert_allclose(rows[:, -2], d.numbers("reference"), rtol=1e-8)
        self.assertIn("DEFECT: " + last, (bundle / "README.md").read_text())
        self.check_no_paths(bundle)
        return d

    def check_no_paths(self, bundle):
        self.assertEqual(sorted(p.name for p in bundle.iterdir()), ["README.md", "data.txt", "repro.cc"])
        text = "".join(p.read_text() for p in bundle.iterdir())
        for word in (str(ROOT), str(self.folder), str(self.shared), str(pathlib.Path.home()) + "/", socket.gethostname(), "//:"):
            self.assertNotIn(word, text)
        self.assertEqual(list(bundle.parent.glob(".*")), [])  # nothing half is left beside it

    def check_weights(self, d, path, tensor, side=""):
        rows = [int(d.number("first_feature")) + int(f) for f in d["feature"]]
        weights = read_gguf(path)[1][tensor][rows].astype(np.float64)
        np.testing.assert_array_equal(d.numbers("weight", side).reshape(weights.shape), weights)


class Activation(Bundles):
    def test_llama_cpp_runs_silu_where_squared_relu_is_declared(self):
        bundle, result = self.repro("--model", RELU2_MODEL, "--reference", "llama.cpp", "--prompt", PROMPT)
        d = self.check(bundle, "the reference is wrong")
        self.assertEqual((d.text("formula"), d.text("activation")), ("activate", "relu2"))
        gate, up = d.numbers("gate"), d.numbers("up")
        np.testing.assert_allclose(d.numbers("candidate"), np.maximum(gate, 0)**2 * up, rtol=1e-6)
        np.testing.assert_allclose(d.numbers("reference"), gate / (1 + np.exp(-gate)) * up, rtol=1e-5)
        readme = (bundle / "README.md").read_text()
        sha256 = hashlib.sha256(RELU2_MODEL.read_bytes()).hexdigest()
        for word in ("the reference runs SiLU, the model declares squared ReLU", "llama.cpp v0.5.0", RELU2_MODEL.name, sha256,
                     "ffn_gated, layer 0", "g++ -std=c++17 -O2 repro.cc -o repro && ./repro"):
            self.assertIn(word, readme)
        size = sum(p.stat().st_size for p in bundle.iterdir())
        self.assertLess(size, 14000)
        self.assertEqual(sum(f["n_bytes"] for f in result.json["files"]), size)
        self.assertEqual((result.json["blame"], result.json["stage"], result.json["layer"]), ("reference", "ffn_gated", 0))

    def test_where_engines_show_the_activation_alone_and_both_are_wrong(self):
        args = ("--model", RELU2_MODEL, "--reference", "native", "--set-reference", "ffn.activation=silu", "--prompt", PROMPT)
        d = self.check(self.repro(*args)[0], "the reference is wrong")
        self.assertNotIn("up", d)
        self.check(self.repro(*args, "--set", "ffn.activation=relu")[0], "both engines are wrong")

    def test_edited_data(self):
        bundle, _ = self.repro("--model", RELU2_MODEL, "--reference", "llama.cpp", "--prompt", PROMPT)
        text, d = (bundle / "data.txt").read_text(), Data(bundle)

        def put(name, words):
            lines = [f"{name} {words}" if line.startswith(name + " ") else line for line in text.splitlines()]
            (bundle / "data.txt").write_text("\n".join(lines) + "\n")

        put("reference", d.text("candidate"))
        self.assertIn("no defect", self.execute(bundle, 0))
        put("candidate", d.text("reference"))
        self.assertIn("both engines are wrong", self.execute(bundle, 1))
        put("candidate", " ".join(["nan"] * len(d["feature"])))
        self.assertIn("both engines are wrong", self.execute(bundle, 1))
        for name, words in [("gate", d.text("up")), ("gate", "1 2"), ("expected", d.text("reference")), ("candidate", ""), ("up", "x"),
                            ("activation", "other"), ("formula", "other"), ("feature", "-1"), ("feature", "0.5")]:
            with self.subTest(name, words=words):
                put(name, words)
                self.execute(bundle, 2)
        for damaged in ("", text + text, text[:len(text) // 2], "\x00\xff"):
            (bundle / "data.txt").write_text(damaged)
            self.execute(bundle, 2)
        (bundle / "data.txt").unlink()
        self.execute(bundle, 2)


class ModelFiles(Bundles):
    """A file with one defect, read by a correct candidate, against the good one."""

    def spoilt(self, name):
        path = self.shared / f"{name}.gguf"
        defects.write(SILU_MODEL, path, next(d for d in defects.defects(token=5, position=0, other_token=301) if d.name == name))
        return path, self.repro("--model", path, "--reference", "llama.cpp", "--reference-model", SILU_MODEL, "--prompt", PROMPT)[0]

    FILES = "the model files differ; each engine computes what its own declares"

    def test_a_flipped_weight(self):
        path, bundle = self.spoilt("flip_down")
        d = self.check(bundle, self.FILES)
        self.check_weights(d, path, "blk.5.ffn_down.weight")
        self.check_weights(d, SILU_MODEL, "blk.5.ffn_down.weight", "reference.")
        self.assertIn("201", d["feature"])
        self.assertIn("weight: 1 of", self.execute(bundle, 1))
        self.assertEqual(d.text("scheme"), "q8_k")

    def test_a_scale(self):
        path = self.shared / "scale.gguf"
        model = defects.Model(SILU_MODEL)
        model.scale_rows("blk.2.ffn_up.weight", 1.05)
        model.save(path)
        bundle, _ = self.repro("--model", path, "--reference-model", SILU_MODEL, "--prompt", PROMPT)
        d = self.check(bundle, self.FILES)
        self.check_weights(d, path, "blk.2.ffn_up.weight")
        self.check_weights(d, SILU_MODEL, "blk.2.ffn_up.weight", "reference.")

    def test_a_scale_that_is_no_number(self):
        path = self.shared / "nan.gguf"
        model = defects.Model(SILU_MODEL)
        end = model.row("blk.3.ffn_up.weight", 5).stop
        model.data[end - 2:end] = struct.pack("<e", float("nan"))
        model.save(path)
        bundle, _ = self.repro("--model", path, "--reference", "llama.cpp", "--reference-model", SILU_MODEL, "--prompt", PROMPT, code=3)
        said = self.execute(bundle, 1)
        self.assertIn(self.FILES, said)
        self.assertIn("nan in the candidate's file", said)
        self.assertIn("5", Data(bundle)["feature"])

    def test_a_rope_base(self):
        d = self.check(self.spoilt("rope_base")[1], self.FILES)
        self.assertEqual((d.text("rope_base"), d.text("reference.rope_base")), ("500000", "10000"))
        self.assertGreater(d.number("position"), 0)

    def test_a_norm_and_an_output_row(self):
        path, bundle = self.spoilt("lost_ffn_norm_channel")
        d = self.check(bundle, self.FILES)
        self.assertIn("64", d["feature"])
        self.check_weights(d, path, "blk.0.ffn_norm.weight")
        path, bundle = self.spoilt("wrong_output_row")
        d = self.check(bundle, self.FILES)
        self.assertEqual(d.text("scheme"), "f16")
        self.check_weights(d, path, "token_embd.weight")

    def test_an_engine_that_reads_a_file_wrongly(self):
        """A reference that read a scale of 1.05 where the file has none: its recorded trace under the good file's name."""
        path = self.shared / "scaled.gguf"
        model = defects.Model(SILU_MODEL)
        model.scale_rows("blk.1.attn_q.weight", 1.05)
        model.save(path)
        trace = self.folder / "trace"
        self.assertEqual(run("trace", "--model", path, "--prompt", PROMPT, "--level", "full", "--out", trace).code, 0)
        manifest = trace / "manifest.json"
        manifest.write_text(manifest.read_text().replace(hashlib.sha256(path.read_bytes()).hexdigest(),
                                                         hashlib.sha256(SILU_MODEL.read_bytes()).hexdigest()))
        bundle, _ = self.repro("--model", SILU_MODEL, "--reference", f"replay,trace={trace}", "--prompt", PROMPT)
        d = self.check(bundle, "the reference is wrong")
        self.check_weights(d, SILU_MODEL, "blk.1.attn_q.weight")
        np.testing.assert_allclose(d.numbers("reference"), 1.05 * d.numbers("candidate"), rtol=1e-3)


# Of each op: its inputs in data.txt and where they stand (stage, layers down), and its weight; l is the layer.
OPS = {
    "embeddings": ({}, "token_embd.weight"),
    "attn_norm": ({"x": ("layer_out", 1)}, "blk.{l}.attn_norm.weight"),
    "q_proj": ({"x": ("attn_norm", 0)}, "blk.{l}.attn_q.weight"),
    "k_proj": ({"x": ("attn_norm", 0)}, "blk.{l}.attn_k.weight"),
    "v_proj": ({"x": ("attn_norm", 0)}, "blk.{l}.attn_v.weight"),
    "q_rope": ({"x": ("q_proj", 0)}, None),
    "k_rope": ({"x": ("k_proj", 0)}, None),
    "attn_scores": ({"q": ("q_rope", 0), "k": ("k_rope", 0)}, None),
    "attn_scores_softmax": ({"x": ("attn_scores", 0)}, None),
    "attn_context": ({"p": ("attn_scores_softmax", 0), "v": ("v_proj", 0)}, None),
    "attn_sub_norm": ({"x": ("attn_context", 0)}, "blk.{l}.attn_sub_norm.weight"),
    "attn_out": ({"x": ("attn_sub_norm", 0)}, "blk.{l}.attn_output.weight"),
    "attn_residual": ({"a": ("attn_out", 0), "b": ("layer_out", 1)}, None),
    "ffn_norm": ({"x": ("attn_residual", 0)}, "blk.{l}.ffn_norm.weight"),
    "gate_proj": ({"x": ("ffn_norm", 0)}, "blk.{l}.ffn_gate.weight"),
    "up_proj": ({"x": ("ffn_norm", 0)}, "blk.{l}.ffn_up.weight"),
    "ffn_act": ({"gate": ("gate_proj", 0)}, None),
    "ffn_gated": ({"gate": ("ffn_act", 0), "up": ("up_proj", 0)}, None),
    "ffn_sub_norm": ({"x": ("ffn_gated", 0)}, "blk.{l}.ffn_sub_norm.weight"),
    "down_proj": ({"x": ("ffn_sub_norm", 0)}, "blk.{l}.ffn_down.weight"),
    "layer_out": ({"a": ("down_proj", 0), "b": ("attn_residual", 0)}, None),
    "final_norm": ({"x": ("layer_out", 1)}, "output_norm.weight"),
    "logits": ({"x": ("final_norm", 0)}, "token_embd.weight"),
}
OUTER = ("embeddings", "final_norm", "logits")
N_LAYERS = 6


class EveryOp(Bundles):
    """A recorded trace with one changed value is an engine that computes one op wrongly."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = cls.shared / "whole"
        recorded = run("trace", "--model", SILU_MODEL, "--prompt", PROMPT, "--max-tokens", "2", "--level", "full", "--out", cls.whole)
        assert recorded.code == 0, recorded

    def changed(self, stage, layer, seq, row, feature, change):
        """A copy of the trace in which change(value) stands in the place of one value."""
        copy = self.folder / "trace"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.whole, copy)
        (record,) = pb.Trace.open(copy).select(stage, layer, seq)
        with open(copy / record.payload_file, "r+b") as file:
            file.seek(record.payload_offset)
            values = np.frombuffer(file.read(4 * record.num_elements), "<f4").reshape(record.shape[0], -1).copy()
            self.assertNotEqual(change(values[row, feature]), values[row, feature])
            values[row, feature] = change(values[row, feature])
            file.seek(record.payload_offset)
            file.write(values.tobytes())
        lines = (copy / "records.jsonl").read_text().splitlines(keepends=True)
        digest = blake3.digest(values.tobytes())
        (at,) = [i for i, line in enumerate(lines) if json.loads(line).get("name") == record.name]
        lines[at] = lines[at].replace(record.blake3, digest)
        (copy / "records.jsonl").write_text("".join(lines))
        return copy, float(values[row, feature])

    def rows(self, stage, layer):
        """Token rows of the prefill and the steps; (position, width)."""
        trace = pb.Trace.open(self.whole)
        records = sorted(trace.select(stage, layer), key=lambda r: r.position)
        return [row.astype(np.float64) for r in records for row in trace.payload(r).reshape(r.shape[0], -1)]

    def input(self, d, name, where, layer, head, kv_head):
        """What data.txt must hold of an input."""
        stage, down = where
        position, features = int(d.number("position")), np.array(d["feature"], int)
        if stage == "layer_out" and layer == 0 and down:
            stage, layer, down = "embeddings", -1, 0
        if layer == -1 and down:
            layer = N_LAYERS
        rows = self.rows(stage, layer - down if stage not in OUTER else -1)
        if name == "k":
            return np.concatenate([rows[j][kv_head * HEAD_DIM:][:HEAD_DIM] for j in features])
        if name == "v":
            return np.concatenate([[rows[j][kv_head * HEAD_DIM + f] for j in range(len(d["p"]))] for f in features])
        if name in ("q", "p") or stage in ("q_proj", "k_proj", "attn_scores"):
            width = HEAD_DIM if stage != "attn_scores" and stage != "attn_scores_softmax" else len(rows[position]) // HEADS
            return rows[position][head * width:][:width]
        return rows[position] if name == "x" else rows[position][features]

    def expose(self, stage, layer, seq, row, feature, change):
        trace, value = self.changed(stage, layer, seq, row, feature, change)
        bundle, result = self.repro("--model", SILU_MODEL, "--reference", f"replay,trace={trace}", "--prompt", PROMPT, "--max-tokens", "2")
        self.assertEqual((result.json["stage"], result.json["layer"]), (stage, layer))
        d = self.check(bundle, "the reference is wrong")
        n_prompt = len(pb.Trace.open(self.whole).steps[0].tokens)
        position = row if seq == 0 else n_prompt + seq - 1
        self.assertEqual(d.number("position"), position)
        features = [int(d.number("first_feature")) + int(f) for f in d["feature"]]
        self.assertIn(feature, features)
        self.assertEqual(d.numbers("reference")[features.index(feature)], F32(value))
        np.testing.assert_array_equal(np.delete(d.numbers("reference"), features.index(feature)),
                                      np.delete(self.rows(stage, layer)[position][features], features.index(feature)))
        inputs, tensor = OPS[stage]
        width = {"attn_scores": position + 1, "attn_scores_softmax": position + 1}.get(stage, HEAD_DIM)
        if seq == 0 and stage in ("attn_scores", "attn_scores_softmax"):
            width = n_prompt
        head = feature // width
        kv_head = head // (HEADS // KV_HEADS)
        for name, where in inputs.items():
            np.testing.assert_array_equal(d.numbers(name), self.input(d, name, where, layer, head, kv_head), name)
        if stage == "embeddings":
            token = pb.Trace.open(self.whole).manifest.tokens[position]
            np.testing.assert_array_equal(d.numbers("weight"), read_gguf(SILU_MODEL)[1][tensor][token][features].astype(np.float64))
        elif tensor:
            self.check_weights(d, SILU_MODEL, tensor.format(l=layer))
        return d

    def test_in_the_prefill(self):
        for i, stage in enumerate(OPS):
            if stage == "logits":
                continue  # a digest of its own guards them in a trace; ModelFiles has an output row
            layer = -1 if stage in OUTER else i % N_LAYERS
            with self.subTest(stage, layer=layer):
                self.expose(stage, layer, 0, 7, 5, lambda v: F32(v) * F32(1.25) + F32(0.01))

    def test_in_a_decode_step(self):
        for stage in ("attn_scores", "attn_scores_softmax", "attn_context", "k_rope"):
            with self.subTest(stage):
                self.expose(stage, 2, 2, 0, 3, lambda v: F32(v) * F32(1.25) + F32(0.01))

    def test_masks(self):
        d = self.expose("attn_scores", 1, 0, 4, 6, lambda v: F32(0.5))  # sees a position of the future
        self.assertEqual(expected(d)[d["feature"].index("6")], -np.inf)
        d = self.expose("attn_scores", 1, 0, 4, 4, lambda v: -F32(np.inf))  # does not see itself
        self.assertTrue(np.isfinite(expected(d)[d["feature"].index("4")]))


class Schemes(Bundles):
    """Weight formats and activation schemes beside TQ2_0 with q8_k: files made by gen-fixtures, a reference that computes another
    activation, and a place that is asked for."""

    def test_products_of_each(self):
        for weights, extra, scheme in [("F32", "", "none"), ("F16", "", "f16"), ("BF16", "", "bf16"), ("Q8_0", "", "q8_0"), ("Q4_1", "", "q8_1"), ("TQ1_0", "", "q8_k"),
                                       ("I2_S", "", "bitnet"), ("TQ2_0", ",act.quant=bitnet,kv.type=f32", "bitnet"),
                                       ("TQ2_0", ",act.quant=none", "none")]:
            with self.subTest(weights, extra=extra):
                made_in = self.folder / "made"  # with its own config.json
                model, trace = made_in / f"{weights}.gguf", self.folder / "trace"
                made = run("gen-fixtures", "--out", model, "--weights", weights, "--architecture", "llama", "--d-model", "256", "--heads", "4",
                           "--kv-heads", "2", "--d-ff", "512", "--layers", "2", "--vocab", "400")
                self.assertEqual(made.code, 0, made)
                other = made_in / "other.gguf"
                other.write_bytes(model.read_bytes())
                self.spoil(other, weights)
                shutil.rmtree(trace, ignore_errors=True)
                engine = "native" + extra
                recorded = run("trace", "--model", other, "--engine", engine, "--prompt", "And God", "--level", "full", "--out", trace)
                self.assertEqual(recorded.code, 0, recorded)
                manifest = trace / "manifest.json"
                manifest.write_text(manifest.read_text().replace(hashlib.sha256(other.read_bytes()).hexdigest(),
                                                                 hashlib.sha256(model.read_bytes()).hexdigest()))
                bundle, result = self.repro("--model", model, "--candidate", engine, "--reference", f"replay,trace={trace}", "--prompt",
                                            "And God")
                self.assertEqual((result.json["stage"], result.json["layer"]), ("up_proj", 1))
                d = self.check(bundle, "the reference is wrong")
                self.assertEqual(d.text("scheme"), scheme)
                self.assertEqual("minimum" in d, weights == "Q4_1")

    def spoil(self, path, weights):
        """Exchanges the first 64 rows of a matrix with the next, whatever its format."""
        model = defects.Model(path)
        name = "blk.1.ffn_up.weight"
        _, _, at, _ = model.tensors[name]
        part = 64 * {"F32": 1024, "F16": 512, "BF16": 512, "Q8_0": 272, "Q4_1": 160, "TQ1_0": 54, "TQ2_0": 66, "I2_S": 64}[weights]
        first = bytes(model.data[at:at + part])
        model.data[at:at + part] = model.data[at + part:at + 2 * part]
        model.data[at + part:at + 2 * part] = first
        model.save(path)


class Command(Bundles):
    ARGS = ("--model", RELU2_MODEL, "--candidate", "oracle", "--reference", "native", "--set-reference", "ffn.activation=silu", "--prompt",
            "And God said")

    def test_the_last_run_and_the_commands_that_are_suggested(self):
        cache = {"PARITYBIT_CACHE": str(self.folder / "cache")}
        none = run("repro", "--out", self.folder / "a", env=cache)
        self.assertEqual(none.code, 5, none)
        diverged = self.crossval(*self.ARGS, env=cache)
        suggested = [line for line in diverged.json["next"] if line.startswith("paritybit repro ")]
        self.assertEqual(len(suggested), 1, diverged)
        self.assertRegex(suggested[0], r" --out repro-layer0-ffn_act$")
        again = run("diagnose", "--no-perplexity", "--format", "json", env=cache)
        self.assertEqual([line for line in again.json["next"] if line.startswith("paritybit repro ")][0].split(" --prompt ")[1],
                         suggested[0].split(" --prompt ")[1])
        bundle, result = self.repro(env=cache)
        self.check(bundle, "the reference is wrong")
        self.assertTrue(result.json["explains"].startswith("paritybit diagnose"), result)
        text = run("repro", "--out", "here/bundle/", env=cache, cwd=self.folder)  # a relative folder, in one that is not there yet
        self.assertEqual(text.code, 1, text)
        self.check(self.folder / "here" / "bundle", "the reference is wrong")
        self.assertIn("next       cd here/bundle/ && g++ ", text.out)

    def test_a_place_that_is_asked_for(self):
        bundle, result = self.repro(*self.ARGS, "--stage", "ffn_act", "--layer", "4")
        self.assertEqual(result.json["layer"], 4)
        self.check(bundle, "the reference is wrong")
        for args, code in ((("--stage", "no_such"), 2), (("--stage", "ffn_act"), 2), (("--stage", "q_proj", "--layer", "1"), 3)):
            out = self.folder / "none"
            result = run("repro", "--out", out, *self.ARGS, *args)
            self.assertEqual(result.code, code, result)
            self.assertFalse(out.exists())

    def test_nothing_is_overwritten_unasked(self):
        bundle, _ = self.repro(*self.ARGS)
        (bundle / "repro").write_text("compiled")
        before = {p.name: p.read_bytes() for p in bundle.iterdir()}
        again = run("repro", "--out", bundle, *self.ARGS)
        self.assertEqual(again.code, 2, again)
        self.assertIn("--force", again.err)
        self.assertEqual({p.name: p.read_bytes() for p in bundle.iterdir()}, before)
        forced = run("repro", "--out", bundle, "--force", *self.ARGS)
        self.assertEqual(forced.code, 1, forced)
        self.check(bundle, "the reference is wrong")
        (bundle / "mine.txt").write_text("mine")
        file = self.folder / "file"
        file.write_text("")
        link = self.folder / "link"
        link.symlink_to(bundle)
        for out in (bundle, file, link, self.folder, "/"):
            for force in ((), ("--force",)):
                refused = run("repro", "--out", out, *force, *self.ARGS)
                self.assertEqual(refused.code, 2, refused)
        self.assertEqual((bundle / "mine.txt").read_text(), "mine")
        empty = self.folder / "empty"
        empty.mkdir()
        self.assertEqual(run("repro", "--out", empty, *self.ARGS).code, 1)
        self.check_no_paths(empty)

    def test_engines_that_agree_give_no_bundle(self):
        out = self.folder / "bundle"
        result = run("repro", "--out", out, "--model", SILU_MODEL, "--reference", "native", "--prompt", "And God said")
        self.assertEqual(result.code, 0, result)
        self.assertIn("no bundle was written", result.out)
        self.assertFalse(out.exists())
        shutil.copy(RELU2_MODEL, self.folder / "bare.gguf")  # without its config.json nobody knows what is right
        open_ = run("repro", "--out", out, "--model", self.folder / "bare.gguf", "--reference", "native", "--set-reference",
                    "ffn.activation=relu2", "--prompt", "And God said")
        self.assertEqual(open_.code, 3, open_)
        self.assertFalse(out.exists())

    def test_a_folder_that_cannot_be_written(self):
        if os.geteuid() != 0:
            self.folder.chmod(0o500)
            self.addCleanup(self.folder.chmod, 0o700)
            self.assertEqual(run("repro", "--out", self.folder / "x", *self.ARGS).code, 5)
        (pathlib.Path(self.shared) / "plain").write_text("")
        self.assertEqual(run("repro", "--out", self.shared / "plain" / "x", *self.ARGS).code, 5)


if __name__ == "__main__":
    main()

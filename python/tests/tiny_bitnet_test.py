#!/usr/bin/env python3
"""The tiny BitNets in PyTorch (tiny_bitnet.py) against Hugging Face's recorded values and against traces of the native engine.

Every operation is judged by its local error: forward hooks compare each module's output with the recorded tensor, then put the
recorded one in its place, so that every module computes from recorded inputs. Int8 codes need no care here: scale and code are
three float32 operations (127 / max|x|, x * scale, to the nearest even), which IEEE 754 rounds alike everywhere, so equal inputs
give equal codes.
"""
import json

import numpy as np
import tiny_bitnet
import torch
from gguf_weights import read_gguf
from local_errors import constants, over_bound, worst_row
from support import MODELS, Case, main, paritybit

import paritybit as pb

TEXT = "And God said, Let there be light: and there was light."


def load_golden(name):
    """Tensors (tokens, width) of models/golden by "STAGE.LAYER", and the token ids."""
    data = (MODELS / "golden" / f"{name}.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    ids = json.loads(header.pop("__metadata__")["ids"])
    start = 8 + size
    return {key: np.frombuffer(data[start + t["data_offsets"][0]:start + t["data_offsets"][1]], "<f4").reshape(t["shape"])
            for key, t in header.items()}, ids


def gguf(name, kind):
    return MODELS / name / f"{name}-{kind}.gguf"


def as_f16(folder, name):
    """The model with f16 weights, in a folder of its own beside its config.json."""
    out = folder / name / f"{name}-f16.gguf"
    out.parent.mkdir()
    paritybit("gen-fixtures", "--convert", gguf(name, "tq2_0"), "--weights", "F16", "--out", out)
    return out


class LockStep:
    """Hooks on every point of a TinyBitnet: compare(stage, layer, output), then the recorded tensor takes the output's place."""

    def __init__(self, model, recorded, compare):
        self.recorded, self.compare, self.n_compared, self.hooks = recorded, compare, 0, []
        for stage in ("embeddings", "final_norm", "logits"):
            self.attach(getattr(model, stage), stage, -1)
        for layer, block in enumerate(model.blk):
            for stage in tiny_bitnet.STAGES_OF_A_LAYER:
                self.attach(getattr(block, stage), stage, layer)

    def attach(self, module, stage, layer):
        def hook(_module, _inputs, output):
            expected = self.recorded(stage, layer)
            if expected is None:
                return None
            self.compare(stage, layer, output.numpy(), expected)
            self.n_compared += 1
            return torch.from_numpy(expected.reshape(output.shape).copy())

        self.hooks.append(module.register_forward_hook(hook))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


class Weights(Case):
    def test_every_format_holds_the_same(self):
        for name in ("tiny-bitnet-relu2", "tiny-bitnet-silu"):
            _, expected = read_gguf(as_f16(self.folder, name))
            self.assertEqual(len(expected), 6 * 11 + 2)
            for kind in ("tq2_0", "tq1_0", "i2_s"):
                _, tensors = read_gguf(gguf(name, kind))
                for tensor in expected:
                    np.testing.assert_array_equal(tensors[tensor], expected[tensor], f"{name} {kind} {tensor}")


class Golden(Case):
    def test_every_point_follows_from_its_recorded_inputs(self):
        for name in ("tiny-bitnet-silu", "tiny-bitnet-relu2"):
            recorded, ids = load_golden(name)
            worst = {}

            def compare(stage, layer, output, expected):
                error = worst_row(output, expected)
                worst[stage] = max(worst.get(stage, 0), error)
                self.assertLessEqual(error, {"logits": 1e-6, "embeddings": 0}.get(stage, 1e-5), (name, stage, layer))

            model = tiny_bitnet.TinyBitnet(gguf(name, "tq2_0"))

            def find(stage, layer):
                return recorded.get(stage if layer < 0 else f"{stage}.{layer}")

            with LockStep(model, find, compare) as run, torch.no_grad():
                model(torch.tensor(ids))
            self.assertEqual(run.n_compared, len(recorded))
            self.assertEqual(run.n_compared, 6 * 16 + 3)
            print(name, "worst row:", {stage: f"{error:.1e}" for stage, error in worst.items()})


class NativeTrace(Case):
    """The native engine's own trace, made by `paritybit trace`."""

    def trace(self, model, name, *options):
        out = self.folder / name
        paritybit("trace", "--model", model, "--engine", "native", "--set", "act.quant=bitnet", "--set", "kv.type=f32", "--level", "full",
                  "--out", out, *options)
        return pb.Trace.open(out)

    def lock_step(self, model, trace):
        """{(stage, layer, step): error over bound} of the PyTorch model on the trace's tensors, over all steps."""
        c, errors = constants(), {}
        config = {**model.config, "head_dim": model.config["hidden_size"] // model.config["num_attention_heads"]}
        records = {(r.seq, r.stage, r.layer): r for r in trace.records}
        self.assertEqual(len(records), len(trace.records))
        step = trace.steps[0]

        def find(stage, layer):
            return trace.payload(records[step.seq, stage, layer])

        def compare(stage, layer, output, expected):
            self.assertEqual(output.shape, expected.shape, (stage, layer))
            errors[stage, layer, step.seq] = over_bound(stage, output, expected, config, step.first_position, c)

        cache = None
        with LockStep(model, find, compare) as run, torch.no_grad():
            for step in trace.steps:
                _, cache = model(torch.tensor(step.tokens), cache)
        self.assertEqual(run.n_compared, len(trace.records))
        return errors

    def test_every_point_agrees(self):
        for path, n_decode in ((gguf("tiny-bitnet-relu2", "tq2_0"), 2), (gguf("tiny-bitnet-silu", "i2_s"), 1),
                               (as_f16(self.folder, "tiny-bitnet-silu"), 0)):
            trace = self.trace(path, f"{path.stem}-trace", "--prompt", TEXT, "--max-tokens", n_decode)
            self.assertEqual(len(trace.steps), 1 + n_decode)
            self.assertEqual(len(trace.records), (1 + n_decode) * (6 * 20 + 3))
            errors = self.lock_step(tiny_bitnet.TinyBitnet(path), trace)
            beyond = {point: error for point, error in errors.items() if not error <= 1}
            self.assertFalse(beyond)
            worst = {stage: max(e for (s, _, _), e in errors.items() if s == stage) for stage, _, _ in errors}
            print(f"{path.name}: {len(errors)} points; worst, over its bound:", {stage: round(error, 3) for stage, error in worst.items()})

    def test_one_wrong_weight_is_found_and_placed(self):
        name = "tiny-bitnet-silu"
        trace = self.trace(gguf(name, "tq2_0"), "trace", "--prompt", TEXT)
        model = tiny_bitnet.TinyBitnet(gguf(name, "tq2_0"))
        row = model.blk[3].up_proj.weight[17]
        zero = int((row == 0).nonzero()[0])
        row[zero] = row.abs().max()  # one of the layer's 131072 ternary weights
        errors = self.lock_step(model, trace)
        self.assertEqual([point for point, error in errors.items() if not error <= 1], [("up_proj", 3, 0)])
        self.assertGreater(errors["up_proj", 3, 0], 1000)


class SameFiles(Case):
    """The package's writer and the program's own, given the same tensors: the same bytes in every file."""

    def test_of_every_level(self):
        model, values = gguf("tiny-bitnet-silu", "tq2_0"), None
        for level, options in (("full", ["--per-row"]), ("full", []), ("sketch", ["--per-row"]), ("digest", []), ("digest", ["--per-row"])):
            theirs, ours = self.folder / f"theirs-{level}-{len(options)}", self.folder / f"ours-{level}-{len(options)}"
            paritybit("trace", "--model", model, "--prompt", "And God", "--max-tokens", "1", "--level", level, "--out", theirs, *options)
            trace = pb.Trace.open(theirs)
            if values is None:
                values = {r.name: trace.payload(r) for r in trace.records}
            digests = trace.manifest.logits_blake3, trace.manifest.logits_blake3_untapped
            writer = pb.Writer(ours, trace.manifest)
            for step in trace.steps:
                writer.begin_step(step.first_position, step.tokens)
                for r in trace.select(seq=step.seq):
                    writer.append(r.stage, r.layer, values[r.name], r.position, r.dtype)
            writer.finish(*digests)
            names = sorted(path.name for path in theirs.iterdir())
            self.assertEqual(sorted(path.name for path in ours.iterdir()), names)
            for name in names:
                self.assertEqual((ours / name).read_bytes(), (theirs / name).read_bytes(), (level, options, name))
            self.assertEqual(names.count("payload-00000.safetensors"), level == "full")


class OwnTrace(Case):
    """A trace that the package writes of the PyTorch model, against the program's own readers."""

    def test_is_what_the_model_computes(self):
        model = tiny_bitnet.TinyBitnet(gguf("tiny-bitnet-relu2", "tq2_0"))
        tokens = [2046, 5, 300, 7, 1000, 12]
        trace = pb.record_trace(model, self.folder / "a", tiny_bitnet.name_map(model), tokens, n_prompt=4, forward=tiny_bitnet.forward,
                                level="full", prompt="?")
        self.assertTrue(trace.manifest.complete)
        self.assertEqual(trace.manifest.logits_blake3, trace.manifest.logits_blake3_untapped)
        self.assertEqual((trace.manifest.tokens, trace.manifest.n_prompt), (tokens, 4))
        self.assertEqual(len(trace.records), 3 * (6 * 20 + 3))
        with torch.no_grad():
            logits, _ = model(torch.tensor(tokens))
        np.testing.assert_allclose(trace.rows("logits"), logits.numpy(), rtol=0, atol=1e-4)
        (scores,) = trace.select("attn_scores", 0, 1)
        self.assertEqual(scores.shape, (1, 4, 5))
        (scores,) = trace.select("attn_scores", 0, 0)
        self.assertEqual((scores.shape, scores.neg_inf), ((4, 4, 4), 4 * 6))


class Reference(Case):
    """The PyTorch model as the reference of a comparison: its trace, served by plugins/replay."""

    def test_judges_engines(self):
        path = gguf("tiny-bitnet-relu2", "tq2_0")
        paritybit("trace", "--model", path, "--prompt", TEXT, "--max-tokens", "2", "--level", "digest", "--out", self.folder / "tokens")
        like, model = pb.Trace.open(self.folder / "tokens").manifest, tiny_bitnet.TinyBitnet(path)
        pb.record_trace(model, self.folder / "pytorch", tiny_bitnet.name_map(model), like.tokens, n_prompt=like.n_prompt,
                        forward=tiny_bitnet.forward, level="full", prompt=TEXT, model_path=path)
        self.assertEqual(pb.Trace.open(self.folder / "pytorch").manifest.model_sha256, like.model_sha256)
        good = self.crossval(path, "native,act.quant=bitnet,kv.type=f32", 0)
        self.assertEqual((good["verdict"], good["scope"]), ("match", "local"))
        self.assertEqual((good["coverage"]["expected"], good["coverage"]["compared"]), (3 * 123, 3 * 123))
        self.differ(path)
        bad = self.crossval(path, "native,act.quant=bitnet,kv.type=f32,ffn.activation=silu", 1)
        first = bad["first_divergence"]
        self.assertEqual((bad["verdict"], first["position"], first["layer"], first["stage"]), ("diverged", 0, 0, "ffn_act"))

    def differ(self, model):
        """PyTorch is no engine that paritybit starts: its trace stands for it in the command that trace-diff suggests."""
        ours, theirs = self.folder / "silu", self.folder / "pytorch"
        paritybit("trace", "--model", model, "--engine", "native,act.quant=bitnet,kv.type=f32,ffn.activation=silu", "--like", theirs,
                  "--level", "full", "--out", ours)
        told = json.loads(paritybit("trace-diff", ours, theirs, "--format", "json", expect=1))
        (command,) = [line for line in told["next"] if line.split()[1] == "crossval"]
        self.assertIn(f" --reference replay,trace={theirs} ", command)
        self.assertNotIn("--reference pytorch", command)

    def crossval(self, model, candidate, code):
        return json.loads(paritybit("crossval", "--model", model, "--candidate", candidate, "--reference", f"replay,trace={self.folder}/pytorch",
                                    "--prompt", TEXT, "--max-tokens", "2", "--format", "json", expect=code))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

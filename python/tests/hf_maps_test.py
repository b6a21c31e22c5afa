#!/usr/bin/env python3
"""The maps of Hugging Face's models: every point traced is what the vocabulary says, by its definition in float64 from the
recorded inputs; and nothing passes that is not seen. The models are hf_models.py's; transformers itself is too large here."""
import hf_models
import numpy as np
import torch
from hf_models import BitNetForCausalLM, LlamaForCausalLM, build
from support import Case, main

import paritybit as pb
from paritybit import maps, tracer

TOKENS, N_PROMPT = [3, 14, 15, 9, 26, 5], 4


def norm(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def rotated(x, first_position, adjacent):
    """x (n, heads, d): pairs (2i, 2i + 1) or (i, i + d/2), by position * 10000^(-2i/d)."""
    half = x.shape[-1] // 2
    angle = (first_position + np.arange(len(x)))[:, None, None] * 10000.0 ** (-np.arange(half) / half)
    a, b = (x[..., 0::2], x[..., 1::2]) if adjacent else (x[..., :half], x[..., half:])
    one, two = a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)
    if not adjacent:
        return np.concatenate([one, two], -1)
    return np.stack([one, two], -1).reshape(x.shape)


class Definition:
    """Each stage from the trace's own tensors, straight from the formulas."""

    def __init__(self, model, trace, adjacent):
        self.weights = {name: w.numpy().astype(np.float64) for name, w in model.named_parameters()}
        self.trace, self.adjacent, self.bitnet, self.config = trace, adjacent, model.config.bitnet, model.config

    def at(self, stage, layer, seq):
        (record,) = self.trace.select(stage, layer, seq)
        return self.trace.payload(record).astype(np.float64)

    def until(self, stage, layer, seq):
        return np.concatenate([self.at(stage, layer, s) for s in range(seq + 1)])

    def product(self, x, name):
        x = x.reshape(len(x), -1)
        if self.bitnet and name != "lm_head":
            scale = 127 / np.abs(x).max(-1, keepdims=True)
            x = np.rint(x * scale) / scale
        return x @ self.weights[name + ".weight"].T

    def projection(self, x, layer, name, n_heads):
        y = self.product(x, f"model.layers.{layer}.self_attn.{name}").reshape(len(x), n_heads, -1)
        if not self.adjacent or name == "v_proj":
            return y
        half = y.shape[-1] // 2
        out = np.empty_like(y)  # llama.cpp's conversion: row 2i of a head is the model's i, row 2i + 1 its i + d/2
        for i in range(half):
            out[..., 2 * i], out[..., 2 * i + 1] = y[..., i], y[..., i + half]
        return out

    def attention(self, layer, seq):
        q, k, v = self.at("q_rope", layer, seq), self.until("k_rope", layer, seq), self.until("v_proj", layer, seq)
        groups = q.shape[1] // k.shape[1]
        scores = np.full((len(q), q.shape[1], len(k)), -np.inf)
        context = np.zeros(q.shape)
        weights = self.at("attn_scores_softmax", layer, seq) if self.trace.manifest.unobservable == {} else None
        for i in range(len(q)):
            for h in range(q.shape[1]):
                seen = len(k) - len(q) + i + 1
                scores[i, h, :seen] = k[:seen, h // groups] @ q[i, h] / np.sqrt(q.shape[-1])
                w = np.exp(scores[i, h, :seen] - scores[i, h, :seen].max())
                w = w / w.sum() if weights is None else weights[i, h, :seen]
                context[i, h] = w @ v[:seen, h // groups]
        return scores, context

    def outer(self, seq):
        step = self.trace.steps[seq]
        last = self.config.num_hidden_layers - 1
        yield "embeddings", -1, self.weights["model.embed_tokens.weight"][step.tokens]
        yield "final_norm", -1, norm(self.at("layer_out", last, seq), self.weights["model.norm.weight"])
        yield "logits", -1, self.product(self.at("final_norm", -1, seq), "lm_head")

    def layer(self, n, seq):
        at, first, c = lambda stage: self.at(stage, n, seq), self.trace.steps[seq].first_position, self.config
        own, mlp = f"model.layers.{n}.", f"model.layers.{n}.mlp."
        x = self.at("layer_out", n - 1, seq) if n else self.at("embeddings", -1, seq)
        yield "attn_norm", n, norm(x, self.weights[own + "input_layernorm.weight"])
        for s, heads in (("q_proj", c.num_attention_heads), ("k_proj", c.num_key_value_heads), ("v_proj", c.num_key_value_heads)):
            yield s, n, self.projection(at("attn_norm"), n, s, heads)
        yield "q_rope", n, rotated(at("q_proj"), first, self.adjacent)
        yield "k_rope", n, rotated(at("k_proj"), first, self.adjacent)
        scores, context = self.attention(n, seq)
        if not self.trace.manifest.unobservable:
            yield "attn_scores", n, scores
            weights = np.exp(at("attn_scores") - at("attn_scores").max(-1, keepdims=True))
            yield "attn_scores_softmax", n, weights / weights.sum(-1, keepdims=True)
        yield "attn_context", n, context
        if self.bitnet:
            yield "attn_sub_norm", n, norm(at("attn_context").reshape(len(x), -1), self.weights[own + "self_attn.attn_sub_norm.weight"])
            yield "ffn_sub_norm", n, norm(at("ffn_gated"), self.weights[mlp + "ffn_sub_norm.weight"])
        yield "attn_out", n, self.product(at("attn_sub_norm" if self.bitnet else "attn_context"), own + "self_attn.o_proj")
        yield "attn_residual", n, x + at("attn_out")
        yield "ffn_norm", n, norm(at("attn_residual"), self.weights[own + "post_attention_layernorm.weight"])
        yield "gate_proj", n, self.product(at("ffn_norm"), mlp + "gate_proj")
        yield "up_proj", n, self.product(at("ffn_norm"), mlp + "up_proj")
        gate = at("gate_proj")
        yield "ffn_act", n, np.maximum(gate, 0) ** 2 if c.hidden_act == "relu2" else gate / (1 + np.exp(-gate))
        yield "ffn_gated", n, at("ffn_act") * at("up_proj")
        yield "down_proj", n, self.product(at("ffn_sub_norm" if self.bitnet else "ffn_gated"), mlp + "down_proj")
        yield "layer_out", n, at("attn_residual") + at("down_proj")


class Maps(Case):
    def check(self, model, name_map, stages_of_a_layer, adjacent):
        trace = pb.record_trace(model, self.folder / "a", name_map, TOKENS, N_PROMPT, level="full")
        self.assertEqual(len(trace.records), 3 * (3 * stages_of_a_layer + 3))
        self.assertEqual(trace.manifest.logits_blake3, trace.manifest.logits_blake3_untapped)
        self.assertEqual([(s.first_position, s.tokens) for s in trace.steps], [(0, TOKENS[:4]), (4, [26]), (5, [5])])
        definition, n_points = Definition(model, trace, adjacent), 0
        for seq in range(3):
            points = list(definition.outer(seq)) + [p for n in range(3) for p in definition.layer(n, seq)]
            for stage, layer, expected in points:
                got = definition.at(stage, layer, seq)
                self.assertEqual(got.shape, expected.shape, (stage, layer, seq))
                hidden = np.isneginf(expected)
                np.testing.assert_array_equal(np.isneginf(got), hidden, f"{stage} {layer} {seq}")
                error = np.linalg.norm(got[~hidden] - expected[~hidden]) / np.linalg.norm(expected[~hidden])
                self.assertLess(error, 2e-6, (stage, layer, seq))
                n_points += 1
        self.assertEqual(n_points, len(trace.records))
        return trace.manifest

    def test_llama(self):
        model = build(LlamaForCausalLM)
        manifest = self.check(model, maps.for_model(model), 18, adjacent=True)
        facts = {key: value for key, value, _ in manifest.model_facts + manifest.session_facts + manifest.engine_facts}
        expected = dict(architecture="llama", n_layers="3", d_model="48", d_ff="80", n_heads="6", n_kv_heads="2", head_dim="8", n_vocab="60",
                        name="pytorch", map="hf-llama")
        expected.update({"act.quant": "none", "kv.type": "f32", "attn.flash": "off", "ffn.activation": "silu", "rope.pairing": "adjacent"})
        self.assertEqual({key: facts.get(key) for key in expected}, expected)

    def test_llama_in_its_own_order_of_rows(self):
        model = build(LlamaForCausalLM)
        self.check(model, maps.hf_llama(model, gguf_order=False), 18, adjacent=False)

    def test_llama_of_old(self):
        model = build(LlamaForCausalLM, old=True, num_key_value_heads=6)
        self.check(model, maps.for_model(model), 18, adjacent=True)

    def test_static_cache(self):
        model = build(LlamaForCausalLM, room=16)
        self.check(model, maps.for_model(model), 18, adjacent=True)

    def test_bitnet(self):
        model = build(BitNetForCausalLM)
        manifest = self.check(model, maps.for_model(model), 20, adjacent=False)
        self.assertIn(("act.quant", "bitnet", "observed"), manifest.session_facts)

    def test_fused_attention_is_declared(self):
        model = build(LlamaForCausalLM, _attn_implementation="sdpa")
        manifest = self.check(model, maps.for_model(model), 16, adjacent=True)
        self.assertEqual(sorted(manifest.unobservable), ["attn_scores", "attn_scores_softmax"])
        self.assertIn("sdpa", manifest.unobservable["attn_scores"])

    def test_half_precision(self):
        model = build(LlamaForCausalLM).to(torch.bfloat16)
        trace = pb.record_trace(model, self.folder / "a", maps.for_model(model), TOKENS, N_PROMPT, level="full")
        self.assertEqual({r.dtype for r in trace.records}, {"BF16", "F32"})  # softmax is computed in float32
        self.assertIn(("kv.type", "bf16", "observed"), trace.manifest.session_facts)
        scores = trace.payload(next(trace.select("attn_scores", 0, 0)))
        self.assertEqual(int(np.isneginf(scores).sum()), 6 * 6)
        self.assertGreater(float(scores[np.isfinite(scores)].min()), -1000)


class FailClosed(Case):
    def setUp(self):
        super().setUp()
        self.model = build(LlamaForCausalLM)
        self.map = maps.for_model(self.model)

    def fails(self, evaluate, *words, model=None, name_map=None):
        """The evaluation is an error with these words, and so is what the trace says of itself; all functions are put back."""
        originals = torch.nn.functional.softmax, hf_models.apply_rotary_pos_emb
        folder = self.folder / "failed"
        with self.assertRaises(pb.TraceError) as caught:
            with pb.Tracer(model or self.model, folder, name_map or self.map), torch.no_grad():
                evaluate(model or self.model)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertEqual((torch.nn.functional.softmax, hf_models.apply_rotary_pos_emb), originals)
        self.assertFalse(any(m._forward_hooks or m._forward_pre_hooks for m in (model or self.model).modules()))
        if folder.exists():
            notes = pb.Trace.open(folder).notes
            self.assertTrue(any(words[0] in note for note in notes), notes)

    def test_point_that_never_comes(self):
        self.model.config._attn_implementation = "sdpa"  # behind the map's back
        self.fails(lambda m: m(torch.tensor([TOKENS])), "6 points", "attn_scores of layer 0", "never came")

    def test_point_that_comes_twice(self):
        hf_models.ATTENTION["twice"] = lambda *a: hf_models.eager(*a) + 0 * hf_models.eager(*a)
        self.model.config._attn_implementation = "twice"
        self.fails(lambda m: m(torch.tensor([TOKENS])), "attn_scores of layer 0 came twice")

    def test_names_that_do_not_exist(self):
        del self.model.model.layers[1].mlp.act_fn
        self.fails(None, "model.layers.1.mlp.act_fn")

    def test_layers_that_the_map_leaves_out(self):
        self.fails(None, "model.layers.2", name_map=maps.NameMap("m", 2, "model.embed_tokens", self.map.points))

    def test_function_that_does_not_exist(self):
        points = {**self.map.points, "q_rope": maps.Call(".rotate", "model.layers.{layer}.self_attn", maps.rows)}
        self.fails(None, "rotate", name_map=maps.NameMap("m", 3, "model.embed_tokens", points))

    def test_incomplete_and_contradicting_maps(self):
        points = dict(self.map.points)
        for change, word in (({"q_rope": None}, "q_rope"), ({"no_stage": maps.Output("lm_head", maps.rows)}, "no_stage")):
            changed = {k: v for k, v in {**points, **change}.items() if v}
            with self.assertRaisesRegex(pb.TraceError, word):
                maps.NameMap("m", 3, "model.embed_tokens", changed)
        with self.assertRaisesRegex(pb.TraceError, "logits"):
            maps.NameMap("m", 3, "model.embed_tokens", points, {"logits": "why"})
        with self.assertRaisesRegex(pb.TraceError, "no map for Linear"):
            maps.for_model(torch.nn.Linear(1, 1))

    def test_shapes_that_do_not_fit(self):
        points = {**self.map.points, "ffn_norm": maps.Output("model.layers.{layer}.input_layernorm", lambda x, step: x[0, 1:])}
        self.fails(lambda m: m(torch.tensor([TOKENS])), "ffn_norm of layer 0 has 5 rows", name_map=maps.NameMap("m", 3, "model.embed_tokens", points))

    def test_two_sequences(self):
        self.fails(lambda m: m(torch.tensor([TOKENS, TOKENS])), "one sequence")

    def test_second_evaluation_without_the_cache(self):
        def evaluate(model):
            model(torch.tensor([TOKENS]))
            model(torch.tensor([TOKENS]))

        self.fails(evaluate, "attention sees 6 positions, the trace is at 12")

    def test_positions_that_are_not_there_yet(self):
        model = build(LlamaForCausalLM, room=16)
        hf_models.ATTENTION["open"] = lambda q, k, v, mask: hf_models.eager(q, k, v, 0 * mask)
        model.config._attn_implementation = "open"
        self.fails(lambda m: m(torch.tensor([TOKENS])), "positions beyond 6", model=model)

    def test_training_and_nothing(self):
        self.fails(lambda m: None, "nothing was evaluated")
        self.model.train()
        with self.assertRaisesRegex(pb.TraceError, "eval"):
            pb.Tracer(self.model, self.folder / "b", self.map)

    def test_error_of_the_model(self):
        with self.assertRaises(IndexError):
            with pb.Tracer(self.model, self.folder / "a", self.map), torch.no_grad():
                self.model(torch.tensor([[3, 1 << 20]]))
        trace = pb.Trace.open(self.folder / "a")
        self.assertFalse(trace.manifest.complete)
        self.assertIn("index out of range", trace.notes[-1])

    def test_an_error_that_the_caller_swallows(self):
        with pb.Tracer(self.model, self.folder / "a", self.map), torch.no_grad():
            try:
                self.model(torch.tensor([TOKENS, TOKENS]))
            except pb.TraceError:
                pass
        self.assertFalse(pb.Trace.open(self.folder / "a").manifest.complete)

    def test_logits_that_are_not_the_models(self):
        def forward(model, ids, state):
            logits, state = tracer.hf_forward(model, ids, state)
            return 30 * torch.tanh(logits / 30), state

        with self.assertRaisesRegex(pb.TraceError, "not those that the model returns"):
            pb.record_trace(self.model, self.folder / "a", self.map, TOKENS, forward=forward)
        self.assertFalse(pb.Trace.open(self.folder / "a").manifest.complete)

    def test_last_rows_of_logits_alone(self):
        with pb.Tracer(self.model, self.folder / "a", self.map), torch.no_grad():
            self.model(torch.tensor([TOKENS]), logits_to_keep=1)
        trace = pb.Trace.open(self.folder / "a")
        (logits,) = trace.select("logits")
        self.assertEqual((logits.name, logits.position, logits.shape[0]), ("t0/logits@5", 5, 1))
        self.assertEqual((trace.manifest.complete, trace.manifest.logits_blake3), (True, ""))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

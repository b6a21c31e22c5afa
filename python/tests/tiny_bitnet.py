"""BitNet b1.58 in plain PyTorch, straight from the paper (Ma et al. 2024; sub-norms and squared ReLU as in BitNet b1.58 2B4T)
and the structure of models/train_tiny_bitnet.py: an engine that shares no line with the program under test.

Every operation is a module of its own, so that forward hooks see all of them and can put a recorded tensor in place of each.
Shapes: n token rows, first position p0; keys and values of earlier positions come from the cache.
"""
import json
import math
import pathlib
from typing import Any, Dict, Optional, Tuple

import torch
from gguf_weights import read_gguf
from support import ROOT  # noqa: F401  (finds the package)
from torch import nn

from paritybit import maps


class BitLinear(nn.Module):
    """Int8 per token (absmax), ternary weights with their scale."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        codes = (x * scale).round().clamp(-128, 127)
        return torch.matmul(codes, self.weight.t()) / scale


class RMSNorm(nn.Module):
    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(weight, requires_grad=False), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Heads(nn.Module):
    """(n, heads * head_dim) -> (n, heads, head_dim), after a projection."""

    def __init__(self, projection: nn.Module, head_dim: int) -> None:
        super().__init__()
        self.projection, self.head_dim = projection, head_dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.projection(x)
        return y.reshape(len(y), -1, self.head_dim)


class Rope(nn.Module):
    """Rotates (0, d/2), (1, d/2 + 1), ... by position * base^(-2i/d)."""

    def __init__(self, base: float) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: torch.Tensor, first_position: int) -> torch.Tensor:
        half = x.shape[-1] // 2
        frequency = self.base ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = (first_position + torch.arange(len(x), dtype=torch.float64))[:, None, None] * frequency
        c, s = angle.cos().float(), angle.sin().float()
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * c - b * s, b * c + a * s], -1)


class Scores(nn.Module):
    """q (n, heads, d), k (p, kv_heads, d) -> (n, heads, p), scaled, -inf beyond each row's own position."""

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        scores = torch.einsum("nhd,phd->nhp", q, k) / math.sqrt(q.shape[-1])
        hidden = torch.arange(len(k))[None] > (len(k) - len(q) + torch.arange(len(q)))[:, None]
        return scores.masked_fill(hidden[:, None], float("-inf"))


class Context(nn.Module):
    """weights (n, heads, p), v (p, kv_heads, d) -> (n, heads, d)."""

    def forward(self, weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nhp,phd->nhd", weights, v.repeat_interleave(weights.shape[1] // v.shape[1], 1))


class Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return {"silu": lambda: x * torch.sigmoid(x), "relu2": lambda: x.clamp(min=0).pow(2)}[self.name]()


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b


class Product(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a * b


class Output(nn.Module):
    """The tied embedding as output matrix, unrounded."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.matmul(x, self.weight.t())


class Block(nn.Module):
    """One layer; its submodules are named as the stages of the vocabulary."""

    def __init__(self, weights: Dict[str, torch.Tensor], config: Dict[str, Any]) -> None:
        super().__init__()
        eps, base, head_dim = config["rms_norm_eps"], config["rope_theta"], config["hidden_size"] // config["num_attention_heads"]
        self.attn_norm = RMSNorm(weights["attn_norm"], eps)
        self.q_proj = Heads(BitLinear(weights["attn_q"]), head_dim)
        self.k_proj = Heads(BitLinear(weights["attn_k"]), head_dim)
        self.v_proj = Heads(BitLinear(weights["attn_v"]), head_dim)
        self.q_rope, self.k_rope = Rope(base), Rope(base)
        self.attn_scores, self.attn_scores_softmax, self.attn_context = Scores(), nn.Softmax(dim=-1), Context()
        self.attn_sub_norm = RMSNorm(weights["attn_sub_norm"], eps)
        self.attn_out = BitLinear(weights["attn_output"])
        self.attn_residual, self.layer_out = Sum(), Sum()
        self.ffn_norm = RMSNorm(weights["ffn_norm"], eps)
        self.gate_proj, self.up_proj = BitLinear(weights["ffn_gate"]), BitLinear(weights["ffn_up"])
        self.ffn_act, self.ffn_gated = Activation(config["hidden_act"]), Product()
        self.ffn_sub_norm = RMSNorm(weights["ffn_sub_norm"], eps)
        self.down_proj = BitLinear(weights["ffn_down"])

    def forward(self, x: torch.Tensor, past: Optional[Tuple[torch.Tensor, torch.Tensor]]) -> Any:
        first = len(past[0]) if past else 0
        h = self.attn_norm(x)
        q, k, v = self.q_rope(self.q_proj(h), first), self.k_rope(self.k_proj(h), first), self.v_proj(h)
        if past:
            k, v = torch.cat([past[0], k]), torch.cat([past[1], v])
        context = self.attn_context(self.attn_scores_softmax(self.attn_scores(q, k)), v)
        x = self.attn_residual(x, self.attn_out(self.attn_sub_norm(context.flatten(1))))
        h = self.ffn_norm(x)
        gated = self.ffn_gated(self.ffn_act(self.gate_proj(h)), self.up_proj(h))
        return self.layer_out(x, self.down_proj(self.ffn_sub_norm(gated))), (k, v)


class TinyBitnet(nn.Module):
    """forward(ids (n), cache) -> logits (n, n_vocab), cache: keys and values of each layer."""

    def __init__(self, gguf: pathlib.Path) -> None:
        super().__init__()
        self.config = json.loads((gguf.parent / "config.json").read_text())
        _, tensors = read_gguf(gguf)
        weights = {name: torch.from_numpy(w) for name, w in tensors.items()}
        embedding = weights["token_embd.weight"]
        self.embeddings = nn.Embedding.from_pretrained(embedding)
        self.blk = nn.ModuleList()
        for i in range(self.config["num_hidden_layers"]):
            prefix = f"blk.{i}."
            own = {name[len(prefix):-len(".weight")]: w for name, w in weights.items() if name.startswith(prefix)}
            self.blk.append(Block(own, self.config))
        self.final_norm = RMSNorm(weights["output_norm.weight"], self.config["rms_norm_eps"])
        self.logits = Output(embedding)
        self.eval()

    def forward(self, ids: torch.Tensor, cache: Any = None) -> Tuple[torch.Tensor, Any]:
        x, kept = self.embeddings(ids), []
        for i, block in enumerate(self.blk):
            x, past = block(x, cache[i] if cache else None)
            kept.append(past)
        return self.logits(self.final_norm(x)), kept


STAGES_OF_A_LAYER = ("attn_norm q_proj k_proj v_proj q_rope k_rope attn_scores attn_scores_softmax attn_context attn_sub_norm attn_out "
                     "attn_residual ffn_norm gate_proj up_proj ffn_act ffn_gated ffn_sub_norm down_proj layer_out").split()


def as_it_is(x: Any, step: Any) -> Any:
    """Token rows come first in this model already."""
    return x


def name_map(model: TinyBitnet) -> maps.NameMap:
    points: Dict[str, Any] = {stage: maps.Output(stage, as_it_is) for stage in ("embeddings", "final_norm", "logits")}
    points.update({stage: maps.Output("blk.{layer}." + stage, as_it_is) for stage in STAGES_OF_A_LAYER})
    c = model.config
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    facts = dict(architecture="bitnet", n_layers=c["num_hidden_layers"], d_model=c["hidden_size"], d_ff=c["intermediate_size"],
                 n_heads=heads, n_kv_heads=kv, head_dim=c["hidden_size"] // heads, n_vocab=c["vocab_size"])
    session = [("act.quant", "bitnet", "observed"), ("kv.type", "f32", "observed"), ("attn.flash", "off", "observed")]
    return maps.NameMap("tiny-bitnet", c["num_hidden_layers"], "embeddings", points,
                   model_facts=[(k, str(v), "config.json") for k, v in facts.items()]
                   + [("ffn.activation", c["hidden_act"], "config.json"), ("rope.pairing", "halves", "observed"),
                      ("rope.base", f"{c['rope_theta']:g}", "config.json"), ("norm.eps", f"{c['rms_norm_eps']:g}", "config.json")],
                   session_facts=session)


def forward(model: nn.Module, ids: torch.Tensor, state: Any) -> Tuple[torch.Tensor, Any]:
    """For paritybit.record_trace."""
    logits, cache = model(ids[0], state)
    return logits, cache

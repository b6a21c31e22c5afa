"""Small models with the module names and the structure of Hugging Face transformers' LlamaForCausalLM and BitNetForCausalLM.

Facts of version 5.23.0: modules model.embed_tokens, model.layers.N.{input_layernorm, self_attn.{q,k,v,o}_proj,
post_attention_layernorm, mlp.{gate,up,down}_proj, mlp.act_fn}, model.norm, model.rotary_emb, lm_head; BitNet besides
self_attn.attn_sub_norm and mlp.ffn_sub_norm. Attention's forward() calls apply_rotary_pos_emb(q, k, cos, sin) by its global
name, updates the cache, and under "eager" computes matmul * scaling, + mask (the lowest number of the type where hidden), then
torch.nn.functional.softmax; under "sdpa" one fused op. Facts of 4.30.2 that differ (old=True): the rotation takes position_ids,
attention and layers return tuples, the cache is a tuple of pairs, every head has keys of its own.
"""
import types

import torch
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class AutoBitLinear(nn.Linear):
    """Rounds its input to int8 per token; the weights are ternary times a scale already."""

    def forward(self, x):
        scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
        return nn.functional.linear((x * scale).round().clamp(-128, 127) / scale, self.weight)


class ReLUSquared(nn.Module):
    def forward(self, x):
        return torch.square(nn.functional.relu(x))


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def apply_rotary_pos_emb(q, k, cos, sin, position_ids=None):
    if position_ids is not None:  # 4.30: tables of all positions
        cos, sin = cos[position_ids], sin[position_ids]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin


def angles(positions, head_dim):
    frequency = 1.0 / (10000.0 ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim))
    both = torch.cat([positions[..., None].float() * frequency] * 2, dim=-1)
    return both.cos(), both.sin()


class Attention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.config, self.layer_idx, self.head_dim = config, layer_idx, config.hidden_size // config.num_attention_heads
        kv = config.num_key_value_heads * self.head_dim
        self.q_proj = config.linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = config.linear(config.hidden_size, kv, bias=False)
        self.v_proj = config.linear(config.hidden_size, kv, bias=False)
        self.o_proj = config.linear(config.hidden_size, config.hidden_size, bias=False)
        if config.bitnet:
            self.attn_sub_norm = RMSNorm(config.hidden_size)

    def forward(self, hidden_states, position_embeddings, attention_mask, past, position_ids):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        q, k, v = (p(hidden_states).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        if self.config.old:
            cos, sin = angles(torch.arange(64), self.head_dim)
            q, k = apply_rotary_pos_emb(q, k, cos, sin, position_ids)
        else:
            cos, sin = position_embeddings
            q, k = apply_rotary_pos_emb(q, k, cos, sin)
        if past.get(self.layer_idx):
            k, v = (torch.cat([old, new], dim=2) for old, new in zip(past[self.layer_idx], (k, v)))
        past[self.layer_idx] = (k, v)
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        if self.config.room > k.shape[2]:  # a static cache: room for positions that are not there yet
            k, v = (nn.functional.pad(t, (0, 0, 0, self.config.room - t.shape[2])) for t in (k, v))
        out = ATTENTION[self.config._attn_implementation](q, k, v, attention_mask)
        out = out.transpose(1, 2).reshape(*hidden_states.shape[:-1], -1).contiguous()
        out = self.o_proj(self.attn_sub_norm(out) if self.config.bitnet else out)
        return (out, None, past) if self.config.old else (out, None)


def eager(q, k, v, mask):
    weights = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5 + mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v)


def fused(q, k, v, mask):
    return torch.einsum("bhqk,bhkd->bhqd", torch.exp(torch.log_softmax(torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5 + mask, -1)), v)


ATTENTION = {"eager": eager, "sdpa": fused}


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = config.linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = config.linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = config.linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ReLUSquared() if config.hidden_act == "relu2" else nn.SiLU()
        if config.bitnet:
            self.ffn_sub_norm = RMSNorm(config.intermediate_size)

    def forward(self, x):
        gated = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(self.ffn_sub_norm(gated) if hasattr(self, "ffn_sub_norm") else gated)


class DecoderLayer(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.self_attn, self.mlp = Attention(config, layer_idx), MLP(config)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(config.hidden_size), RMSNorm(config.hidden_size)
        self.old = config.old

    def forward(self, hidden_states, **kwargs):
        hidden_states = hidden_states + self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)[0]
        hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return (hidden_states, None) if self.old else hidden_states


class RotaryEmbedding(nn.Module):
    def forward(self, head_dim, position_ids):
        return angles(position_ids, head_dim)


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm, self.rotary_emb = RMSNorm(config.hidden_size), RotaryEmbedding()

    def forward(self, input_ids, past):
        x = self.embed_tokens(input_ids)
        n_past, n = (past[0][0].shape[2] if past else 0), x.shape[1]
        position_ids = torch.arange(n_past, n_past + n)[None]
        columns = max(n_past + n, self.config.room)
        hidden = torch.arange(columns)[None] > position_ids[0][:, None]
        mask = torch.zeros(n, columns, dtype=x.dtype).masked_fill(hidden, torch.finfo(x.dtype).min)[None, None]
        embeddings = self.rotary_emb(self.config.hidden_size // self.config.num_attention_heads, position_ids)
        embeddings = tuple(t.to(x.dtype) for t in embeddings)
        for layer in self.layers:
            x = layer(x, attention_mask=mask, position_embeddings=embeddings, past=past, position_ids=position_ids)
            x = x[0] if isinstance(x, tuple) else x
        return self.norm(x)


class LlamaForCausalLM(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, input_ids, past_key_values=None, use_cache=True, logits_to_keep=0):
        past = {} if past_key_values is None else past_key_values
        hidden = self.model(input_ids, past)
        logits = self.lm_head(hidden[:, -logits_to_keep:])
        return types.SimpleNamespace(logits=logits, past_key_values=past)


class BitNetForCausalLM(LlamaForCausalLM):
    pass


def build(kind, **changes):
    """kind: LlamaForCausalLM or BitNetForCausalLM."""
    torch.manual_seed(3)
    bitnet = kind is BitNetForCausalLM
    config = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, vocab_size=60,
                  max_position_embeddings=64, rms_norm_eps=1e-6, hidden_act="relu2" if bitnet else "silu", rope_theta=10000.0,
                  _attn_implementation="eager", bitnet=bitnet, linear=AutoBitLinear if bitnet else nn.Linear, old=False, room=0)
    model = kind(types.SimpleNamespace(**{**config, **changes})).eval()
    for name, weight in model.named_parameters():
        weight.requires_grad_(False)
        if bitnet and "proj" in name:
            weight.copy_(torch.randint(-1, 2, weight.shape) * 0.1)
        elif "proj" in name:
            weight.mul_(3)  # scores and gates of a size that matters
    return model

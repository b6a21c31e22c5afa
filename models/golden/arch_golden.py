#!/usr/bin/env python3
"""Records what Hugging Face transformers computes for one small random model of each architecture, as expected values for tests.

An implementation that this project did not write, in float32 with eager attention. The models are those of `paritybit gen-fixtures`
(the same seed gives the same bytes everywhere), so that a test makes them again and only what transformers computed is kept.
Output: ARCHITECTURE.safetensors beside this file: `layer_out.N` (tokens, d_model) after every layer, `logits` (tokens, n_vocab).

  pip install torch transformers safetensors gguf
  arch_golden.py PARITYBIT [ARCHITECTURE...]
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from gguf import GGUFReader
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
# Layers: such that each kind of them comes, window and all positions, rotated and not.
SHAPE = {"--weights": "F32", "--distribution": "gaussian", "--vocab": "96", "--d-model": "64", "--d-ff": "96", "--heads": "4",
         "--kv-heads": "2", "--context": "64", "--seed": "7"}
# NAME, or NAME/ARCHITECTURE where the model is a variant of it.
MODELS = {"llama": {}, "qwen2": {}, "qwen3": {"--head-dim": "32"}, "phi3": {}, "gemma2": {"--layers": "2", "--head-dim": "32"},
          "gemma3": {"--layers": "7", "--head-dim": "32"}, "olmo2": {}, "granite": {}, "smollm3": {"--layers": "5"},
          "mixtral/llama": {"--experts": "4"}, "qwen2moe": {}, "qwen3moe": {"--head-dim": "32"},
          "gpt-oss": {"--head-dim": "32", "--rope-scaling": "yarn"}, "stablelm": {},
          "stablelm-parallel/stablelm": {"--parallel": ""}, "mistral3": {"--rope-scaling": "yarn"},
          # BitNet's embedding models: a norm before each projection.
          "qwen3-input-norms/qwen3": {"--head-dim": "32", "--input-norms": ""},
          "gemma3-input-norms/gemma3": {"--layers": "7", "--head-dim": "32", "--input-norms": ""},
          "llama-linear/llama": {"--rope-scaling": "linear"}, "qwen2-yarn/qwen2": {"--rope-scaling": "yarn"},
          # 20 tokens: beyond 16 positions, and within 32.
          "phi3-long/phi3": {"--rope-scaling": "longrope"},
          "phi3-short/phi3": {"--rope-scaling": "longrope", "--rope-factor": "2"}}
IDS = [94, 1, 17, 33, 5, 60, 61, 62, 2, 88, 40, 41, 9, 12, 3, 70, 71, 20, 21, 22]
NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_qkv": "self_attn.qkv_proj",
         "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
         "attn_sinks": "self_attn.sinks", "ffn_gate_inp": "mlp.gate", "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
         "attn_q_norm_in": "self_attn.q_proj.norm", "attn_k_norm_in": "self_attn.k_proj.norm",
         "attn_v_norm_in": "self_attn.v_proj.norm", "attn_output_norm_in": "self_attn.o_proj.norm",
         "ffn_gate_norm_in": "mlp.gate_proj.norm", "ffn_up_norm_in": "mlp.up_proj.norm", "ffn_down_norm_in": "mlp.down_proj.norm",
         "ffn_gate_shexp": "mlp.shared_expert.gate_proj", "ffn_up_shexp": "mlp.shared_expert.up_proj",
         "ffn_down_shexp": "mlp.shared_expert.down_proj"}
# Where norms stand behind, the names of those before differ.
POST = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
PERMUTED = ("llama", "granite", "smollm3", "mistral3")  # Q and K: a file pairs (0, 1), transformers pairs halves


class NormedLinear(torch.nn.Linear):
    """A projection with a norm of its own input, as microsoft/BitNet describes its embedding models (docs/bitnet-embeddings-i2s-guide.md);
    the norm is torch's."""

    def __init__(self, linear, eps):
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.norm = torch.nn.RMSNorm(linear.in_features, eps)

    def forward(self, x):
        return super().forward(self.norm(x))


def add_input_norms(model, eps):
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    setattr(part, name, NormedLinear(linear, eps))


def join_experts(out, name):
    """Gate and up of all experts are one parameter in transformers; of gpt-oss transposed, and their columns in turn."""
    for key in [k for k in out if ".ffn_gate_exps." in k]:
        prefix, kind = key.split(".ffn_gate_exps.")
        gate, up, down = (out.pop(f"{prefix}.ffn_{p}_exps.{kind}") for p in ("gate", "up", "down"))
        suffix = "_bias" if kind == "bias" else ""
        if name == "gpt-oss":
            both = torch.stack((gate, up), -1) if kind == "bias" else torch.stack((gate, up), 2).swapaxes(1, 3)
            both = both.flatten(-2) if kind == "bias" else both.swapaxes(2, 3).flatten(-2)
            down = down if kind == "bias" else down.swapaxes(1, 2)
        else:
            both = torch.cat((gate, up), 1)
        out[f"{prefix}.mlp.experts.gate_up_proj{suffix}"] = both.contiguous()
        out[f"{prefix}.mlp.experts.down_proj{suffix}"] = down.contiguous()


def weights(path, name, config):
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    out = {}
    for t in GGUFReader(path).tensors:
        w = torch.from_numpy(np.array(t.data, dtype=np.float32)).reshape([int(n) for n in reversed(t.shape)])
        part = t.name.split(".")
        if part[0].startswith("rope_"):
            continue  # its factors are in config.json
        if part[0] != "blk":
            to = {"token_embd": "model.embed_tokens.", "output_norm": "model.norm.", "output": "lm_head."}[part[0]] + part[1]
        else:
            names = dict(NAMES)
            if name in ("gemma2", "gemma3", "olmo2"):
                names.update(POST, ffn_norm="pre_feedforward_layernorm")
            if name == "phi3":
                names["ffn_up"] = "mlp.gate_up_proj"
            if name == "gpt-oss":
                names.update(ffn_gate_inp="mlp.router", post_attention_norm="post_attention_layernorm")
            if name in PERMUTED and part[2] in heads:
                n = heads[part[2]]
                w = w.reshape(n, w.shape[0] // n // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
            to = f"model.layers.{part[1]}.{names.get(part[2], part[2])}.{part[3]}"
            if part[2] == "attn_sinks":
                to = to.removesuffix(".weight")
            if part[2] == "ffn_gate_inp_shexp":
                w = w.reshape(1, -1)
        if name.startswith("gemma") and to.endswith("norm.weight") and not to.endswith("_proj.norm.weight"):
            w = w - 1  # files hold 1 + weight
        out[to] = w
    join_experts(out, name)
    out.setdefault("lm_head.weight", out["model.embed_tokens.weight"])
    return out


def configure(name, config):
    kept = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "rope_theta", "rope_local_base_freq", "hidden_act")}
    rope = dict(kept.pop("rope_scaling", {"rope_type": "default"}), rope_theta=config["rope_theta"])
    if "partial_rotary_factor" in kept:
        rope["partial_rotary_factor"] = kept["partial_rotary_factor"]
    if name == "mistral3":
        rope["llama_4_scaling_beta"] = 0  # no temperature by position
    if rope["rope_type"] == "longrope":
        kept["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
    kept["rope_parameters"] = rope
    if name == "gemma3":
        kept["rope_parameters"] = {"full_attention": rope,
                                   "sliding_attention": dict(rope_type="default", rope_theta=config["rope_local_base_freq"])}
    if name.startswith("gemma"):
        kept["hidden_activation"] = "gelu_pytorch_tanh"
        period = 2 if name == "gemma2" else 6
        kept["layer_types"] = ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(config["num_hidden_layers"])]
    else:
        kept["hidden_act"] = config["hidden_act"]
    if name == "gpt-oss":
        kept["layer_types"] = ["full_attention" if i % 2 else "sliding_attention" for i in range(config["num_hidden_layers"])]
    if name in ("phi3", "smollm3"):
        kept["pad_token_id"] = 0
    return AutoConfig.for_model("gemma3_text" if name == "gemma3" else config["model_type"], **kept)


def record(paritybit, name, folder):
    flags = dict(SHAPE, **MODELS[name])
    name, _, architecture = name.partition("/")
    path = pathlib.Path(folder) / name / "model.gguf"
    subprocess.run([paritybit, "gen-fixtures", "--out", str(path), "--architecture", architecture or name,
                    *(word for flag in flags.items() for word in flag if word)], check=True, stdout=subprocess.DEVNULL)
    to, name = name, architecture or name
    config = json.loads((path.parent / "config.json").read_text())
    model = AutoModelForCausalLM.from_config(configure(name, config), attn_implementation="eager").float().eval()
    if "--input-norms" in flags:
        add_input_norms(model, config["rms_norm_eps"])
    missing, unexpected = model.load_state_dict(weights(path, name, config), strict=False)
    assert not unexpected and not missing, (name, missing, unexpected)
    got = {}
    for i, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda _m, _a, out, i=i: got.__setitem__(
            f"layer_out.{i}", (out[0] if isinstance(out, tuple) else out)[0].detach().clone().contiguous()))
    with torch.no_grad():
        got["logits"] = model(torch.tensor([IDS]), use_cache=False).logits[0].float().contiguous()
    spec = " ".join(f"{k} {v}" for k, v in flags.items())
    save_file(got, str(HERE / f"{to}.safetensors"), metadata={"ids": json.dumps(IDS), "gen-fixtures": spec})
    print(f"{to}: {len(got)} tensors")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[2:] or MODELS:
            record(sys.argv[1], name, folder)

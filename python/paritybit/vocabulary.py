"""The tracepoint vocabulary, as src/abi/vocabulary.h declares it (a test holds the two together)."""
from typing import NamedTuple, Optional


class Stage(NamedTuple):
    name: str
    level: int  # place in the dependency order; stages of one level are siblings
    per_layer: bool  # once a layer; else once a pass, with layer -1
    optional: bool  # only in architectures that have it
    shape: str  # canonical shape: n token rows, p positions that a row can see


STAGES = (
    Stage("embeddings", 0, False, False, "(n, d_model)"),
    Stage("attn_norm", 1, True, True, "(n, d_model)"),
    Stage("q_in_norm", 2, True, True, "(n, d_model)"),
    Stage("k_in_norm", 2, True, True, "(n, d_model)"),
    Stage("v_in_norm", 2, True, True, "(n, d_model)"),
    Stage("q_proj", 3, True, False, "(n, n_heads, head_dim)"),
    Stage("k_proj", 3, True, False, "(n, n_kv_heads, head_dim)"),
    Stage("v_proj", 3, True, False, "(n, n_kv_heads, head_dim)"),
    Stage("q_norm", 4, True, True, "(n, n_heads, head_dim)"),
    Stage("k_norm", 4, True, True, "(n, n_kv_heads, head_dim)"),
    Stage("q_rope", 5, True, False, "(n, n_heads, head_dim)"),
    Stage("k_rope", 5, True, False, "(n, n_kv_heads, head_dim)"),
    Stage("attn_scores", 6, True, False, "(n, n_heads, p)"),
    Stage("attn_scores_softmax", 7, True, False, "(n, n_heads, p)"),
    Stage("attn_context", 8, True, False, "(n, n_heads, head_dim)"),
    Stage("attn_sub_norm", 9, True, True, "(n, n_heads * head_dim)"),
    Stage("attn_out", 10, True, False, "(n, d_model)"),
    Stage("attn_post_norm", 11, True, True, "(n, d_model)"),
    Stage("attn_residual", 12, True, False, "(n, d_model)"),
    Stage("ffn_norm", 13, True, True, "(n, d_model)"),
    Stage("router_logits", 14, True, True, "(n, n_experts)"),
    Stage("expert_ids", 15, True, True, "(n, n_experts_used)"),
    Stage("expert_weights", 16, True, True, "(n, n_experts_used)"),
    Stage("expert_gate", 17, True, True, "(n, n_experts_used, d_ff_expert)"),
    Stage("expert_up", 17, True, True, "(n, n_experts_used, d_ff_expert)"),
    Stage("expert_act", 18, True, True, "(n, n_experts_used, d_ff_expert)"),
    Stage("expert_gated", 19, True, True, "(n, n_experts_used, d_ff_expert)"),
    Stage("expert_down", 20, True, True, "(n, n_experts_used, d_model)"),
    Stage("expert_sum", 21, True, True, "(n, d_model)"),
    Stage("gate_in_norm", 22, True, True, "(n, d_model)"),
    Stage("up_in_norm", 22, True, True, "(n, d_model)"),
    Stage("gate_proj", 23, True, True, "(n, d_ff)"),
    Stage("up_proj", 23, True, True, "(n, d_ff)"),
    Stage("ffn_act", 24, True, True, "(n, d_ff)"),
    Stage("ffn_gated", 25, True, True, "(n, d_ff)"),
    Stage("ffn_sub_norm", 26, True, True, "(n, d_ff)"),
    Stage("down_proj", 27, True, True, "(n, d_model)"),
    Stage("shared_gate", 27, True, True, "(n, 1)"),
    Stage("shared_out", 28, True, True, "(n, d_model)"),
    Stage("ffn_out", 29, True, True, "(n, d_model)"),
    Stage("ffn_post_norm", 30, True, True, "(n, d_model)"),
    Stage("layer_out", 31, True, False, "(n, d_model)"),
    Stage("final_norm", 32, False, False, "(n, d_model)"),
    Stage("logits", 33, False, False, "(n, n_vocab)"),
)

_BY_NAME = {stage.name: stage for stage in STAGES}

# Their inner axis counts positions, so it depends on how rows were batched; sketches are cut by head there.
BY_POSITION = ("attn_scores", "attn_scores_softmax")


def find(name: str) -> Optional[Stage]:
    """The stage of this name, or None: an engine's own name, which the vocabulary does not know."""
    return _BY_NAME.get(name)

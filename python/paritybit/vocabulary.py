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
    Stage("q_proj", 2, True, False, "(n, n_heads, head_dim)"),
    Stage("k_proj", 2, True, False, "(n, n_kv_heads, head_dim)"),
    Stage("v_proj", 2, True, False, "(n, n_kv_heads, head_dim)"),
    Stage("q_norm", 3, True, True, "(n, n_heads, head_dim)"),
    Stage("k_norm", 3, True, True, "(n, n_kv_heads, head_dim)"),
    Stage("q_rope", 4, True, False, "(n, n_heads, head_dim)"),
    Stage("k_rope", 4, True, False, "(n, n_kv_heads, head_dim)"),
    Stage("attn_scores", 5, True, False, "(n, n_heads, p)"),
    Stage("attn_scores_softmax", 6, True, False, "(n, n_heads, p)"),
    Stage("attn_context", 7, True, False, "(n, n_heads, head_dim)"),
    Stage("attn_sub_norm", 8, True, True, "(n, n_heads * head_dim)"),
    Stage("attn_out", 9, True, False, "(n, d_model)"),
    Stage("attn_post_norm", 10, True, True, "(n, d_model)"),
    Stage("attn_residual", 11, True, False, "(n, d_model)"),
    Stage("ffn_norm", 12, True, True, "(n, d_model)"),
    Stage("router_logits", 13, True, True, "(n, n_experts)"),
    Stage("expert_ids", 14, True, True, "(n, n_experts_used)"),
    Stage("expert_weights", 15, True, True, "(n, n_experts_used)"),
    Stage("expert_gate", 16, True, True, "(n, n_experts_used, d_ff_expert)"),
    Stage("expert_up", 16, True, True, "(n, n_experts_used, d_ff_expert)"),
    Stage("expert_act", 17, True, True, "(n, n_experts_used, d_ff_expert)"),
    Stage("expert_gated", 18, True, True, "(n, n_experts_used, d_ff_expert)"),
    Stage("expert_down", 19, True, True, "(n, n_experts_used, d_model)"),
    Stage("expert_sum", 20, True, True, "(n, d_model)"),
    Stage("gate_proj", 21, True, True, "(n, d_ff)"),
    Stage("up_proj", 21, True, True, "(n, d_ff)"),
    Stage("ffn_act", 22, True, True, "(n, d_ff)"),
    Stage("ffn_gated", 23, True, True, "(n, d_ff)"),
    Stage("ffn_sub_norm", 24, True, True, "(n, d_ff)"),
    Stage("down_proj", 25, True, True, "(n, d_model)"),
    Stage("shared_gate", 25, True, True, "(n, 1)"),
    Stage("shared_out", 26, True, True, "(n, d_model)"),
    Stage("ffn_out", 27, True, True, "(n, d_model)"),
    Stage("ffn_post_norm", 28, True, True, "(n, d_model)"),
    Stage("layer_out", 29, True, False, "(n, d_model)"),
    Stage("final_norm", 30, False, False, "(n, d_model)"),
    Stage("logits", 31, False, False, "(n, n_vocab)"),
)

_BY_NAME = {stage.name: stage for stage in STAGES}

# Their inner axis counts positions, so it depends on how rows were batched; sketches are cut by head there.
BY_POSITION = ("attn_scores", "attn_scores_softmax")


def find(name: str) -> Optional[Stage]:
    """The stage of this name, or None: an engine's own name, which the vocabulary does not know."""
    return _BY_NAME.get(name)

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
    Stage("gate_proj", 13, True, False, "(n, d_ff)"),
    Stage("up_proj", 13, True, False, "(n, d_ff)"),
    Stage("ffn_act", 14, True, False, "(n, d_ff)"),
    Stage("ffn_gated", 15, True, False, "(n, d_ff)"),
    Stage("ffn_sub_norm", 16, True, True, "(n, d_ff)"),
    Stage("down_proj", 17, True, False, "(n, d_model)"),
    Stage("ffn_post_norm", 18, True, True, "(n, d_model)"),
    Stage("layer_out", 19, True, False, "(n, d_model)"),
    Stage("final_norm", 20, False, False, "(n, d_model)"),
    Stage("logits", 21, False, False, "(n, n_vocab)"),
)

_BY_NAME = {stage.name: stage for stage in STAGES}

# Their inner axis counts positions, so it depends on how rows were batched; sketches are cut by head there.
BY_POSITION = ("attn_scores", "attn_scores_softmax")


def find(name: str) -> Optional[Stage]:
    """The stage of this name, or None: an engine's own name, which the vocabulary does not know."""
    return _BY_NAME.get(name)

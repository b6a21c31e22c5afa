"""Local errors and their bounds as docs/numerics.md defines them, written from that page; the constants are read from its table."""
import math
import re
from typing import Dict

import numpy as np
from support import ROOT

UNIT = 2.0**-24
_CLASS = {"embeddings": "copy", "q_rope": "rotary", "k_rope": "rotary", "attn_scores": "attention", "attn_context": "attention",
          "attn_scores_softmax": "softmax"}
_CLASS.update({s: "norm" for s in ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm", "final_norm")})
_CLASS.update({s: "product" for s in ("q_proj", "k_proj", "v_proj", "attn_out", "gate_proj", "up_proj", "down_proj", "logits")})
_CLASS.update({s: "elementwise" for s in ("attn_residual", "ffn_act", "ffn_gated", "layer_out")})


def constants() -> Dict[str, float]:
    """c of each class, from the table under "Bounds"."""
    section = (ROOT / "docs/numerics.md").read_text().split("### Bounds")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| [^|]+ \| ([0-9.]+) \|", section, re.M)
    found = {name: float(c) for name, c in rows}
    assert set(found) == set(_CLASS.values()), found
    return found


def terms(stage: str, config: Dict[str, int], n_positions: int) -> int:
    """K: how many terms one output sums."""
    width = config["num_attention_heads"] * config["head_dim"]
    return {"attn_out": width, "attn_sub_norm": width, "down_proj": config["intermediate_size"], "ffn_sub_norm": config["intermediate_size"],
            "q_rope": 2, "k_rope": 2, "attn_scores": config["head_dim"], "attn_scores_softmax": n_positions,
            "attn_context": n_positions}.get(stage, config["hidden_size"] if _CLASS[stage] in ("norm", "product") else 1)


def over_bound(stage: str, candidate: np.ndarray, reference: np.ndarray, config: Dict[str, int], first_position: int,
               c: Dict[str, float]) -> float:
    """The largest error of any token row or feature, over its bound."""
    n = len(reference)
    a, b = candidate.reshape(n, -1).astype(np.float64), reference.reshape(n, -1).astype(np.float64)
    if a.shape != b.shape or a.size == 0:
        return math.inf
    hidden = np.isneginf(a) & np.isneginf(b) if stage == "attn_scores" else np.zeros(a.shape, bool)
    if not np.isfinite(a[~hidden]).all() or not np.isfinite(b[~hidden]).all():
        return math.inf
    a, b = np.where(hidden, 0, a), np.where(hidden, 0, b)
    squares = (a - b) ** 2
    limit = np.full(n, c[_CLASS[stage]] * UNIT * math.sqrt(terms(stage, config, first_position + n)))
    if _CLASS[stage] == "rotary":
        limit *= 1 + first_position + np.arange(n)
    mean_square = (b**2).sum(1) / np.maximum((~hidden).sum(1), 1)  # RMS^2 of each row
    worst_row = _ratio(squares.sum(1), (b**2).sum(1)) / limit
    typical = math.sqrt(float((limit**2 * mean_square).sum() / mean_square.sum())) if mean_square.any() else float(limit[0])
    worst_feature = _ratio(squares.sum(0), np.maximum(mean_square.sum(), (b**2).sum(0))) / typical
    return max(float(worst_row.max()), float(worst_feature.max()))


def _ratio(error: np.ndarray, norm: np.ndarray) -> np.ndarray:
    return np.where(error == 0, 0, np.sqrt(error / np.where(norm > 0, norm, 1)) + np.where((norm == 0) & (error > 0), np.inf, 0))


def worst_row(candidate: np.ndarray, expected: np.ndarray) -> float:
    """The largest rel-L2 of a token row."""
    n = len(expected)
    a, b = candidate.reshape(n, -1).astype(np.float64), expected.reshape(n, -1).astype(np.float64)
    worst = float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())
    return worst if worst == worst else math.inf

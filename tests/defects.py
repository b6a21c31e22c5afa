"""Writes copies of a tiny BitNet (TQ2_0 or F16) with one known defect each, and says where each must be found.

The writer knows nothing of paritybit: block layouts as ggml documents them (ggml-common.h of llama.cpp v0.5.0), places by the
meaning of the tensor that it spoils. Shapes are those of models/tiny-bitnet-*: 6 layers, d_model 256, d_ff 512, 4 heads, 2 KV heads.
"""
import dataclasses
import struct
from typing import Callable, Optional

import gguf_edit

F32, F16, TQ2_0 = 0, 1, 35
ROPE_BASE = "bitnet.rope.freq_base"
EPS = "bitnet.attention.layer_norm_rms_epsilon"
HEAD_DIM = 64
ROPE = ("q_rope", "k_rope")
NORMS = ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm", "final_norm")


@dataclasses.dataclass
class Defect:
    """One defect: what it does to the file, and the place that alone may be named as the first divergence."""
    name: str
    spoil: Callable[["Model"], None]
    layer: int
    stages: tuple           # siblings in dependency order are equally first
    feature: Optional[int]  # the one output column concerned; None: more than one is
    position: Optional[int] = 0  # None: where the inputs let it show
    also: tuple = ()             # stages that the same value spoils too, in any layer


class Model(gguf_edit.Gguf):
    def matrix(self, name):
        kind, (n_columns, n_rows), offset, size = self.tensors[name]
        assert kind in (F16, TQ2_0) and size % n_rows == 0
        return kind, n_columns, n_rows, offset, size // n_rows

    def _code_at(self, name, row, column):
        """TQ2_0: byte and shift of a code; blocks of 256 values, each byte four values 32 apart, two groups of 32 bytes."""
        _, _, _, offset, row_bytes = self.matrix(name)
        block, v = divmod(column, 256)
        half, rest = divmod(v, 128)
        return offset + row * row_bytes + block * 66 + half * 32 + rest % 32, 2 * (rest // 32)

    def ternary(self, name, row, column):
        """-1, 0 or +1, the sign of the weight."""
        kind, _, _, offset, row_bytes = self.matrix(name)
        if kind == TQ2_0:
            at, shift = self._code_at(name, row, column)
            return (self.data[at] >> shift & 3) - 1
        value = struct.unpack_from("<e", self.data, offset + row * row_bytes + 2 * column)[0]
        return (value > 0) - (value < 0)

    def set_ternary(self, name, row, column, code):
        kind, _, _, offset, row_bytes = self.matrix(name)
        if kind == TQ2_0:
            at, shift = self._code_at(name, row, column)
            self.data[at] = self.data[at] & ~(3 << shift) & 0xff | (code + 1) << shift
        else:
            values = struct.unpack_from(f"<{row_bytes // 2}e", self.data, offset + row * row_bytes)
            scale = max(map(abs, values))
            struct.pack_into("<e", self.data, offset + row * row_bytes + 2 * column, scale * code)

    def flip(self, name, row, column):
        """Negates one weight, the first at or after this column that is not zero."""
        while self.ternary(name, row, column) == 0:
            column += 1
        self.set_ternary(name, row, column, -self.ternary(name, row, column))

    def row(self, name, row, n=1):
        _, _, _, offset, row_bytes = self.matrix(name)
        return slice(offset + row * row_bytes, offset + (row + n) * row_bytes)

    def swap_rows(self, name, a, b, n=1):
        """Exchanges rows a to a + n with rows b to b + n."""
        first, second = self.row(name, a, n), self.row(name, b, n)
        assert self.data[first] != self.data[second]
        self.data[first], self.data[second] = self.data[second], self.data[first]

    def scale_rows(self, name, factor, begin=0, end=None):
        kind, _, n_rows, _, row_bytes = self.matrix(name)
        for row in range(begin, n_rows if end is None else end):
            start = self.row(name, row).start
            scales = range(64, row_bytes, 66) if kind == TQ2_0 else range(0, row_bytes, 2)
            for at in scales:
                value = struct.unpack_from("<e", self.data, start + at)[0]
                struct.pack_into("<e", self.data, start + at, value * factor)

    def zero_last_columns(self, name, n):
        _, n_columns, n_rows, _, _ = self.matrix(name)
        for row in range(n_rows):
            for column in range(n_columns - n, n_columns):
                self.set_ternary(name, row, column, 0)

    def swap_tensors(self, a, b):
        first, second = (slice(self.tensors[t][2], self.tensors[t][2] + self.tensors[t][3]) for t in (a, b))
        assert self.tensors[a][:2] == self.tensors[b][:2] and self.data[first] != self.data[second]
        self.data[first], self.data[second] = self.data[second], self.data[first]

    def set_norm(self, name, channel, value):
        kind, _, offset, _ = self.tensors[name]
        assert kind == F32
        struct.pack_into("<f", self.data, offset + 4 * channel, value)

    def set_float(self, key, value):
        kind, at = self.values[key]
        assert kind == 6  # f32
        struct.pack_into("<f", self.data, at, value)


def _in_layer(layer, tensor):
    return f"blk.{layer}.{tensor}.weight"


def defects(token, position, other_token):
    """All defects. `token`: stands in the prompt first at `position`; `other_token`: not in the prompt at all."""
    def flip(name, layer, tensor, stage, row, column):
        return Defect(name, lambda m: m.flip(_in_layer(layer, tensor), row, column), layer, (stage,), row, position=None)

    def edit(name, layer, tensor, stages, action, feature=None, **more):
        return Defect(name, lambda m: action(m, _in_layer(layer, tensor)), layer, stages, feature, **more)

    return [
        flip("flip_q", 0, "attn_q", "q_proj", 17, 3),
        flip("flip_k", 1, "attn_k", "k_proj", 127, 200),
        flip("flip_v", 2, "attn_v", "v_proj", 64, 130),
        flip("flip_attn_output", 3, "attn_output", "attn_out", 255, 77),
        flip("flip_gate", 4, "ffn_gate", "gate_proj", 500, 31),
        flip("flip_up", 5, "ffn_up", "up_proj", 0, 96),
        flip("flip_down", 5, "ffn_down", "down_proj", 201, 300),
        edit("two_rows_swapped", 2, "ffn_down", ("down_proj",), lambda m, t: m.swap_rows(t, 31, 160)),
        edit("two_rows_swapped_in_v", 0, "attn_v", ("v_proj",), lambda m, t: m.swap_rows(t, 1, 2)),
        edit("scale_up", 3, "ffn_up", ("up_proj",), lambda m, t: m.scale_rows(t, 1.02)),
        edit("scale_q", 5, "attn_q", ("q_proj",), lambda m, t: m.scale_rows(t, 1.02)),
        edit("scale_attn_output", 1, "attn_output", ("attn_out",), lambda m, t: m.scale_rows(t, 1.5)),
        edit("row_scaled", 4, "ffn_down", ("down_proj",), lambda m, t: m.scale_rows(t, 1.05, 99, 100), 99),
        edit("last_columns_of_gate", 1, "ffn_gate", ("gate_proj",), lambda m, t: m.zero_last_columns(t, 8)),
        edit("last_columns_of_down", 0, "ffn_down", ("down_proj",), lambda m, t: m.zero_last_columns(t, 8)),
        edit("lost_attn_norm_channel", 2, "attn_norm", ("attn_norm",), lambda m, t: m.set_norm(t, 211, 0.0), 211),
        edit("lost_attn_sub_norm_channel", 4, "attn_sub_norm", ("attn_sub_norm",), lambda m, t: m.set_norm(t, 5, 0.0), 5),
        edit("lost_ffn_norm_channel", 0, "ffn_norm", ("ffn_norm",), lambda m, t: m.set_norm(t, 64, 0.0), 64),
        edit("lost_ffn_sub_norm_channel", 3, "ffn_sub_norm", ("ffn_sub_norm",), lambda m, t: m.set_norm(t, 511, 0.0), 511),
        Defect("lost_final_norm_channel", lambda m: m.set_norm("output_norm.weight", 128, 0.0), -1, ("final_norm",), 128),
        # The angle of position 0 is 0 whatever the base.
        Defect("rope_base", lambda m: m.set_float(ROPE_BASE, 500000.0), 0, ROPE, None, position=1, also=ROPE),
        Defect("rope_base_by_a_thousandth", lambda m: m.set_float(ROPE_BASE, 10010.0), 0, ROPE, None,
               position=1, also=ROPE),
        Defect("eps", lambda m: m.set_float(EPS, 1e-3), 0, ("attn_norm",), None, also=NORMS),
        Defect("eps_by_a_hundredth", lambda m: m.set_float(EPS, 1.01e-5), 0, ("attn_norm",), None,
               position=None, also=NORMS),
        Defect("gate_and_up_swapped", lambda m: m.swap_tensors("blk.1.ffn_gate.weight", "blk.1.ffn_up.weight"), 1,
               ("gate_proj", "up_proj"), None),
        Defect("k_and_v_swapped", lambda m: m.swap_tensors("blk.4.attn_k.weight", "blk.4.attn_v.weight"), 4,
               ("k_proj", "v_proj"), None),
        edit("heads_permuted", 3, "attn_q", ("q_proj",), lambda m, t: m.swap_rows(t, HEAD_DIM, 3 * HEAD_DIM, HEAD_DIM)),
        edit("kv_heads_permuted", 5, "attn_k", ("k_proj",), lambda m, t: m.swap_rows(t, 0, HEAD_DIM, HEAD_DIM)),
        Defect("wrong_embedding", lambda m: m.swap_rows("token_embd.weight", token, other_token), -1, ("embeddings",), None,
               position=position, also=("logits",)),
        # The embeddings are the output matrix too: a row of a token that the prompt does not have shows in its logit alone.
        Defect("wrong_output_row", lambda m: m.scale_rows("token_embd.weight", 1.05, other_token, other_token + 1), -1,
               ("logits",), other_token),
    ]


def write(source, target, defect):
    model = Model(source)
    before = bytes(model.data)
    defect.spoil(model)
    assert bytes(model.data) != before, defect.name
    model.save(target)

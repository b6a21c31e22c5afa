"""Models with weights of types that nothing of paritybit's encodes or decodes: random blocks, of which every code is one that these
types have, and what the reference's own library decodes of them."""
import ctypes
import random
import struct

import gguf_edit
from driver import run

# ggml_type: number, values and bytes a block (ggml-common.h)
TYPES = {"IQ2_XXS": (16, 256, 66), "IQ2_XS": (17, 256, 74), "IQ3_XXS": (18, 256, 98), "IQ1_S": (19, 256, 50), "IQ3_S": (21, 256, 110),
         "IQ2_S": (22, 256, 82), "IQ1_M": (29, 256, 56), "NVFP4": (40, 64, 36)}
RMS = 1 / 16  # of the weights: rows of 256 keep the size of what they multiply


class _Traits(ctypes.Structure):  # ggml_type_traits of ggml.h
    _fields_ = [("name", ctypes.c_char_p), ("block_values", ctypes.c_int64), ("block_interleave", ctypes.c_int64),
                ("block_bytes", ctypes.c_size_t), ("is_quantized", ctypes.c_bool),
                ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)), ("from_float", ctypes.c_void_p)]


def _with_scale(name, raw, scale):
    """A block's bytes with this f16 scale. NVFP4 has one byte for each 16 weights instead, some of 2^-6 to 2^-5."""
    if name == "NVFP4":
        return bytes(8 + byte % 12 for byte in raw[:4]) + raw[4:]
    half = struct.pack("<e", scale)
    if name != "IQ1_M":
        return half + raw[2:]
    bits, words = struct.unpack("<H", half)[0], struct.unpack("<4H", raw[48:])  # four bits of it atop each of the last words
    return raw[:48] + struct.pack("<4H", *(w & 0xFFF | (bits >> 4 * i & 15) << 12 for i, w in enumerate(words)))


class Blocks:
    def __init__(self, model):
        """By the library of the reference as paritybit runs it on a model."""
        told = run("audit", "--model", model, "--engine", "llama.cpp", "--prompt", "a", "--format", "json")
        facts = next(engine for engine in told.json["engines"] if engine["role"] == "engine")["description"]
        library = ctypes.CDLL(next(fact["value"] for key, fact in facts.items() if key.startswith("path.libggml-base")))
        library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
        self.traits = library.ggml_get_type_traits
        self.scales = {}

    def decode(self, name, blocks):
        """The floats that blocks stand for, as bytes."""
        number, n_values, n_bytes = TYPES[name]
        traits = self.traits(number).contents
        assert (traits.block_values, traits.block_bytes) == (n_values, n_bytes), name
        n = len(blocks) // n_bytes * n_values
        out = ctypes.create_string_buffer(4 * n)
        traits.to_float(blocks, out, n)
        return out.raw

    def make(self, name, n_values, seed):
        _, values, size = TYPES[name]
        draw = random.Random(f"{name} {seed}")
        raw = [draw.randbytes(size) for _ in range(n_values // values)]
        if name not in self.scales:
            sample = self.decode(name, b"".join(_with_scale(name, block, 1) for block in raw[:16]))
            floats = struct.unpack(f"<{len(sample) // 4}f", sample)
            self.scales[name] = RMS / (sum(v * v for v in floats) / len(floats)) ** 0.5
        return b"".join(_with_scale(name, block, self.scales[name] * draw.uniform(0.5, 1.5)) for block in raw)

    def convert(self, source, target, types, change=lambda name, blocks: blocks):
        """Writes a model anew: the matrices of its layers have these types, one after the other, and the blocks that `change` makes of
        random ones. Beside it, target.stem + "-f32.gguf", what they stand for."""
        blocks, plain, names = {}, {}, {}
        for name, (_, shape, _, _) in gguf_edit.Gguf(source).tensors.items():
            if len(shape) != 2 or not name.startswith("blk."):
                continue
            weights = names[name] = types[len(names) % len(types)]
            raw = change(name, self.make(weights, shape[0] * shape[1], name))
            blocks[name] = (TYPES[weights][0], shape, raw)
            plain[name] = (gguf_edit.F32, shape, self.decode(weights, raw))
        gguf_edit.rewrite(source, target, tensors=blocks)
        gguf_edit.rewrite(source, target.with_name(target.stem + "-f32.gguf"), tensors=plain)
        return names

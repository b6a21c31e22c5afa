"""Weights in types that nothing of paritybit's encodes, by the reference's own quantiser and decoder: those of its libggml-base."""
import ctypes
import pathlib
import struct

import gguf_edit
from driver import run

# ggml_type: number, values and bytes a block
TYPES = {"IQ2_XXS": (16, 256, 66), "IQ2_XS": (17, 256, 74), "IQ3_XXS": (18, 256, 98), "IQ1_S": (19, 256, 50), "IQ3_S": (21, 256, 110),
         "IQ2_S": (22, 256, 82), "IQ1_M": (29, 256, 56), "NVFP4": (40, 64, 36)}


class _Traits(ctypes.Structure):  # ggml_type_traits of ggml.h
    _fields_ = [("name", ctypes.c_char_p), ("block_values", ctypes.c_int64), ("block_interleave", ctypes.c_int64),
                ("block_bytes", ctypes.c_size_t), ("is_quantized", ctypes.c_bool),
                ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)), ("from_float", ctypes.c_void_p)]


class Quantiser:
    def __init__(self, model):
        """Of the reference as paritybit runs it on a model."""
        told = run("audit", "--model", model, "--engine", "llama.cpp", "--prompt", "a", "--format", "json")
        facts = next(engine for engine in told.json["engines"] if engine["role"] == "engine")["description"]
        path = next(fact["value"] for key, fact in facts.items() if key.startswith("path.libggml-base"))
        self.library = ctypes.CDLL(str(pathlib.Path(path)))
        self.library.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                                     ctypes.c_int64, ctypes.c_void_p]
        self.library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)

    def encode(self, name, values, width):
        """Rows of `width` floats, given as bytes; every column counts alike."""
        number, n_values, n_bytes = TYPES[name]
        n = len(values) // 4
        assert n % width == 0 and width % n_values == 0
        out = ctypes.create_string_buffer(n // n_values * n_bytes)
        importance = struct.pack(f"<{width}f", *[1.0] * width)
        size = self.library.ggml_quantize_chunk(number, values, out, 0, n // width, width, importance)
        assert size == len(out.raw), (name, size)
        return out.raw

    def decode(self, name, blocks):
        """The floats that blocks stand for, as bytes."""
        number, n_values, n_bytes = TYPES[name]
        traits = self.library.ggml_get_type_traits(number).contents
        assert (traits.block_values, traits.block_bytes) == (n_values, n_bytes), name
        n = len(blocks) // n_bytes * n_values
        out = ctypes.create_string_buffer(4 * n)
        traits.to_float(blocks, out, n)
        return out.raw

    def convert(self, source, target, types, change=lambda name, blocks: blocks):
        """Writes a model of F32 weights anew: the matrices of its layers have these types, one after the other, and the blocks that
        `change` makes of them. Beside it, target.stem + "-f32.gguf", what they stand for."""
        file = gguf_edit.Gguf(source)
        blocks, plain, names = {}, {}, {}
        for name, (kind, shape, offset, size) in file.tensors.items():
            if len(shape) != 2 or not name.startswith("blk."):
                continue
            assert kind == gguf_edit.F32
            weights = names[name] = types[len(names) % len(types)]
            coded = change(name, self.encode(weights, bytes(file.data[offset:offset + size]), shape[0]))
            blocks[name] = (TYPES[weights][0], shape, coded)
            plain[name] = (gguf_edit.F32, shape, self.decode(weights, coded))
        gguf_edit.rewrite(source, target, tensors=blocks)
        gguf_edit.rewrite(source, target.with_name(target.stem + "-f32.gguf"), tensors=plain)
        return names

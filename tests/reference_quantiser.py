"""Weights in types that nothing of paritybit's encodes, by the reference's own quantiser: ggml_quantize_chunk of its libggml-base."""
import ctypes
import struct

import gguf_edit

# ggml_type: (number, values and bytes a block)
TYPES = {"IQ2_XXS": (16, 256, 66), "IQ2_XS": (17, 256, 74), "IQ3_XXS": (18, 256, 98), "IQ1_S": (19, 256, 50), "IQ3_S": (21, 256, 110),
         "IQ2_S": (22, 256, 82), "IQ1_M": (29, 256, 56), "NVFP4": (40, 64, 36)}


class Quantiser:
    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        self.library.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                                     ctypes.c_int64, ctypes.c_void_p]

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

    def convert(self, source, target, types, only=lambda name: name.startswith("blk.")):
        """Writes a model of F32 weights anew: its matrices that `only` names have these types, one after the other."""
        file = gguf_edit.Gguf(source)
        tensors, at = {}, 0
        for name, (kind, shape, offset, size) in file.tensors.items():
            if len(shape) != 2 or not only(name):
                continue
            assert kind == gguf_edit.F32
            weights = types[at % len(types)]
            at += 1
            tensors[name] = (TYPES[weights][0], shape, self.encode(weights, bytes(file.data[offset:offset + size]), shape[0]))
        gguf_edit.rewrite(source, target, tensors=tensors)

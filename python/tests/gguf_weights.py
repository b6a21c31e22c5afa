"""Weights of the bundled models, decoded by these lines alone, so that nothing is shared with the program under test.

Layouts from https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, ggml-common.h (TQ1_0, TQ2_0) and bitnet.cpp (I2_S).
"""
import pathlib
import struct
from typing import Any, Dict, Tuple

import numpy as np

F32, F16, TQ1_0, TQ2_0, I2_S = 0, 1, 34, 35, 36
_SCALARS = "BbHhIif?sAQqd"  # struct's letters by GGUF type; s: string, A: array


def read_gguf(path: pathlib.Path) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
    """Metadata, and tensors as float32 in PyTorch's order of axes."""
    data = path.read_bytes()
    magic, version, n_tensors, n_keys = struct.unpack_from("<4sIQQ", data)
    assert magic == b"GGUF" and version == 3
    at = 24

    def take(kind: str) -> Any:
        nonlocal at
        if kind == "s":
            n = take("Q")
            at += n
            return data[at - n:at].decode()
        if kind == "A":
            inner, n = take("I"), take("Q")
            return [take(_SCALARS[inner]) for _ in range(n)]
        (value,) = struct.unpack_from("<" + kind, data, at)
        at += struct.calcsize(kind)
        return value

    metadata = {}
    for _ in range(n_keys):
        key = take("s")
        metadata[key] = take(_SCALARS[take("I")])
    infos = []
    for _ in range(n_tensors):
        name = take("s")
        shape = [take("Q") for _ in range(take("I"))][::-1]
        infos.append((name, shape, take("I"), take("Q")))
    start = (at + 31) // 32 * 32
    return metadata, {name: _decode(data, start + offset, kind, shape) for name, shape, kind, offset in infos}


def _decode(data: bytes, at: int, kind: int, shape: Any) -> np.ndarray:
    n = int(np.prod(shape))
    if kind in (F32, F16):
        return np.frombuffer(data, "<f4" if kind == F32 else "<f2", n, at).astype(np.float32).reshape(shape)
    decode = {TQ1_0: _tq1_0, TQ2_0: _tq2_0, I2_S: _i2_s}[kind]
    return decode(data, at, n).astype(np.float32).reshape(shape)


def _tq2_0(data: bytes, at: int, n: int) -> np.ndarray:
    """256 values in 64 bytes and an f16 scale: byte m of half h holds values m, m + 32, m + 64, m + 96 of it, low bits first."""
    blocks = np.frombuffer(data, np.dtype([("q", "u1", (2, 1, 32)), ("d", "<f2")]), n // 256, at)
    codes = (blocks["q"] >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3).astype(np.float32) - 1
    return codes.reshape(-1, 256) * blocks["d"].astype(np.float32)[:, None]


def _tq1_0(data: bytes, at: int, n: int) -> np.ndarray:
    """256 values: 32 + 16 bytes of five base-3 digits, 4 bytes of four, an f16 scale. A byte is a fraction of 3^5 in 256ths."""
    blocks = np.frombuffer(data, np.dtype([("q", "u1", 48), ("h", "u1", 4), ("d", "<f2")]), n // 256, at)

    def digits(part: np.ndarray, count: int) -> np.ndarray:
        powers = np.array([3**i for i in range(count)])[:, None]
        fraction = part[:, None].astype(np.int64) * powers % 256
        return (fraction * 3 // 256).reshape(len(part), -1)

    q = blocks["q"]
    codes = np.concatenate([digits(q[:, :32], 5), digits(q[:, 32:], 5), digits(blocks["h"], 4)], axis=1) - 1
    return codes * blocks["d"].astype(np.float32)[:, None]


def _i2_s(data: bytes, at: int, n: int) -> np.ndarray:
    """128 values in 32 bytes, the first 32 in the high bits; behind all codes one f32 scale."""
    q = np.frombuffer(data, np.uint8, n // 4, at).reshape(-1, 1, 32)
    codes = (q >> np.array([6, 4, 2, 0], np.uint8)[:, None] & 3).astype(np.float32) - 1
    (scale,) = struct.unpack_from("<f", data, at + n // 4)
    return codes.reshape(-1) * np.float32(scale)

"""CountSketch (Charikar, Chen, Farach-Colton 2002) of a tensor, bit-equal to src/trace/sketch.cc."""
import struct
from typing import List, NamedTuple

import numpy as np

TABLES, BUCKETS = 4, 16
VALUES = TABLES * BUCKETS
BYTES = 4 + 2 * VALUES
SEED = 0x7061726974796269
_PATTERNS, _CODE_MAX = 256, 32767
_MASK = (1 << 64) - 1
_BATCH = 1 << 16  # blocks summed in one go: bounds the memory


def _mix_one(z: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Sketch(NamedTuple):
    """64 sums, each an integer times `scale`."""

    scale: np.float32
    codes: np.ndarray  # (64) of i16, table by table

    def to_bytes(self) -> bytes:
        return struct.pack("<f", self.scale) + self.codes.astype("<i2").tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> "Sketch":
        if len(data) != BYTES:
            raise ValueError(f"a sketch has {BYTES} bytes, not {len(data)}")
        (scale,) = struct.unpack_from("<f", data)
        if not np.isfinite(scale) or scale < 0:
            raise ValueError(f"the scale of a sketch is {scale}")
        return Sketch(np.float32(scale), np.frombuffer(data, "<i2", offset=4).astype(np.int16))

    def squared_distance(self, other: "Sketch") -> float:
        """||x - y||^2 of the two tensors: unbiased, its standard deviation at most sqrt(2 / 64) of it."""
        difference = float(self.scale) * self.codes.astype(np.float64) - float(other.scale) * other.codes.astype(np.float64)
        rounding = (float(self.scale) ** 2 + float(other.scale) ** 2) / 12 * BUCKETS
        return max(0.0, float(np.sum(difference**2)) / TABLES - rounding)


class Sketcher:
    """Makes sketches under one seed. All sums run in float32 in the order of the blocks, as the C++ definition does."""

    def __init__(self, seed: int = SEED) -> None:
        self._seed = _mix_one(seed & _MASK)
        state, half = seed & _MASK, []
        for _ in range(_PATTERNS // 2):
            state = (state + 0x9E3779B97F4A7C15) & _MASK
            bits = _mix_one(state)
            half.append([bits >> i & 1 for i in range(BUCKETS)])
        plain = np.array(half, np.uint32) << np.uint32(31)
        self._signs = np.concatenate([plain, plain ^ np.uint32(0x80000000)])  # (256, 16) sign bits

    def sketch(self, values: np.ndarray, first_position: int, n_heads: int = 1) -> Sketch:
        """Of values (n_rows, ...) of float32 from first_position on; rows are cut into n_heads equal runs first."""
        n_rows = len(values)
        runs = np.ascontiguousarray(values, np.float32).reshape(n_rows * n_heads, -1)
        width = runs.shape[1]
        n_blocks = -(-width // BUCKETS)
        positions = np.repeat(np.arange(first_position, first_position + n_rows, dtype=np.uint64), n_heads)
        heads = np.tile(np.arange(n_heads, dtype=np.uint64), n_rows)
        keys = _mix(_mix(np.uint64(self._seed) + positions) + heads)
        sums = np.zeros((TABLES, BUCKETS, BUCKETS), np.float32)  # table, rotation, value of a block
        step = max(1, _BATCH // max(1, n_blocks))
        for start in range(0, len(runs), step):
            part = runs[start:start + step]
            padded = np.zeros((len(part), n_blocks * BUCKETS), np.float32)
            padded[:, :width] = part
            offsets = np.arange(n_blocks, dtype=np.uint64) * np.uint64(BUCKETS)
            hashes = _mix(keys[start:start + step, None] + offsets).reshape(-1)
            self._add(padded.reshape(-1, BUCKETS), hashes, sums)
        return _finish(sums)

    def sketch_rows(self, values: np.ndarray, first_position: int, n_heads: int = 1) -> List[Sketch]:
        """A sketch for each row."""
        return [self.sketch(values[i:i + 1], first_position + i, n_heads) for i in range(len(values))]

    def _add(self, blocks: np.ndarray, hashes: np.ndarray, sums: np.ndarray) -> None:
        bits = blocks.view(np.uint32)
        bits = np.where((bits & np.uint32(0x7F800000)) == np.uint32(0x7F800000), np.uint32(0), bits)
        for table in range(TABLES):
            part = hashes >> np.uint64(12 * table)
            rotation = (part & np.uint64(BUCKETS - 1)).astype(np.intp)
            pattern = (part >> np.uint64(4) & np.uint64(_PATTERNS - 1)).astype(np.intp)
            signed = (bits ^ self._signs[pattern]).view(np.float32)
            for r in range(BUCKETS):
                # accumulate, unlike sum, adds one after the other.
                chain = np.concatenate([sums[table, r][None], signed[rotation == r]])
                with np.errstate(over="ignore", invalid="ignore"):
                    sums[table, r] = np.add.accumulate(chain, axis=0, dtype=np.float32)[-1]


def _finish(sums: np.ndarray) -> Sketch:
    values = np.zeros((TABLES, BUCKETS), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for r in range(BUCKETS):
            values += np.roll(sums[:, r], r, axis=1)
        largest = np.float32(0)
        for v in np.abs(values).reshape(-1):  # as std::max does: a NaN on the right is passed over
            largest = v if largest < v else largest
        scale = np.float32(float(largest) / _CODE_MAX)
    # Finite values may still sum to infinity, and tiny ones have no scale: then nothing can be told.
    if not np.isfinite(scale) or scale < np.finfo(np.float32).tiny:
        return Sketch(np.float32(0), np.zeros(VALUES, np.int16))
    codes = np.rint(values.reshape(-1).astype(np.float64) / float(scale))
    codes = np.clip(codes, -_CODE_MAX, _CODE_MAX)
    return Sketch(scale, codes.astype(np.int16))

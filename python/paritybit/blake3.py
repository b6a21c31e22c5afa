"""BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2020), the hash function alone, 32 bytes.

The PyPI package `blake3` where it can be imported; else the implementation here: NumPy, all chunks side by side. Section
numbers are the paper's.
"""
from typing import Any, List

import numpy as np

try:
    from blake3 import blake3 as _native
except ImportError:
    _native = None

_BLOCK, _CHUNK = 64, 1024  # bytes
_BATCH = 4096  # chunks hashed in one go: bounds the memory
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT = 1, 2, 4, 8  # flags (2.2)
_IV = np.array([0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32)
_PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]  # table 2


def _message_order() -> np.ndarray:
    """For each of 7 rounds the message words that columns, then diagonals, take first and second: (7, 2, 2, 4)."""
    order, rounds = list(range(16)), []
    for _ in range(7):
        rounds.append([[order[0:8:2], order[1:8:2]], [order[8::2], order[9::2]]])
        order = [order[i] for i in _PERMUTATION]
    return np.array(rounds)


_ORDER = _message_order()
_BY_1, _BY_2, _BY_3 = (np.roll(np.arange(4), -n) for n in (1, 2, 3))


# Rotation distances of the function G, right then left.
_SHIFTS = [(np.uint32(n), np.uint32(32 - n)) for n in (16, 12, 8, 7)]


def _rotate(x: np.ndarray, distance: int, spare: np.ndarray) -> None:
    """In place."""
    right, left = _SHIFTS[distance]
    np.left_shift(x, left, out=spare)
    np.right_shift(x, right, out=x)
    np.bitwise_or(x, spare, out=x)


def _half_round(a, b, c, d, x, y, spare):
    """The function G on four columns of every input at once, in place; each argument is (4, n)."""
    for word, distance in ((x, 0), (y, 2)):
        a += b
        a += word
        d ^= a
        _rotate(d, distance, spare)
        c += d
        b ^= c
        _rotate(b, distance + 1, spare)


def _compress(cv: np.ndarray, block: np.ndarray, counter: np.ndarray, n_bytes: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """The compression (2.2) of n inputs: cv (8, n), block (16, n), the others (n). The new chaining values, (8, n)."""
    a, b = cv[:4].copy(), cv[4:].copy()
    c = np.repeat(_IV[:4, None], a.shape[1], axis=1)
    low, high = (counter & np.uint64(0xFFFFFFFF)).astype(np.uint32), (counter >> np.uint64(32)).astype(np.uint32)
    d, spare = np.stack([low, high, n_bytes, flags]), np.empty_like(a)
    for (first, second), (third, fourth) in _ORDER:
        _half_round(a, b, c, d, block[first], block[second], spare)
        b, c, d = b[_BY_1], c[_BY_2], d[_BY_3]  # columns become diagonals
        _half_round(a, b, c, d, block[third], block[fourth], spare)
        b, c, d = b[_BY_3], c[_BY_2], d[_BY_1]
    return np.concatenate([a ^ c, b ^ d])


def _hash_chunks(chunks: np.ndarray, first: np.ndarray, n_bytes: int, root: bool) -> np.ndarray:
    """Chaining values (8, n) of n chunks of n_bytes each: chunks (n, n_bytes) of u8, first (n): their numbers in the input."""
    n = len(chunks)
    n_blocks = max(1, -(-n_bytes // _BLOCK))
    padded = np.zeros((n, n_blocks * _BLOCK), np.uint8)
    padded[:, :n_bytes] = chunks
    words = padded.view("<u4").astype(np.uint32).reshape(n, n_blocks, 16)
    cv = np.broadcast_to(_IV[:, None], (8, n))
    for k in range(n_blocks):
        last = k == n_blocks - 1
        flags = (_CHUNK_START if k == 0 else 0) | (_CHUNK_END if last else 0) | (_ROOT if last and root else 0)
        length = n_bytes - k * _BLOCK if last else _BLOCK
        cv = _compress(cv, np.ascontiguousarray(words[:, k].T), first, np.full(n, length, np.uint32), np.full(n, flags, np.uint32))
    return cv


def _merge(left: np.ndarray, right: np.ndarray, root: bool) -> np.ndarray:
    """Chaining values of parents (2.4): left and right are (8, n)."""
    n = left.shape[1]
    iv = np.broadcast_to(_IV[:, None], (8, n))
    flags = np.full(n, _PARENT | (_ROOT if root else 0), np.uint32)
    return _compress(iv, np.concatenate([left, right]), np.zeros(n, np.uint64), np.full(n, _BLOCK, np.uint32), flags)



class Blake3:
    """A running hash in NumPy. hexdigest leaves it as it is, so that a prefix can be hashed on."""

    def __init__(self) -> None:
        self._stack: List[np.ndarray] = []  # chaining values (8, 1) of complete subtrees, the largest first
        self._n_chunks = 0  # in the stack
        self._rest = b""  # at least one byte behind the last whole chunk in the stack, once there is any

    def update(self, data: Any) -> "Blake3":
        """Adds bytes, or anything with a buffer."""
        data = memoryview(data).cast("B")
        if self._rest and len(self._rest) + len(data) > _CHUNK:
            take = _CHUNK - len(self._rest)
            self._add(np.frombuffer(self._rest + bytes(data[:take]), np.uint8))
            self._rest, data = b"", data[take:]
        # The last chunk is held back, whole or not: it may be the root.
        n_whole = (len(data) - 1) // _CHUNK if len(data) > _CHUNK else 0
        for start in range(0, n_whole, _BATCH):
            end = min(n_whole, start + _BATCH)
            self._add(np.frombuffer(data[start * _CHUNK:end * _CHUNK], np.uint8))
        self._rest += bytes(data[n_whole * _CHUNK:])
        return self

    def _add(self, data: np.ndarray) -> None:
        chunks = data.reshape(-1, _CHUNK)
        cv = _hash_chunks(chunks, np.arange(len(chunks), dtype=np.uint64) + np.uint64(self._n_chunks), _CHUNK, False)
        at = 0
        while at < len(chunks):
            # The largest aligned subtree that fits behind what is there.
            size = 1 << ((len(chunks) - at).bit_length() - 1)
            if self._n_chunks:
                size = min(size, self._n_chunks & -self._n_chunks)
            level = cv[:, at:at + size]
            while level.shape[1] > 1:
                level = _merge(level[:, 0::2], level[:, 1::2], False)
            self._push(level, size)
            at += size

    def _push(self, cv: np.ndarray, n_chunks: int) -> None:
        self._n_chunks += n_chunks
        total = self._n_chunks // n_chunks
        while total & 1 == 0:
            cv = _merge(self._stack.pop(), cv, False)
            total >>= 1
        self._stack.append(cv)

    def hexdigest(self) -> str:
        rest = np.frombuffer(self._rest, np.uint8)[None]
        cv = _hash_chunks(rest, np.array([self._n_chunks], np.uint64), len(self._rest), not self._stack)
        for i, left in enumerate(reversed(self._stack)):
            cv = _merge(left, cv, i == len(self._stack) - 1)
        return cv[:, 0].astype("<u4").tobytes().hex()


def new() -> Any:
    """A running hash: update(data), hexdigest()."""
    return _native() if _native else Blake3()


def digest(data: Any) -> str:
    """The hash of one buffer, 64 hexadecimal digits."""
    hasher = new()
    hasher.update(memoryview(data).cast("B"))
    return hasher.hexdigest()


def digest_rows(rows: np.ndarray) -> List[str]:
    """The hash of each row of a C-contiguous (n, width) array of any type."""
    data = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    if _native or data.shape[1] > _CHUNK * 64:
        return [digest(row) for row in data]
    return _digest_many(data)


def _digest_many(data: np.ndarray) -> List[str]:
    """NumPy alone, all rows side by side: data (n, n_bytes) of u8."""
    n, n_bytes = data.shape
    n_chunks = max(1, -(-n_bytes // _CHUNK))
    parts = []  # per chunk: chaining values (8, n)
    for k in range(n_chunks):
        size = min(_CHUNK, n_bytes - k * _CHUNK)
        chunk = data[:, k * _CHUNK:k * _CHUNK + size]
        parts.append(_hash_chunks(chunk, np.full(n, k, np.uint64), size, n_chunks == 1))
    cv = _tree(parts, True)
    return [row.tobytes().hex() for row in np.ascontiguousarray(cv.T).astype("<u4")]


def _tree(parts: List[np.ndarray], root: bool) -> np.ndarray:
    """The left subtree takes the largest power of two of chunks that leaves at least one for the right (2.1)."""
    if len(parts) == 1:
        return parts[0]
    split = 1 << ((len(parts) - 1).bit_length() - 1)
    return _merge(_tree(parts[:split], False), _tree(parts[split:], False), root)

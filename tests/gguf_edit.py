"""Finds tensors in a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), so that tests can write defects."""
import struct

SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
TYPE_BLOCKS = {0: (1, 4), 1: (1, 2), 3: (32, 20), 14: (256, 210), 34: (256, 54), 35: (256, 66), 36: (128, 32)}  # type: (values, bytes) a block
UINT16, UINT32, FLOAT32 = 2, 4, 6
F32, F16, IQ3_S, I2_S = 0, 1, 21, 36


class Gguf:
    """data: the file's bytes, to change in place. tensors: name -> (type, shape, offset, bytes)."""

    def __init__(self, path):
        self.data = bytearray(path.read_bytes())
        magic, _, n_tensors, n_keys = struct.unpack_from("<4sIQQ", self.data, 0)
        assert magic == b"GGUF"
        self.at = 24
        self.values = {}  # key -> (type, offset of the value)
        self.ends = {}  # key -> offset of what follows the value
        for _ in range(n_keys):
            key = self._string()
            kind = self._u32()
            self.values[key] = (kind, self.at)
            self._skip(kind)
            self.ends[key] = self.at
        infos = []
        for _ in range(n_tensors):
            name = self._string()
            shape = [self._u64() for _ in range(self._u32())]
            infos.append((name, shape, self._u32(), self._u64()))
        alignment = 32
        base = (self.at + alignment - 1) // alignment * alignment
        self.tensors = {}
        for name, shape, kind, offset in infos:
            n = 1
            for extent in shape:
                n *= extent
            values, size = TYPE_BLOCKS.get(kind, (1, 0))
            tail = 32 if kind == I2_S else 0
            self.tensors[name] = (kind, shape, base + offset, n // values * size + tail)

    def _u32(self):
        self.at += 4
        return struct.unpack_from("<I", self.data, self.at - 4)[0]

    def _u64(self):
        self.at += 8
        return struct.unpack_from("<Q", self.data, self.at - 8)[0]

    def _string(self):
        n = self._u64()
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def _skip(self, kind):
        if kind == STRING:
            self._string()
        elif kind == ARRAY:
            element, n = self._u32(), self._u64()
            if element == STRING:
                for _ in range(n):
                    self._string()
            else:
                self.at += n * SCALAR_BYTES[element]
        else:
            self.at += SCALAR_BYTES[kind]

    def raw(self, key):
        """Type and bytes of a key's value, as rewrite takes them."""
        kind, at = self.values[key]
        return kind, bytes(self.data[at:self.ends[key]])

    def array(self, key):
        """The elements of an array of strings, bytes or 32-bit integers."""
        kind, self.at = self.values[key]
        assert kind == ARRAY
        element, n = self._u32(), self._u64()
        if element == STRING:
            return [self._string() for _ in range(n)]
        letter = {0: "B", 1: "b", 4: "I", 5: "i", FLOAT32: "f"}[element]
        return list(struct.unpack_from(f"<{n}{letter}", self.data, self.at))

    def scale_ternary(self, name, factor):
        """Multiplies the f16 scale of every block of a TQ1_0 or TQ2_0 tensor: the last two bytes of each."""
        kind, _, offset, size = self.tensors[name]
        block = TYPE_BLOCKS[kind][1]
        for at in range(offset + block - 2, offset + size, block):
            scale = struct.unpack_from("<e", self.data, at)[0]
            struct.pack_into("<e", self.data, at, scale * factor)

    def save(self, path):
        path.write_bytes(self.data)


def _text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(kind, value):
    if isinstance(value, bytes):  # as raw() has it
        return value
    if kind == STRING:
        return _text(value)
    return struct.pack({UINT16: "<H", UINT32: "<I", FLOAT32: "<f"}[kind], value)


def rewrite(source, target, keys=None, tensors=None, rename=None):
    """Writes the file anew. keys: key -> (type, value), None to leave it out. tensors: name -> (type, shape, bytes), shape with the
    row length first, None to leave it out. rename: what a key's prefix becomes, (old, new)."""
    gguf = Gguf(source)
    pairs = {}
    for key, (kind, at) in gguf.values.items():
        name = rename[1] + key[len(rename[0]):] if rename and key.startswith(rename[0]) else key
        pairs[name] = (kind, bytes(gguf.data[at:gguf.ends[key]]))
    for key, new in (keys or {}).items():
        pairs.pop(key, None)
        if new:
            pairs[key] = (new[0], _value(*new))
    parts = {name: (kind, shape, bytes(gguf.data[at:at + size])) for name, (kind, shape, at, size) in gguf.tensors.items()}
    parts.update(tensors or {})
    parts = {name: part for name, part in parts.items() if part}
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(parts), len(pairs))
    head += b"".join(_text(key) + struct.pack("<I", kind) + raw for key, (kind, raw) in pairs.items())
    body = b""
    for name, (kind, shape, raw) in parts.items():
        head += _text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)
        head += struct.pack("<IQ", kind, len(body))
        body += raw + bytes(-len(raw) % 32)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(head + bytes(-len(head) % 32) + body)
    return target

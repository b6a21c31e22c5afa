"""Writes tiny models as GGUF files for tests (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md); the standard library alone.

    model = tiny("llama", layers=1)                 # a File: .values (key -> (type, value)) and .tensors (name -> Tensor)
    model.set("llama.rope.freq_base", F32, 5e5)
    model.drop("output.weight")
    model.write(folder / "m.gguf")
"""
import json
import random
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
SCALARS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
# Type numbers as in the file, values and bytes of a block.
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2), "Q8_0": (8, 32, 34), "Q4_1": (3, 32, 20), "TQ2_0": (35, 256, 66)}
ALIGNMENT = 32


class Tensor:
    def __init__(self, kind, shape, data):
        self.kind, self.shape, self.data = kind, list(shape), bytearray(data)  # shape[0] is the row's length


class File:
    def __init__(self):
        self.values, self.tensors = {}, {}

    def set(self, key, kind, value, element=None):
        """A scalar, a string, or an array (kind ARRAY) of `element`."""
        self.values[key] = (kind, value, element)

    def drop(self, name):
        self.values.pop(name, None)
        self.tensors.pop(name, None)

    def row(self, name, index):
        """Where a row of a matrix lies in its tensor's data: a slice."""
        tensor = self.tensors[name]
        n = len(tensor.data) // (tensor.shape[1] if len(tensor.shape) > 1 else 1)
        return slice(index * n, (index + 1) * n)

    def bytes(self):
        out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.values)))
        for key, (kind, value, element) in self.values.items():
            out += _string(key) + struct.pack("<I", kind) + _value(kind, value, element)
        data = bytearray()
        for name, tensor in self.tensors.items():
            data += bytes(-len(data) % ALIGNMENT)
            out += _string(name) + struct.pack("<I", len(tensor.shape))
            out += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
            out += struct.pack("<IQ", TYPES[tensor.kind][0], len(data))
            data += tensor.data
        return bytes(out) + bytes(-len(out) % ALIGNMENT) + bytes(data)

    def write(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.bytes())
        return path


def _string(text):
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _value(kind, value, element):
    if kind == STRING:
        return _string(value)
    if kind == ARRAY:
        return struct.pack("<IQ", element, len(value)) + b"".join(_value(element, v, None) for v in value)
    return struct.pack("<" + SCALARS[kind], value)


def bf16(value):
    return struct.pack("<f", value)[2:]


_TERNARY = bytes(sum((b // 3**i % 3) << (2 * i) for i in range(4)) for b in range(256))  # four codes 0, 1, 2 a byte


def matrix(rng, kind, rows, columns, scale):
    """rows x columns random weights whose spread is about `scale`."""
    n = rows * columns
    if kind in ("F32", "F16", "BF16"):
        pack = {"F32": lambda v: struct.pack("<f", v), "F16": lambda v: struct.pack("<e", v), "BF16": bf16}[kind]
        table = [pack(rng.gauss(0, scale)) for _ in range(4096)]
        data = b"".join(rng.choices(table, k=n))
    elif kind == "Q8_0":  # d, 32 codes
        d = struct.pack("<e", scale / 73)
        data = b"".join(d + rng.randbytes(32).replace(b"\x80", b"\x81") for _ in range(n // 32))
    elif kind == "Q4_1":  # d, m, 32 codes of four bits
        head = struct.pack("<ee", scale / 4.6, -7.5 * scale / 4.6)
        data = b"".join(head + rng.randbytes(16) for _ in range(n // 32))
    else:  # TQ2_0: 256 codes of two bits, d
        d = struct.pack("<e", scale * 1.22)
        data = b"".join(rng.randbytes(64).translate(_TERNARY) + d for _ in range(n // 256))
    return Tensor(kind, (columns, rows), data)


def vector(values):
    return Tensor("F32", (len(values),), struct.pack(f"<{len(values)}f", *values))


def byte_names():
    """The printable characters that byte-level BPE has for the 256 bytes, as GPT-2 chose them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


MERGES = ["t h", "th e", "\u0120 the", "a n", "an d", "i n", "e r", "o u"]


def add_tokenizer(file, pre="llama-bpe", add_bos=True, n_vocab=0):
    """Byte-level BPE with a few merges; BOS and EOS are the last two ids. Returns the number of tokens."""
    tokens = byte_names() + [merge.replace(" ", "") for merge in MERGES]
    tokens += [f"[PAD{i}]" for i in range(n_vocab - len(tokens) - 2)]
    kinds = [1] * len(tokens) + [3, 3]
    tokens += ["<|begin_of_text|>", "<|end_of_text|>"]
    file.set("tokenizer.ggml.model", STRING, "gpt2")
    file.set("tokenizer.ggml.pre", STRING, pre)
    file.set("tokenizer.ggml.tokens", ARRAY, tokens, STRING)
    file.set("tokenizer.ggml.token_type", ARRAY, kinds, I32)
    file.set("tokenizer.ggml.merges", ARRAY, MERGES, STRING)
    file.set("tokenizer.ggml.bos_token_id", U32, len(tokens) - 2)
    file.set("tokenizer.ggml.eos_token_id", U32, len(tokens) - 1)
    file.set("tokenizer.ggml.add_bos_token", BOOL, add_bos)
    return len(tokens)


def tiny(arch="llama", layers=1, d=64, ff=128, heads=4, kv_heads=2, weights="F16", embedding="F16", tied=True, n_vocab=0,
         add_bos=True, pre="llama-bpe", eps=1e-5, base=10000.0, n_ctx=512, seed=1):
    """A model with the tensors of `arch`: llama, or with sub-norms where its name begins with bitnet. TQ2_0 wants d and ff that are
    multiples of 256."""
    rng = random.Random(seed)
    file = File()
    head = d // heads
    file.set("general.architecture", STRING, arch)
    for key, value in (("context_length", n_ctx), ("embedding_length", d), ("block_count", layers), ("feed_forward_length", ff),
                       ("attention.head_count", heads), ("attention.head_count_kv", kv_heads), ("rope.dimension_count", head)):
        file.set(f"{arch}.{key}", U32, value)
    file.set(f"{arch}.attention.layer_norm_rms_epsilon", F32, eps)
    file.set(f"{arch}.rope.freq_base", F32, base)
    n_tokens = add_tokenizer(file, pre, add_bos, n_vocab)

    def linear(name, rows, columns):
        file.tensors[name] = matrix(rng, weights, rows, columns, columns**-0.5)

    def norm(name, n):
        file.tensors[name] = vector([1 + 0.1 * rng.gauss(0, 1) for _ in range(n)])

    file.tensors["token_embd.weight"] = matrix(rng, embedding, n_tokens, d, 0.1)
    for i in range(layers):
        block = f"blk.{i}."
        norm(block + "attn_norm.weight", d)
        linear(block + "attn_q.weight", d, d)
        linear(block + "attn_k.weight", kv_heads * head, d)
        linear(block + "attn_v.weight", kv_heads * head, d)
        linear(block + "attn_output.weight", d, d)
        norm(block + "ffn_norm.weight", d)
        linear(block + "ffn_gate.weight", ff, d)
        linear(block + "ffn_up.weight", ff, d)
        linear(block + "ffn_down.weight", d, ff)
        if arch.startswith("bitnet"):
            norm(block + "attn_sub_norm.weight", d)
            norm(block + "ffn_sub_norm.weight", ff)
    norm("output_norm.weight", d)
    if not tied:
        file.tensors["output.weight"] = matrix(rng, embedding, n_tokens, d, d**-0.5)
    return file


def config_of(file, **fields):
    """A config.json that agrees with the file, as text; `fields` are put in the place of its own, None leaves one out."""
    arch = file.values["general.architecture"][1]
    value = lambda key: file.values[f"{arch}.{key}"][1]
    config = {"architectures": ["LlamaForCausalLM" if arch == "llama" else "BitNetForCausalLM"],
              "model_type": "llama" if arch == "llama" else "bitnet", "hidden_act": "silu",
              "hidden_size": value("embedding_length"), "intermediate_size": value("feed_forward_length"),
              "num_hidden_layers": value("block_count"), "num_attention_heads": value("attention.head_count"),
              "num_key_value_heads": value("attention.head_count_kv"), "max_position_embeddings": value("context_length"),
              "vocab_size": file.tensors["token_embd.weight"].shape[1], "tie_word_embeddings": "output.weight" not in file.tensors,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "bfloat16", "use_cache": True,
              "attention_dropout": 0.0, "initializer_range": 0.02, "pretraining_tp": 1, "transformers_version": "4.46.0"}
    config.update(fields)
    return json.dumps({key: value for key, value in config.items() if value is not None}, indent=1)

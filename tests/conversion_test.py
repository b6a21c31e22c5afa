"""`paritybit verify --hf DIR`: a model file against the checkpoint that it was converted from, with each mistake of a converter."""
import json
import re
import struct
import unittest

from driver import ROOT, Case, main, run
from tiny_gguf import Tensor, config_of, tiny, vector

HEADS, KV_HEADS, D, FF = 4, 2, 64, 128
NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_sub_norm": "self_attn.attn_sub_norm",
         "ffn_sub_norm": "mlp.ffn_sub_norm"}


def values(tensor):
    """The floats of an F32 or F16 tensor."""
    form, size = {"F32": ("f", 4), "F16": ("e", 2)}[tensor.kind]
    return list(struct.unpack(f"<{len(tensor.data) // size}{form}", tensor.data))


def f32(shape, numbers):
    return Tensor("F32", shape, struct.pack(f"<{len(numbers)}f", *numbers))


def rows_of(tensor):
    n = tensor.shape[0]
    numbers = values(tensor)
    return [numbers[i:i + n] for i in range(0, len(numbers), n)]


def flat(rows):
    return [v for row in rows for v in row]


def unpermuted(rows, heads):
    """As transformers has them: of each head first the first of every pair that GGUF's llama has side by side, then the second."""
    n = len(rows) // heads
    return [row for h in range(heads) for half in (0, 1) for row in rows[h * n + half:(h + 1) * n:2]]


def permuted(rows, heads):
    n = len(rows) // heads
    return [rows[h * n + half * n // 2 + i] for h in range(heads) for i in range(n // 2) for half in (0, 1)]


def hf_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output.weight":
        return "lm_head.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{suffix}"


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def pack_f32(rows):
    return struct.pack(f"<{sum(map(len, rows))}f", *flat(rows))


class Conversion(Case):
    def file(self, arch="llama", **more):
        return tiny(arch, layers=2, d=D, ff=FF, heads=HEADS, kv_heads=KV_HEADS, **more)

    def checkpoint(self, file, drop=(), add=None, config=None, name="hf", ternary=None):
        """What a right converter makes this file of. F32, so that it has the file's values to the bit."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        arch = file.values["general.architecture"][1]
        tensors = {}
        for gguf_name, tensor in file.tensors.items():
            rows = rows_of(tensor)
            if arch == "llama" and ".attn_q." in gguf_name:
                rows = unpermuted(rows, HEADS)
            if arch == "llama" and ".attn_k." in gguf_name:
                rows = unpermuted(rows, KV_HEADS)
            if arch.startswith("gemma") and "norm" in gguf_name:
                rows = [[v - 1 for v in row] for row in rows]
            tensors[hf_name(gguf_name)] = ("F32", tensor.shape[::-1], pack_f32(rows))
        for missing in drop:
            del tensors[missing]
        tensors.update(add or {})
        write_safetensors(folder / "model.safetensors", tensors)
        if config is not False:
            (folder / "config.json").write_text(config or config_of(file))
        return folder

    def verify(self, file, checkpoint, *args, name="m.gguf"):
        path = file.write(self.folder / name)
        return run("verify", path, "--hf", checkpoint, "--format", "json", *args)

    def findings(self, result):
        return [(f["code"], f["where"], f["text"]) for f in result.json["findings"] if f["severity"] != "note"]

    def expect(self, result, code, where, text, exit_code=3):
        found = self.findings(result)
        self.assertEqual(len(found), 1, result)
        self.assertEqual((found[0][0], found[0][1]), (code, where), result)
        self.assertIn(text, found[0][2])
        self.assertEqual(result.code, exit_code, result)


class Right(Conversion):
    def assert_right(self, file, checkpoint, n, exact=True):
        result = self.verify(file, checkpoint, "--strict")
        self.assertEqual(self.findings(result), [], result)
        self.assertEqual(result.code, 0, result)
        part = next(p for p in result.json["parts"] if p["name"] == "checkpoint")
        self.assertIn(f"{n} tensors compared" + (f", {n} of them bit by bit equal" if exact else ""), part["text"])

    def test_every_architecture_s_own_way(self):
        for arch in ("llama", "qwen3", "bitnet"):
            with self.subTest(architecture=arch):
                file = self.file("llama" if arch == "qwen3" else arch, tied=False)
                if arch == "qwen3":  # halves: nothing is permuted
                    file.set("general.architecture", 8, "qwen3")
                    for key in [k for k in file.values if k.startswith("llama.")]:
                        file.values["qwen3" + key[5:]] = file.values.pop(key)
                    for i in range(2):
                        for part in ("attn_q_norm", "attn_k_norm"):
                            file.tensors[f"blk.{i}.{part}.weight"] = vector([1.5] * 16)
                    NAMES.update(attn_q_norm="self_attn.q_norm", attn_k_norm="self_attn.k_norm")
                if arch == "bitnet":  # -1, 0 and +1 times a scale
                    for name, tensor in file.tensors.items():
                        if name.startswith("blk.") and "norm" not in name:
                            file.tensors[name] = f32(tensor.shape, [(v > 0.05) * 0.25 - (v < -0.05) * 0.25 for v in values(tensor)])
                checkpoint = self.checkpoint(file, config=config_of(file, model_type=arch))
                self.assert_right(file, checkpoint, len(file.tensors))

    def test_gemma_s_norms(self):
        file = self.file("gemma")
        self.assert_right(file, self.checkpoint(file, config=False), len(file.tensors), exact=False)

    def test_what_rounding_explains(self):
        """The same weights in a type that holds fewer bits, as paritybit's own encoders and llama.cpp's write it."""
        whole = self.folder / "whole/m.gguf"
        self.assertEqual(run("gen-fixtures", "--out", whole, "--weights", "F32", "--distribution", "gaussian").code, 0)
        from gguf_edit import Gguf
        gguf = Gguf(whole)
        tensors = {}
        for name, (kind, shape, at, size) in gguf.tensors.items():
            assert kind == 0
            rows = rows_of(Tensor("F32", shape, gguf.data[at:at + size]))
            rows = unpermuted(rows, 4) if ".attn_q." in name else unpermuted(rows, 2) if ".attn_k." in name else rows
            tensors[hf_name(name)] = ("F32", shape[::-1], pack_f32(rows))
        folder = self.folder / "hf"
        folder.mkdir()
        write_safetensors(folder / "model.safetensors", tensors)
        for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q2_K", "IQ4_XS"):
            with self.subTest(type=kind):
                path = self.folder / kind / "m.gguf"
                self.assertEqual(run("convert", whole, "--weights", kind, "--out", path).code, 0)
                result = run("verify", path, "--hf", folder, "--strict", "--format", "json")
                self.assertEqual(self.findings(result), [], result)
        # Rounded once more than the type says, it is not what the checkpoint gives.
        twice = self.folder / "twice/m.gguf"
        self.assertEqual(run("convert", self.folder / "Q2_K/m.gguf", "--weights", "Q8_0", "--out", twice).code, 0)
        result = run("verify", twice, "--hf", folder, "--format", "json")
        self.assertEqual({code for code, _, _ in self.findings(result)}, {"values-differ"}, result)

    def test_master_weights_become_ternary(self):
        file = self.file("bitnet")
        checkpoint = self.checkpoint(file)
        for name, tensor in file.tensors.items():
            if name.startswith("blk.") and "norm" not in name:
                v = values(tensor)
                mean = sum(map(abs, v)) / len(v)
                file.tensors[name] = f32(tensor.shape, [max(-1, min(1, round(x / mean))) * mean for x in v])
        result = self.verify(file, checkpoint, "--strict")
        self.assertEqual(self.findings(result), [], result)

    def test_the_checkpoint_in_several_files(self):
        file = self.file()
        folder = self.checkpoint(file)
        whole = (folder / "model.safetensors").read_bytes()
        n = struct.unpack_from("<Q", whole)[0]
        header = json.loads(whole[8:8 + n])
        parts, index = [{}, {}], {}
        for i, (name, entry) in enumerate(header.items()):
            begin, end = entry["data_offsets"]
            parts[i % 2][name] = (entry["dtype"], entry["shape"], whole[8 + n + begin:8 + n + end])
            index[name] = f"model-0000{i % 2 + 1}-of-00002.safetensors"
        for i, part in enumerate(parts):
            write_safetensors(folder / f"model-0000{i + 1}-of-00002.safetensors", part)
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        self.assert_right(file, folder, len(file.tensors))
        (folder / "model-00002-of-00002.safetensors").unlink()
        self.expect(self.verify(file, folder), "checkpoint-unreadable", str(folder), "model-00002-of-00002.safetensors")
        index["model.norm.weight"] = "../../etc/passwd"
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        self.expect(self.verify(file, folder), "checkpoint-unreadable", str(folder), "no plain name")


class Mistakes(Conversion):
    def spoil(self, change, arch="llama", **more):
        """A file that a converter made with one mistake: change(file) after the checkpoint was written."""
        file = self.file(arch, **more)
        checkpoint = self.checkpoint(file, config=False if arch.startswith("gemma") else None)
        change(file)
        return self.verify(file, checkpoint)

    def test_rows_not_permuted(self):
        def change(file):
            tensor = file.tensors["blk.1.attn_k.weight"]
            file.tensors["blk.1.attn_k.weight"] = f32(tensor.shape, flat(unpermuted(rows_of(tensor), KV_HEADS)))
        self.expect(self.spoil(change), "conversion", "blk.1.attn_k.weight", "were not permuted")

    def test_rows_permuted_that_should_not_be(self):
        def change(file):
            tensor = file.tensors["blk.0.attn_q.weight"]
            file.tensors["blk.0.attn_q.weight"] = f32(tensor.shape, flat(permuted(rows_of(tensor), HEADS)))
        file = self.file("bitnet")
        for name, tensor in file.tensors.items():
            if name.startswith("blk.") and "norm" not in name:
                file.tensors[name] = f32(tensor.shape, [(v > 0.05) - (v < -0.05) for v in values(tensor)])
        checkpoint = self.checkpoint(file)
        change(file)
        self.expect(self.verify(file, checkpoint), "conversion", "blk.0.attn_q.weight", "were permuted")

    def test_one_not_added_to_a_norm(self):
        def change(file):
            file.tensors["blk.0.attn_norm.weight"] = vector([v - 1 for v in values(file.tensors["blk.0.attn_norm.weight"])])
        self.expect(self.spoil(change, "gemma"), "conversion", "blk.0.attn_norm.weight", "1 was not added")

    def test_one_added_to_a_norm(self):
        def change(file):
            file.tensors["output_norm.weight"] = vector([v + 1 for v in values(file.tensors["output_norm.weight"])])
        self.expect(self.spoil(change), "conversion", "output_norm.weight", "1 was added")

    def test_a_square_matrix_transposed(self):
        def change(file):
            tensor = file.tensors["blk.0.attn_output.weight"]
            file.tensors["blk.0.attn_output.weight"] = f32(tensor.shape, flat(zip(*rows_of(tensor))))
        self.expect(self.spoil(change), "conversion", "blk.0.attn_output.weight", "transposed")

    def test_two_tensors_exchanged(self):
        def change(file):
            t = file.tensors
            t["blk.0.ffn_gate.weight"], t["blk.0.ffn_up.weight"] = t["blk.0.ffn_up.weight"], t["blk.0.ffn_gate.weight"]
        found = self.findings(self.spoil(change))
        self.assertEqual([(c, w) for c, w, _ in found], [("conversion", "blk.0.ffn_gate.weight"), ("conversion", "blk.0.ffn_up.weight")])
        self.assertIn("it holds model.layers.0.mlp.up_proj.weight", found[0][2])

    def test_a_factor(self):
        for factor, text in ((3.0, "multiplied by 3"), (-1.0, "its sign is turned round")):
            def change(file):
                tensor = file.tensors["blk.0.ffn_down.weight"]
                file.tensors["blk.0.ffn_down.weight"] = f32(tensor.shape, [factor * v for v in values(tensor)])
            self.expect(self.spoil(change), "conversion", "blk.0.ffn_down.weight", text)

    def test_one_row(self):
        def change(file):
            row = file.row("token_embd.weight", 200)
            file.tensors["token_embd.weight"].data[row] = bytes(file.tensors["token_embd.weight"].data[file.row("token_embd.weight", 7)])
        self.expect(self.spoil(change), "values-differ", "token_embd.weight", "the worst is row 200")

    def test_other_values(self):
        def change(file):
            tensor = file.tensors["blk.0.attn_v.weight"]
            file.tensors["blk.0.attn_v.weight"] = f32(tensor.shape, values(tensor)[::-1])
        self.expect(self.spoil(change), "values-differ", "blk.0.attn_v.weight", "no mistake that is known here")

    def test_tensors_that_were_never_read(self):
        file = self.file()
        bias = {"model.layers.0.self_attn.q_proj.bias": ("F32", [D], bytes(4 * D))}
        self.expect(self.verify(file, self.checkpoint(file, add=bias)), "checkpoint-unread", "model.layers.0.self_attn.q_proj.bias",
                    "no tensor of the file was made of", exit_code=0)
        # Of no use to anyone who computes.
        useless = {"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [8], bytes(32))}
        self.assertEqual(self.findings(self.verify(file, self.checkpoint(file, add=useless))), [])
        self.expect(self.verify(file, self.checkpoint(file, drop=["model.layers.1.mlp.up_proj.weight"])), "checkpoint-missing",
                    "blk.1.ffn_up.weight", "nothing in the checkpoint makes", exit_code=0)

    def test_a_head_that_was_left_out(self):
        file = self.file(tied=False)
        checkpoint = self.checkpoint(file, config=config_of(file, tie_word_embeddings=None))
        file.drop("output.weight")
        self.expect(self.verify(file, checkpoint), "conversion", "output.weight", "lm_head.weight was left out")

    def test_what_cannot_be_compared(self):
        file = self.file()
        checkpoint = self.checkpoint(file)
        file.tensors["blk.0.attn_v.weight"].kind = "I8"
        from tiny_gguf import TYPES
        TYPES["I8"] = (24, 1, 1)
        file.tensors["blk.0.attn_v.weight"].data = bytearray(b"\x01" * (len(file.tensors["blk.0.attn_v.weight"].data) // 2))
        result = self.verify(file, checkpoint)
        self.assertIn(("values-not-compared", "blk.0.attn_v.weight", "its type is I8"), self.findings(result), result)

    def test_the_checkpoint_s_own_config_counts(self):
        file = self.file()
        result = self.verify(file, self.checkpoint(file, config=config_of(file, rope_theta=500000.0)))
        self.expect(result, "contradicted", "rope_theta", "500000")


class Packed(Conversion):
    """BitNet's packed form: four rows of codes to a byte, and one scale."""

    def test_scales_multiply_or_divide(self):
        file = self.file("bitnet")
        packed = {}
        scale = 0.5
        for name, tensor in list(file.tensors.items()):
            if not name.startswith("blk.") or "norm" in name:
                continue
            codes = [[(v > 0.05) - (v < -0.05) + 1 for v in row] for row in rows_of(tensor)]
            file.tensors[name] = f32(tensor.shape, [(c - 1) * scale for c in flat(codes)])
            n = len(codes) // 4
            data = bytes(sum(codes[i * n + r][c] << (2 * i) for i in range(4)) for r in range(n) for c in range(len(codes[0])))
            packed[hf_name(name)] = ("U8", [n, len(codes[0])], data)
            packed[hf_name(name) + "_scale"] = ("F32", [1], struct.pack("<f", scale))
        auto = config_of(file, quantization_config={"quant_method": "bitnet", "linear_class": "autobitlinear"})
        result = self.verify(file, self.checkpoint(file, add=packed, config=auto), "--strict")
        self.assertEqual(self.findings(result), [], result)
        # The older class divides by the same number.
        old = config_of(file, quantization_config={"quant_method": "bitnet", "linear_class": "bitlinear"})
        found = self.findings(self.verify(file, self.checkpoint(file, add=packed, config=old)))
        self.assertEqual(len(found), len(packed) // 2)
        self.assertTrue(all(code == "conversion" and "divided by its scale instead of multiplied" in text for code, _, text in found), found)


class Document(unittest.TestCase):
    def test_every_kind_of_the_checkpoint_s_has_a_test(self):
        source = (ROOT / "tests/conversion_test.py").read_text()
        doc = (ROOT / "docs/verify.md").read_text()
        codes = re.findall(r"^\| `(checkpoint-[a-z]+|conversion|values-[a-z-]+)` \|", doc, re.M)
        self.assertEqual(len(codes), 6)
        for code in codes:
            self.assertIn(f'"{code}"', source)


if __name__ == "__main__":
    main()

"""`paritybit verify`: each kind of fault that shows without running a model, and models that have none."""
import json
import re
import struct

from driver import ROOT, SILU, Case, main, paste, run
from gguf_edit import Gguf
from tiny_gguf import ARRAY, I32, STRING, U16, U32, config_of, tiny, vector

DOC = (ROOT / "docs/verify.md").read_text()
I2_S = SILU / "tiny-bitnet-silu-i2_s.gguf"
I2_S_TYPE = 36


def documented():
    """code -> severity, of the table in docs/verify.md."""
    return dict(re.findall(r"^\| `([a-z0-9-]+)` \| (note|warning|error) \|", DOC, re.M))


class Verify(Case):
    def model(self, file, name="m", config=None):
        path = file.write(self.folder / name / "m.gguf")
        if config:
            (path.parent / "config.json").write_text(config)
        return path

    def verify(self, path, *args, code=0):
        result = run("verify", path, "--format", "json", *args)
        self.assertEqual(result.code, code, result)
        self.assertEqual(result.json["exit_code"], code, result)
        self.assertEqual(result.json["verdict"], "invalid" if code == 3 else "sound", result)
        return result

    def codes(self, result, least="note"):
        order = ["note", "warning", "error"]
        return {f["code"] for f in result.json["findings"] if order.index(f["severity"]) >= order.index(least)}

    def expect_finding(self, path, code, *args, where=None, text=None, strict=True):
        """The file has this finding; exit codes follow from its severity, and it is the only one of an error's rank."""
        severity = documented()[code]
        result = self.verify(path, *args, code=3 if severity == "error" else 0)
        found = [f for f in result.json["findings"] if f["code"] == code]
        self.assertTrue(found, result)
        self.assertEqual(found[0]["severity"], severity)
        self.assertTrue(found[0]["consequence"] and found[0]["cure"], result)
        if where:
            self.assertIn(where, [f["where"] for f in found])
        if text:
            self.assertIn(text, found[0]["text"])
        if severity == "error":
            self.assertEqual(self.codes(result, "error"), {code}, result)
            self.assertIn(code, result.codes())
        else:
            self.assertFalse(self.codes(result, "error"), result)
            self.verify(path, "--strict", *args, code=3 if self.codes(result, "warning") else 0)
        return result


class Sound(Verify):
    def assert_sound(self, path, *args):
        result = self.verify(path, "--strict", *args)
        self.assertEqual(self.codes(result, "warning"), set(), result)
        return result

    def test_bundled_models(self):
        models = sorted(ROOT.glob("models/*/*.gguf"))
        self.assertGreaterEqual(len(models), 6)
        for path in models:
            with self.subTest(model=path.name):
                result = self.assert_sound(path)
                self.assertIn("68 of 68 names are known", str(result.json["parts"]))
                if "i2_s" in path.name:
                    self.assertIn("groups of 128 values", str(result.json["parts"]))

    def test_smollm2(self):
        result = self.assert_sound("smollm2")
        self.assertIn("272 of 272 names are known", str(result.json["parts"]))
        self.assertIn("134515008 values", str(result.json["parts"]))

    def test_generated_architectures(self):
        for arch in ("llama", "qwen2", "qwen3", "phi3", "bitnet", "bitnet-25", "bitnet-b1.58"):
            with self.subTest(architecture=arch):
                path = self.folder / arch / "m.gguf"
                self.assertEqual(run("gen-fixtures", "--out", path, "--architecture", arch, "--weights", "F16").code, 0)
                self.assert_sound(path)

    def test_generated_types(self):
        types = run("check-features", "--format", "json").json["weight_types"]
        self.assertGreater(len(types), 15)
        for kind in types:
            with self.subTest(type=kind):
                path = self.folder / kind / "m.gguf"
                self.assertEqual(run("gen-fixtures", "--out", path, "--weights", kind, "--architecture",
                                     "bitnet-b1.58" if kind == "I2_S" else "bitnet").code, 0)
                self.assert_sound(path)

    def test_what_tiny_gguf_writes(self):
        """As converters write it, with a config.json that agrees."""
        for arch in ("llama", "bitnet"):
            file = tiny(arch)
            self.assert_sound(self.model(file, arch, config_of(file)))

    def test_a_tokeniser_of_its_own(self):
        self.assert_sound(SILU / "tiny-bitnet-silu-tq2_0.gguf", "--tokenizer", I2_S)


class Structure(Verify):
    def raw(self, change, name="m"):
        """A tiny file whose bytes are changed: change(bytearray, Gguf) -> bytes."""
        path = self.model(tiny(), name)
        data = change(bytearray(path.read_bytes()), path)
        path.write_bytes(data)
        return path

    def test_the_header(self):
        for i, change in enumerate((lambda b, p: b"GGML" + b[4:], lambda b, p: b[:40], lambda b, p: b"", lambda b, p:
                                    b[:8] + b"\xff" * 8 + b[16:])):
            result = self.expect_finding(self.raw(change, f"m{i}"), "file-unreadable")
            self.assertIn("byte ", str(result.json["findings"]))

    def info(self, path, name):
        """Where the description of a tensor has its type; its offset stands four bytes behind."""
        data = path.read_bytes()
        at = data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)
        return at + 4 + 8 * struct.unpack_from("<I", data, at)[0]

    def change_info(self, name, **values):
        def change(data, path):
            at = self.info(path, name)
            if "kind" in values:
                struct.pack_into("<I", data, at, values["kind"])
            if "offset" in values:
                struct.pack_into("<Q", data, at + 4, values["offset"](struct.unpack_from("<Q", data, at + 4)[0]))
            return data
        return self.raw(change, values.get("folder", "m"))

    def test_types(self):
        self.expect_finding(self.change_info("blk.0.attn_q.weight", kind=99), "tensor-type", where="blk.0.attn_q.weight")
        # 38 is TL1 of bitnet.cpp, whose layout nobody else knows.
        self.expect_finding(self.change_info("blk.0.attn_q.weight", kind=38), "tensor-foreign", where="blk.0.attn_q.weight")

    def test_places(self):
        name = "blk.0.ffn_down.weight"
        self.expect_finding(self.change_info(name, offset=lambda at: at + 1, folder="a"), "tensor-misaligned", where=name)
        self.expect_finding(self.change_info(name, offset=lambda at: 1 << 40, folder="b"), "tensor-beyond-file", where=name)
        self.expect_finding(self.change_info(name, offset=lambda at: at - 32, folder="c"), "tensor-overlap")
        cut = self.expect_finding(self.raw(lambda b, p: b[:-100], "d"), "tensor-beyond-file", where="output_norm.weight")
        self.assertIn("(100 missing)", str(cut.json["findings"]))
        self.expect_finding(self.raw(lambda b, p: b + bytes(320), "e"), "file-gap", text="320 bytes in 1 place")

    def shards(self, name, no=(0, 1), count=(2, 2), total=None, twice=False):
        whole = tiny(layers=2)
        names = list(whole.tensors)
        half = len(names) // 2
        for i in range(2):
            part = tiny(layers=2)
            for tensor in names:
                if (tensor in names[:half]) != (i == 0) and not (twice and tensor == names[0]):
                    part.drop(tensor)
            if i:
                part.values.clear()
            part.set("split.no", U16, no[i])
            part.set("split.count", U16, count[i])
            part.set("split.tensors.count", I32, len(names) if total is None else total)
            part.write(self.folder / name / f"m-0000{i + 1}-of-00002.gguf")
        return self.folder / name / "m-00001-of-00002.gguf"

    def test_shards(self):
        first = self.shards("whole")
        result = self.expect_finding(first, "shards")
        self.assertEqual(self.codes(result, "warning"), set(), result)
        self.assertIn("20 of 20 names are known", str(result.json["parts"]))
        self.verify(first.with_name("m-00002-of-00002.gguf"))
        first.with_name("m-00002-of-00002.gguf").unlink()
        result = self.verify(first, code=3)
        self.assertEqual(self.codes(result, "error"), {"shard-missing", "tensor-missing"}, result)
        for i, fault in enumerate(({"no": (0, 0)}, {"count": (2, 3)}, {"total": 5}, {"twice": True})):
            with self.subTest(fault=fault):
                self.expect_finding(self.shards(f"s{i}", **fault), "shard-mismatch")
        alone = tiny()
        alone.set("split.count", U16, 3)
        result = self.verify(self.model(alone, "alone"), code=3)
        self.assertIn("shard-missing", self.codes(result), result)


class Declarations(Verify):
    def with_key(self, *key, name="m", config=None, **more):
        file = tiny(**more)
        file.set(*key)
        return self.model(file, name, config and config_of(file, **config))

    def test_metadata(self):
        file = tiny()
        file.drop("llama.block_count")
        self.expect_finding(self.model(file), "metadata", text="llama.block_count is missing")
        self.expect_finding(self.with_key("llama.attention.head_count", U32, 3, name="b"), "metadata")
        self.expect_finding(self.with_key("general.architecture", U32, 3, name="c"), "metadata")

    def test_what_the_engines_own_reader_refuses(self):
        file = tiny()
        file.tensors["rope_freqs.weight"] = vector([1.0] * 7 + [-2.0])
        self.expect_finding(self.model(file), "metadata", text="rope_freqs.weight")

    def test_what_nothing_here_runs(self):
        self.expect_finding(self.model(tiny("falcon9")), "architecture-foreign")
        self.expect_finding(self.with_key("llama.expert_count", U32, 4, name="b"), "not-offered", text="llama.expert_count")

    def test_what_is_contradicted(self):
        file = tiny()
        result = self.expect_finding(self.model(file, "a", config_of(file, rope_theta=500000.0)), "contradicted", where="rope_theta")
        self.assertIn("--set rope.base=500000", result.json["findings"][0]["cure"])
        self.verify(self.folder / "a/m.gguf", "--set", "rope.base=500000")
        self.verify(self.folder / "a/m.gguf", "--hf-config", "none")
        other = self.folder / "other.json"
        other.write_text(config_of(file, rms_norm_eps=1e-6))
        self.model(file, "d")
        self.expect_finding(self.folder / "d/m.gguf", "contradicted", "--hf-config", other, where="rms_norm_eps")
        self.expect_finding(self.model(file, "b", config_of(file, sliding_window=64)), "contradicted-beyond")
        self.expect_finding(self.model(file, "c", config_of(file, max_position_embeddings=4096)), "declared")

    def test_what_is_unheard_or_undeclared(self):
        self.expect_finding(self.with_key("llama.new_key", U32, 4), "unheard", where="llama.new_key")
        self.expect_finding(self.model(tiny("bitnet"), "b"), "activation-undeclared")
        self.expect_finding(self.with_key("general.file_type", U32, 0, name="c"), "file-type")

    def test_a_llama_3_1_without_its_factors(self):
        file = tiny(d=32, ff=32, n_vocab=128256, base=500000.0, n_ctx=131072)
        self.expect_finding(self.model(file), "rope-freqs-missing")
        # LLaMA 3 has none.
        file = tiny(d=32, ff=32, n_vocab=128256, base=500000.0, n_ctx=8192)
        self.assertNotIn("rope-freqs-missing", self.codes(self.verify(self.model(file, "b"))))


class Tensors(Verify):
    def test_names_and_shapes(self):
        file = tiny()
        file.drop("blk.0.ffn_up.weight")
        self.expect_finding(self.model(file, "a"), "tensor-missing", where="blk.0.ffn_up.weight")
        file = tiny()
        file.tensors["blk.0.ffn_up.weight"].shape.reverse()
        self.expect_finding(self.model(file, "b"), "tensor-shape", where="blk.0.ffn_up.weight", text="(128, 64)")
        file = tiny()
        file.tensors["blk.0.attn_magic.weight"] = vector([1.0] * 64)
        self.expect_finding(self.model(file, "c"), "tensor-unknown", where="blk.0.attn_magic.weight")
        file = tiny("falcon9")
        file.tensors["blk.0.attn_magic.weight"] = vector([1.0] * 64)
        self.expect_finding(self.model(file, "d"), "tensor-unknown", where="blk.0.attn_magic.weight")

    def test_a_layer_count_that_no_file_holds(self):
        file = tiny()
        file.set("llama.block_count", U32, 1 << 24)
        self.verify(self.model(file), code=3)

    def test_an_embedding_written_twice(self):
        file = tiny(tied=False)
        file.tensors["output.weight"] = file.tensors["token_embd.weight"]
        self.expect_finding(self.model(file), "output-twin")


class Values(Verify):
    def test_nan_and_infinity(self):
        file = tiny()
        file.tensors["blk.0.ffn_up.weight"].data[200:202] = b"\x00\x7c"
        self.expect_finding(self.model(file, "a"), "not-finite", text="row 1, holds infinity")
        file = tiny(d=256, ff=256, weights="Q8_0", embedding="Q8_0", tied=False, n_vocab=320)
        row = file.row("token_embd.weight", 300)
        file.tensors["token_embd.weight"].data[row.start:row.start + 2] = b"\x00\x7e"
        self.expect_finding(self.model(file, "b"), "not-finite-row", text="row 300, holds NaN")
        # Tied to the output matrix, it spoils every text.
        file.drop("output.weight")
        self.expect_finding(self.model(file, "c"), "not-finite")

    def test_zeros(self):
        for name in ("blk.0.attn_norm.weight", "blk.0.ffn_down.weight"):
            file = tiny()
            file.tensors[name].data[:] = bytes(len(file.tensors[name].data))
            self.expect_finding(self.model(file, name), "tensor-zero", where=name)
        file = tiny()
        file.tensors["token_embd.weight"].data[:256] = bytes(256)
        self.expect_finding(self.model(file, "rows"), "rows-zero", text="token_embd.weight (2 of ")
        file = tiny("bitnet", d=256, ff=256, weights="TQ2_0")
        file.tensors["blk.0.attn_q.weight"].data[64:66] = bytes(2)
        self.expect_finding(self.model(file, "scale", config_of(file)), "scale-zero", text="1 blocks of TQ2_0")

    def test_norms(self):
        file = tiny("bitnet")
        file.tensors["blk.0.ffn_norm.weight"] = vector([0.01] * 64)  # attn_norm may be so small
        file.tensors["blk.0.attn_norm.weight"] = vector([0.02] * 64)
        result = self.expect_finding(self.model(file, "a", config_of(file)), "norm-band", where="blk.0.ffn_norm.weight")
        self.assertEqual(len([f for f in result.json["findings"] if f["code"] == "norm-band"]), 1, result)
        file = tiny()
        file.tensors["blk.0.ffn_norm.weight"] = vector([9.0] * 64)
        self.expect_finding(self.model(file, "b"), "norm-usual", text="1 of 3 norms")

    def test_projections(self):
        file = tiny("bitnet")
        n = len(file.tensors["blk.0.attn_k.weight"].data) // 2
        file.tensors["blk.0.attn_k.weight"].data[:] = struct.pack("<e", 3.0) * n
        self.expect_finding(self.model(file, "a", config_of(file)), "projection-band", text="blk.0.attn_k.weight (3)")


class Arrangement(Verify):
    """I2_S: codes, scale, trailer, and which of its three arrangements a file has."""

    def setUp(self):
        super().setUp()
        (self.folder / "config.json").write_bytes((SILU / "config.json").read_bytes())

    def edit(self, change):
        """The bundled model, with the bytes of each I2_S tensor (codes, trailer) as change returns them."""
        gguf = Gguf(I2_S)
        for name, (kind, shape, at, _) in gguf.tensors.items():
            if kind == I2_S_TYPE:
                n = shape[0] * shape[1] // 4
                codes, tail = change(name, shape, bytes(gguf.data[at:at + n]), bytes(gguf.data[at + n:at + n + 32]))
                gguf.data[at:at + n + 32] = codes + tail
        gguf.save(self.folder / "m.gguf")
        return self.folder / "m.gguf"

    def test_codes_and_scale(self):
        q = "blk.1.attn_q.weight"
        at = lambda name, codes: codes[:7] + b"\xff" + codes[8:] if name == q else codes
        self.expect_finding(self.edit(lambda n, s, c, t: (at(n, c), t)), "i2s-code3", where=q, text="4 times")
        scale = lambda value: self.edit(lambda n, s, c, t: (c, struct.pack("<f", value) * 8 if n == q else t))
        for value in (float("nan"), float("inf"), 0.0, -1.0):
            self.expect_finding(scale(value), "i2s-scale", where=q)
        self.expect_finding(self.edit(lambda n, s, c, t: (c, t[:4] + b"\x01" * 28 if n == q else t)), "i2s-trailer", where=q)
        # One of the known writers leaves zeros.
        self.verify(self.edit(lambda n, s, c, t: (c, t[:4] + bytes(28))), "--strict")

    def test_llama_cpp_does_not_read_it(self):
        self.expect_finding(I2_S, "i2s-readers")

    def test_groups_of_64(self):
        def repack(_, shape, codes, tail):
            """128 codes of 32 bytes (p, p+32, p+64, p+96 in byte p) into two groups of 16 bytes (p, p+16, p+32, p+48)."""
            out = bytearray()
            for at in range(0, len(codes), 32):
                block = codes[at:at + 32]
                for half in (0, 2):
                    first, second = 6 - 2 * half, 4 - 2 * half
                    for p in range(16):
                        a, b = block[p], block[p + 16]
                        out.append((a >> first & 3) << 6 | (b >> first & 3) << 4 | (a >> second & 3) << 2 | (b >> second & 3))
            return bytes(out), tail
        result = self.expect_finding(self.edit(repack), "i2s-groups-of-64", text="groups of 64 values")
        self.assertIn("Arm", str(result.json["parts"]))

    def test_four_rows(self):
        def repack(_, shape, codes, tail):
            columns, rows = shape
            n = columns // 4
            def code(row, c):
                return codes[row * n + c // 128 * 32 + c % 32] >> (6 - c % 128 // 32 * 2) & 3
            table = [[code(r, c) for c in range(columns)] for r in range(rows)]
            out = bytearray()
            for r in range(0, rows, 4):
                out += bytes(a << 6 | b << 4 | c << 2 | d for a, b, c, d in zip(*table[r:r + 4]))
            return bytes(out), tail
        self.expect_finding(self.edit(repack), "i2s-four-rows")

    def test_weights_that_do_not_tell(self):
        path = self.folder / "random" / "m.gguf"
        self.assertEqual(run("gen-fixtures", "--out", path, "--architecture", "bitnet-b1.58", "--weights", "I2_S").code, 0)
        self.expect_finding(path, "i2s-arrangement")


class Tokeniser(Verify):
    def test_keys(self):
        file = tiny()
        file.drop("tokenizer.ggml.model")
        self.expect_finding(self.model(file, "a"), "tokenizer-missing")
        file = tiny()
        file.drop("tokenizer.ggml.pre")
        self.expect_finding(self.model(file, "b"), "tokenizer-pre-missing")
        file = tiny()
        file.set("tokenizer.ggml.model", STRING, "rwkv")
        self.expect_finding(self.model(file, "c"), "tokenizer-foreign")
        file = tiny()
        file.set("tokenizer.ggml.bos_token_id", U32, 5000)
        self.expect_finding(self.model(file, "d"), "tokenizer-broken", text="5000")

    def tokens(self, change, name):
        file = tiny()
        tokens = list(file.values["tokenizer.ggml.tokens"][1])
        change(tokens)
        file.set("tokenizer.ggml.tokens", ARRAY, tokens, STRING)
        return self.model(file, name)

    def test_tables(self):
        def put(i, token):
            return lambda tokens: tokens.__setitem__(i, token)
        self.expect_finding(self.tokens(put(70, "!"), "a"), "tokenizer-broken", text='are both "!"')
        self.expect_finding(self.tokens(put(262, ""), "b"), "tokenizer-open")
        self.expect_finding(self.tokens(put(66, "bb"), "c"), "bytes-missing", text="1 of 256 bytes have no token, the first is 0x42")
        result = self.verify(self.tokens(lambda tokens: tokens.append("more"), "d"), code=3)
        self.assertIn("vocabulary-rows", self.codes(result, "error"), result)

    def test_another_tokeniser_file(self):
        model = self.model(tiny(), "m")
        file = tiny()
        file.values["tokenizer.ggml.tokens"][1][262] = "other"
        other = self.model(file, "other")
        self.expect_finding(model, "tokenizer-differs", "--tokenizer", other, text="the first is 262")
        values = tiny().values
        vocab = {token: i for i, token in enumerate(values["tokenizer.ggml.tokens"][1])}
        added = [{"id": vocab.pop(token), "content": token, "special": True} for token in ("<|begin_of_text|>", "<|end_of_text|>")]
        merges = values["tokenizer.ggml.merges"][1]
        written = self.folder / "tokenizer.json"

        def write(vocab, merges):
            written.write_text(json.dumps({"added_tokens": added, "model": {"type": "BPE", "vocab": vocab, "merges": merges}}))
            return written
        self.verify(model, "--tokenizer", write(vocab, merges))
        self.verify(model, "--tokenizer", write(vocab, [merge.split(" ") for merge in merges]))
        self.expect_finding(model, "tokenizer-differs", "--tokenizer", write(vocab, merges[::-1]), text="merges differ")
        self.expect_finding(model, "tokenizer-differs", "--tokenizer", write({**vocab, "extra": 300}, merges))
        for text in ("", "[]", '{"model": {"vocab": {"a": -1}}}', '{"model": 3}', "{" * 100):
            written.write_text(text)
            self.expect_finding(model, "tokenizer-differs", "--tokenizer", written)


class Command(Verify):
    def test_the_model_is_named_once(self):
        model = self.model(tiny())
        by_flag = run("verify", "--model", model)
        self.assertEqual((by_flag.code, by_flag.out), (0, run("verify", model).out), by_flag)
        self.assertEqual(run("verify", env={"CROSSVAL_GGUF": model}).code, 0)
        for args, code in ((("--model", model, model), 2), ((), 2), ((self.folder / "none.gguf",), 5), ((self.folder,), 5),
                           ((model, "--set", "kv.type=f16"), 2), ((model, "--hf-config", self.folder / "none.json"), 3)):
            self.assertEqual(run("verify", *args).code, code, args)

    def test_text(self):
        model = self.model(tiny())
        for form in ("text", "human"):
            result = run("verify", model, "--format", form)
            self.assertTrue(result.out.startswith("SOUND  "), result)
            self.assertLessEqual(max(map(len, result.out.splitlines())), max(80, len(str(model)) + 20), result)

    def test_names_are_escaped(self):
        file = tiny()
        file.tensors["blk.0.\x1b[31m\u202eevil"] = vector([1.0])
        for form in ("text", "json"):
            result = run("verify", self.model(file), "--format", form)
            self.assertNotIn("\x1b", result.out)
        self.assertIn("evil", result.out)

    def test_the_example_of_the_document_is_what_it_prints(self):
        (self.folder / "models").symlink_to(ROOT / "models")
        examples = re.findall(r"^    \$ (.*paritybit verify.*)\n((?:    .*\n|\n(?=    ))+)", DOC, re.M)
        self.assertGreaterEqual(len(examples), 2)
        for line, text in examples:
            result = paste(line, cwd=self.folder)
            self.assertEqual(result.out, re.sub(r"^    ", "", text, flags=re.M), line)

    def test_every_kind_has_a_test(self):
        source = (ROOT / "tests/verify_test.py").read_text()
        self.assertGreater(len(documented()), 40)
        for code in documented():
            if not code.startswith(("checkpoint-", "conversion", "values-")):  # conversion_test.py
                self.assertIn(f'"{code}"', source)


class Damage(Verify):
    def test_no_flipped_byte_crashes(self):
        """Every 61st byte of the header, and what follows it, in turn: a verdict each time, never a crash."""
        whole = tiny(layers=1).bytes()
        path = self.folder / "m.gguf"
        for at in list(range(0, 4000, 61)) + [8, 16, 24, 32]:
            data = bytearray(whole)
            data[at] ^= 0x81
            path.write_bytes(data)
            result = run("verify", path, "--format", "json", timeout=60)
            self.assertIn(result.code, (0, 3), (at, result))
            self.assertEqual(result.json["exit_code"], result.code)


if __name__ == "__main__":
    main()

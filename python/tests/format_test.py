#!/usr/bin/env python3
"""The package without PyTorch: vocabulary, BLAKE3, sketches, writer and reader."""
import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
from support import ROOT, Case, cache_folder, main

import paritybit
from paritybit import blake3, record, vocabulary
from paritybit.sketch import Sketch, Sketcher

VALUES = np.array([[1.0, -2.5, 3.25], [0.0, 1e-3, -0.0]], np.float32)
# By the official C implementation over those 24 bytes.
VALUES_BLAKE3 = "ebb7793ef69819e560e739511b2d75c7099e3e79255cd64104757e775ceb1b79"


class Vocabulary(Case):
    def test_is_that_of_the_header(self):
        header = (ROOT / "src/abi/vocabulary.h").read_text()
        rows = re.findall(r'\{PB_STAGE_\w+, "(\w+)", (\d+), (\d), (\d), "([^"]*)",', header)
        self.assertEqual([vocabulary.Stage(n, int(o), l == "1", c == "1", s) for n, o, l, c, s in rows], list(vocabulary.STAGES))
        self.assertEqual(len(rows), 44)


class Blake3(Case):
    def test_official_vectors(self):
        text = (ROOT / "src/base/blake3_test.cc").read_text()
        vectors = re.findall(r'\{(\d+), "([0-9a-f]{64})"\}', text)  # of the official test_vectors.json
        self.assertEqual(len(vectors), 35)
        for n, expected in ((int(n), digest) for n, digest in vectors):
            data = (np.arange(n) % 251).astype(np.uint8)
            self.assertEqual(blake3.digest(data), expected, n)
            self.assertEqual(blake3.Blake3().update(data).hexdigest(), expected, n)
            rows = np.stack([data, data[::-1], data])
            self.assertEqual(blake3.digest_rows(rows)[::2], [expected, expected], n)
            for most in (1, 63, 1025, 3000):
                if n < 200 if most < 64 else n < 20000:
                    self.assertEqual(self.in_pieces(data, most), expected, (n, most))

    def in_pieces(self, data, most):
        random, hasher, at = np.random.default_rng(7), blake3.Blake3(), 0
        while at < len(data):
            size = int(random.integers(1, most + 1))
            hasher.update(data[at:at + size])
            if at < 100:
                hasher.hexdigest()  # leaves it as it is
            at += size
        return hasher.hexdigest()


class Sketches(Case):
    def test_distance(self):
        """Above 1e-3 told within 25 % in 99 % of cases (docs/format_trace.md)."""
        random, sketcher, good = np.random.default_rng(1), Sketcher(), 0
        for trial in range(300):
            x = random.standard_normal((3, 300)).astype(np.float32)
            y = (x + 10.0 ** random.uniform(-3, 0) * random.standard_normal((3, 300))).astype(np.float32)
            exact = float(np.linalg.norm(x.astype(np.float64) - y))
            told = sketcher.sketch(x, 5).squared_distance(sketcher.sketch(y, 5)) ** 0.5
            good += abs(told - exact) <= 0.25 * exact
        self.assertGreaterEqual(good, 0.99 * 300 - 2)

    def test_rows_sum_to_the_whole(self):
        sketcher, x = Sketcher(), np.random.default_rng(2).standard_normal((4, 100)).astype(np.float32)
        whole = sketcher.sketch(x, 3)
        rows = sum(float(s.scale) * s.codes.astype(np.float64) for s in sketcher.sketch_rows(x, 3))
        np.testing.assert_allclose(rows, float(whole.scale) * whole.codes, atol=3 * float(whole.scale))

    def test_damaged(self):
        for data in (b"", b"\0" * 131, b"\0" * 133, np.float32(np.nan).tobytes() + b"\0" * 128, np.float32(-1).tobytes() + b"\0" * 128):
            with self.assertRaises(ValueError):
                Sketch.from_bytes(data)


def write_two_steps(writer):
    writer.begin_step(0, [5, 6])
    writer.append("embeddings", -1, VALUES)
    writer.append("q_proj", 3, VALUES[:1], position=1)
    writer.begin_step(2, [7])
    writer.append("attn_scores", 3, np.array([[[1, np.inf, -np.inf], [np.nan, 2, -np.inf]]], np.float32))
    writer.append("odd op", 0, VALUES[:1], dtype="BF16")


class Folders(Case):
    def manifest(self, level="full", per_row=False):
        return paritybit.Manifest(level=level, per_row=per_row, engine='test "quoted"', engine_facts=[("name", "test", "observed")],
                                  unobservable={"ffn_act": "inside the gated product"})

    def write(self, name="a", **kwargs):
        writer = paritybit.Writer(self.folder / name, self.manifest(**kwargs))
        write_two_steps(writer)
        writer.finish("b" * 64, "c" * 64)
        return self.folder / name

    def refused(self, folder, *words):
        with self.assertRaises(paritybit.TraceError) as caught:
            trace = paritybit.Trace.open(folder)
            for r in trace.records:
                trace.payload(r)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_what_is_written_is_read(self):
        trace = paritybit.Trace.open(self.write(per_row=True))
        m = trace.manifest
        self.assertTrue(m.complete)
        self.assertEqual((m.engine, m.tokens, m.n_prompt, m.n_records), ('test "quoted"', [5, 6, 7], 2, 4))
        self.assertEqual((m.engine_facts, m.unobservable), ([("name", "test", "observed")], {"ffn_act": "inside the gated product"}))
        self.assertEqual([(s.seq, s.first_position, s.tokens) for s in trace.steps], [(0, 0, [5, 6]), (1, 2, [7])])
        embeddings, q, scores, odd = trace.records
        self.assertEqual((embeddings.name, embeddings.blake3, embeddings.shape), ("t0/embeddings", VALUES_BLAKE3, (2, 3)))
        self.assertAlmostEqual(embeddings.rms, float(np.sqrt((1 + 6.25 + 10.5625 + 1e-6) / 6)), places=8)
        self.assertEqual(q.name, "t0/blk3/q_proj@1")  # does not begin where its step begins
        self.assertEqual((scores.nan, scores.inf, scores.neg_inf), (1, 1, 2))
        self.assertAlmostEqual(scores.rms, 2.5**0.5)  # over the finite values
        self.assertEqual((odd.stage, odd.dtype), ("odd op", "BF16"))
        self.assertEqual([len(embeddings.row_blake3), len(embeddings.row_sketch)], [2, 2])
        np.testing.assert_array_equal(trace.payload(embeddings), VALUES)
        np.testing.assert_array_equal(trace.rows("embeddings"), VALUES)
        self.assertEqual([r.name for r in trace.select(layer=3)], [q.name, scores.name])

    def test_levels_hold_what_they_say(self):
        for level in ("digest", "sketch"):
            for r in paritybit.Trace.open(self.write(level, level=level)).records:
                self.assertEqual((r.sketch is not None, r.payload_file), (level == "sketch", ""))
                self.assertEqual(len(r.row_rms), r.shape[0])
        with self.assertRaises(paritybit.TraceError):
            paritybit.Writer(self.folder / "x", self.manifest(level="some"))

    def test_opens_with_the_package_safetensors(self):
        """Hugging Face's own reader, which tools/setup.sh --tests puts into the user's cache (requirements.txt)."""
        sys.path.insert(0, str(cache_folder() / "python-tests"))
        from safetensors import safe_open

        folder = self.write()
        with safe_open(str(folder / "payload-00000.safetensors"), "numpy") as file:
            self.assertEqual(file.metadata(), {"schema": record.SCHEMA})
            self.assertEqual(sorted(file.keys()), ["t0/blk3/q_proj@1", "t0/embeddings", "t1/blk0/odd op", "t1/blk3/attn_scores"])
            np.testing.assert_array_equal(file.get_tensor("t0/embeddings"), VALUES)
            self.assertEqual(file.get_tensor("t1/blk3/attn_scores").shape, (1, 2, 3))

    def test_many_payloads_fill_several_files(self):
        writer = paritybit.Writer(self.folder / "a", self.manifest())
        writer.begin_step(0, [1])
        for layer in range(300):
            writer.append("ffn_norm", layer, np.full((1, 2), layer, np.float32))
        writer.finish()
        trace = paritybit.Trace.open(self.folder / "a")
        self.assertEqual({r.payload_file for r in trace.records}, {"payload-00000.safetensors", "payload-00001.safetensors"})
        self.assertEqual([float(trace.payload(r)[0, 0]) for r in trace.records], list(range(300)))

    def test_killed_writer_leaves_a_readable_trace(self):
        code = f"""
            import os, signal, sys
            sys.path[:0] = {[str(ROOT / "python"), str(ROOT / "python/tests")]!r}
            import paritybit
            from format_test import write_two_steps
            write_two_steps(paritybit.Writer({str(self.folder / "a")!r}, paritybit.Manifest(level="full", engine="e")))
            os.kill(os.getpid(), signal.SIGKILL)
        """
        run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True)
        self.assertEqual(run.returncode, -signal.SIGKILL, run.stderr)
        trace = paritybit.Trace.open(self.folder / "a")
        self.assertEqual((trace.manifest.complete, trace.notes), (False, ["incomplete: the writer was cut off"]))
        self.assertEqual((trace.manifest.tokens, trace.manifest.n_prompt), ([5, 6, 7], 2))
        self.assertEqual([trace.payload(r).size for r in trace.records], [6, 3, 6, 3])

    def test_abandon_tells_why_and_traces_are_never_mixed(self):
        writer = paritybit.Writer(self.folder / "a", self.manifest())
        with self.assertRaises(paritybit.TraceError):
            writer.append("logits", -1, VALUES)  # before any step
        writer.begin_step(0, [1, 2])
        for shape in ((), (0, 3), (2, 0)):
            with self.assertRaises(paritybit.TraceError):
                writer.append("logits", -1, np.zeros(shape, np.float32))
        writer.abandon("out of memory")
        self.assertEqual(paritybit.Trace.open(self.folder / "a").notes, ["incomplete: out of memory"])
        with self.assertRaises(paritybit.TraceError):
            paritybit.Writer(self.folder / "a", self.manifest())

    def test_every_cut_of_the_records(self):
        folder = self.write(level="sketch")
        records, whole = (folder / "records.jsonl").read_bytes(), (folder / "manifest.json").read_text()
        open_manifest = whole.replace('"complete"', '"incomplete"')
        for cut in range(0, len(records), 7):
            (folder / "records.jsonl").write_bytes(records[:cut])
            (folder / "manifest.json").write_text(open_manifest)
            trace = paritybit.Trace.open(folder)
            self.assertEqual(len(trace.records) + len(trace.steps), records[:cut].count(b"\n"))
            self.assertEqual(len(trace.notes), 2 if cut and records[cut - 1:cut] != b"\n" else 1)
            (folder / "manifest.json").write_text(whole)
            if cut != len(records) - 1:  # there only the last newline is gone
                self.refused(folder, "records.jsonl")

    def test_wrong_fields_are_named_with_their_byte(self):
        folder = self.write()
        records = (folder / "records.jsonl").read_text()
        for old, new, *words in (
                ('"shape":[2,3]', '"shape":[2,4]', "byte 38", '"num_elements" is 6'), ('"shape":[2,3]', '"shape":[-2,-3]', '"shape"'),
                ('"shape":[2,3]', '"shape":' + "[" * 3000 + "]" * 3000, "JSON"), ("ebb7793e", "EBB7793E", '"blake3"'),
                ('"rms":', '"rms":[],"x":', '"rms"'), ('"rms":', '"rms":NaN,"x":', "JSON"), ('"seq":0,"layer"', '"seq":9,"layer"', "outside its step"),
                ('"num_elements":6', '"num_elements":true', '"num_elements"'), ('"row_rms":"', '"row_rms":"AAAA', '"row_rms"'),
                ('"sketch":"', '"sketch":"AAAA', "sketch"), ('{"seq":1', '{"seq":"x"', '"seq"'), ('"payload":["p', '"payload":["../p', '"payload"'),
                ('"layer":3', f'"layer":{1 << 40}', '"layer"'), ("{", "[", "JSON")):
            (folder / "records.jsonl").write_text(records.replace(old, new, 1))
            self.assertIn(old, records)
            self.refused(folder, *words)
        (folder / "records.jsonl").write_text(records.replace('"rms"', '"later_version":1,"rms"', 1))
        self.assertEqual(len(paritybit.Trace.open(folder).records), 4)

    def test_every_flipped_byte_loads_or_is_an_error(self):
        folder, refused = self.write(level="sketch", per_row=True), 0
        for name in ("records.jsonl", "manifest.json"):
            data = (folder / name).read_bytes()
            for i in range(0, len(data), 3):
                (folder / name).write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1:])
                try:
                    paritybit.Trace.open(folder)
                except paritybit.TraceError:
                    refused += 1
            (folder / name).write_bytes(data)
        self.assertGreater(refused, 300)

    def test_payloads_are_checked(self):
        folder = self.write()
        path = folder / "payload-00000.safetensors"
        data, first = path.read_bytes(), paritybit.Trace.open(folder).records[0]
        path.write_bytes(data[:-1])
        self.refused(folder, "cut off?")
        changed = bytearray(data)
        changed[first.payload_offset] ^= 1
        path.write_bytes(changed)
        self.refused(folder, "do not have its digest", str(first.payload_offset))
        os.remove(path)
        self.refused(folder, "no such file")

    def test_manifests_of_other_kinds_are_refused(self):
        self.refused(self.folder / "nowhere", "no such folder")
        self.refused(self.folder, "manifest.json")
        for text, word in (("", "JSON"), ("[]", "object"), ("{}", "schema"), ('{"schema":"paritybit.trace/9"}', "paritybit.trace/9")):
            (self.folder / "manifest.json").write_text(text)
            self.refused(self.folder, word)
        whole = json.loads((self.write() / "manifest.json").read_text())
        for key, value in (("state", "done"), ("level", "all"), ("tokens", [0.5]), ("engine_facts", [["a"]]), ("n_prompt", -1),
                           ("sketch", {"tables": 5, "buckets": 16, "seed": 0}), ("unobservable", {"a": 1}), ("engine", 3)):
            (self.folder / "a/manifest.json").write_text(json.dumps({**whole, key: value}))
            self.refused(self.folder / "a", "manifest.json")


if __name__ == "__main__":
    main()

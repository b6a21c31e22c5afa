"""What is kept for later runs is believed only while it is what was written: noise floors in the cache and beside traces, digests
of files, the last run. Bits are flipped, files cut, renamed, nested, replaced by what is no file; the verdict stays."""
import hashlib
import json
import os
import pathlib
import shutil
import struct

from driver import CACHE, RELU2, SILU, Case, main, run, sealed

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
OTHER = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
PROMPT = "And God said, Let there be light"
BAD = "mutant,mutant.defect=rope_late,mutant.stage=q_rope,mutant.layer=1"
NAMES = ["first", "prefill", "decode"]


def flip(path, at):
    """Flips the lowest bit of the byte at `at`: a digit becomes its neighbour."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def flip_largest_kl(path):
    """The largest KL, 0.000abc, becomes 0.100abc."""
    text = path.read_text()
    entry = json.loads(text)
    largest = max(max(r["kl"]) for r in entry.get("runs", [entry]))
    assert repr(largest).startswith("0.0"), largest
    flip(path, text.index(repr(largest)) + 2)


def floor_digest(floor):
    """docs/numerics.md, "The digest of a noise floor", of a floor that was kept beside a trace."""
    digest = hashlib.sha256()
    for r in floor["runs"]:
        digest.update(f"run {r['variation']} {len(r['kl'])} {len(r['gap_change'])}\n".encode())
        digest.update(struct.pack(f"<{2 * len(r['kl'])}d", *r["kl"], *r["gap_change"]))
        for prompt, points in ((0, "points"), (-1, "points_of_calibration")):
            for stage, layer, positions, n_rows, *values in r.get(points, []):
                digest.update(f"point {prompt} {stage} {layer} {positions} {n_rows}\n".encode())
                digest.update(struct.pack("<3d", *values))
    return digest.hexdigest()


class Cached(Case):
    """With a cache of this test's own."""

    def setUp(self):
        super().setUp()
        self.cache = self.folder / "cache"
        self.cache.mkdir()
        for name in ("references", "models"):
            (self.cache / name).symlink_to((pathlib.Path(CACHE.name) / name).resolve())

    def judge(self, *args, **kwargs):
        return self.crossval("--model", MODEL, "--candidate", BAD, "--reference", "native", "--prompt", PROMPT, *args,
                             env={"PARITYBIT_CACHE": self.cache}, **kwargs)

    def entries(self):
        return sorted((self.cache / "noise").glob("*/*.json"), key=lambda path: -path.stat().st_size)

    def test_a_noise_entry_that_was_changed_is_measured_anew(self):
        honest = self.judge("--scope", "logits-only")
        self.expect(honest, "diverged", 1, "kl-worst-above-limit")
        self.assertEqual(honest.err, "")
        entry = next(path for path in self.entries() if max(json.loads(path.read_text())["kl"]) > 1e-4)
        good = entry.read_text()
        n = honest.json["noise_floor"]["runs_from_cache"]
        again = self.judge("--scope", "logits-only")
        all_cached = again.json["noise_floor"]["runs_from_cache"]
        self.assertGreater(all_cached, n)

        def without_digest(text):
            return json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"})

        def spoil(what):
            text = good
            if what == "kl":
                return flip_largest_kl(entry)
            if what == "gap":
                return flip(entry, text.index('"gap_change":[') + len('"gap_change":[') + 2)
            if what == "provenance":
                return flip(entry, text.index('"n_prefill":') + len('"n_prefill":'))
            if what == "digest":
                return flip(entry, len(text) - 10)
            if what == "another":
                return shutil.copy(next(path for path in self.entries() if path != entry), entry)
            entry.unlink()
            if what == "pipe":
                return os.mkfifo(entry)
            if what == "folder":
                return (entry / "full").mkdir(parents=True)
            return entry.write_text({
                "cut": text[:-20], "empty": "", "nested": '{"provenance":' + "[" * 200000 + "]" * 200000 + "}",
                "digest of old": without_digest(text),
                "sealed, of other tokens": sealed({**json.loads(without_digest(text)), "kl": [1.0]})}[what])

        told = {"kl", "gap", "provenance", "digest", "pipe", "folder"}
        for what in ("kl", "gap", "provenance", "digest", "another", "pipe", "folder", "cut", "empty", "nested", "digest of old",
                     "sealed, of other tokens"):
            with self.subTest(what):
                spoil(what)
                result = self.judge("--scope", "logits-only", timeout=60)
                self.expect(result, "diverged", 1, "kl-worst-above-limit")
                self.assertEqual(result.json["noise_floor"]["runs_from_cache"], all_cached - 1)
                self.assertEqual(result.json["noise_floor"]["sha256"], honest.json["noise_floor"]["sha256"])
                self.assertEqual(result.err.count("note: the cache"), what in told, result.err)
                self.assertEqual(entry.name in result.err, what in told, result.err)
                if what == "folder":
                    shutil.rmtree(entry)
                    entry.write_text(good)
                self.assertEqual(entry.read_text(), good)  # the same noise, kept again

    def test_so_is_its_noise_at_the_points(self):
        honest = self.judge()
        self.expect(honest, "diverged", 1)
        for key in ('"points":', '"layer_points":'):
            entry = next(path for path in self.entries() if key in path.read_text())
            good = entry.read_text()
            flip(entry, good.index(key) + good[good.index(key):].index("0.") + 2)
            result = self.judge()
            self.expect(result, "diverged", 1)
            self.assertEqual(result.json["noise_floor"]["sha256"], honest.json["noise_floor"]["sha256"])
            self.assertIn("note: the cache", result.err)
            self.assertEqual(entry.read_text(), good)

    def test_a_digest_of_a_file_that_was_changed_is_computed_anew(self):
        right = hashlib.sha256(MODEL.read_bytes()).hexdigest()
        args = ["infer", "--model", MODEL, "--prompt", "hi", "-n", 1]
        judge = lambda: self.crossval("--model", MODEL, "--candidate", "native", "--reference", "native", "--prompt", PROMPT,
                                      "--scope", "logits-only", env={"PARITYBIT_CACHE": self.cache})
        self.assertEqual(judge().json["model"]["sha256"], right)
        entries = {path: path.read_text() for path in (self.cache / "sha256").iterdir()}
        entry = next(path for path, text in entries.items() if right in text)
        good = entries[entry]
        other = next(path for path in entries if path != entry)
        for spoil in (lambda: flip(entry, good.index(right) + 3), lambda: flip(entry, good.index(MODEL.name)),
                      lambda: shutil.copy(other, entry), lambda: entry.write_text(hashlib.sha256(b"").hexdigest()),
                      lambda: (entry.unlink(), os.mkfifo(entry))):
            spoil()
            self.assertEqual(judge().json["model"]["sha256"], right)
            self.assertEqual(entry.read_text(), good)
        self.assertEqual(run(*args, env={"PARITYBIT_CACHE": self.cache}).code, 0)

    def test_the_last_run_is_refused_and_written_anew(self):
        self.judge("--scope", "logits-only")
        last, = self.cache.glob("runs/*.diverged.json")
        good = last.read_text()
        self.assertIn(str(MODEL), json.loads(good)["words"])
        diagnose = lambda: run("diagnose", env={"PARITYBIT_CACHE": self.cache}, timeout=120)
        for text in (good.replace("rope_late", "rope_lath"), good[:-30], "[" * 100000, "{}", sealed({"schema": "paritybit.run/1"}),
                     sealed({**json.loads(good), "words": {"a": 1}}), sealed({**json.loads(good), "words": ["crossval", "--no"]})):
            last.write_text(text)
            result = diagnose()
            self.assertEqual(result.code, 5, result)
            self.assertIn(last.name, result.err)
            self.assertIn("delete it", result.err)
        last.unlink()
        self.judge("--scope", "logits-only")
        again, = self.cache.glob("runs/*.diverged.json")
        self.assertEqual(json.loads(again.read_text())["words"], json.loads(good)["words"])

    def test_a_cache_that_serves_nobody_is_told_once(self):
        honest = self.judge("--scope", "logits-only")
        for cache in (MODEL, "/proc/no-such-cache"):  # a file; where nobody may write
            result = self.crossval("--model", MODEL, "--candidate", BAD, "--reference", "native", "--prompt", PROMPT, "--scope",
                                   "logits-only", env={"PARITYBIT_CACHE": cache})
            self.expect(result, "diverged", 1, "kl-worst-above-limit")
            self.assertEqual(result.json["noise_floor"]["sha256"], honest.json["noise_floor"]["sha256"])
            self.assertEqual(result.err.count("\n"), 1, result.err)
            self.assertIn("note: the cache did not serve", result.err)
            self.assertIn(str(cache), result.err)


class BesideTraces(Case):
    def test_a_floor_that_was_changed_sets_no_limits(self):
        kept = self.folder / "kept"
        live = self.crossval("--model", MODEL, "--candidate", "native", "--reference", "native", "--prompt", PROMPT, "--keep-traces", kept)
        self.expect(live, "match", 0)
        path = kept / "reference" / "noise_floor.json"
        good = path.read_text()
        self.assertEqual(floor_digest(json.loads(good)), live.json["noise_floor"]["sha256"])

        def judge(candidate=BAD, *args):
            return self.crossval("--model", MODEL, "--reference", f"replay,trace={kept / 'reference'}", "--candidate", candidate,
                                 "--scope", "logits-only", "--prompt", PROMPT, *args, timeout=60)

        honest = judge()
        self.expect(honest, "diverged", 1)
        self.assertEqual(honest.json["noise_floor"]["sha256"], live.json["noise_floor"]["sha256"])
        floor = {k: v for k, v in json.loads(good).items() if k != "sha256"}
        # Its digest names it in the receipt as well.
        receipt = self.folder / "receipt.json"
        judge(BAD, "--receipt", receipt)
        self.assertEqual(json.loads(receipt.read_text())["noise_floor"]["sha256"], live.json["noise_floor"]["sha256"])
        other = self.folder / "other"
        self.crossval("--model", MODEL, "--candidate", "native", "--reference", "native", "--prompt", "Let there be", "--keep-traces", other)
        for what, word in (("kl", "damaged"), ("points", "damaged"), ("cut", "digest"), ("old", "digest"), ("nested", "digest"),
                           ("pipe", "not a regular file"), ("another trace", "another trace"),
                           ("sealed, of another schema", "no noise floor of this version")):
            with self.subTest(what):
                path.unlink()
                if what == "pipe":
                    os.mkfifo(path)
                else:
                    path.write_text({"cut": good[:-9], "old": json.dumps(floor), "nested": '{"runs":' + "[" * 200000 + "]" * 200000 + "}",
                                     "another trace": (other / "reference" / "noise_floor.json").read_text(),
                                     "sealed, of another schema": sealed({**floor, "schema": "paritybit.noise-floor/0"})}.get(what, good))
                if what == "kl":
                    flip_largest_kl(path)
                if what == "points":
                    flip(path, good.index('"points":') + good[good.index('"points":'):].index("0.") + 2)
                result = judge()
                self.assertEqual((result.json["verdict"], result.code), ("incomplete", 3), result)
                self.assertIn("no-noise-floor", result.codes())
                self.assertIn(word, result.json["reasons"][0]["text"])
                self.assertIn("noise_floor.json", result.json["reasons"][0]["text"])
                self.assertIsNone(result.json["noise_floor"])
                self.assertEqual(result.json["limits"], [])


if __name__ == "__main__":
    main()

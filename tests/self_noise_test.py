"""`paritybit noise`: one engine against itself, held against comparisons and traces that are made apart from it."""
import json
import math
import pathlib
import signal
import subprocess
import time

from driver import PARITYBIT, SILU, Case, main, run
from noise_test import tensors

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
PROMPT = "And God said, Let there be light"
CALIBRATION = 400


def log_softmax(row):
    top = max(row)
    log_z = top + math.log(math.fsum(math.exp(x - top) for x in row))
    return [x - log_z for x in row]


def kl(other, base):
    """KL(base || other) in nats, from the definition."""
    p, q = log_softmax(base), log_softmax(other)
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


class SelfNoise(Case):
    def noise(self, *args, model=MODEL, **kwargs):
        """A run with JSON alone on stdout."""
        result = run("noise", "--format", "json", "--model", model, *args, **kwargs)
        self.assertTrue(result.out, result)
        self.assertEqual(result.code, result.json["exit_code"], result)
        return result

    def rows(self, result):
        return {(row["axis"], row["value"]): row for row in result.json["axes"]}


class Native(SelfNoise):
    def test_equal_bits_along_every_axis_that_is_promised(self):
        result = self.noise("--prompt", PROMPT, "--max-tokens", 2)
        self.expect(result, "ok", 0, "promise-kept")
        rows = self.rows(result)
        flags = pathlib.Path("/proc/cpuinfo").read_text().split()
        libraries = [("cpu.library", "scalar")] + [("cpu.library", "avx2")] * ("avx512_vnni" in flags)
        for key in [("repeat", "new session"), ("repeat", "new process"), ("threads", "2"), ("ubatch", "1"), ("ubatch", "32"),
                    ("feed", "one by one"), *libraries]:
            row = rows.pop(key)
            self.assertEqual((row["promised"], row["equal_bits"], row["worst_kl"], row["rel_l2"]), (True, True, 0, 0), key)
            self.assertEqual((row["n_positions"], row["n_equal"]), (len(result.json["prompts"][0]["tokens"]) + 2 + CALIBRATION,) * 2)
        self.assertEqual(rows, {})  # neither flash attention nor the cache's type is noise
        self.assertGreater(result.json["noise_floor"]["worst_kl"], 0)
        self.assertEqual(result.json["noise_floor"]["n_runs"], 8)
        text = run("noise", "--model", MODEL, "--prompt", PROMPT)
        self.assertEqual(text.code, 0, text)
        self.assertIn("threads 2", text.out)
        self.assertIn("as promised", text.out)
        self.assertTrue(all(len(line) <= 80 for line in text.out.splitlines() if "/noise/" not in line), text.out)

    def test_a_mutant_that_depends_on_its_batch_breaks_the_promise(self):
        """Rows that look ahead see as much as their batch holds: one at a time they see nothing."""
        result = self.noise("--engine", "mutant,mutant.defect=mask_future,mutant.stage=attn_scores,mutant.layer=1", "--prompt", PROMPT)
        self.expect(result, "diverged", 1, "promise-broken")
        rows = self.rows(result)
        self.assertTrue(rows["repeat", "new process"]["equal_bits"])
        self.assertFalse(rows["ubatch", "1"]["equal_bits"])
        self.assertEqual(result.json["first_divergence"]["prompt"], 0)
        self.assertEqual(result.json["blame"], "engine")


class TheSameAsElsewhere(SelfNoise):
    def test_the_floor_is_that_of_crossval_and_from_its_cache(self):
        cache = {"PARITYBIT_CACHE": self.folder / "cache"}
        prompt = ["--prompt", PROMPT, "--max-tokens", 2]
        compared = self.crossval("--model", MODEL, "--candidate", "native", "--reference", "native", *prompt, env=cache)
        self.assertEqual(compared.json["noise_floor"]["runs_from_cache"], 0)
        result = self.noise("--engine", "native", *prompt, env=cache)
        floor = result.json["noise_floor"]
        self.assertEqual((floor["runs_from_cache"], floor["runs_measured"]), (3 * 8, 0))
        self.assertEqual(floor["cache"], compared.json["noise_floor"]["cache"])
        for key in ("mean_kl", "worst_kl", "worst_gap", "n_positions", "points"):
            self.assertEqual(floor[key], compared.json["noise_floor"][key], key)
        limits = {limit["name"]: limit["value"] for limit in result.json["limits"]}
        self.assertEqual(limits, {limit["name"]: limit["value"] for limit in compared.json["limits"]})
        self.assertEqual(floor["engine_identity"], compared.json["engines"][1]["identity"])
        self.assertEqual(floor["model_sha256"], compared.json["model"]["sha256"])
        self.assertEqual(floor["runs"], [f"noise.seed={seed}" for seed in range(1, 9)])

    def test_llama_cpp_and_one_row_from_the_definition(self):
        result = self.noise("--engine", "llama.cpp", "--prompt", PROMPT)
        self.expect(result, "ok", 0, "nothing-promised")
        rows = self.rows(result)
        # Which libraries it has is asked of the engine's folder and of the processor, not of the program.
        own = result.json["engine"]["description"]["isa"]["value"]
        folder = pathlib.Path(result.json["engine"]["description"]["path.cpu"]["value"]).parent
        there = {path.stem.removeprefix("libggml-cpu-") for path in folder.glob("libggml-cpu-*.so")}
        told = {value for axis, value in rows if axis == "cpu.library"}
        self.assertLessEqual(told | {own}, there)
        self.assertTrue({"x64", "sse42", "haswell"} <= told | {own}, told)
        for library in there - told - {own}:  # these do not run here
            refused = run("trace", "--model", MODEL, "--engine", f"llama.cpp,cpu.library={library}", "--prompt", "a", "--out",
                          self.folder / library)
            self.assertNotEqual(refused.code, 0, library)
        self.assertTrue(rows["repeat", "new session"]["equal_bits"])
        self.assertEqual({axis for axis, _ in rows}, {"repeat", "threads", "ubatch", "feed", "cpu.library"})
        self.assertFalse(any(row["promised"] for row in rows.values()))
        # One library, of two traces.
        library = "haswell" if own == "x64" else "x64"
        logits = []
        for engine in ("llama.cpp", f"llama.cpp,cpu.library={library}"):
            traced = self.folder / f"traced{len(logits)}"
            made = run("trace", "--model", MODEL, "--engine", engine, "--prompt", PROMPT, "--level", "full", "--filter", "stage=logits",
                       "--out", traced)
            self.assertEqual(made.code, 0, made)
            logits.append(tensors(traced)[0, -1, "logits"])
        row = rows["cpu.library", library]
        self.assertFalse(row["equal_bits"])
        n = len(logits[0])
        for told, base, other in zip(row["kl"], *logits):
            expected = kl(other, base)
            self.assertGreater(told, 0)
            self.assertAlmostEqual(told, expected, delta=1e-12 + 1e-6 * expected)
        self.assertEqual((row["n_positions"], len(row["kl"])), (n + CALIBRATION,) * 2)
        self.assertAlmostEqual(row["mean_kl"], math.fsum(row["kl"]) / (n + CALIBRATION), delta=1e-12)
        self.assertEqual(row["worst_kl"], max(row["kl"]))
        self.assertIs(row["inside_floor"], True)
        # And as crossval compares the two.
        compared = self.crossval("--model", MODEL, "--candidate", f"llama.cpp,cpu.library={library}", "--reference", "llama.cpp", "--prompt",
                                 PROMPT, "--scope", "logits-only")
        self.assertEqual([position["kl"] for position in compared.json["positions"]], row["kl"][:n])

    def test_the_calibration_text_alone(self):
        result = self.noise()
        self.expect(result, "ok", 0)
        self.assertEqual((result.json["prompts"], result.json["n_calibration"]), ([], CALIBRATION))
        self.assertEqual(result.json["noise_floor"]["n_positions"], CALIBRATION)

    def test_a_recording_brings_its_floor(self):
        kept = self.folder / "kept"
        compared = self.crossval("--model", MODEL, "--reference", "native", "--prompt", PROMPT, "--keep-traces", kept)
        self.expect(compared, "match", 0)
        result = self.noise("--engine", f"replay,trace={kept / 'reference'}", "--prompt", PROMPT)
        self.expect(result, "ok", 0, "recorded")
        self.assertEqual(result.json["noise_floor"]["worst_kl"], compared.json["noise_floor"]["worst_kl"])
        self.assertEqual(result.json["axes"], [])
        result = self.noise("--engine", f"replay,trace={kept / 'candidate'}", "--prompt", PROMPT)
        self.expect(result, "incomplete", 3, "no-noise-floor")


class Faulty(SelfNoise):
    FAULT = "faulty,faulty.mode=nondeterministic"

    def test_what_is_not_repeatable_is_a_finding_of_its_own(self):
        free = self.noise("--engine", self.FAULT, "--prompt", PROMPT)
        self.expect(free, "diverged", 1, "not-repeatable")
        reason = next(r["text"] for r in free.json["reasons"] if r["code"] == "not-repeatable")
        # The fault is at the gated product of layer 1, from position 6 on.
        self.assertRegex(reason, r"repeat new session: two equal runs differ in \d+ of 4\d\d positions, first in position 6 of prompt 0")
        self.assertRegex(reason, r"first at layer 1, ffn_gated, position 6: [1-9]\d* of its \d+ values differ, by up to ")
        text = run("noise", "--model", MODEL, "--engine", self.FAULT, "--prompt", PROMPT)
        self.assertEqual(text.code, 1, text)
        self.assertIn("not repeatable", " ".join(text.out.split()))
        # As the candidate of a comparison, and audited.
        compared = self.crossval("--model", MODEL, "--candidate", self.FAULT, "--reference", "faulty", "--prompt", PROMPT)
        self.assertIn("not-repeatable", compared.codes(), compared)
        self.assertNotIn("observer-effect", compared.codes(), compared)
        self.assertIn("layer 1, ffn_gated, position 6", next(r["text"] for r in compared.json["reasons"] if r["code"] == "not-repeatable"))
        self.assertNotEqual(compared.code, 0)

    def test_what_is_promised_decides(self):
        free = self.noise("--engine", self.FAULT, "--prompt", PROMPT)
        row = self.rows(free)["repeat", "new session"]
        self.assertEqual((row["equal_bits"], row["first_difference"]["prompt"], row["first_difference"]["position"]), (False, 0, 6))
        bound = self.noise("--engine", f"{self.FAULT},faulty.promise=repeat", "--prompt", PROMPT)
        self.expect(bound, "diverged", 1, "promise-broken")
        place = bound.json["first_divergence"]
        self.assertEqual((place["prompt"], place["position"], place["layer"]), (0, 6, None))
        self.assertFalse(self.rows(bound)["threads", "2"]["promised"])
        text = run("noise", "--model", MODEL, "--engine", f"{self.FAULT},faulty.promise=repeat", "--prompt", PROMPT)
        self.assertEqual(text.code, 1, text)
        self.assertIn("BROKEN", text.out)
        self.assertIn("DIVERGED", text.out)
        kept = self.noise("--engine", "faulty,faulty.promise=repeat threads", "--prompt", PROMPT)
        self.expect(kept, "ok", 0, "promise-kept")

    def test_a_promise_that_cannot_be_checked_is_no_pass(self):
        result = self.noise("--engine", "faulty,faulty.promise=ubatch", "--prompt", PROMPT)
        self.expect(result, "incomplete", 3, "promise-unchecked")
        self.assertIn("ubatch", self.rows(result)["ubatch", "1"]["refused"])

    def test_an_engine_that_is_wrong_in_batches_is_seen_though_it_offers_no_batch(self):
        """Prompts are garbage and decode steps right: fed token by token it computes something else."""
        result = self.noise("--engine", "faulty,faulty.mode=wrong_batches", "--prompt", PROMPT, "--max-tokens", 2)
        self.expect(result, "diverged", 1, "beyond-own-floor")
        self.assertNotIn("not-repeatable", result.codes())
        rows = self.rows(result)
        fed = rows["feed", "one by one"]
        self.assertIn("ubatch", rows["ubatch", "1"]["refused"])
        self.assertEqual((fed["equal_bits"], fed["inside_floor"], fed["n_equal"]), (False, False, 2), result)
        self.assertGreater(fed["worst_kl"], 1e-3)
        right = self.rows(self.noise("--engine", "faulty", "--prompt", PROMPT))["feed", "one by one"]
        self.assertEqual((right["equal_bits"], right["inside_floor"]), (True, True))
        promised = self.noise("--engine", "faulty,faulty.mode=wrong_batches,faulty.promise=feed", "--prompt", PROMPT)
        self.expect(promised, "diverged", 1, "promise-broken")
        self.assertIn("feed one by one", promised.json["reasons"][0]["text"])

    def test_failures_have_the_last_words(self):
        for mode in ("crash", "error,faulty.at=session", "skip_rows", "disconnect"):
            result = self.noise("--engine", f"faulty,faulty.mode={mode}", "--prompt", PROMPT)
            self.expect(result, "engine-failed", 4, "engine-failed")
            self.assertEqual(result.json["axes"], [])
        for mode in ("nan", "inf"):
            self.expect(self.noise("--engine", f"faulty,faulty.mode={mode}", "--prompt", PROMPT), "invalid", 3, "non-finite")
        crash = run("noise", "--model", MODEL, "--engine", "faulty,faulty.mode=crash", "--prompt", PROMPT)
        self.assertEqual(crash.code, 4, crash)
        self.assertIn("ENGINE-FAILED", crash.out)
        self.assertIn("faulty: about to crash", crash.out)

    def test_an_engine_without_random_rounding_has_a_weaker_floor(self):
        result = self.noise("--engine", "oracle", "--prompt", "And God")
        self.assertEqual(result.json["noise_floor"]["method"], "natural variations")
        self.assertTrue(result.json["noise_floor"]["weaker"])
        self.expect(result, "ok", 0, "weaker-floor")
        self.assertIn("noise-floor-zero", result.codes())


class Wrong(SelfNoise):
    def test_input(self):
        for args, code, word in [(["--engine", "nosuch"], 2, "nosuch"), (["--engine", "./nosuch.so"], 5, "nosuch"), (["--prompt", ""], 3, "empty"),
                                 (["--max-tokens", "2"], 2, "--max-tokens"), (["--set", "no.such=1"], 2, "no.such"),
                                 (["--set", "threads"], 2, "threads"), (["--engine", "llama.cpp,act.quant=none"], 3, "act.quant")]:
            result = run("noise", "--model", MODEL, *args)
            self.assertEqual(result.code, code, result)
            self.assertIn(word, result.out + result.err)
        self.assertEqual(run("noise", "--prompt", "a").code, 2)
        self.assertEqual(run("noise", "--model", self.folder / "none.gguf").code, 5)
        cut = self.folder / "cut.gguf"
        cut.write_bytes(MODEL.read_bytes()[:5000])
        damaged = run("noise", "--model", cut)
        self.assertEqual(damaged.code, 5, damaged)
        self.assertRegex(damaged.err, r"cut.gguf: byte \d+: ")
        self.expect(self.noise("--prompt", ""), "invalid", 3, "empty-prompt")

    def test_an_interrupted_run_goes_on_from_its_cache(self):
        cache = self.folder / "cache"
        args = ["noise", "--format", "json", "--model", MODEL, "--engine", "native", "--prompt", PROMPT]
        process = subprocess.Popen([str(PARITYBIT), *map(str, args)], env={"PARITYBIT_CACHE": str(cache), "PATH": "/usr/bin:/bin"},
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.time() + 120
        while time.time() < deadline and len(list(cache.glob("noise/*/*.json"))) < 3:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(json.loads(out)["verdict"], "interrupted")
        floor = run(*args, env={"PARITYBIT_CACHE": cache}).json["noise_floor"]
        self.assertGreaterEqual(floor["runs_from_cache"], 3)
        self.assertEqual(floor["runs_from_cache"] + floor["runs_measured"], 3 * 8)


if __name__ == "__main__":
    main()

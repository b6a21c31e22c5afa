"""Speed of an engine with its receipt, and two measurements against each other by the spread of their repeats."""
import json
import re
import xml.etree.ElementTree as xml

import receipt_edit
from driver import SILU, Case, main, run, vocabulary

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
HASWELL = "llama.cpp,cpu.library=haswell"
SHORT = ("--tokens", 8, "--warmup-tokens", 2)


class Measured(Case):
    def measure(self, *args, name="b.json"):
        path = self.folder / name
        result = run("benchmark", "--model", MODEL, *SHORT, "--receipt", path, "--format", "json", *args)
        self.assertEqual(result.code, 0, result)
        return path, result

    def slower(self, path, factor, name="slow.json"):
        """The same measurement as if each repeat had taken longer."""
        def change(r):
            for phase in ("prompt", "decode"):
                r["benchmark"][phase]["seconds"] = [s * factor for s in r["benchmark"][phase]["seconds"]]

        return receipt_edit.edited(path, change, self.folder / name)

    def compare(self, current, baseline, *args):
        return run("bench-compare", "--current", current, "--baseline", baseline, "--format", "json", *args)


class Benchmark(Measured):
    def test_a_tokenizer_json_reads_the_prompt_in_the_engine_s_place(self):
        tokenizer = self.folder / "tokenizer.json"
        model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                 "fuse_unk": False, "byte_fallback": False, "vocab": {"a": 5, "b": 6, "ab": 7}, "merges": ["a b"]}
        parts = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
        tokenizer.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model, **parts}))
        _, result = self.measure("--prompt", "abab", "--tokenizer", tokenizer)
        self.assertEqual(result.json["benchmark"]["prompt_tokens"], [7, 7])
        _, own = self.measure("--prompt", "abab", "--tokenizer", MODEL)
        _, plain = self.measure("--prompt", "abab")
        self.assertEqual(own.json["benchmark"]["prompt_tokens"], plain.json["benchmark"]["prompt_tokens"])
        tokenizer.write_text(tokenizer.read_text().replace('"ab": 7', '"ab": 70000'))
        for wrong, code in ((tokenizer, 2), (self.folder / "none.json", 5), (vocabulary("llama-spm"), 2)):
            refused = run("benchmark", "--model", MODEL, *SHORT, "--prompt", "abab", "--tokenizer", wrong)
            self.assertEqual(refused.code, code, refused)

    def test_two_engines_are_measured_and_their_receipts_stand(self):
        for engine in ("native", HASWELL):
            path, result = self.measure("--engine", engine, "--prompt", "And God said")
            b = result.json["benchmark"]
            self.assertEqual((b["decode"]["n_tokens"], b["decode"]["n_repeats"], len(b["tokens"])), (8, 5, 9))
            self.assertEqual(len(set(b["tokens_sha256"])), 1)
            speed = b["decode"]["tokens_per_second"]
            self.assertTrue(0 < speed["lowest"] <= speed["median"] <= speed["highest"], speed)
            seconds = sorted(b["decode"]["seconds"])
            self.assertAlmostEqual(speed["median"] * seconds[2], 8, places=9)
            self.assertGreater(b["bandwidth"]["bytes_per_second"], 1e8)
            share = b["weights_bytes"] * speed["median"] / b["bandwidth"]["bytes_per_second"]
            self.assertAlmostEqual(b["bandwidth"]["share"], share, places=9)
            self.assertEqual(json.loads(path.read_text())["benchmark"]["tokens"], b["tokens"])
            verified = run("verify-receipt", path)
            self.assertEqual(verified.code, 0, verified)

    def test_the_tokens_are_those_that_infer_chooses(self):
        _, result = self.measure("--prompt", "And God said")
        told = run("infer", "-m", MODEL, "-p", "And God said", "-n", 9, "--ignore-eos", "--format", "json")
        self.assertEqual(result.json["benchmark"]["tokens"], told.json["tokens"])

    def test_the_documented_defaults(self):
        result = run("benchmark", "--model", MODEL, "--repeats", 1, "--json", "--no-output", cwd=self.folder)
        self.assertEqual(result.code, 0, result)
        b = result.json["benchmark"]
        self.assertEqual((b["decode"]["n_tokens"], b["n_warmup"], result.json["receipt"]), (128, 10, "ci/inference.json"))
        self.assertTrue((self.folder / "ci" / "inference.json").exists())
        one = run("verify-receipt", cwd=self.folder)
        self.assertEqual(one.code, 3, one)  # one repeat shows no spread
        text = run("benchmark", "--model", MODEL, *SHORT, cwd=self.folder)
        for line in ("prompt", "decode", "memory", "receipt"):
            self.assertRegex(text.out, rf"(?m)^{line:<11}", text)

    def test_what_is_refused_and_what_fails(self):
        for flag in ("--gpu", "--allow-mock"):
            result = run("benchmark", "--model", MODEL, flag, cwd=self.folder)
            self.assertEqual((result.code, "refused" in result.err), (2, True), result)
        self.assertEqual(run("benchmark", "--model", MODEL, "--tokens", 100000, cwd=self.folder).code, 2)
        self.assertEqual(run("benchmark", "--model", "/no/such.gguf", cwd=self.folder).code, 5)
        self.assertEqual(run("benchmark", "--model", MODEL, "-e", "faulty,faulty.mode=exit", cwd=self.folder).code, 4)
        self.assertFalse((self.folder / "ci" / "inference.json").exists())


class Compared(Measured):
    def test_a_regression_is_judged_by_the_spread_of_repeats(self):
        path, _ = self.measure()
        same = self.compare(path, path)
        self.assertEqual((same.code, same.json["verdict"]), (0, "match"), same)
        slow = self.slower(path, 100)
        result = self.compare(slow, path)
        self.assertEqual((result.code, result.json["verdict"]), (1, "diverged"), result)
        self.assertEqual([c["regression"] for c in result.json["changes"]], [True, True])
        self.assertEqual(self.compare(slow, path, "--fail-on-regression=false").code, 0)
        self.assertTrue(all(c["improvement"] for c in self.compare(path, slow).json["changes"]))
        few, _ = self.measure("--repeats", 2, name="few.json")
        self.assertEqual(self.compare(few, path).code, 3)

    def test_formats(self):
        path, _ = self.measure()
        slow = self.slower(path, 100)
        out = self.folder / "out.xml"
        self.assertEqual(run("bench-compare", "--current", slow, "--baseline", path, "--format", "junit", "-o", out, "--ci").code, 1)
        self.assertEqual([c.find("failure") is not None for c in xml.parse(out).getroot().iter("testcase")], [True, True])
        markdown = run("bench-compare", "--current", slow, "--baseline", path, "--format", "markdown")
        self.assertRegex(markdown.out, r"\*\*DIVERGED\*\*.*\n\n\| \| current \| baseline")
        human = run("bench-compare", "--current", slow, "--baseline", path, "--format", "human", "--category", "inference", "--device", "cpu")
        self.assertEqual(human.code, 1)
        self.assertRegex(human.out, r"(?m)^decode     .* tokens/s, .*a regression")

    def test_thresholds_and_the_newest_baseline(self):
        path, _ = self.measure()
        slow = self.slower(path, 2)
        thresholds = self.folder / "t.toml"
        thresholds.write_text("inference = 60\n")
        self.assertFalse(any(c["regression"] for c in self.compare(slow, path, "--thresholds", thresholds).json["changes"]))
        thresholds.write_text("inferense = 60\n")
        self.assertEqual(self.compare(slow, path, "--thresholds", thresholds).code, 5)
        nothing = run("bench-compare", "--current", path, cwd=self.folder)
        self.assertEqual((nothing.code, "there is no baseline" in nothing.err), (5, True), nothing)
        for day, source in (("2026-01-01", slow), ("2026-02-01", path)):
            (self.folder / "baselines" / day).mkdir(parents=True)
            (self.folder / "baselines" / day / "benchmark.json").write_text(source.read_text())
        newest = run("bench-compare", "--current", path, "--format", "json", cwd=self.folder)
        self.assertEqual((newest.code, newest.json["baseline"]), (0, "baselines/2026-02-01/benchmark.json"), newest)

    def test_what_is_no_receipt_of_a_benchmark_is_refused(self):
        path, _ = self.measure()
        edited = self.folder / "edited.json"
        edited.write_text(path.read_text().replace('"n_tokens":8', '"n_tokens":9', 1))
        self.assertEqual(self.compare(edited, path).code, 5)
        other = self.folder / "audit.json"
        self.assertEqual(run("audit", "-m", MODEL, "-p", "And", "--receipt", other).code, 0)
        self.assertEqual(self.compare(other, path).code, 5)

    def test_a_gate_takes_it(self):
        policy = self.folder / "policy.toml"
        policy.write_text(f'[[gate]]\nname = "benchmark"\nrun = ["benchmark", "--model", "{MODEL}", "--tokens", "8"]\nbaseline = true\n')
        self.assertEqual(run("gate", policy, "--update-baseline", cwd=self.folder).code, 0)
        [baseline] = (self.folder / "baselines").glob("*/benchmark.json")

        def faster(r):
            for phase in ("prompt", "decode"):
                r["benchmark"][phase]["seconds"] = [s / 100 for s in r["benchmark"][phase]["seconds"]]

        receipt_edit.edited(baseline, faster, baseline)
        result = run("gate", policy, "--format", "json", cwd=self.folder)
        self.assertEqual(result.code, 1, result)
        self.assertRegex(result.json["gates"][0]["sentence"], "baseline: .*a regression")


if __name__ == "__main__":
    main()

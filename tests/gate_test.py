"""A CI's policy: gates that run and gates of receipts, in text, JSON and JUnit; baselines; what must not pass; the documented gate of
tensor names; and the history of what was run."""
import json
import os
import re
import shutil
import xml.etree.ElementTree as xml

import gguf_edit
import receipt_edit
import tiny_gguf
from driver import CACHE, RELU2, SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
WRONG = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
HASWELL = "llama.cpp,cpu.library=haswell"


def words(*args):
    return json.dumps([str(arg) for arg in args])


def comparison(model=MODEL, reference=HASWELL, *more):
    return words("crossval", "--model", model, "--reference", reference, "--prompt", "And God said", *more)


class Policies(Case):
    def gate(self, policy, *args):
        path = self.folder / "policy.toml"
        path.write_text(policy)
        result = run("gate", path, "--format", "json", *args, cwd=self.folder)
        self.assertTrue(result.out, result)
        self.assertEqual(result.code, result.json["exit_code"], result)
        self.assertEqual(result.err, "", result)
        return result

    def expect_failure(self, result, exit_code, says, gate=0):
        self.assertEqual((result.code, result.json["gates"][gate]["passed"]), (exit_code, False), result)
        self.assertRegex(result.json["gates"][gate]["sentence"], says)

    def receipt(self, *args):
        path = self.folder / "r.json"
        self.assertEqual(run(*args, "--receipt", path).code, 0)
        return path


class Gates(Policies):
    def test_gates_that_pass_and_one_that_does_not_each_a_test_case(self):
        kept = self.receipt("audit", "-m", MODEL, "-e", HASWELL, "-p", "And God")
        policy = f"""
            max_age_days = 30
            [[gate]]
            name = "same"
            run = {comparison()}
            verdict = ["match"]
            limits = {{ "kl.worst" = 1e-1 }}
            [[gate]]
            name = "kept"
            receipt = "{kept}"
            [[gate]]
            name = "wrong"
            run = {comparison(WRONG)}
        """
        junit = self.folder / "out.xml"
        result = self.gate(policy, "--junit", junit)
        self.assertEqual((result.code, [g["passed"] for g in result.json["gates"]]), (1, [True, True, False]), result)
        self.assertRegex(result.json["gates"][2]["sentence"], "^(logits|ops|verdict): ")
        root = xml.parse(junit).getroot()
        cases = root.findall("./testsuite/testcase")
        self.assertEqual([(c.get("name"), c.find("failure") is not None) for c in cases],
                         [("same", False), ("kept", False), ("wrong", True)])
        self.assertEqual((root.get("tests"), root.get("failures")), ("3", "1"))
        self.assertGreater(len(cases[2].find("failure").get("message")), 20)
        text = run("gate", self.folder / "policy.toml", cwd=self.folder)
        self.assertRegex(text.out, r"gate       passed  same\n")
        self.assertRegex(text.out, r"DIVERGED   1 of 3 gates failed \(exit 1\)")

    def test_what_must_not_pass(self):
        """A missing reference, an empty prompt file, a skipped layer, a stale receipt, a limit that a user gave, no receipt."""
        self.expect_failure(self.gate(f'[[gate]]\nname="a"\nrun={comparison(MODEL, "bitnet.cpp")}\n'), 3, "bitnet.cpp|no reference")
        empty = self.folder / "empty.txt"
        empty.write_text("")
        run_empty = words("crossval", "--model", MODEL, "--reference", HASWELL, "--prompts", empty)
        self.expect_failure(self.gate(f'[[gate]]\nname="a"\nrun={run_empty}\n'), 3, "no prompt")
        kept = self.receipt("crossval", "-m", MODEL, "-r", HASWELL, "-p", "And God")

        def skip_layer(r):
            r["points"] = [p for p in r["points"] if p["layer"] != 2]

        skipped = receipt_edit.edited(kept, skip_layer, self.folder / "skipped.json")
        self.expect_failure(self.gate(f'[[gate]]\nname="a"\nreceipt="{skipped}"\n'), 3, "counted as compared")
        old = receipt_edit.edited(kept, lambda r: r.update(created="2001-01-01T00:00:00Z"), self.folder / "old.json")
        self.expect_failure(self.gate(f'max_age_days=30\n[[gate]]\nname="a"\nreceipt="{old}"\n'), 3, "stale: [0-9.]+ days old")
        moved = receipt_edit.edited(kept, lambda r: [e["model"].update(path="/no/such.gguf") for e in r["engines"]], self.folder / "moved.json")
        self.expect_failure(self.gate(f'[[gate]]\nname="a"\nreceipt="{moved}"\n'), 3, "not here")
        self.assertEqual(self.gate(f'[[gate]]\nname="a"\nreceipt="{moved}"\nas_recorded=true\n').code, 0)
        loose = comparison(MODEL, HASWELL, "--kl-worst", "1", "--kl-mean", "1")
        self.expect_failure(self.gate(f'[[gate]]\nname="a"\nrun={loose}\n'), 3, "given by a user")
        self.assertEqual(self.gate(f'[[gate]]\nname="a"\nrun={loose}\nuser_limits=true\n').code, 0)
        self.expect_failure(self.gate(f'[[gate]]\nname="a"\nrun={comparison()}\nlimits={{"kl.worst"=1e-12}}\n'), 3, "the policy allows")
        self.expect_failure(self.gate('[[gate]]\nname="a"\nreceipt="none.json"\n'), 3, "none.json")
        self.expect_failure(self.gate(f'[[gate]]\nname="a"\nrun={comparison("/no/such.gguf")}\n'), 3, "no/such")

    def test_require_cpp(self):
        oracle = words("crossval", "--model", MODEL, "--reference", "oracle", "--prompt", "And", "--kl-mean", "1", "--kl-worst", "1")
        policy = f'[[gate]]\nname="a"\nrun={oracle}\nuser_limits=true\n'
        self.expect_failure(self.gate(policy, "--require-cpp"), 3, "no C\\+\\+ reference")
        self.assertEqual(self.gate(f'[[gate]]\nname="a"\nrun={comparison()}\n', "--require-cpp").code, 0)

    def test_a_policy_that_is_not_understood_is_an_error(self):
        for policy, says in (("", "no \\[\\[gate\\]\\]"), ("[[gate]]\nname = 1", "gate 1: name is no text"), ("x = [", "line 1"),
                             ('[[gate]]\nname="a"\nrun=["infer"]', "writes no receipt"), ('typo = 1\n', "`typo` is not known")):
            (self.folder / "policy.toml").write_text(policy)
            result = run("gate", self.folder / "policy.toml")
            self.assertEqual(result.code, 5, result)
            self.assertRegex(result.err, says)
        self.assertEqual(run("gate", self.folder / "none.toml").code, 5)
        self.assertEqual(run("gate").code, 2)


class Baselines(Policies):
    def test_they_are_written_and_held_against_and_not_loosened_without_a_reason(self):
        policy = f'[[gate]]\nname = "same"\nrun = {comparison()}\nbaseline = true\n'
        self.expect_failure(self.gate(policy), 3, "there is none in baselines")
        written = self.gate(policy, "--update-baseline")
        self.assertEqual(written.code, 0, written)
        [path] = (self.folder / "baselines").glob("*/same.json")
        self.assertRegex(path.parent.name, r"^\d{4}-\d\d-\d\d$")
        self.assertIn(str(path.relative_to(self.folder)), written.json["gates"][0]["baseline"])
        self.assertEqual(run("verify-receipt", path).code, 0)
        self.assertEqual(self.gate(policy).code, 0)

        def tighten(r):  # as if the reference had been quieter then
            for limit in r["limits"]:
                limit["value"] /= 2

        receipt_edit.edited(path, tighten, path)
        self.expect_failure(self.gate(policy), 3, "baseline: the limit kl.* is looser")
        self.expect_failure(self.gate(policy, "--update-baseline"), 3, "takes a --reason")
        self.assertEqual(self.gate(policy, "--update-baseline", "--reason", "a new release of the reference").code, 0)
        self.assertIn("a new release of the reference", path.with_suffix(".reason.txt").read_text())
        self.assertEqual(self.gate(policy).code, 0)
        path.write_text(path.read_text().replace("match", "drift"))
        self.expect_failure(self.gate(policy), 3, "baseline: .*changed")

    def test_what_does_not_pass_becomes_no_baseline(self):
        policy = f'[[gate]]\nname = "wrong"\nrun = {comparison(WRONG)}\nbaseline = true\n'
        self.assertEqual(self.gate(policy, "--update-baseline").code, 1)
        self.assertFalse((self.folder / "baselines").exists())


class Mapper(Case):
    """The documented gate: JSON {name, ok, unmapped_count, sample_unmapped (10 at most), counts}, exit 0 or 1."""

    def mapper(self, model):
        result = run("gate", "mapper", "--model", model)
        self.assertEqual(result.json["name"], "ms_bitnet_names_map_clean")
        self.assertEqual((result.code, result.json["ok"]), (0, True) if result.json["unmapped_count"] == 0 else (1, False), result)
        return result.json

    def test_models_that_are_bundled_map_clean(self):
        for model in (MODEL, WRONG):
            found = self.mapper(model)
            self.assertEqual((found["ok"], found["sample_unmapped"], found["counts"]["n_mapped"]), (True, [], found["counts"]["n_tensors"]))

    def test_names_that_nothing_reads_are_counted_and_ten_are_shown(self):
        file = tiny_gguf.tiny(layers=2)
        self.assertEqual(self.mapper(file.write(self.folder / "good.gguf"))["unmapped_count"], 0)
        for i in range(12):
            file.tensors[f"blk.0.extra_{i}.weight"] = tiny_gguf.vector([1.0] * 8)
        file.tensors["blk.7.attn_q.weight"] = tiny_gguf.vector([1.0] * 8)  # of a layer that there is not
        found = self.mapper(file.write(self.folder / "bad.gguf"))
        self.assertEqual((found["unmapped_count"], len(found["sample_unmapped"])), (13, 10))
        self.assertEqual(found["sample_unmapped"][0], "blk.0.extra_0.weight")

    def test_a_file_that_is_none(self):
        self.assertEqual(run("gate", "mapper", "--model", __file__).code, 5)
        self.assertEqual(run("gate", "mapper").code, 2)


class History(Case):
    def setUp(self):
        super().setUp()
        self.cache = self.folder / "cache"
        self.cache.mkdir()
        for name in ("references", "models", "noise"):
            (self.cache / name).symlink_to(os.path.realpath(os.path.join(CACHE.name, name)))

    def here(self, *args):
        return run(*args, env={"PARITYBIT_CACHE": self.cache})

    def history(self, *args):
        result = self.here("history", "--format", "json", *args)
        self.assertEqual((result.code, result.json["exit_code"]), (0, 0), result)
        return result.json

    def test_runs_in_order_and_when_a_pair_first_parted(self):
        self.assertEqual(self.history()["runs"], [])
        self.assertIn("nothing was run here yet", self.here("history").out)
        good = ("crossval", "-m", MODEL, "-c", "mutant", "-r", "native", "-p", "And God said")
        # The same engine under the same name, which computes wrongly later.
        bad = ("crossval", "-m", MODEL, "-c", "mutant", "--set", "mutant.defect=rope_late", "--set", "mutant.stage=q_rope", "--set",
               "mutant.layer=1", "-r", "native", "-p", "And God said")
        self.assertEqual([self.here(*good).code, self.here(*bad).code, self.here(*good).code], [0, 1, 0])
        self.assertEqual(self.here("audit", "-m", MODEL, "-p", "And God").code, 0)
        told = self.history()
        self.assertEqual([(r["command"], r["verdict"]) for r in told["runs"]],
                         [("crossval", "match"), ("crossval", "diverged"), ("crossval", "match"), ("audit", "match")])
        [pair] = told["pairs"]
        self.assertEqual((pair["candidate"], pair["reference"], pair["n_runs"], pair["n_diverged"], pair["last_verdict"]),
                         ("mutant", "native", 3, 1, "match"))
        self.assertEqual((pair["first_parted"], pair["last_agreed_before"]), (told["runs"][1]["when"], told["runs"][0]["when"]))
        self.assertEqual(pair["first_parted_at"], "layer 1, q_rope")
        text = self.here("history")
        self.assertRegex(text.out, r"pair       mutant \| native on .*\n.*first parted")
        self.assertEqual(len(self.history("--last", 1)["runs"]), 1)
        self.assertEqual(len(self.history("--engine", "mutant")["runs"]), 3)
        self.assertEqual(self.history("--model", "other")["runs"], [])

    def test_two_traces_count_for_their_engines(self):
        for engine in ("native", "mutant"):
            self.assertEqual(self.here("trace", "-m", MODEL, "-e", engine, "-p", "And God", "--out", self.folder / engine).code, 0)
        self.assertEqual(self.here("trace-diff", self.folder / "native", self.folder / "mutant").code, 0)
        self.assertEqual(self.here("crossval", "-m", MODEL, "-c", "native", "-r", "mutant", "-p", "And God").code, 0)
        told = self.history()
        self.assertEqual([(r["command"], r["verdict"]) for r in told["runs"]], [("trace-diff", "match"), ("crossval", "match")])
        self.assertIn(str(self.folder / "mutant"), told["runs"][0]["call"])
        self.assertEqual([(p["candidate"], p["reference"], p["n_runs"]) for p in told["pairs"]], [("native", "mutant", 2)])

    def test_lines_that_are_damaged_are_left_out_and_told(self):
        self.assertEqual(self.here("audit", "-m", MODEL, "-p", "And God").code, 0)
        log = self.cache / "runs" / "history.jsonl"
        line = log.read_text()
        log.write_text(line.replace("match", "drift") + line + line[:50])
        told = self.history()
        self.assertEqual((len(told["runs"]), told["n_damaged"]), (1, 2))
        self.assertIn("2 lines of the log", self.here("history").err)
        self.assertEqual(self.here("audit", "-m", MODEL, "-p", "And God").code, 0)  # the cut line stays alone
        self.assertEqual(len(self.history()["runs"]), 2)

    def test_the_log_stays_bounded(self):
        self.assertEqual(self.here("audit", "-m", MODEL, "-p", "And God").code, 0)
        log = self.cache / "runs" / "history.jsonl"
        line = log.read_text()
        log.write_text(line * (2 * (2 << 20) // len(line) // 2 + 10))
        self.assertEqual(self.here("audit", "-m", MODEL, "-p", "And God").code, 0)
        self.assertLess(log.stat().st_size, 1.2 * (1 << 20))
        self.assertEqual(self.history()["n_damaged"], 0)


if __name__ == "__main__":
    main()

"""paritybit self-check on a seeded share of its cases; that it fails when something is wrong; that it goes on after an interruption."""
import json
import signal
import subprocess
import time

from driver import PARITYBIT, Case, main, run, sealed

# A tenth of the cases of each kind in turn.
SHARE, SEED = "0.10", "1"


def self_check(*args):
    return run("self-check", "--format", "json", *args, timeout=1500)


class SelfCheck(Case):
    def test_a_share_of_the_cases_meets_every_goal(self):
        result = self_check("--share", SHARE, "--seed", SEED, "--results", self.folder / "results.jsonl")
        self.assertEqual((result.code, result.json["exit_code"], result.json["verdict"]), (0, 0, "match"), result)
        total, harmless = result.json["total"], result.json["harmless"]
        self.assertGreater(total["defects"], 40)
        # of a list made beside the tool all are found, placed, blamed and named: anything less is a step back
        for goal in ("detected", "exact_op", "blamed_right", "named_right"):
            self.assertEqual(total[goal], total["defects"], goal)
        self.assertEqual((total["failed"], harmless["failed"], harmless["false_alarms"]), (0, 0, 0))
        self.assertGreater(harmless["change_bits"], 3)
        self.assertGreater(len(result.json["kinds"]), 15)

    def test_nothing_to_check_is_no_pass(self):
        result = self_check("--filter", "no such case", "--results", self.folder / "results.jsonl")
        self.assertEqual((result.code, result.json["verdict"]), (3, "incomplete"), result)
        self.assertEqual(result.codes(), ["goal-missed"])

    def test_an_interrupted_run_goes_on(self):
        results = self.folder / "results.jsonl"
        args = ["--filter", "tiny-bitnet-silu-tq2_0 layer 3 attn_scores", "--no-reference", "--results", results]
        process = subprocess.Popen([PARITYBIT, "self-check", *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 300
        while time.time() < deadline and (not results.exists() or results.read_text().count("\n") < 4):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 130)
        kept = [json.loads(line) for line in results.read_text().splitlines()[1:]]
        self.assertGreaterEqual(len(kept), 3)
        # A kept case that says it was missed is still so afterwards: it was not run again.
        lines = results.read_text().splitlines()
        marked = json.loads(lines[1])
        marked["detected"] = False
        results.write_text("\n".join([lines[0], sealed(marked).rstrip("\n"), *lines[2:]]) + "\n")
        result = self_check(*args, "--resume")
        missed = [case["case"] for case in result.json["cases"] if not case["detected"] and not case["not_counted"]]
        self.assertEqual(missed, [marked["key"]], result)
        self.assertEqual(result.code, 1)
        self.assertEqual(result.codes(), ["goal-missed"])

    def test_generated_defects_are_held_against_truths_written_beforehand(self):
        """One a model, plain; what is found of them, and that it is kept."""
        args = ["--generated", "--cases", "5", "--filter", "fault.0 ", "--results", self.folder / "results.jsonl"]
        result = self_check(*args)
        self.assertEqual(result.json["schema"], "paritybit.self-check-generated/0", result)
        cases = result.json["cases"]
        self.assertEqual(len(cases), 5, result)
        self.assertEqual(len({case["defect"] for case in cases}), 5)
        for case in cases:
            self.assertTrue(case["truth"].startswith("where="), case)
            self.assertEqual((case["error"], case["detected"], case["exact_op"], case["blamed_right"]), ("", True, True, True), case)
            self.assertIn(case["match"], ("right", "partial", "nothing", "wrong"))
        self.assertEqual(len(result.json["goals"]), 5)
        self.assertEqual(result.json["goals"][0], {"text": "all are found with --paths all: 5 of 5 (100.0 %)", "holds": True})
        # No harmless change was tried.
        self.assertEqual((result.code, result.json["goals"][4]["holds"]), (1, False))
        self.assertRegex(result.json["defects_commit"], r"^([0-9a-f]{40}|$)")
        again = self_check(*args, "--resume")
        self.assertEqual([case["said"] for case in again.json["cases"]], [case["said"] for case in cases])
        self.assertLess(again.json["wall_seconds"], result.json["wall_seconds"])

    def test_what_generated_defects_do_not_take_is_refused(self):
        for args in (["--record", "page.md"], ["--generated", "--share", "0.5"], ["--generated", "--cases", "0"],
                     ["--generated", "--seed", "10000001"], ["--generated", "--record", "page.md", "--filter", "mask"]):
            result = run("self-check", *args)
            self.assertEqual(result.code, 2, result)


if __name__ == "__main__":
    main()

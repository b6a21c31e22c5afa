"""paritybit self-check on a seeded share of its cases; that it fails when something is wrong; that it goes on after an interruption."""
import json
import signal
import subprocess
import time

from driver import PARITYBIT, Case, main, run, sealed

# A quarter of the cases of each kind in turn.
SHARE, SEED = "0.15", "1"


def self_check(*args):
    return run("self-check", "--format", "json", *args, timeout=1500)


class SelfCheck(Case):
    def test_a_share_of_the_cases_meets_every_goal(self):
        result = self_check("--share", SHARE, "--seed", SEED, "--results", self.folder / "results.jsonl")
        self.assertEqual((result.code, result.json["exit_code"], result.json["verdict"]), (0, 0, "match"), result)
        total, harmless = result.json["total"], result.json["harmless"]
        self.assertGreater(total["defects"], 40)
        self.assertEqual(total["detected"], total["defects"])
        self.assertGreaterEqual(total["exact_op"], 0.98 * total["defects"])
        self.assertGreaterEqual(total["blamed_right"], 0.95 * total["defects"])
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


if __name__ == "__main__":
    main()

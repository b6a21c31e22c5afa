"""Code paths: a verdict lists those that it did not go through, and --paths all finds a defect on each that a plain run misses."""
import json
import shlex

from driver import SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
PLAIN = "And God said, Let there be light"
# A factor upon one product, in some evaluations only; the run of --paths all that goes through them.
DEFECT = "mutant,mutant.defect=factor_1.05,mutant.stage=down_proj,mutant.layer=3,mutant.when="
FOUND_BY = {"few_rows": "2 to 3 tokens at once", "two_threads": "two threads",
            "many_rows": "text of all kinds", "past_32": "text of all kinds", "flash": "flash attention"}


class Paths(Case):
    def judge(self, *args, candidate="native", reference="native"):
        return self.crossval("--model", MODEL, "--candidate", candidate, "--reference", reference, "--prompt", PLAIN, *args)

    def test_what_a_run_did_not_go_through_is_listed(self):
        left = self.judge().json["paths"]
        self.assertEqual(left["runs"], [])
        self.assertIn("decode", left["not_taken"])
        self.assertIn("two threads", left["not_taken"])
        more = self.judge("-n", "2", "--threads", "2").json["paths"]["not_taken"]
        self.assertEqual(set(left["not_taken"]) - set(more), {"decode", "two threads"})
        text = " ".join(run("crossval", "--model", MODEL, "--reference", "native", "--prompt", PLAIN).out.split())
        self.assertIn("not gone through: decode; 2 to 3 tokens at once;", text)
        self.assertIn("more (-v); --paths all runs what it can", text)

    def test_a_defect_on_each_path_is_found_where_a_plain_run_misses_it(self):
        for when, name in FOUND_BY.items():
            with self.subTest(when):
                reference = "mutant" if when == "flash" else "native"
                plain = self.judge(candidate=DEFECT + when, reference=reference)
                self.expect(plain, "match", 0)
                found = self.judge("--paths", "all", candidate=DEFECT + when, reference=reference)
                self.expect(found, "diverged", 1)
                at = found.json["first_divergence"]
                self.assertEqual((at["stage"], at["layer"], found.json["blame"]), ("down_proj", 3, "candidate"), found)
                self.assertEqual(found.json["paths"]["runs"][-1]["name"], name)
                self.assertEqual(found.json["paths"]["runs"][-1]["verdict"], "diverged")
                self.assertTrue(any(f"'{name}' of --paths all" in note for note in found.json["notes"]), found.json["notes"])
                # What it says to do next goes down that path again.
                again = run(*shlex.split(found.json["next"][0])[1:])
                self.assertIn("down_proj", again.out)

    def test_engines_that_agree_pass_and_say_what_is_left(self):
        result = self.judge("--paths", "all", candidate="llama.cpp,cpu.library=haswell", reference="llama.cpp,cpu.library=haswell")
        self.expect(result, "match", 0)
        paths = result.json["paths"]
        self.assertEqual([r["name"] for r in paths["runs"]], ["2 to 3 tokens at once", "text of all kinds", "two threads",
                                                              "flash attention", "a long prompt"])
        # Two spinning threads on a busy machine may take any time: then they are given up, and it is said.
        threads = paths["runs"][2]
        if threads["verdict"] not in ("match", "near-tie", "drift"):
            self.assertIn("given up after", json.dumps(threads))
        self.assertEqual({r["verdict"] for r in paths["runs"] if r is not threads} - {"match", "near-tie", "drift"}, set())
        self.assertEqual("two threads" in paths["not_taken"], threads["verdict"] not in ("match", "near-tie", "drift"), paths)
        self.assertEqual(paths["not_taken"][-1], "a second sequence beside the first")
        for path in ("decode", "flash attention", "text with code", "text in other scripts"):
            self.assertNotIn(path, paths["not_taken"])


main()

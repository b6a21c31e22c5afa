#!/usr/bin/env python3
"""Which precision an engine uses for a product is observed on it. The stand-in for a library that multiplies F16 weights with
unrounded activations wherever a matrix has a multiple of 32 rows (llama.cpp with AMX): the native engine wrapped, which says that it
goes by ggml's table.

precision_test.py BUILD_DIRECTORY"""
import json
import pathlib
import re
import tempfile

import driver
import receipt_edit as receipts
from driver import run

UNROUNDED = "mutant,mutant.act_quant=ggml+F16/32:none"
# So llama.cpp does where the output matrix is the embedding too, which it does not put aside for the matrix unit.
BUT_THE_OUTPUT = "mutant,mutant.act_quant=ggml+F16:none+F16/output:f16"
PROMPT = "the quick brown fox jumps over the lazy dog"


class Precision(driver.Case):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="paritybit-test-")
        cls.addClassCleanup(holder.cleanup)
        cls.models = pathlib.Path(holder.name)
        cls.f16 = cls.model("f16", "F16")
        cls.small = cls.model("small", "F16", "--d-model", "64", "--d-ff", "128")  # sums in f16 take their time
        cls.tq2 = cls.model("tq2", "TQ2_0")

    @classmethod
    def model(cls, name, weights, *more):
        path = cls.models / name / f"{name}.gguf"
        path.parent.mkdir()
        shape = {"--d-model": "256", "--d-ff": "512", "--layers": "2", **dict(zip(more[::2], more[1::2]))}
        made = run("gen-fixtures", "--out", path, "--weights", weights, "--heads", "4", "--kv-heads", "2", "--vocab", "320",
                   *(word for pair in shape.items() for word in pair))
        assert made.code == 0, made
        return path

    def compare(self, model, *args):
        return self.crossval("--model", model, "--prompt", PROMPT, *args)

    def reason(self, result, code="precision-differs"):
        found = [r for r in result.json["reasons"] if r["code"] == code]
        self.assertEqual(len(found), 1, result)
        return found[0]

    def test_two_right_ways_are_no_fault_of_either_engine(self):
        for candidate, reference in (("native", UNROUNDED), (UNROUNDED, "native")):
            result = self.compare(self.f16, "--candidate", candidate, "--reference", reference)
            self.assertIn((result.json["verdict"], result.code), [("match", 0), ("drift", 0)], result)
            self.assertEqual(result.json["blame"], "none")
            self.assertIn("each is right by its own", self.reason(result)["text"])
        self.assertIn("F16", self.reason(result)["text"])

    def test_the_output_matrix_may_be_computed_otherwise_than_the_layers(self):
        audit = run("audit", "--model", self.f16, "--engine", BUT_THE_OUTPUT, "--prompt", PROMPT, "-n", "2", "--format", "json")
        self.assertEqual((audit.json["verdict"], audit.json["blame"], audit.code), ("match", "none", 0), audit)
        facts = next(e for e in audit.json["engines"] if e["role"] == "engine")["session_facts"]
        self.assertEqual(facts["act.quant"]["value"], "ggml+F16:none+F16/output:f16")
        self.assertEqual(facts["act.products"]["value"], "F16 (layers) none, F16 (output) f16")
        compared = self.compare(self.f16, "--reference", BUT_THE_OUTPUT)
        self.assertIn((compared.json["verdict"], compared.code), [("match", 0), ("drift", 0)], compared)
        logits = [p for p in compared.json["points"] if p["stage"] == "logits"]
        self.assertTrue(logits and all(p["bound_ratio"] <= 1 for p in logits), logits)
        # Alone it shows no habit; with layers that do the same it is one of them.
        for scheme, verdicts in (("ggml+F16/output:none", ("drift",)), ("ggml+F16:none", ("match", "drift"))):
            result = self.compare(self.f16, "--reference", f"mutant,mutant.act_quant={scheme}")
            self.assertIn(result.json["verdict"], verdicts, result)

    def test_attention_that_an_engine_does_not_round_is_no_fault_of_it(self):
        """ik_llama.cpp multiplies the keys of an f16 cache with queries as they are. On another grid than the reference's the logits may
        lie beyond its noise, and within what the arbiter says of that."""
        unrounded = "mutant,mutant.defect=benign_unrounded"
        for candidate, reference in ((unrounded, "native"), ("native", unrounded)):
            result = self.compare(self.small, "--candidate", candidate, "--reference", reference, "-n", "2")
            self.assertIn((result.json["verdict"], result.json["blame"], result.code), [("match", "none", 0), ("drift", "none", 0)], result)
            texts = [r["text"] for r in result.json["reasons"] if r["code"] == "precision-differs"]
            self.assertTrue(any("queries that one side rounds to f16" in t for t in texts), texts)
            self.assertTrue(any("probabilities that one side rounds to f16" in t for t in texts), texts)
        audit = run("audit", "--model", self.small, "--engine", unrounded, "--prompt", PROMPT, "--format", "json")
        self.assertEqual((audit.json["verdict"], audit.json["blame"], audit.code), ("match", "none", 0), audit)
        strict = self.compare(self.small, "--candidate", unrounded, "--reference", "native", "--strict-precision")
        self.assertEqual((strict.json["verdict"], strict.json["first_divergence"]["stage"]), ("diverged", "attn_scores"), strict)
        # What is wrong beside it is found, and a scale that is off is not taken for it.
        for defect, stage in (("scores_factor_1.05", "attn_scores"), ("rows_exchanged", "v_proj")):
            wrong = self.compare(self.small, "--candidate", f"mutant,mutant.defect={defect},mutant.stage={stage},mutant.layer=1",
                                 "--reference", unrounded)
            self.assertEqual((wrong.json["verdict"], wrong.json["blame"]), ("diverged", "candidate"), wrong)
            place = wrong.json["first_divergence"]
            self.assertEqual((place["layer"], place["stage"]), (1, stage), wrong)

    def test_experts_are_a_class_of_their_own(self):
        """As llama.cpp with AMX: layers unrounded, experts rounded; and the other way about."""
        model = self.model("experts", "F16", "--architecture", "qwen3moe", "--experts", "4", "--experts-used", "2")
        for scheme, products in (("ggml+F16:none+F16/experts:f16", "F16 (layers) none, F16 (experts) f16, F16 (output) none"),
                                 ("ggml+F16/experts:none", "F16 (layers) f16, F16 (experts) none, F16 (output) f16")):
            engine = f"mutant,mutant.act_quant={scheme}"
            audit = run("audit", "--model", model, "--engine", engine, "--prompt", PROMPT, "-n", "2", "--format", "json")
            self.assertEqual((audit.json["verdict"], audit.json["blame"], audit.code), ("match", "none", 0), audit)
            facts = next(e for e in audit.json["engines"] if e["role"] == "engine")["session_facts"]
            self.assertEqual(facts["act.quant"]["value"], scheme)
            self.assertIn(products, facts["act.products"]["value"])
            for candidate, reference in ((engine, "native"), ("native", engine)):
                result = self.compare(model, "-n", "2", "--candidate", candidate, "--reference", reference)
                self.assertIn((result.json["verdict"], result.code), [("match", 0), ("drift", 0)], result)
                self.assertIn("each is right by its own", self.reason(result)["text"])
            strict = self.compare(model, "--candidate", engine, "--reference", "native", "--strict-precision")
            self.assertEqual((strict.json["verdict"], strict.json["blame"]), ("diverged", "candidate"), strict)
            # What is wrong among products that differ is found.
            wrong = self.compare(model, "--reference", engine, "--candidate",
                                 "mutant,mutant.defect=experts_exchanged,mutant.stage=expert_up,mutant.layer=1")
            self.assertEqual((wrong.json["verdict"], wrong.json["blame"]), ("diverged", "candidate"), wrong)
            place = wrong.json["first_divergence"]
            self.assertEqual((place["layer"], place["stage"]), (1, "expert_up"), wrong)

    def test_strictly_it_is_a_divergence(self):
        result = self.compare(self.f16, "--reference", UNROUNDED, "--strict-precision")
        self.assertEqual((result.json["verdict"], result.code), ("diverged", 1), result)
        self.assertIn(result.json["first_divergence"]["stage"], ("q_proj", "k_proj", "v_proj"))
        self.assertEqual((result.json["first_divergence"]["layer"], result.json["blame"]), (0, "reference"))

    def test_one_matrix_shows_no_habit(self):
        model = self.model("output", "Q8_0")
        result = self.compare(model, "--reference", "mutant,mutant.act_quant=ggml+F16:none")
        self.assertEqual(result.code, 0, result)
        self.assertIn(result.json["verdict"], ("drift", "match", "near-tie"))

    def test_the_setting_that_makes_them_equal_does(self):
        result = self.compare(self.f16, "--set", "act.quant=ggml+F16/32:none", "--reference", UNROUNDED)
        self.assertEqual((result.json["verdict"], result.code), ("match", 0), result)
        self.assertFalse([r for r in result.json["reasons"] if r["code"] == "precision-differs"])

    def test_integer_codes_left_out_everywhere_do_not_pass_by_being_consistent(self):
        forgets = "mutant,mutant.act_quant=ggml+TQ2_0:none"
        result = self.compare(self.tq2, "--candidate", forgets, "--reference", "native")
        self.assertEqual((result.json["verdict"], result.code), ("incomplete", 3), result)
        self.assertIn("--accept-precision TQ2_0=none", self.reason(result)["text"])
        accepted = self.compare(self.tq2, "--candidate", forgets, "--reference", "native", "--accept-precision", "TQ2_0=none")
        self.assertEqual(accepted.code, 0, accepted)

    def test_a_difference_in_one_layer_is_no_scheme(self):
        result = self.compare(self.f16, "--candidate", "mutant,mutant.defect=quant_none,mutant.stage=q_proj,mutant.layer=1",
                               "--reference", "native")
        self.assertEqual((result.json["verdict"], result.code), ("diverged", 1), result)
        place = result.json["first_divergence"]
        self.assertEqual((place["layer"], place["stage"]), (1, "q_proj"))
        self.assertEqual(result.json["blame"], "candidate")

    def test_a_difference_in_one_phase_is_no_scheme(self):
        """Products of a prefill and of decode steps are of one class: an engine that rounds the one and not the other has no scheme."""
        for when, step in (("prefill", 0), ("decode", 1)):
            result = self.compare(self.f16, "-n", "3", "--candidate", f"mutant,mutant.defect=quant_none,mutant.when={when}", "--reference", "native")
            self.assertEqual((result.json["verdict"], result.code, result.json["blame"]), ("diverged", 1, "candidate"), result)
            place = result.json["first_divergence"]
            self.assertEqual((place["layer"], place["stage"] in ("q_proj", "k_proj", "v_proj")), (0, True), result)
            tokens = len(result.json["prompts"][0]["tokens"])
            self.assertEqual(place["position"] >= tokens, step == 1, result)

    def test_sums_in_f16_are_at_most_drift(self):
        sums = "mutant,mutant.sums=f16"
        for candidate, reference in ((sums, "native"), ("native", sums)):
            result = self.compare(self.small, "--candidate", candidate, "--reference", reference)
            self.assertEqual((result.json["verdict"], result.code), ("drift", 0), result)
            self.assertIn("2 x 2^-11 x sqrt(128)", self.reason(result)["text"])  # the longest sum: d_ff
            self.assertIn("with sums in f16", self.reason(result)["text"])
        audit = run("audit", "--model", self.small, "--engine", sums, "--prompt", PROMPT, "--format", "json")
        self.assertEqual((audit.json["verdict"], audit.code), ("drift", 0), audit)
        strict = self.compare(self.small, "--candidate", sums, "--reference", "native", "--strict-precision")
        self.assertEqual((strict.json["verdict"], strict.code), ("diverged", 1), strict)

    def test_sums_in_f16_hide_no_defect_and_are_a_habit_or_nothing(self):
        for candidate, reference, blame, at in (
                ("mutant,mutant.sums=f16,mutant.stage=q_proj,mutant.layer=1", "native", "candidate", (1, "q_proj")),
                ("mutant,mutant.defect=factor_1.05,mutant.stage=up_proj,mutant.layer=1", "mutant,mutant.sums=f16", "candidate", (1, "up_proj")),
                ("mutant,mutant.defect=rows_exchanged,mutant.stage=attn_out,mutant.layer=0", "mutant,mutant.sums=f16", "candidate", (0, "attn_out"))):
            result = self.compare(self.small, "--candidate", candidate, "--reference", reference)
            self.assertEqual((result.json["verdict"], result.code, result.json["blame"]), ("diverged", 1, blame), result)
            place = result.json["first_divergence"]
            self.assertEqual((place["layer"], place["stage"]), at, result)

    def test_the_setting_that_makes_them_equal_does(self):
        result = self.compare(self.f16, "--reference", UNROUNDED)
        found = re.search(r"(--set) (act\.quant=\S+) makes them equal", self.reason(result)["text"])
        self.assertTrue(found, result)
        equal = self.compare(self.f16, "--reference", UNROUNDED, *found.groups())
        self.assertEqual((equal.json["verdict"], equal.code), ("match", 0), equal)
        self.assertFalse([r for r in equal.json["reasons"] if r["code"] == "precision-differs"], equal)

    def test_logits_alone_are_held_against_the_effect_of_the_schemes(self):
        """Where ops are not compared a difference of rounding is no fault either, and hides none."""
        result = self.compare(self.f16, "--reference", UNROUNDED, "--scope", "logits-only")
        self.assertEqual(result.code, 0, result)
        wrong = self.compare(self.f16, "--candidate", "mutant,mutant.defect=factor_1.05,mutant.stage=down_proj,mutant.layer=1",
                             "--reference", UNROUNDED, "--scope", "logits-only")
        self.assertEqual((wrong.json["verdict"], wrong.code), ("diverged", 1), wrong)
        # Without an f16 cache there is hardly any noise, so that the effect decides.
        small = ("--reference", UNROUNDED, "--scope", "logits-only", "--set", "kv.type=f32", "--set-reference", "kv.type=f32")
        for flags, verdict, code in (((), "drift", 0), (("--strict-precision",), "diverged", 1), (
                ("--candidate", "mutant,mutant.defect=factor_1.05,mutant.stage=down_proj,mutant.layer=1"), "diverged", 1)):
            result = self.compare(self.f16, *small, *flags)
            self.assertEqual((result.json["verdict"], result.code), (verdict, code), result)
            limits = {l["name"] for l in result.json["limits"]}
            self.assertEqual("kl.worst.precision" in limits, not flags or flags[0] == "--candidate", result)
        # Its receipt holds the effect that the wider limits come of.
        receipt = self.folder / "r.json"
        self.assertEqual(self.compare(self.f16, *small, "--receipt", receipt).json["verdict"], "drift")
        failed = lambda path: [g["gate"] for g in run("verify-receipt", path, "--format", "json").json["gates"] if not g["passed"]]
        self.assertEqual(failed(receipt), ["computation"])  # a mutant stands in for the library
        self.assertGreater(json.loads(receipt.read_text())["precision_effect"]["worst_kl"], 0)
        for edit in (lambda r: next(l for l in r["limits"] if l["name"] == "kl.worst.precision").update(value=9),
                     lambda r: r["precision_effect"].update(worst_kl=9), lambda r: r.update(precision_effect=None),
                     lambda r: [reason.update(outcome="match") for reason in r["reasons"] if reason["code"] == "kl-worst-above-limit"]):
            self.assertIn("logits", failed(receipts.edited(receipt, edit)))
        told = run("crossval", "--model", self.f16, "--prompt", PROMPT, *small)
        self.assertIn("no more than both ways of rounding", " ".join(told.out.split()))

    def test_a_defect_among_products_that_differ_is_placed(self):
        """A library that rounds otherwise hides nothing: the one wrong weight is found where it is, in the engine that has it."""
        result = self.compare(self.f16, "--candidate", "mutant,mutant.defect=factor_1.05,mutant.stage=down_proj,mutant.layer=1",
                               "--reference", UNROUNDED)
        self.assertEqual((result.json["verdict"], result.code), ("diverged", 1), result)
        place = result.json["first_divergence"]
        self.assertEqual((place["layer"], place["stage"]), (1, "down_proj"))
        self.assertEqual(result.json["blame"], "candidate")

    def test_a_quantiser_that_computes_the_same_by_other_arithmetic_is_right(self):
        """Scales by the reciprocal of 127, ties away from zero, Q8_1's sum term by term: scales and sums on a boundary step as codes do."""
        q4_1 = self.model("q4_1", "Q4_1", "--d-ff", "2048", "--layers", "3")
        long = " ".join([PROMPT + " and all the world wonders at it"] * 2)
        other = "mutant,mutant.defect=benign_quantiser"
        result = self.crossval("--model", q4_1, "--prompt", long, "--candidate", other, "--reference", "native")
        self.assertEqual(result.code, 0, result)
        explained = " ".join(p["explanation"] for p in result.json["points"] if p["explained_by_codes"])
        self.assertRegex(explained, r"[1-9]\d* of \d+ stored sums of activations( and \S+ of \S+ \S+)? lie on a rounding boundary")
        audit = run("audit", "--model", q4_1, "--engine", other, "--prompt", PROMPT, "--format", "json")
        self.assertEqual((audit.json["verdict"], audit.code), ("match", 0), audit)
        self.assertEqual(self.compare(self.tq2, "--candidate", "native", "--reference", other).code, 0)

    def test_codes_that_are_truncated_everywhere_are_a_fault(self):
        result = self.compare(self.model("q8", "Q8_0"), "--candidate", "mutant,mutant.defect=quant_truncates", "--reference", "native")
        self.assertEqual((result.json["verdict"], result.code, result.json["blame"]), ("diverged", 1, "candidate"), result)
        place = result.json["first_divergence"]
        self.assertEqual((place["layer"], place["stage"] in ("q_proj", "k_proj", "v_proj")), (0, True), result)

    def test_an_audit_judges_by_what_it_observed(self):
        result = run("audit", "--model", self.f16, "--engine", UNROUNDED, "--prompt", PROMPT, "--format", "json")
        self.assertEqual(result.code, 0, result)
        strict = run("audit", "--model", self.f16, "--engine", UNROUNDED, "--prompt", PROMPT, "--strict-precision", "--format", "json")
        self.assertEqual((strict.json["verdict"], strict.code), ("diverged", 1), strict)

    def test_flags_that_make_no_sense_are_refused(self):
        for flags in (["--accept-precision", "F16"], ["--accept-precision", "F16=q9"], ["--accept-precision", "Q9_X=none"],
                      ["--strict-precision", "--accept-precision", "F16=none"]):
            result = run("crossval", "--model", self.f16, "--reference", "native", "--prompt", PROMPT, *flags)
            self.assertEqual(result.code, 2, result)
            self.assertTrue(re.search("precision", result.err), result)


if __name__ == "__main__":
    driver.main()

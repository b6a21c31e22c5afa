"""Receipts and their gates: real comparisons are written down and verified; each gate fails for what it is there for, whoever edits,
leaves out or writes by hand; what the documented system's receipts let through is let through by none."""
import hashlib
import json
import pathlib
import random
import re
import shlex
import shutil
import time

import receipt_edit as receipts
from driver import BUILD, RELU2, ROOT, SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
WRONG = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
HASWELL = "llama.cpp,cpu.library=haswell"
GATES = ["integrity", "computation", "coverage", "tokens", "logits", "ops", "determinism", "identity"]
WRITTEN = {}


def written(name, *args):
    """The receipt that a command writes, made once: (path, what the command came to)."""
    if name not in WRITTEN:
        path = pathlib.Path(FOLDER) / f"{name}.json"
        WRITTEN[name] = (path, run(*args, "--receipt", path, "--format", "json"))
    return WRITTEN[name]


def crossval():
    return written("crossval", "crossval", "-m", MODEL, "-r", HASWELL, "-p", "And God said", "-p", "Let there", "-n", 2)


def trace_pair():
    folders = [pathlib.Path(FOLDER) / name for name in ("native", "llama")]
    for folder, engine in zip(folders, ("native", HASWELL)):
        if not folder.exists():
            assert run("trace", "-m", MODEL, "-e", engine, "-p", "And God", "--out", folder, "--level", "full").code == 0
    return folders


class Verified(Case):
    def verify(self, *args, **kwargs):
        result = run("verify-receipt", "--format", "json", *args, **kwargs)
        self.assertTrue(result.out, result)
        self.assertEqual(result.code, result.json["exit_code"], result)
        self.assertEqual(list(result.json)[:6], ["schema", "verdict", "scope", "exit_code", "reasons", "next"], result)
        self.assertEqual(result.err, "", result)
        return result

    def failed(self, result):
        return [gate["gate"] for gate in result.json["gates"] if not gate["passed"]]

    def expect_failure(self, result, gate, exit_code, says):
        self.assertEqual(result.code, exit_code, result)
        self.assertIn(gate, self.failed(result), result)
        saw = {g["gate"]: g["saw"] for g in result.json["gates"]}[gate]
        self.assertRegex(saw, says)

    def copy(self):
        path = self.folder / "receipt.json"
        shutil.copy(crossval()[0], path)
        return path

    def edit(self, change):
        """Verifies a comparison's receipt after a change by somebody who seals it again."""
        return self.verify(receipts.edited(self.copy(), change))


class Good(Verified):
    def test_a_comparison_passes_all_eight_gates(self):
        path, made = crossval()
        self.assertEqual((made.code, made.json["verdict"]), (0, "match"), made)
        result = self.verify(path)
        self.assertEqual((result.code, result.json["verdict"]), (0, "match"), result)
        self.assertEqual([g["gate"] for g in result.json["gates"]], GATES)
        text = run("verify-receipt", "--path", path)
        self.assertEqual(text.code, 0, text)
        self.assertRegex(text.out, r"gate 8     identity     passed")
        self.assertRegex(text.out, r"MATCH      the receipt stands: match\n           8 of 8 gates passed")

    def test_its_text_is_canonical_and_its_digest_is_of_its_content(self):
        text = crossval()[0].read_text()
        receipt = json.loads(text)
        self.assertEqual(text, receipts.sealed(receipt))
        self.assertEqual(receipt["schema"], "paritybit.receipt/1")

    def test_it_binds_what_ran(self):
        receipt = json.loads(crossval()[0].read_text())
        self.assertEqual(receipt["model"]["sha256"], hashlib.sha256(MODEL.read_bytes()).hexdigest())
        for engine in receipt["engines"]:
            facts = engine["description"]
            paths = [key[5:] for key in facts if key.startswith("path.")]
            self.assertTrue(paths, facts)
            for name in paths:
                file = pathlib.Path(facts[f"path.{name}"]["value"])
                self.assertEqual(facts[f"digest.{name}"]["value"], hashlib.sha256(file.read_bytes()).hexdigest(), file)
            self.assertEqual(engine["plugin_sha256"], hashlib.sha256(pathlib.Path(engine["plugin"]).read_bytes()).hexdigest())
        self.assertRegex(receipt["tool"]["sha256"], "^[0-9a-f]{64}$")
        self.assertLess(abs(time.time() - time.mktime(time.strptime(receipt["created"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone), 3600)

    def test_run_again_it_holds(self):
        result = self.verify(crossval()[0], "--recompute")
        self.assertEqual((result.code, result.json["again"]), (0, {"verdict": "match", "differences": [], "notes": []}), result)

    def test_an_audit_and_a_difference_of_traces_have_receipts_too(self):
        for name, args in (("audit", ("audit", "-m", MODEL, "-e", HASWELL, "-p", "And God")), ("diff", ("trace-diff", *trace_pair()))):
            path, made = written(name, *args)
            self.assertEqual(made.code, 0, made)
            result = self.verify(path, "--recompute")
            self.assertEqual((result.code, self.failed(result), result.json["again"]["differences"]), (0, [], []), result)

    def test_drift_passes_within_the_limits_that_it_states(self):
        """Attention as one op against separate ops: wider limits, and never a match."""
        path, made = written("flash", "crossval", "-m", MODEL, "-c", f"{HASWELL},attn.flash=on", "-r", HASWELL, "-p", "And God said", "-n", 2)
        self.assertEqual((made.code, made.json["verdict"]), (0, "drift"), made)
        receipt = json.loads(path.read_text())
        limits = {limit["name"]: limit for limit in receipt["limits"]}
        floor = receipt["noise_floor"]
        self.assertAlmostEqual(limits["kl.worst"]["value"], 4 * 3 * floor["worst_kl"], delta=1e-12)
        self.assertIn("as attn.flash differs", limits["kl.worst"]["origin"])
        result = self.verify(path, "--recompute")
        self.assertEqual((result.code, result.json["verdict"], self.failed(result)), (0, "drift", []), result)

    def test_a_diverged_one_is_genuine_and_does_not_pass(self):
        path, made = written("wrong", "crossval-per-token", "-m", WRONG, "-r", HASWELL, "-p", "And God said")
        self.assertEqual(made.code, 1, made)
        result = self.verify(path)
        self.assertEqual((result.code, result.json["verdict"], self.failed(result)), (1, "diverged", ["logits", "ops"]), result)


class OfOneThing(Verified):
    """Of an engine against itself, and of paritybit itself: nothing to compare with, and eight gates all the same."""

    def noise(self):
        return written("noise", "noise", "-m", MODEL, "-e", HASWELL, "-p", "And God said", "-n", 1)

    def self_check(self):
        return written("self-check", "self-check", "--filter", "tiny-bitnet-silu-tq2_0 layer 3 ffn_norm norm_c", "--no-reference", "--results",
                       pathlib.Path(FOLDER) / "results.jsonl")

    def test_noise_passes_and_says_what_was_varied(self):
        path, made = self.noise()
        self.assertEqual(made.code, 0, made)
        receipt = json.loads(path.read_text())
        self.assertEqual((receipt["command"], receipt["verdict"]), ("noise", "measured"))
        self.assertEqual(path.read_text(), receipts.sealed(receipt))
        self.assertEqual(len(receipt["axes"]), len(made.json["axes"]))
        positions = receipt["n_calibration"] + sum(len(p["tokens"]) + len(p["decoded"]) for p in receipt["prompts"])
        for axis in receipt["axes"]:
            if axis["refused"] is None:
                self.assertEqual(len(axis["kl"]), positions, axis["axis"])
        result = self.verify(path, "--recompute")
        self.assertEqual((result.code, self.failed(result), result.json["again"]["differences"]), (0, [], []), result)
        self.assertEqual([g["gate"] for g in result.json["gates"]], GATES)

    def test_noise_edited_and_sealed_again(self):
        path = self.noise()[0]

        def axis(choose, **values):
            return lambda r: next(a for a in r["axes"] if choose(a)).update(values)

        repeat, other = (lambda a: a["axis"] == "repeat"), (lambda a: a["axis"] == "feed")
        out = self.folder / "e.json"
        for gate, says, edit in (
                ("coverage", "of 405 positions", lambda r: r["axes"][0]["kl"].pop()),
                ("coverage", "nothing was varied", lambda r: r.update(axes=[])),
                ("coverage", "there is no noise floor", lambda r: r.update(noise_floor=None)),
                ("tokens", "decode steps were run", lambda r: r["prompts"][0].update(decoded=[])),
                ("logits", "another mean or worst", axis(other, worst_kl=1)),
                ("logits", "its noise floor makes", lambda r: r["limits"][0].update(value=1)),
                ("logits", "is called (equal|different)", axis(repeat, equal_bits=False)),
                ("ops", "not-repeatable is missing", axis(repeat, equal_bits=False)),
                ("ops", "promise-broken is missing", axis(other, promised=True, equal_bits=False, n_equal=0)),
                ("ops", "the verdict is measured, and the worst",
                 lambda r: r["reasons"].append({"outcome": "incomplete", "code": "no-noise-floor", "text": "x"})),
                ("determinism", "two equal runs have other bits", axis(repeat, equal_bits=False)),
                ("determinism", "ran once", lambda r: r.update(axes=[a for a in r["axes"] if a["axis"] != "repeat"])),
                ("computation", "is faulty", lambda r: r["engines"][0]["description"]["name"].update(value="faulty"))):
            self.expect_failure(self.verify(receipts.edited(path, edit, out)), gate, 3, says)

    def test_an_engine_that_does_not_repeat_has_a_receipt_that_fails(self):
        path, made = written("vary", "noise", "-m", MODEL, "-e", "faulty,faulty.mode=nondeterministic", "-p", "And God said")
        self.assertEqual(made.code, 1, made)
        result = self.verify(path)
        self.assertIn("determinism", self.failed(result))
        self.assertEqual(result.code, 3, result)  # it computes no model

    def test_a_self_check_is_counted_again(self):
        path, made = self.self_check()
        self.assertEqual(made.code, 0, made)
        receipt = json.loads(path.read_text())
        self.assertEqual(path.read_text(), receipts.sealed(receipt))
        self.assertEqual([e["role"] for e in receipt["engines"]], ["mutant", "native", "arbiter"])
        for model in receipt["models"]:
            self.assertEqual(model["sha256"], hashlib.sha256(pathlib.Path(model["path"]).read_bytes()).hexdigest())
        self.assertEqual(len(receipt["self_check"]["cases"]), len(made.json["cases"]))
        good = self.verify(path, "--recompute")
        self.assertEqual((good.code, self.failed(good), good.json["again"]["differences"]), (0, [], []), good)
        cases = receipt["self_check"]["cases"]
        counted = next(i for i, c in enumerate(cases) if not c["benign"] and not c["not_counted"])
        out = self.folder / "e.json"

        def case(**values):
            return lambda r: r["self_check"]["cases"][counted].update(values)

        for gate, says, edit in (
                ("ops", "the exit code is 0, and the cases come to 1", case(detected=False)),
                ("determinism", "came to something else", case(detected=False)),
                ("coverage", "crashed", case(error="crashed")),
                ("coverage", "stands there twice", lambda r: r["self_check"]["cases"].append(cases[0])),
                ("coverage", "cases are counted as run", lambda r: r["self_check"]["cases"].pop()),
                ("coverage", "no cases were run", lambda r: r["self_check"].update(cases=[])),
                ("determinism", "no case was run twice", lambda r: r["self_check"].update(repeated=[])),
                ("tokens", "the prompt has no tokens", lambda r: r["models"][0].update(tokens=[])),
                ("logits", "a harmless change is diverged", case(benign=True, verdict="diverged")),
                ("computation", "the native is mutant", lambda r: r["engines"][1]["description"]["name"].update(value="mutant"))):
            self.expect_failure(self.verify(receipts.edited(path, edit, out)), gate, 3, says)

    def test_a_gate_of_ci_runs_both(self):
        policy = self.folder / "policy.toml"
        policy.write_text(f"""[[gate]]
name = "noise"
run = ["noise", "--model", "{MODEL}", "--engine", "native"]
[[gate]]
name = "self"
run = ["self-check", "--filter", "tiny-bitnet-silu-tq2_0 layer 3 ffn_norm norm_c", "--no-reference", "--results", "{self.folder / 'r.jsonl'}"]
""")
        result = run("gate", policy, "--format", "json")
        self.assertEqual(result.code, 0, result)


class Edited(Verified):
    """What is changed by somebody who leaves the digest as it is."""

    def test_no_edit_of_one_byte_verifies(self):
        choose = random.Random(11)
        path = self.folder / "receipt.json"
        for receipt in (crossval(), OfOneThing.noise(self), OfOneThing.self_check(self)):
            text = receipt[0].read_bytes()
            for _ in range(16):
                at, value = choose.randrange(len(text)), choose.randrange(1, 256)
                path.write_bytes(text[:at] + bytes([text[at] ^ value]) + text[at + 1:])
                result = self.verify(path)
                self.assertEqual((result.code, result.json["verdict"]), (3, "invalid"), f"byte {at} ^ {value}: {result}")
                self.assertIn("integrity", self.failed(result))

    def test_nor_does_one_that_is_cut_empty_or_no_receipt(self):
        text = crossval()[0].read_bytes()
        path = self.folder / "receipt.json"
        for content in (text[:-1], text[:1000], b"", b"{}\n", b"null\n", b"[" * 100000, b"\xff\xfe", text + text):
            path.write_bytes(content)
            result = self.verify(path)
            self.assertEqual((result.code, len(self.failed(result))), (3, 8 if content != text[:-1] else 1), result)
        self.assertEqual(run("verify-receipt", self.folder / "none.json").code, 5)
        self.assertEqual(run("verify-receipt", self.folder).code, 5)


class Gates(Verified):
    """What is changed by somebody who seals it again: each gate fails for its own reason."""

    def test_1_integrity(self):
        self.expect_failure(self.edit(lambda r: r.update(schema="paritybit.receipt/0")), "integrity", 3, "/schema: is not")
        self.expect_failure(self.edit(lambda r: r.pop("coverage")), "integrity", 3, '"coverage" is missing')
        self.expect_failure(self.edit(lambda r: r.update(extra=1)), "integrity", 3, '"extra" is not known')
        self.expect_failure(self.edit(lambda r: r["positions"][0].update(kl="0")), "integrity", 3, "/positions/0/kl: is of type string")

    def test_2_computation(self):
        def name(value):
            return lambda r: r["engines"][0]["description"]["name"].update(value=value)

        for value, says in (("MockEngine", "computes no model"), ("mutant", "computes no model"), ("", "does not say what it is")):
            self.expect_failure(self.edit(name(value)), "computation", 3, says)
        self.expect_failure(self.edit(lambda r: r["engines"][1].update(plugin_sha256="")), "computation", 3, "no reference ran")
        self.expect_failure(self.edit(lambda r: r["engines"][1]["description"].pop("digest.libllama")), "computation", 3,
                            "its digest is missing")
        self.expect_failure(self.edit(lambda r: r["prompts"][0]["logits_sha256"].update(reference="")), "computation", 3, "gave no logits")
        self.expect_failure(self.verify(self.copy(), "--require-gpu-kernels"), "computation", 3, "no engine computed on a GPU")

    def test_2_an_engine_against_itself_is_no_comparison(self):
        path, made = written("itself", "crossval", "-m", MODEL, "-r", "native", "-p", "And God")
        self.assertEqual(made.code, 0, made)
        self.expect_failure(self.verify(path), "computation", 3, "the reference is the candidate itself")

    def test_2_without_a_reference_there_is_none(self):
        path = self.folder / "none.json"
        made = run("crossval", "-m", MODEL, "-r", "bitnet.cpp", "-p", "And God", "--receipt", path)
        if path.exists():
            self.assertEqual(self.verify(path).code, 3, made)
        else:
            self.assertNotEqual(made.code, 0, made)

    def test_3_coverage(self):
        def count(**values):
            return lambda r: r["coverage"].update(values)

        self.expect_failure(self.edit(count(compared=3)), "coverage", 3, "3 of 702 points were compared")
        self.expect_failure(self.edit(count(compared=0, expected=0)), "coverage", 3, "no points were compared")
        self.expect_failure(self.edit(count(missing=["layer 2, ffn_norm"])), "coverage", 3, "missing: layer 2, ffn_norm")
        self.expect_failure(self.edit(count(compared=900, expected=900)), "coverage", 3, "the receipt shows")

        def skip_layer(r):
            r["points"] = [p for p in r["points"] if p["layer"] != 2]

        self.expect_failure(self.edit(skip_layer), "coverage", 3, "702 ops are counted as compared, and the receipt shows 5")
        self.expect_failure(self.edit(lambda r: r.update(prompts=[], positions=[])), "coverage", 3, "no prompt")
        self.expect_failure(self.edit(lambda r: r["positions"].pop()), "coverage", 3, "prompt 1: 5 of 6 positions")

    def test_4_tokens(self):
        def change(r):
            r["prompts"][0]["tokens_reference"][1] = 7

        self.expect_failure(self.edit(change), "tokens", 3, "the ids are not the same")
        self.expect_failure(self.edit(lambda r: r["positions"][1].update(token=5)), "tokens", 3, "not the one that was fed")
        self.expect_failure(self.edit(lambda r: r["positions"].reverse()), "tokens", 3, "out of order|not the one")
        self.expect_failure(self.edit(lambda r: r["positions"][3]["top1"].update(reference=5)), "tokens", 3, "not the reference's choice")

    def test_5_logits(self):
        row = lambda **values: lambda r: r["positions"][2].update(values)
        self.expect_failure(self.edit(row(kl=0.5, max_abs=1)), "logits", 3, "is beyond a limit, and the receipt says otherwise")
        self.expect_failure(self.edit(row(kl=None, finite=False)), "logits", 3, "NaN or infinite")
        self.expect_failure(self.edit(row(kl=None)), "logits", 3, "NaN or infinite|called finite")
        self.expect_failure(self.edit(row(kl=0.001)), "logits", 3, "no change of log p beyond")
        self.expect_failure(self.edit(row(above_limit=True)), "logits", 3, "is not beyond a limit, and the receipt says otherwise")
        self.expect_failure(self.edit(row(top_k_overlap=1)), "logits", 3, "best tokens are shared")

        def loosen(r):
            next(limit for limit in r["limits"] if limit["name"] == "kl.worst")["value"] = 1

        self.expect_failure(self.edit(loosen), "logits", 3, "its noise floor makes")
        self.expect_failure(self.edit(lambda r: r.update(limits=[])), "logits", 3, "no limit")
        self.expect_failure(self.edit(lambda r: r.update(noise_floor=None)), "logits", 3, "there is no noise floor")

    def test_6_ops_and_verdict(self):
        def point(**values):
            return lambda r: r["points"][5].update(values)

        self.expect_failure(self.edit(point(bound_ratio=2, worst_row={"error": 1, "position": 0})), "ops", 3, "2 times its bound|local-error")
        self.expect_failure(self.edit(point(bound_ratio=None)), "ops", 3, "beyond its bound|local-error")
        self.expect_failure(self.edit(point(n_non_finite={"candidate": 1, "reference": 0})), "ops", 3, "NaN|non-finite")
        self.expect_failure(self.edit(point(bound_ratio=0.9)), "ops", 3, "no error is as large")
        self.expect_failure(self.edit(lambda r: r.update(verdict="drift")), "ops", 3, "the verdict is drift, and the worst")
        self.expect_failure(self.edit(lambda r: r.update(exit_code=3)), "ops", 3, "the exit code is 3")
        self.expect_failure(self.edit(lambda r: r["reasons"][0].update(code="fine")), "ops", 3, "fine is not known|ops-within-bounds is missing")
        failed = lambda r: (r.update(verdict="incomplete", exit_code=3),
                            r["reasons"].insert(0, {"code": "unsupported", "outcome": "incomplete", "text": "no such type"}))
        self.expect_failure(self.edit(failed), "ops", 3, "the verdict is incomplete: no such type")

    def test_6_a_divergence_called_a_match_does_not_pass(self):
        path = written("wrong", "crossval-per-token", "-m", WRONG, "-r", HASWELL, "-p", "And God said")[0]

        def lie(r):
            r.update(verdict="match", exit_code=0, first_divergence=None,
                     reasons=[{"code": "within-limits", "outcome": "match", "text": "all positions are within the limits"}])
            for position in r["positions"]:
                position["above_limit"] = False

        result = self.verify(receipts.edited(path, lie, self.folder / "lie.json"))
        self.expect_failure(result, "ops", 3, "stands among the reasons|is missing among the reasons|its bound")
        self.expect_failure(result, "logits", 3, "beyond a limit, and the receipt says otherwise|limit")

    def test_7_determinism(self):
        other = lambda r: r["prompts"][0]["logits_sha256_tapped"].update(candidate="0" * 64)
        self.expect_failure(self.edit(other), "determinism", 3, "were others in the second run")
        once = lambda r: r["prompts"][0]["logits_sha256_tapped"].update(candidate=None)
        self.expect_failure(self.edit(once), "determinism", 3, "ran once")

    def test_7_of_the_logits_alone_the_second_run_is_the_evidence(self):
        path, made = written("logits", "crossval", "-m", MODEL, "-r", HASWELL, "-p", "And God", "-n", 1, "--scope", "logits-only")
        self.assertEqual(made.code, 0, made)
        good = self.verify(path, "--recompute")
        self.assertEqual((good.code, self.failed(good), good.json["again"]["differences"]), (0, [], []), good)
        self.assertIn("nothing watched", good.json["gates"][6]["saw"])
        prompt = json.loads(path.read_text())["prompts"][0]
        self.assertEqual(prompt["logits_sha256_repeated"], prompt["logits_sha256"])
        for role in ("candidate", "reference"):
            for value, says in ((None, f"the {role} ran once"), ("0" * 64, f"the {role}'s logits were others")):
                edit = lambda r: r["prompts"][0]["logits_sha256_repeated"].update({role: value})
                self.expect_failure(self.verify(receipts.edited(path, edit, self.folder / "e.json")), "determinism", 3, says)
        # A model of bytes whose logits are others each time, behind a user's wide limits: found by the second run alone.
        path, made = written("varying", "crossval", "-m", MODEL, "-c", "faulty,faulty.mode=nondeterministic", "-r", "faulty", "-p",
                             "And God", "--scope", "logits-only", "--kl-mean", 9, "--kl-worst", 9)
        self.assertEqual(made.code, 3, made)
        self.assertIn("not-repeatable", [r["code"] for r in made.json["reasons"]])
        self.expect_failure(self.verify(path), "determinism", 3, "the candidate's logits were others")

    def test_code_paths_are_bound_too(self):
        path, made = written("paths", "crossval", "-m", MODEL, "-c", "native", "-r", "native,threads=2", "-p", "And God", "--scope",
                             "logits-only", "--paths", "all")
        self.assertEqual(made.code, 0, made)
        receipt = json.loads(path.read_text())
        told = receipt["paths"]
        self.assertEqual(told["not_taken"], made.json["paths"]["not_taken"])
        self.assertGreater(len(told["runs"]), 3)
        self.assertEqual([r["verdict"] for r in told["runs"]], [r["verdict"] for r in made.json["paths"]["runs"]])
        good = self.verify(path, "--recompute")
        self.assertEqual((good.code, self.failed(good), good.json["again"]["differences"]), (0, [], []), good)
        out = self.folder / "e.json"
        found = lambda r: r["paths"]["runs"][0].update(verdict="diverged")
        self.expect_failure(self.verify(receipts.edited(path, found, out)), "ops", 3, "is diverged, and the verdict is a pass")
        fewer = receipts.edited(path, lambda r: r["paths"]["runs"].pop(), out)
        self.assertIn("over other code paths now", self.verify(fewer, "--recompute").json["again"]["differences"][0])
        self.expect_failure(self.edit(lambda r: r["paths"]["not_taken"].append("decode")), "ops", 3, "'decode' is among those not taken")
        self.expect_failure(self.edit(lambda r: r.pop("paths")), "integrity", 3, '"paths" is missing')

    def test_what_another_code_path_finds_is_the_receipt(self):
        path, made = written("found", "crossval", "-m", MODEL, "-c", "mutant,mutant.fault=columns_absent@250-255,mutant.when=from_batch:32,"
                             "mutant.stage=down_proj,mutant.layer=1", "-r", "native", "-p", "And God", "--scope", "logits-only", "--paths", "all")
        self.assertEqual(made.code, 1, made)
        self.assertEqual(json.loads(path.read_text())["verdict"], "diverged")
        self.assertIn("computation", self.failed(self.verify(path)))

    def test_8_identity_and_freshness(self):
        self.expect_failure(self.verify(self.edit_time("2001-01-01T00:00:00Z"), "--max-age", 30), "identity", 3, "stale: [0-9.]+ days old")
        self.assertEqual(self.verify(self.edit_time("2001-01-01T00:00:00Z")).code, 0)
        self.expect_failure(self.verify(self.edit_time("2999-01-01T00:00:00Z")), "identity", 3, "yet to come")
        self.expect_failure(self.verify(self.edit_time("2001-13-01T00:00:00Z")), "identity", 3, "is no time")
        self.expect_failure(self.verify(self.copy(), "--model", WRONG), "identity", 3, "stale: the model is another one")
        self.assertEqual(self.verify(self.copy(), "--model", WRONG, "--as-recorded").code, 0)

    def edit_time(self, created):
        return receipts.edited(self.copy(), lambda r: r.update(created=created))

    def test_8_a_model_that_changed_makes_it_stale(self):
        model = self.folder / "m.gguf"
        shutil.copy(MODEL, model)
        shutil.copy(SILU / "config.json", self.folder)
        path = self.folder / "r.json"
        self.assertEqual(run("crossval", "-m", model, "-r", HASWELL, "-p", "And God", "--receipt", path).code, 0)
        self.assertEqual(self.verify(path).code, 0)
        data = bytearray(model.read_bytes())
        data[-1] ^= 1
        model.write_bytes(data)
        self.expect_failure(self.verify(path), "identity", 3, "stale: the model is another one by now")
        model.unlink()
        self.assertIn("1 not here", self.verify(path).json["gates"][7]["saw"])


class Recomputed(Verified):
    def test_figures_that_were_made_up_do_not_come_again(self):
        """A receipt whose every figure fits the others, of a run that never was: the model it names gives another verdict."""
        good = json.loads(crossval()[0].read_text())
        path = self.folder / "r.json"
        digest = hashlib.sha256(WRONG.read_bytes()).hexdigest()
        config = ["--hf-config", str(RELU2 / "config.json")]

        def forge(r):
            r["arguments"] = [str(WRONG) if word == str(MODEL) else word for word in r["arguments"]] + config
            r["model"].update(name=WRONG.name, sha256=digest)
            for engine in r["engines"]:
                engine["model"].update(path=str(WRONG), sha256=digest)

        path.write_text(json.dumps(good))
        forged = receipts.edited(path, forge)
        self.assertEqual(self.verify(forged).code, 0)
        result = self.verify(forged, "--recompute")
        self.assertEqual(result.code, 1, result)
        self.assertIn("the verdict is diverged now, and the receipt says match", result.json["again"]["differences"][0])

    def test_a_command_that_writes_files_is_not_run(self):
        target = self.folder / "overwritten"
        path = receipts.edited(self.copy(), lambda r: r["arguments"].extend(["--keep-traces", str(target)]))
        result = run("verify-receipt", path, "--recompute")
        self.assertEqual((result.code, target.exists()), (5, False), result)
        path = receipts.edited(self.copy(), lambda r: r.update(arguments=["clean-cache", "--yes"]))
        self.assertEqual(run("verify-receipt", path, "--recompute").code, 5)


class Documented(Verified):
    """The documented system's receipts (crossval/src/receipt.rs, docs/baselines, ci/inference.json): each of these passed there."""

    def refused(self, receipt, says=None):
        path = self.folder / "ci" / "inference.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(receipt))
        result = run("verify-receipt", "--format", "json", cwd=self.folder)  # its default path
        self.assertEqual((result.code, result.json["verdict"]), (3, "invalid"), result)
        self.assertEqual(len(self.failed(result)), 8, result)
        self.assertIn(says or "of the documented system", result.json["gates"][0]["saw"])

    def test_what_anyone_can_write(self):
        parity = {"version": 1, "timestamp": "2025-10-24T00:00:00Z", "model": "m.gguf", "backend": "bitnet", "prompt": "2+2=",
                  "positions": 0, "thresholds": {"mse": 1e-4, "kl": 0.1, "topk": 0.8}, "rows": [],
                  "summary": {"all_passed": True, "mean_mse": 0}}
        self.refused(parity)  # no rows passed
        self.refused({**parity, "rows": [{"pos": 0, "mse": "NaN", "max_abs": 0}]})
        inference = {"schema_version": "1.0.0", "timestamp": "2025-10-24T00:00:00Z", "compute_path": "real", "backend": "cpu",
                     "kernels": ["i2s_gemv"], "deterministic": True, "environment": {}, "model_info": {}}
        self.refused(inference)  # a plausible kernel name passed
        self.refused({**inference, "kernels": ["mock_inference"]})
        self.refused({**inference, "parity": {"cpp_available": False, "status": "rust_only"}})
        self.refused({"timestamp": "2025-10-19T00:00:00Z", "commit": "unknown", "parity": {"cpp_available": False, "status": "timeout"},
                      "tokenization": {"tokens_match": True}}, "receipt_sha256")

    def test_flags_as_typed_there(self):
        path = self.copy()
        self.assertEqual(run("verify-receipt", "--path", path).code, 0)
        self.assertEqual(run("verify-receipt", "--path", path, "--require-gpu-kernels").code, 3)
        two = run("verify-receipt", path, "--path", self.folder / "other.json")
        self.assertEqual(two.code, 2, two)
        self.assertEqual(run("verify-receipt", cwd=self.folder).code, 5)


class Documents(Case):
    def test_the_documented_gates_are_what_the_commands_print(self):
        text = (ROOT / "docs" / "receipts.md").read_text().split("max_age_days")[0]  # from there on, a policy of `gate`
        lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
        (self.folder / "models").symlink_to(ROOT / "models")
        commands = [line[2:] for line in lines if line.startswith("$ ")]
        self.assertEqual(len(commands), 2, commands)
        for command in commands:
            printed = run(*shlex.split(command)[1:], cwd=self.folder)
            self.assertEqual(printed.code, 0, printed)
        plain = lambda words: re.sub(r"\s+", " ", re.sub(r"[0-9][0-9.:TZe+-]*|avx512|avx2|scalar", "N", words)).strip()
        shown = plain(printed.out)
        documented = [line for line in lines[lines.index("$ " + commands[1]) + 1:] if line and "[...]" not in line]
        self.assertGreater(len(documented), 12)
        for line in documented:
            self.assertIn(plain(line), shown, line)


class Schema(Case):
    def test_it_is_installed_as_it_is_documented(self):
        installed = BUILD / "share" / "paritybit" / "receipt.schema.json"
        self.assertEqual(installed.read_text(), (ROOT / "docs" / "receipt.schema.json").read_text())


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory(prefix="paritybit-receipts-") as FOLDER:
        main()

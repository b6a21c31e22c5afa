"""Traces that crossval keeps, and the same comparison again from them: offline, with the same figures, or refused by name."""
import json
import os
import shutil
import signal
import subprocess
import time

from driver import PARITYBIT, RELU2, SILU, Case, main, paste, run, sealed

PROMPT = "And God said, Let there be light"
SILU_MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
RELU2_MODEL = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
JUDGED = ["verdict", "scope", "reasons", "first_divergence", "coverage", "limits", "positions", "points", "accumulated", "growth"]


class Replay(Case):
    def live(self, model, *args):
        kept = self.folder / "kept"
        result = self.crossval("--model", model, "--reference", "llama.cpp", "--prompt", PROMPT, "--keep-traces", kept, *args)
        return kept, result

    def offline(self, model, trace, *args, prompt=PROMPT):
        # Whatever the reference needs at home is out of reach: an empty cache has neither engine nor noise floors.
        cache = self.folder / "cache"
        return self.crossval("--model", model, "--reference", f"replay,trace={trace}", "--prompt", prompt, *args,
                             env={"PARITYBIT_CACHE": cache, "XDG_CACHE_HOME": cache})


class TheSameAgain(Replay):
    def compare(self, live, offline):
        for field in JUDGED:
            self.assertEqual(live.json[field], offline.json[field], field)
        for field in ["logits_sha256", "logits_sha256_tapped", "tokens", "decoded"]:
            self.assertEqual(live.json["prompts"][0][field], offline.json["prompts"][0][field], field)
        self.assertEqual(offline.json["engines"][1]["description"]["name"]["value"], "replay of llama.cpp")

    def test_a_match_with_decode_steps(self):
        kept, live = self.live(SILU_MODEL, "--max-tokens", "3")
        self.expect(live, "match", 0)
        offline = self.offline(SILU_MODEL, kept / "reference", "--max-tokens", "3")
        self.expect(offline, "match", 0)
        self.compare(live, offline)
        self.assertEqual(offline.json["coverage"]["compared"], 4 * 117)
        # Fewer steps than were recorded are as good; their limits are those of what was measured.
        self.expect(self.offline(SILU_MODEL, kept / "reference"), "match", 0)

    def test_a_defect_at_the_same_place(self):
        kept, live = self.live(RELU2_MODEL)
        self.expect(live, "diverged", 1, "local-error-above-bound")
        offline = self.offline(RELU2_MODEL, kept / "reference")
        self.expect(offline, "diverged", 1, "local-error-above-bound")
        self.compare(live, offline)
        place = offline.json["first_divergence"]
        self.assertEqual((place["position"], place["layer"], place["stage"]), (0, 0, "ffn_gated"))
        self.assertIn(f"paritybit trace-diff {kept}/candidate {kept}/reference", live.json["next"])

    def test_the_candidates_trace_is_a_reference_too(self):
        kept, _ = self.live(SILU_MODEL)
        result = self.offline(SILU_MODEL, kept / "candidate")
        self.expect(result, "match", 0, "weaker-floor")  # no floor was measured of the candidate
        self.assertEqual(result.json["coverage"]["compared"], 123)  # the native engine shows its activation
        self.assertTrue(all(point["rel_l2"] == 0 for point in result.json["points"]))
        self.assertEqual((result.json["noise_floor"]["side"], result.json["noise_floor"]["weaker"]), ("candidate", True))


class Kept(Replay):
    def test_reports_tell_of_the_traces_of_every_prompt(self):
        kept, receipt = self.folder / "kept", self.folder / "receipt.json"
        args = ["crossval", "--model", SILU_MODEL, "--reference", "native", "--prompt", "And", "--prompt", "God said",
                "--keep-traces", kept, "--trace-level", "sketch", "--receipt", receipt, "-v"]
        text = run(*args)
        self.assertEqual(text.code, 0, text)
        for n in (0, 1):
            for i, side in enumerate(["candidate", "reference"]):
                folder = kept / f"prompt-{n}" / side
                self.assertIn(f"{folder} (level sketch, ", " ".join(text.out.split()))
                trace = json.loads(receipt.read_text())["prompts"][n]["traces"][side]
                manifest = json.loads((folder / "manifest.json").read_text())
                self.assertEqual((manifest["state"], manifest["prompt"]), ("complete", ["And", "God said"][n]))
                self.assertEqual((trace["folder"], trace["n_records"]), (str(folder), manifest["n_records"]))
                self.assertEqual(manifest["logits_blake3"], manifest["logits_blake3_untapped"])
                self.assertEqual(len((folder / "records.jsonl").read_text().splitlines()), manifest["n_records"] + 1)
                self.assertFalse(list(folder.glob("*.safetensors")))
        self.assertIn("\ngrowth     layer 0 ", text.out)
        self.assertIn("same bits with and without taps", text.out)
        self.assertTrue(all(len(line) <= 80 for line in text.out.splitlines() if not line.lstrip().startswith(str(kept))
                            and "/kept/" not in line), text.out)

    def test_growth_has_every_layer_in_json_and_receipt(self):
        receipt = self.folder / "receipt.json"
        result = self.crossval("--model", SILU_MODEL, "--reference", "llama.cpp", "--prompt", PROMPT, "--receipt", receipt)
        outputs = {p["layer"]: p["rel_l2"] for p in result.json["accumulated"] if p["stage"] == "layer_out" and p["step"] == 0}
        self.assertEqual({row["layer"]: row["rel_l2"] for row in result.json["growth"]}, outputs)
        self.assertEqual(sorted(outputs), list(range(6)))
        self.assertEqual(json.loads(receipt.read_text())["growth"], result.json["growth"])
        self.assertEqual(result.json["prompts"][0]["traces"], {"candidate": None, "reference": None})

    def test_mistakes_are_usage_before_anything_runs(self):
        used = self.folder / "used"
        used.mkdir()
        (used / "something").write_text("")
        for args, word in [(["--keep-traces", used], "is not an empty folder"),
                           (["--trace-level", "full"], "--keep-traces"),
                           (["--keep-traces", self.folder / "new", "--trace-level", "none"], "none"),
                           (["--keep-traces", self.folder / "new", "--scope", "logits-only"], "logits-only")]:
            result = run("crossval", "--model", SILU_MODEL, "--reference", "native", "--prompt", "And", *args)
            self.assertEqual(result.code, 2, result)
            self.assertIn(word, result.err)
        self.assertFalse((self.folder / "new").exists())

    def test_an_interrupted_run_leaves_readable_incomplete_traces(self):
        kept = self.folder / "kept"
        prompt = " ".join((SILU.parent / "heldout.txt").read_text().split()[:150])
        process = subprocess.Popen([str(PARITYBIT), "crossval", "--model", str(SILU_MODEL), "--reference", "native", "--prompt",
                                    prompt, "--max-tokens", "200", "--keep-traces", str(kept)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        records = kept / "reference" / "records.jsonl"
        deadline = time.time() + 120
        while time.time() < deadline and not (records.exists() and records.stat().st_size > 50000):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        for side in ["candidate", "reference"]:
            self.assertEqual(json.loads((kept / side / "manifest.json").read_text())["state"], "incomplete")
        self.assertIsNone(json.loads((kept / "reference" / "manifest.json").read_text()).get("reason"))
        result = run("crossval", "--model", SILU_MODEL, "--reference", f"replay,trace={kept / 'reference'}", "--prompt", prompt)
        self.assertEqual(result.code, 2, result)
        self.assertIn("the trace is incomplete", result.err)
        for side in ["candidate", "reference"]:  # line by line what was written before
            for line in (kept / side / "records.jsonl").read_text().split("\n")[:-1]:
                json.loads(line)


class Refused(Replay):
    @classmethod
    def setUpClass(cls):
        import pathlib
        import tempfile
        folder = tempfile.TemporaryDirectory(prefix="paritybit-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.whole = pathlib.Path(folder.name) / "whole"
        result = run("trace", "--engine", "llama.cpp", "--model", SILU_MODEL, "--prompt", PROMPT, "--max-tokens", "2", "--level",
                     "full", "--out", cls.whole)
        assert result.code == 0, result

    def copy(self):
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.whole, copy)
        return copy

    def edited(self, name, old, new):
        copy = self.copy()
        text = (copy / name).read_text()
        self.assertIn(old, text)
        (copy / name).write_text(text.replace(old, new, 1))
        return copy

    def says(self, result, verdict, exit_code, *words):
        self.expect(result, verdict, exit_code)
        text = " ".join(reason["text"] for reason in result.json["reasons"])
        for word in words:
            self.assertIn(word, text)

    def test_a_trace_of_the_trace_command_serves_and_says_that_its_floor_is_weaker(self):
        self.says(self.offline(SILU_MODEL, self.whole, "--max-tokens", "2"), "match", 0, "the candidate was disturbed instead")
        # Where ops are not judged, an engine does not set its own limits.
        self.says(self.offline(SILU_MODEL, self.whole, "--scope", "logits-only"), "incomplete", 3, "brings no noise floor")
        limited = self.offline(SILU_MODEL, self.whole, "--scope", "logits-only", "--kl-mean", "1e-2", "--kl-worst", "1e-2")
        self.expect(limited, "match", 0)

    def test_another_prompt_more_steps_and_other_settings_are_incomplete(self):
        self.says(self.offline(SILU_MODEL, self.whole, prompt="And God"), "incomplete", 3, "one prompt and no other", PROMPT)
        more = self.offline(SILU_MODEL, self.whole, "--max-tokens", "9")
        self.says(more, "incomplete", 3, "beyond the 11 that were recorded")
        # What it says to do next is what was recorded.
        for refused in (self.offline(SILU_MODEL, self.whole, prompt="And God"), more):
            self.assertEqual(len(refused.json["next"]), 1, refused.json["next"])
            again = paste(refused.json["next"][0] + " --format json")
            self.assertEqual((again.code, again.json["prompts"][0]["text"], len(again.json["prompts"][0]["decoded"])), (0, PROMPT, 2), again)
        self.says(self.offline(SILU_MODEL, self.whole, "--set", "kv.type=f32"), "incomplete", 3, "kv.type differs")
        result = self.offline(SILU_MODEL, self.whole, "--set-reference", "kv.type=f32")
        self.assertEqual((result.code, result.codes()), (3, ["unsupported"]), result)
        self.assertIn("recorded with f16", result.json["reasons"][0]["text"])

    def test_another_model_is_refused(self):
        self.says(self.offline(RELU2_MODEL, self.whole), "incomplete", 3, "the trace is of another model file")

    def test_other_tokens_are_refused(self):
        # The same text under another tokeniser: the recorded ids are not the candidate's.
        tokens = json.loads((self.whole / "manifest.json").read_text())["tokens"]
        copy = self.edited("records.jsonl", f'"tokens":[{tokens[0]},{tokens[1]}', f'"tokens":[{tokens[0]},{tokens[1] + 1}')
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["tokens"][1] += 1
        (copy / "manifest.json").write_text(json.dumps(manifest))
        self.says(self.offline(SILU_MODEL, copy), "invalid", 3, "different tokens")

    def test_traces_that_cannot_stand_for_an_engine(self):
        sketch = self.folder / "sketch"
        self.assertEqual(run("trace", "--model", SILU_MODEL, "--prompt", PROMPT, "--level", "sketch", "--out", sketch).code, 0)
        incomplete = self.edited("manifest.json", '"complete"', '"incomplete"')
        empty = self.folder / "empty"
        empty.mkdir()
        for trace, words in [(sketch, ["level sketch", "level full"]), (incomplete, ["the trace is incomplete"]),
                             (self.folder / "nowhere", ["no such folder"]), (empty, ["holds no record of a trace"])]:
            result = self.offline(SILU_MODEL, trace)
            self.assertIn(result.code, (2, 5), result)
            for word in words:
                self.assertIn(word, result.json["reasons"][0]["text"])
        result = self.crossval("--model", SILU_MODEL, "--reference", "replay", "--prompt", PROMPT)
        self.assertEqual(result.code, 2, result)
        self.assertIn("trace=FOLDER", result.json["reasons"][0]["text"])

    def test_damage_is_found_with_its_place(self):
        copy = self.copy()
        payload = sorted(copy.glob("payload-*"))[-1]
        os.truncate(payload, payload.stat().st_size - 1)
        self.says(self.offline(SILU_MODEL, copy, "--max-tokens", "2"), "engine-failed", 4, payload.name, "cut off?")
        copy = self.copy()
        name, offset = json.loads((copy / "records.jsonl").read_text().splitlines()[1])["payload"]
        values = bytearray((copy / name).read_bytes())
        values[offset] ^= 1
        (copy / name).write_bytes(values)
        self.says(self.offline(SILU_MODEL, copy), "engine-failed", 4, "do not have its digest")
        for old, new, words in [
                ('"position":0,"tokens"', '"position":1,"tokens"', "begins at position 1"),
                ('"stage":"q_proj"', '"stage":"k_proj"', "a second time"),
                ('"layer":3,"stage":"down_proj"', '"layer":70000000,"stage":"down_proj"', "n_layers"),
                ('"layer":3,"stage":"down_proj"', '"layer":-1,"stage":"down_proj"', "of layer -1"),
                ('"stage":"down_proj","order":27,"position":0', '"stage":"down_proj","order":26,"position":5', "has rows 5 to 13")]:
            self.says(self.offline(SILU_MODEL, self.edited("records.jsonl", old, new)), "engine-failed", 4, words)
        for key, value in [("n_layers", "7"), ("d_model", "1000000000"), ("n_vocab", "3")]:
            manifest = json.loads((self.whole / "manifest.json").read_text())
            for fact in manifest["model_facts"]:
                if fact[0] == key:
                    fact[1] = value
            copy = self.copy()
            (copy / "manifest.json").write_text(json.dumps(manifest))
            self.says(self.offline(SILU_MODEL, copy), "engine-failed", 4, f"{key} {value}, the records have")

    def test_a_point_that_was_not_recorded_is_no_pass(self):
        copy = self.copy()
        lines = (copy / "records.jsonl").read_text().splitlines(keepends=True)
        kept = [line for line in lines if '"stage":"k_rope"' not in line]
        self.assertEqual(len(lines) - len(kept), 18)
        (copy / "records.jsonl").write_text("".join(kept))
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["n_records"] -= 18
        (copy / "manifest.json").write_text(json.dumps(manifest))
        result = self.offline(SILU_MODEL, copy)
        self.says(result, "incomplete", 3, "k_rope: reference: the trace does not have it")
        # And an engine whose logits change when it is watched is no reference.
        manifest["logits_blake3_untapped"] = "0" * 64
        (copy / "manifest.json").write_text(json.dumps(manifest))
        self.assertIn("changed when it was watched", self.offline(SILU_MODEL, copy).json["reasons"][0]["text"])

    def test_a_damaged_noise_floor_is_not_replaced_by_another(self):
        for text, word in [("{}", "digest of its content"), (sealed({"schema": "paritybit.noise-floor/1"}), "missing or out of range")]:
            copy = self.copy()
            (copy / "noise_floor.json").write_text(text)
            self.says(self.offline(SILU_MODEL, copy), "incomplete", 3, "noise_floor.json", word)

    def test_a_noise_floor_of_another_engine_or_of_nobody_is_not_used(self):
        kept, _ = self.live(SILU_MODEL)
        path, other = kept / "reference" / "noise_floor.json", self.folder / "other"
        self.expect(self.crossval("--model", SILU_MODEL, "--reference", "native", "--prompt", PROMPT, "--keep-traces", other), "match", 0)
        floor, manifest = json.loads(path.read_text()), json.loads((path.parent / "manifest.json").read_text())
        # What the recording calls its engine is what the floor was measured of: the live run's own identity.
        facts = {key: value for key, value, _ in manifest["engine_facts"]}
        self.assertEqual(facts["identity"], floor["engine_digest"])
        self.expect(self.offline(SILU_MODEL, kept / "reference"), "match", 0)
        shutil.copy(other / "reference" / "noise_floor.json", path)  # same model, same calibration, the native engine's noise
        result = self.offline(SILU_MODEL, kept / "reference")
        self.says(result, "incomplete", 3, "noise_floor.json", "another engine", facts["identity"][:12])
        self.assertIn("no-noise-floor", result.codes())
        self.assertIsNone(result.json["noise_floor"])
        path.write_text(sealed({**floor, "model_sha256": "0" * 64}))
        self.says(self.offline(SILU_MODEL, kept / "reference"), "incomplete", 3, "another model file")
        path.write_text(sealed({**floor, "engine_digest": ""}))
        self.says(self.offline(SILU_MODEL, kept / "reference"), "incomplete", 3, "another engine")
        # A trace that does not tell who made it: neither floor nor guess.
        path.write_text(sealed({**floor, "engine_digest": ""}))
        manifest["engine_facts"] = [fact for fact in manifest["engine_facts"] if fact[0] != "identity"]
        (path.parent / "manifest.json").write_text(json.dumps(manifest))
        self.says(self.offline(SILU_MODEL, kept / "reference"), "incomplete", 3, "does not tell the identity")


if __name__ == "__main__":
    main()

"""trace and trace-diff on real engines: what is recorded, what two traces prove, and that nothing passes on nothing.

Fails, never skips, where the reference is missing.
"""
import hashlib
import json
import pathlib
import re
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import time

import defects
from driver import BUILD, PARITYBIT, RELU2, ROOT, SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
PROMPT = "And God said, Let there be light"
# Whether an own error can be told from a trace depends on which codes the library makes of activations: this one makes the
# definition's.
LLAMA = "llama.cpp,cpu.library=haswell"
GOLDEN = ROOT / "models" / "golden" / "trace-tiny-bitnet-silu-tq2_0"
LAYERS = 6
# Of the vocabulary, what this architecture has: 20 a layer (no norms of q and k), and three outside.
POINTS = 20 * LAYERS + 3


def trace(out, *args, model=MODEL, code=0, **kwargs):
    result = run("trace", "--format", "json", "--model", model, "--out", out, *args, **kwargs)
    assert result.code == code, result
    return result


def diff(a, b, *args):
    result = run("trace-diff", a, b, "--format", "json", *args)
    assert result.out, result
    assert result.code == result.json["exit_code"], result
    return result


def lines(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


class Traces(Case):
    """Traces that several tests read, recorded once."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="paritybit-traces-")
        cls.addClassCleanup(holder.cleanup)
        cls.traces = pathlib.Path(holder.name)
        trace(cls.traces / "native", "--prompt", PROMPT, "--max-tokens", "2", "--level", "full")
        trace(cls.traces / "llama", "--like", cls.traces / "native", "--engine", LLAMA, "--level", "full")
        for engine in ("native", "llama"):
            trace(cls.traces / f"{engine}-steps", "--like", cls.traces / "native", "--engine",
                  LLAMA if engine == "llama" else engine, "--prefill", "1", "--level", "full")

    def copy(self, name, to="copy"):
        shutil.copytree(self.traces / name, self.folder / to)
        return self.folder / to

    def edit(self, folder, change, manifest=None):
        """Applies `change` to the list of records and steps, and `manifest` to the manifest; the count is kept right."""
        records = change(lines(folder))
        (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        head = json.loads((folder / "manifest.json").read_text())
        head["n_records"] = sum("name" in r for r in records)
        if manifest:
            manifest(head)
        (folder / "manifest.json").write_text(json.dumps(head))
        return folder


class Recording(Traces):
    def test_every_point_of_every_step_is_recorded(self):
        records = [r for r in lines(self.traces / "native") if "name" in r]
        self.assertEqual(len(records), 3 * POINTS)
        self.assertEqual(len({r["name"] for r in records}), 3 * POINTS)
        for step, (position, n_rows) in enumerate([(0, 9), (9, 1), (10, 1)]):
            of_step = [r for r in records if r["seq"] == step]
            self.assertEqual(len(of_step), POINTS)
            self.assertEqual({(r["position"], r["shape"][0]) for r in of_step}, {(position, n_rows)})
        head = json.loads((self.traces / "llama" / "manifest.json").read_text())
        self.assertEqual(list(head["unobservable"]), ["ffn_act"])
        self.assertEqual(head["state"], "complete")
        self.assertEqual(head["logits_blake3"], head["logits_blake3_untapped"])

    def test_the_model_is_the_file(self):
        head = json.loads((self.traces / "native" / "manifest.json").read_text())
        self.assertEqual(head["model"]["sha256"], hashlib.sha256(MODEL.read_bytes()).hexdigest())

    def test_flag_beats_variable_and_says_so(self):
        env = {"BITNET_TRACE_DIR": self.folder / "v"}
        result = run("trace", "--model", MODEL, "--prompt", "And", "--format", "json", env=env)
        self.assertEqual((result.code, result.json["folder"]), (0, str(self.folder / "v")), result)
        self.assertEqual(result.json["choices"][0]["origin"], "variable BITNET_TRACE_DIR")
        result = trace(self.folder / "f", "--prompt", "And", env=env)
        self.assertEqual(result.json["choices"][0]["origin"], "flag --out")
        self.assertTrue((self.folder / "f" / "manifest.json").exists())
        # traces are never mixed
        result = run("trace", "--model", MODEL, "--prompt", "And", env=env)
        self.assertEqual(result.code, 2, result)
        self.assertIn("holds a trace already", result.err)

    def test_mistakes_are_usage_errors(self):
        for args in (["--prompt", "And"], ["--out", self.folder / "x"], ["--out", self.folder / "x", "--prompt", ""],
                     ["--out", self.folder / "x", "--prompt", "And", "--filter", "stages=q_proj"],
                     ["--out", self.folder / "x", "--prompt", "And", "--level", "some"]):
            result = run("trace", "--model", MODEL, *args)
            self.assertEqual(result.code, 2, result)
        self.assertFalse((self.folder / "x").exists())

    def test_filters_take_rows_and_a_filter_of_nothing_is_incomplete(self):
        for engine in ("native", "llama.cpp"):
            trace(self.folder / engine, "--like", self.traces / "native", "--engine", engine, "--filter",
                  "stage=q_*,layer=1-2,position=3-4", "--filter", "step=1,layer=-1", "--level", "digest", "--per-row")
            records = [r for r in lines(self.folder / engine) if "name" in r]
            self.assertEqual([r["name"] for r in records],
                             ["t0/blk1/q_proj@3", "t0/blk1/q_rope@3", "t0/blk2/q_proj@3", "t0/blk2/q_rope@3",
                              "t1/embeddings", "t1/final_norm", "t1/logits"])
            self.assertEqual([r["shape"][0] for r in records], [2, 2, 2, 2, 1, 1, 1])
        result = trace(self.folder / "nothing", "--prompt", "And", "--filter", "layer=77", code=3)
        self.assertEqual((result.json["verdict"], result.codes()), ("incomplete", ["no-records"]))

    def test_an_engine_without_taps_has_its_logits_recorded(self):
        text = self.folder / "text.txt"
        text.write_text("some bytes of a model")
        plugin = BUILD / "examples" / "minimal.so"
        result = trace(self.folder / "t", "--prompt", "me", "--engine", plugin, "--max-tokens", "2", model=text)
        records = [r for r in lines(self.folder / "t") if "name" in r]
        self.assertEqual({r["stage"] for r in records}, {"logits"})
        rows = [r["position"] + i for r in records for i in range(r["shape"][0])]
        self.assertEqual(rows, list(range(len(result.json["tokens"]))))

    def test_an_engine_that_dies_leaves_a_trace_that_says_so(self):
        result = run("trace", "--model", MODEL, "--prompt", "And", "--engine", "faulty,faulty.mode=crash", "--out",
                     self.folder / "t", "--format", "json")
        self.assertEqual((result.code, result.json["verdict"]), (4, "engine-failed"), result)
        head = json.loads((self.folder / "t" / "manifest.json").read_text())
        self.assertEqual(head["state"], "incomplete")
        self.assertIn("signal", head["reason"])

    def test_killed_and_interrupted_traces_are_readable_and_incomplete(self):
        for sign, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
            folder = self.folder / str(code)
            process = subprocess.Popen([str(PARITYBIT), "trace", "--model", str(MODEL), "--prompt", PROMPT, "--max-tokens",
                                        "400", "--level", "full", "--out", str(folder)], stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
            self.addCleanup(process.kill)
            records = folder / "records.jsonl"
            deadline = time.monotonic() + 120
            while (not records.exists() or records.stat().st_size < 200_000) and time.monotonic() < deadline:
                time.sleep(0.002)
            process.send_signal(sign)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, code)
            result = diff(folder, folder)
            self.expect(result, "incomplete", 3, "trace-incomplete")
            self.assertEqual(result.json["n_equal"], len(result.json["points"]))
            self.assertGreater(result.json["n_equal"], 100)


class Golden(Traces):
    def test_no_path_of_a_machine_is_in_it(self):
        self.assertNotIn('"/', (GOLDEN / "manifest.json").read_text())

    def test_todays_engine_computes_the_bits_of_the_committed_trace(self):
        self.assertLess(sum(f.stat().st_size for f in GOLDEN.iterdir()), 64_000)
        trace(self.folder / "today", "--like", GOLDEN)
        self.assertEqual(lines(self.folder / "today"), lines(GOLDEN))  # sketches and sizes too
        result = diff(self.folder / "today", GOLDEN)
        self.expect(result, "match", 0, "equal-bits")
        self.assertEqual((result.json["n_equal"], result.json["coverage"]["compared"]), (POINTS, POINTS))

    def test_the_documented_dump_is_what_its_command_writes(self):
        text = (ROOT / "docs" / "format_trace.md").read_text()
        command = re.search(r"^    \$ paritybit (trace .*) --out trace$", text, re.M).group(1)
        result = run(*shlex.split(command), "--out", self.folder / "t", cwd=ROOT)
        self.assertEqual(result.code, 0, result)
        written = (self.folder / "t" / "records.jsonl").read_text().splitlines()
        shown = re.findall(r"^    (\{\".*)$", text, re.M)
        self.assertEqual(len(shown), len(written))
        for line, record in zip(shown, written):
            begin, *rest = line.split("[...]")
            self.assertTrue(record.startswith(begin), line)
            for part in rest:
                self.assertTrue(record.endswith(part), line)
        with open(self.folder / "t" / "payload-00000.safetensors", "rb") as file:
            file.seek(163904)
            values = struct.unpack("<1024f", file.read(4096))
        self.assertAlmostEqual((sum(v * v for v in values) / 1024) ** 0.5, 1.041170647, places=8)

    def test_a_change_is_measured_by_its_sketches(self):
        """Another way to quantise the activations is a difference that sketches tell; payloads say how large it is."""
        trace(self.folder / "other", "--like", GOLDEN, "--set", "act.quant=bitnet", "--level", "full")
        told = diff(self.folder / "other", GOLDEN)
        self.expect(told, "incomplete", 3, "settings-differ")
        trace(self.folder / "today", "--like", GOLDEN, "--level", "full")
        exact = diff(self.folder / "other", self.folder / "today")
        truth = {(p["stage"], p["layer"]): p["rel_l2"] for p in exact.json["points"]}
        checked = [(p["rel_l2"], truth[p["stage"], p["layer"]]) for p in told.json["points"]
                   if not p["equal"] and truth[p["stage"], p["layer"]] > 1e-3]
        self.assertGreater(len(checked), 80)
        outside = [pair for pair in checked if not 0.75 * pair[1] <= pair[0] <= 1.25 * pair[1]]
        # 1 % of about a hundred: 4 or more have a chance of 2 %
        self.assertLessEqual(len(outside), 3, outside)


class Compared(Traces):
    def test_a_trace_matches_itself_and_says_of_how_many_points(self):
        result = diff(self.traces / "native", self.traces / "native")
        self.expect(result, "match", 0, "equal-bits")
        self.assertEqual((result.json["n_equal"], result.json["coverage"]["expected"]), (3 * POINTS, 3 * POINTS))
        self.assertIn(str(3 * POINTS), result.json["reasons"][0]["text"])

    def test_two_engines_differ_by_rounding_where_they_can_be_judged(self):
        result = diff(self.traces / "native", self.traces / "llama")
        self.expect(result, "match", 0, "within-limits")
        self.assertEqual(result.json["scope"], "logits-only")
        self.assertEqual({limit["name"] for limit in result.json["limits"]},
                         {"kl.worst", "gap.change", "kl.prefill.mean", "kl.decode.mean"})
        self.assertIsNone(result.json["first_divergence"])
        self.assertEqual(result.json["coverage"]["compared"], result.json["coverage"]["expected"])
        self.assertEqual([u.split(":")[0] for u in result.json["coverage"]["unobservable"]], ["ffn_act"])
        states = [p["own_error"]["state"] for p in result.json["points"]]
        self.assertNotIn("above", states)
        self.assertGreater(states.count("within"), 100)
        # rotary embedding: the first op whose formulas the two engines round differently
        self.assertIn(result.json["first_difference"]["stage"], ("q_rope", "k_rope"))
        self.assertEqual(result.json["first_difference"]["layer"], 0)
        for key in ("max_abs", "max_abs_position", "max_abs_feature", "cosine", "scale", "offset", "blake3"):
            self.assertIn(key, result.json["first_difference"])

    def test_traces_of_their_own_pass_and_a_defect_does_not(self):
        """As typed first: each engine by itself, at the level that is the default."""
        for engine in ("native", LLAMA):
            trace(self.folder / engine, "--prompt", PROMPT, "-n", "3", "--engine", engine)
        result = diff(self.folder / "native", self.folder / LLAMA)
        self.assertIn((result.json["verdict"], result.code), [("match", 0), ("near-tie", 0)], result)
        # as crossval tells it without tracepoints: the KL of whole rows, which bounds that of the likeliest tokens
        compared = self.crossval("--model", MODEL, "--candidate", "native", "--reference", LLAMA, "--prompt", PROMPT, "-n", "3",
                                 "--scope", "logits-only")
        self.assertEqual(compared.code, 0, compared)
        limits = {limit["name"]: limit["value"] for limit in compared.json["limits"]}
        # The same noise, of an engine whose batch was as long as its trace: other bits, the same size.
        told = {limit["name"]: limit["value"] for limit in result.json["limits"]}
        self.assertEqual(set(told), set(limits))
        for name, value in limits.items():
            self.assertLess(max(told[name], value), 2 * min(told[name], value), name)
        whole = [row["kl"] for row in compared.json["positions"]]
        told = result.json["logits"]
        self.assertEqual((told["n_positions"], told["exact"]), (len(whole), False))
        self.assertLessEqual(told["mean_kl"], sum(whole) / len(whole) * (1 + 1e-6))
        self.assertGreater(told["mean_kl"], 0.1 * sum(whole) / len(whole))
        table = run("trace-diff", self.folder / "native", self.folder / LLAMA, "--table")
        self.assertNotIn("~0.0e+00", table.out)
        self.assertNotIn("own error none", table.out)
        trace(self.folder / "bad", "--prompt", PROMPT, "-n", "3", "--engine",
              "mutant,mutant.defect=rope_late,mutant.stage=q_rope,mutant.layer=1")
        bad = diff(self.folder / "bad", self.folder / LLAMA)
        self.expect(bad, "diverged", 1)
        # without the reference's engine or a floor beside its trace there is nothing to judge by
        gone = self.edit(self.folder / LLAMA, lambda records: records, lambda head: head.update(engine="gone"))
        unknown = diff(self.folder / "native", gone)
        self.expect(unknown, "incomplete", 3, "not-judged")
        self.assertIn("gone", unknown.json["reasons"][0]["text"])

    def test_a_limit_decides(self):
        self.expect(diff(self.traces / "native", self.traces / "llama", "--rel-l2", "0.05"), "match", 0, "within-limit")
        result = diff(self.traces / "native", self.traces / "llama", "--rel-l2", "1e-12")
        self.expect(result, "diverged", 1, "rel-l2-above-limit")
        self.assertEqual(result.json["limits"][0]["origin"], "flag --rel-l2")

    def test_prefill_and_decode_line_up_by_position(self):
        """The native engine promises equal bits; llama.cpp's are measured."""
        result = diff(self.traces / "native", self.traces / "native-steps")
        self.expect(result, "match", 0, "equal-bits")
        result = diff(self.traces / "llama", self.traces / "llama-steps", "--rel-l2", "0.05")
        self.assertIn(result.json["verdict"], ("match",), result)
        # row digests and the decode steps' own digests tell the same without any value
        trace(self.folder / "rows", "--like", self.traces / "native", "--level", "digest", "--per-row")
        # all but the scores, whose rows are padded in a prefill and have other digests therefore
        rest = "stage=[!a]*|attn_[!s]*|attn_sub_norm"
        rows = diff(self.folder / "rows", self.traces / "native-steps", "--filter", rest)
        self.expect(rows, "match", 0, "equal-bits")
        self.assertEqual(len({p["stage"] for p in rows.json["points"]}), 21)
        # sketches of a prefill are the sum of those of its rows
        trace(self.folder / "whole", "--like", self.traces / "native")
        trace(self.folder / "steps", "--like", self.traces / "native", "--prefill", "1")
        sums = diff(self.folder / "whole", self.folder / "steps", "--rel-l2", "0.01")
        self.expect(sums, "match", 0)

    def test_known_defects_are_named_with_op_and_feature(self):
        shutil.copy(SILU / "config.json", self.folder)
        for defect in defects.defects(0, 0, 0):
            if defect.name not in ("flip_v", "scale_up", "lost_ffn_norm_channel", "two_rows_swapped", "eps", "rope_base",
                                   "row_scaled", "flip_attn_output"):
                continue
            with self.subTest(defect=defect.name):
                bad = defects.Model(MODEL)
                defect.spoil(bad)
                path = self.folder / f"{defect.name}.gguf"
                bad.save(path)
                folder = self.folder / defect.name
                trace(folder, "--like", self.traces / "native", "--level", "full", model=path)
                unasked = diff(folder, self.traces / "native")
                self.expect(unasked, "incomplete", 3, "models-differ")
                result = diff(folder, self.traces / "native", "--different-models")
                self.expect(result, "diverged", 1, "own-error-above-bound")
                place = result.json["first_divergence"]
                self.assertEqual((place["layer"], place["feature"]), (defect.layer, defect.feature), result)
                self.assertIn(place["stage"], defect.stages)
                sketch = self.folder / (defect.name + "-sketch")
                trace(sketch, "--like", self.traces / "native", model=path)
                told = diff(sketch, self.traces / "native", "--different-models")
                self.assertIn(told.json["verdict"], ("diverged", "incomplete"), told)
                if told.json["verdict"] == "diverged":
                    self.assertIn(told.json["first_divergence"]["stage"], defect.stages)
                    self.assertEqual(told.json["first_divergence"]["layer"], defect.layer)

    def test_an_engine_with_another_activation_is_found_at_the_gated_product(self):
        """llama.cpp runs SiLU on a model that declares squared ReLU."""
        model = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
        trace(self.folder / "n", "--prompt", PROMPT, "--level", "full", model=model)
        trace(self.folder / "l", "--like", self.folder / "n", "--engine", LLAMA, "--level", "full", model=model)
        result = diff(self.folder / "n", self.folder / "l")
        self.expect(result, "diverged", 1, "own-error-above-bound")
        place = result.json["first_divergence"]
        self.assertEqual((place["position"], place["layer"], place["stage"]), (0, 0, "ffn_gated"))


class NothingPasses(Traces):
    def test_empty_folders(self):
        empty = self.folder / "empty"
        empty.mkdir()
        self.expect(diff(empty, empty), "invalid", 3, "no-records")
        self.expect(diff(empty, self.traces / "native"), "invalid", 3, "no-records")
        missing = run("trace-diff", self.folder / "missing", empty, "--format", "json")
        self.assertEqual(missing.code, 5, missing)

    def test_half_a_record(self):
        folder = self.copy("native")
        records = folder / "records.jsonl"
        records.write_bytes(records.read_bytes()[:-100])
        result = run("trace-diff", folder, self.traces / "native")
        self.assertEqual(result.code, 5, result)
        self.assertRegex(result.err, r"records\.jsonl: byte \d+")
        head = folder / "manifest.json"
        head.write_text(head.read_text().replace('"complete"', '"incomplete"'))
        self.expect(diff(folder, self.traces / "native"), "incomplete", 3, "trace-incomplete")

    def test_a_payload_file_that_is_cut_off_or_changed(self):
        folder = self.copy("native")
        payload = sorted(folder.glob("payload-*.safetensors"))[-1]
        whole = payload.read_bytes()
        payload.write_bytes(whole[:-5000])
        result = run("trace-diff", folder, self.traces / "native")
        self.assertEqual(result.code, 5, result)
        self.assertRegex(result.err, r"needs bytes \d+ to \d+")
        payload.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        result = run("trace-diff", folder, self.traces / "native")
        self.assertEqual(result.code, 5, result)
        self.assertIn("do not have its digest", result.err)

    def test_other_tokens(self):
        trace(self.folder / "other", "--prompt", "And God saw")
        result = diff(self.folder / "other", self.traces / "native")
        self.expect(result, "invalid", 3, "tokens-differ")
        self.assertEqual(result.json["points"], [])
        self.assertIn("position 3", result.json["reasons"][0]["text"])
        self.assertIn("--like", result.json["next"][0])

    def test_fewer_steps_or_points(self):
        trace(self.folder / "short", "--prompt", PROMPT)
        result = diff(self.folder / "short", self.traces / "native")
        self.expect(result, "incomplete", 3, "points-missing")
        self.assertEqual(len(result.json["coverage"]["missing"]), 2 * POINTS)
        lost = self.edit(self.copy("native"), lambda records: [r for r in records if r.get("name") != "t0/blk3/v_proj"])
        result = diff(lost, self.traces / "native")
        self.expect(result, "incomplete", 3, "points-missing")
        self.assertEqual(result.json["coverage"]["missing"], ["t0/blk3/v_proj: not in the candidate's trace"])
        result = diff(self.traces / "native", lost)
        self.assertEqual(result.json["coverage"]["missing"], ["t0/blk3/v_proj: not in the reference's trace"])

    def change(self, name, **fields):
        def apply(records):
            for r in records:
                if r.get("name") == name:
                    r.update(fields)
            return records
        return self.edit(self.copy("native", to=f"changed-{len(list(self.folder.iterdir()))}"), apply)

    def test_other_shapes_types_and_values_that_are_none(self):
        reference = self.traces / "native"
        self.expect(diff(self.change("t0/blk0/q_proj", shape=[9, 2, 128]), reference), "invalid", 3, "shapes-differ")
        self.expect(diff(self.change("t0/blk0/q_proj", dtype="F16"), reference), "incomplete", 3, "dtypes-differ")
        self.expect(diff(self.change("t0/blk0/q_proj", nan=1), reference), "invalid", 3, "non-finite")
        self.expect(diff(self.change("t0/blk0/q_proj", position=1), reference), "invalid", 3, "points-repeated")
        self.expect(diff(self.change("t0/blk0/q_proj", position=5), reference), "invalid", 3, "positions-wrong")

        def twice(records):
            return records[:2] + records[1:]
        self.expect(diff(self.edit(self.copy("native", to="twice"), twice), reference), "invalid", 3, "points-repeated")

    def test_unknown_stages_are_named_and_never_a_pass(self):
        def rename(records):
            for r in records:
                if r.get("stage") == "q_proj":
                    r["stage"] = "wq"
            return records
        foreign = self.edit(self.copy("native"), rename)
        result = diff(foreign, self.traces / "native")
        self.expect(result, "incomplete", 3, "points-unmapped")
        self.assertEqual(len(result.json["coverage"]["unmapped"]), 3 * LAYERS)

        def rename_all(records):
            for r in records:
                if "stage" in r:
                    r["stage"] = "x_" + r["stage"]
            return records
        result = diff(self.edit(self.copy("native", to="all"), rename_all), self.traces / "native")
        self.expect(result, "invalid", 3, "nothing-compared")

    def test_a_filter_of_nothing_compares_nothing(self):
        result = diff(self.traces / "native", self.traces / "native", "--filter", "layer=40")
        self.expect(result, "invalid", 3, "nothing-compared")
        result = diff(self.traces / "native", self.traces / "native", "--filter", "stage=q_*,layer=2")
        self.expect(result, "match", 0)
        self.assertEqual(result.json["n_equal"], 3 * 2)


class DocumentedSystem(Case):
    """Folders of one pretty-printed object a .trace file, or JSONL; its own tool passed on them whatever they held."""

    def record(self, name, values, layer, stage, shape=None):
        digest = hashlib.sha256(repr(values).encode()).hexdigest()  # any 64 digits: no value is stored
        return {"name": name, "shape": shape or [1, 4, 8], "dtype": "F32", "blake3": digest, "rms": values, "num_elements": 32,
                "seq": 0, "layer": layer, "stage": stage}

    def write(self, name, records, pretty=True):
        folder = self.folder / name
        folder.mkdir()
        if pretty:
            for r in records:
                (folder / (r["name"].replace("/", "_") + ".trace")).write_text(json.dumps(r, indent=2))
        else:
            (folder / "all.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        return folder

    def records(self, q=1.0, logits=1.0):
        return [self.record("t0/embeddings", 1.0, -1, "embeddings"), self.record("t0/blk0/attn_norm", 1.0, 0, "attn_norm"),
                self.record("t0/blk0/q_proj", q, 0, "q_proj"), self.record("t0/logits", logits, -1, "logits"),
                self.record("t0_all_layers_out", logits, -2, "all_layers_out")]

    def test_equal_folders_match_by_count_in_either_form(self):
        a, b = self.write("a", self.records()), self.write("b", self.records(), pretty=False)
        result = diff(a, b)
        self.expect(result, "match", 0, "equal-bits")
        self.assertEqual(result.json["n_equal"], 5)

    def test_the_first_difference_is_first_in_dependency_order(self):
        a, b = self.write("a", self.records()), self.write("b", self.records(q=1.5, logits=2.0))
        result = diff(a, b)
        self.expect(result, "incomplete", 3, "not-judged")
        first = result.json["first_difference"]
        self.assertEqual((first["layer"], first["stage"], first["confidence"]), (0, "q_proj", "digest"))
        # sizes alone bound the distance from below: |1 - 1.5| / 1.5
        self.assertAlmostEqual(first["rel_l2"], 1 / 3, places=5)
        self.expect(diff(a, b, "--rel-l2", "0.1"), "diverged", 1, "rel-l2-above-limit")
        self.expect(diff(a, b, "--rel-l2", "0.6"), "incomplete", 3, "limit-not-told")

    def test_a_record_that_is_missing_or_damaged(self):
        a, b = self.write("a", self.records()), self.write("b", self.records()[:-1])
        self.expect(diff(a, b), "incomplete", 3, "points-unmapped")
        (b / "broken.trace").write_text('{\n  "name": "t0/blk0/k_proj",\n  "shape": [1')
        result = run("trace-diff", a, b)
        self.assertEqual(result.code, 5, result)
        self.assertIn("broken.trace", result.err)


if __name__ == "__main__":
    main()

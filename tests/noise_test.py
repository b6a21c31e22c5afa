"""The noise floor on real engines: what is measured at the points is what the traces of the very same runs say."""
import array
import json
import math
import statistics
import struct

import defects
from driver import ROOT, SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
PROMPT = "And God said, Let there be light"
LAYERS, RUNS, STEPS = 6, 8, 2
TEXT = "And God said, Let there be light: and there was light. And God saw the light, that it was good"


def tensors(folder):
    """{(step, layer, stage): rows} of a full trace."""
    values = {}
    for path in sorted(folder.glob("payload-*.safetensors")):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:8 + size]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                values[name] = array.array("f", data[8 + size + begin:8 + size + end])
    out = {}
    for line in (folder / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "stage" not in record:
            continue
        rows = record["shape"][0]
        flat = values[record["name"]]
        width = len(flat) // rows
        out[record["seq"], record["layer"], record["stage"]] = [flat[i * width:(i + 1) * width] for i in range(rows)]
    return out


def squares(rows, undisturbed):
    """(sum of squared changes, sum of squares, worst row) over rows; -inf in both is equal."""
    error = norm = worst = 0.0
    for d, u in zip(rows, undisturbed, strict=True):
        pairs = [(x, y) for x, y in zip(d, u, strict=True) if not (x == y == -math.inf)]
        e, n = math.fsum((x - y) ** 2 for x, y in pairs), math.fsum(y * y for _, y in pairs)
        error, norm, worst = error + e, norm + n, max(worst, math.sqrt(e / n) if e else 0)
    return error, norm, worst


class Points(Case):
    def traces(self, engine, name, *args):
        """The undisturbed run and the disturbed ones, recorded apart from any comparison."""
        out = []
        for seed in ["none", *range(1, RUNS + 1)]:
            folder = self.folder / engine / name / str(seed)
            asked = ["--engine", engine, *args]
            if seed != "none":
                asked = ["--engine", f"{engine},noise.seed={seed}", *(args if "--like" in args else ["--like", folder.parent / "none"])]
            result = run("trace", "--model", MODEL, "--level", "full", "--out", folder, *asked)
            self.assertEqual(result.code, 0, result)
            out.append(tensors(folder))
        return out

    def calibration(self):
        """A trace to be like: the first 80 calibration tokens, 64 of them a prompt."""
        folder = self.folder / "calibration"
        text = (ROOT / "models" / "calibration.txt").read_text()[:500].rsplit(" ", 1)[0]
        result = run("trace", "--model", MODEL, "--prompt", text, "--filter", "stage=embeddings", "--level", "digest", "--out", folder)
        self.assertEqual(result.code, 0, result)
        manifest = json.loads((folder / "manifest.json").read_text())
        self.assertGreater(len(manifest["tokens"]), 80)
        manifest["tokens"] = manifest["tokens"][:80]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    def check(self, engine):
        result = self.crossval("--model", MODEL, "--candidate", engine, "--reference", engine, "--prompt", PROMPT,
                               "--max-tokens", STEPS)
        self.expect(result, "match", 0)
        # Layer by layer, of this prompt: what stands beside the growth of the candidate's error.
        undisturbed, *disturbed = self.traces(engine, "prompt", "--prompt", PROMPT, "--max-tokens", STEPS)
        for row in result.json["growth"]:
            self.assertEqual(row["rel_l2"], 0)  # the engine against itself
            key = (0, row["layer"], "layer_out")
            errors = [math.sqrt(e / n) for e, n, _ in (squares(d[key], undisturbed[key]) for d in disturbed)]
            self.assertGreater(min(errors), 0)
            self.assertAlmostEqual(row["noise"]["largest"] / max(errors), 1, places=9)
            self.assertAlmostEqual(row["noise"]["median"] / statistics.median(errors), 1, places=9)
        # Every point, over 64 calibration tokens at once and 16 one by one.
        undisturbed, *disturbed = self.traces(engine, "calibration", "--like", self.calibration(), "--prefill", 64)
        floors = {(p["positions"], p["stage"]): p for p in result.json["noise_floor"]["points"]}
        stages = {stage for step, _, stage in undisturbed if step == 1 and stage != "logits"}
        self.assertEqual(set(floors), {(c, stage) for c in ("first", "prefill", "decode") for stage in stages})
        for (positions, stage), floor in floors.items():
            steps = range(1, 17) if positions == "decode" else [0]
            rows = slice(1) if positions == "first" else slice(None)
            layers = [-1] if stage in ("embeddings", "final_norm") else range(LAYERS)
            self.assertEqual((floor["n_rows"], floor["n_runs"]), ({"first": 1, "prefill": 64, "decode": 16}[positions], RUNS))
            self.assertEqual(len(floor["largest"]), len(layers))
            for i, layer in enumerate(layers):
                errors, worst = [], 0
                for d in disturbed:
                    parts = [squares(d[s, layer, stage][rows], undisturbed[s, layer, stage][rows]) for s in steps]
                    errors.append(math.sqrt(sum(p[0] for p in parts) / sum(p[1] for p in parts)))
                    worst = max(worst, *(p[2] for p in parts))
                for told, expected in ((floor["largest"][i], max(errors)), (floor["median"][i], statistics.median(errors)),
                                       (floor["worst_row"][i], worst)):
                    self.assertAlmostEqual(told, expected, delta=1e-9 * expected, msg=f"{positions} {stage} {layer}")

    def test_the_native_engine_as_the_traces_say(self):
        self.check("native")

    def test_llama_cpp_as_the_traces_say(self):
        self.check("llama.cpp")

    def test_report_and_receipt_hold_them(self):
        receipt = self.folder / "receipt.json"
        result = self.crossval("--model", MODEL, "--reference", "llama.cpp", "--prompt", PROMPT, "--receipt", receipt)
        self.expect(result, "match", 0)
        written = json.loads(receipt.read_text())
        self.assertEqual(written["noise_floor"]["points"], result.json["noise_floor"]["points"])
        self.assertEqual(written["distance"], result.json["distance"])
        text = run("crossval", "--model", MODEL, "--reference", "llama.cpp", "--prompt", PROMPT, "-v").out
        self.assertIn("there the reference against itself", " ".join(text.split()))

    def points(self, *args):
        result = self.crossval("--model", MODEL, "--prompt", "And God said", *args)
        return result.json["noise_floor"]["points"]

    def test_points_that_are_hidden_or_not_asked_for_are_not_measured(self):
        self.assertEqual(self.points("--candidate", "llama.cpp", "--reference", "llama.cpp", "--scope", "logits-only"), [])
        faulty = ["--candidate", "faulty", "--reference"]
        self.assertIn("layer_out", [p["stage"] for p in self.points(*faulty, "faulty")])
        self.assertEqual({p["stage"] for p in self.points(*faulty, "faulty,faulty.mode=hides_points")}, {"embeddings"})

    def test_the_floor_is_that_of_the_engine_unwatched(self):
        """Where watching changes the logits the runs are not watched: such a floor would let a defect pass."""
        honest = self.crossval("--model", MODEL, "--prompt", "And God said", "--candidate", "faulty", "--reference",
                               "faulty,faulty.mode=wrong_unwatched")
        self.assertIn("observer-effect", honest.codes())
        self.assertEqual(honest.json["noise_floor"]["points"], [])
        unwatched = self.crossval("--model", MODEL, "--prompt", "And God said", "--candidate", "faulty", "--reference",
                                  "faulty,faulty.mode=wrong_unwatched", "--scope", "logits-only")
        for key in ("mean_kl", "worst_kl", "worst_gap"):
            self.assertEqual(honest.json["noise_floor"][key], unwatched.json["noise_floor"][key])


def ranks(values):
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


class Distance(Case):
    def kl(self, candidate, *args):
        result = self.crossval("--model", MODEL, "--candidate", candidate, "--reference", "native", "--prompt", TEXT, *args)
        return result, [row["kl"] for row in result.json["positions"]]

    def test_the_rank_is_that_of_runs_compared_one_by_one(self):
        """Each disturbed run as a candidate of its own has the KL of the floor's run; ranked here, apart from the program."""
        runs = [self.kl(f"native,noise.seed={seed}", "--scope", "logits-only")[1] for seed in range(1, 10)]
        for seed in (1001, 1002):
            result, candidate = self.kl(f"native,noise.seed={seed}", "--scope", "logits-only", "--confidence", "0.9")
            # Distances below the resolution of the figures are ties (docs/numerics.md, "Rank").
            rows = ([max(kl, 1e-12) for kl in row] for row in zip(candidate, *runs))
            sums = [sum(column) for column in zip(*(ranks(row) for row in rows))]
            as_far = sum(s >= sums[0] for s in sums[1:])
            told = result.json["distance"]
            self.assertEqual((told["n_positions"], told["n_runs"], told["n_as_far"]), (len(candidate), 9, as_far))
            self.assertAlmostEqual(told["p"], (as_far + 1) / 10)
            self.assertEqual(told["distinguishable"], as_far == 0)
            self.assertAlmostEqual(told["mean_kl_noise"] / statistics.fmean(v for run in runs for v in run), 1, places=9)

    def test_more_runs_set_no_limit(self):
        few, _ = self.kl("native,noise.seed=1001")
        many, _ = self.kl("native,noise.seed=1001", "--confidence", "0.95")
        self.assertEqual(few.json["limits"], many.json["limits"])
        self.assertEqual((few.json["distance"]["n_runs"], many.json["distance"]["n_runs"]), (8, 19))
        self.assertFalse(few.json["distance"]["decidable"])
        self.assertTrue(many.json["distance"]["decidable"])

    def test_a_benign_candidate_passes_and_a_defect_within_the_limits_does_not(self):
        benign = self.crossval("--model", MODEL, "--reference", "llama.cpp", "--prompt", TEXT, "--confidence", "0.95")
        self.expect(benign, "match", 0)
        self.assertFalse(benign.json["distance"]["distinguishable"])
        spoilt = self.folder / "spoilt.gguf"
        model = defects.Model(MODEL)
        model.set_float(defects.EPS, 1.01e-5)  # a norm epsilon off by a hundredth
        model.save(spoilt)
        (self.folder / "config.json").write_text('{"hidden_act": "silu"}')  # the whole one would contradict the file
        args = ("--model", spoilt, "--reference-model", MODEL, "--reference", "llama.cpp", "--prompt", TEXT, "--scope", "logits-only")
        blind = self.crossval(*args)
        self.assertEqual(blind.code, 0, "the limits see it: it no longer shows what the rank is for")
        result = self.crossval(*args, "--confidence", "0.95")
        self.expect(result, "diverged", 1, "distinguishable")
        self.assertLessEqual(result.json["distance"]["since_position_count"], len(result.json["positions"]))
        text = " ".join(run("crossval", *args, "--confidence", "0.95").out.split())
        self.assertIn("0 of 19 runs of the reference against itself lie as far from it as the candidate", text)
        self.assertIn("it can be told from noise at 0.95", text)

    def test_what_cannot_be_decided_is_incomplete(self):
        kept = self.folder / "kept"
        self.expect(self.crossval("--model", MODEL, "--reference", "native", "--prompt", "And God", "--keep-traces", kept), "match", 0)
        recorded = ("--model", MODEL, "--reference", f"replay,trace={kept / 'reference'}", "--prompt", "And God")
        self.expect(self.crossval(*recorded), "match", 0)
        self.expect(self.crossval(*recorded, "--confidence", "0.95"), "incomplete", 3, "confidence-undecided")
        self.expect(self.crossval(*recorded, "--confidence", "0.8"), "match", 0)
        for value in ("0", "1", "95", "x"):
            self.assertEqual(run("crossval", "--model", MODEL, "--reference", "native", "--prompt", "a", "--confidence", value).code, 2)


if __name__ == "__main__":
    main()

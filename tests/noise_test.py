"""The noise floor on real engines: what is measured at the points is what the traces of the very same runs say."""
import array
import json
import math
import pathlib
import statistics
import struct

from driver import SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
PROMPT = "And God said, Let there be light"
LAYERS, RUNS, STEPS = 6, 8, 2


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
    def traces(self, engine):
        """The undisturbed run and the disturbed ones, recorded apart from any comparison."""
        out = []
        for seed in ["none", *range(1, RUNS + 1)]:
            folder = self.folder / engine / str(seed)
            result = run("trace", "--model", MODEL, "--engine", f"{engine},noise.seed={seed}", "--prompt", PROMPT, "--out", folder,
                         "--level", "full", *(["--max-tokens", STEPS] if seed == "none" else ["--like", self.folder / engine / "none"]))
            self.assertEqual(result.code, 0, result)
            out.append(tensors(folder))
        return out

    def check(self, engine):
        undisturbed, *disturbed = self.traces(engine)
        result = self.crossval("--model", MODEL, "--candidate", engine, "--reference", engine, "--prompt", PROMPT,
                               "--max-tokens", STEPS)
        self.expect(result, "match", 0)
        # Layer by layer, of this prompt: what stands beside the growth of the candidate's error.
        for row in result.json["growth"]:
            self.assertEqual(row["rel_l2"], 0)  # the engine against itself
            key = (0, row["layer"], "layer_out")
            errors = [math.sqrt(e / n) for e, n, _ in (squares(d[key], undisturbed[key]) for d in disturbed)]
            self.assertGreater(min(errors), 0)
            self.assertAlmostEqual(row["noise"]["largest"] / max(errors), 1, places=9)
            self.assertAlmostEqual(row["noise"]["median"] / statistics.median(errors), 1, places=9)
        # Decode steps belong to the prompt alone, so the pooled floor is the prompt's.
        decode = {p["stage"]: p for p in result.json["noise_floor"]["points"] if p["positions"] == "decode"}
        observed = {stage for step, _, stage in undisturbed if step == 1 and stage != "logits"}
        self.assertEqual(set(decode), observed)
        for stage in observed:
            layers = [-1] if stage in ("embeddings", "final_norm") else range(LAYERS)
            self.assertEqual((decode[stage]["n_rows"], decode[stage]["n_runs"]), (STEPS, RUNS))
            self.assertEqual(len(decode[stage]["largest"]), len(layers))
            for i, layer in enumerate(layers):
                errors, worst = [], 0
                for d in disturbed:
                    steps = [squares(d[s, layer, stage], undisturbed[s, layer, stage]) for s in range(1, STEPS + 1)]
                    errors.append(math.sqrt(sum(s[0] for s in steps) / sum(s[1] for s in steps)))
                    worst = max(worst, *(s[2] for s in steps))
                self.assertAlmostEqual(decode[stage]["largest"][i] / max(errors), 1, places=9, msg=f"{stage} {layer}")
                self.assertAlmostEqual(decode[stage]["median"][i] / statistics.median(errors), 1, places=9)
                self.assertAlmostEqual(decode[stage]["worst_row"][i] / worst, 1, places=9)

    def test_the_native_engine_as_the_traces_say(self):
        self.check("native")

    def test_llama_cpp_as_the_traces_say(self):
        self.check("llama.cpp")

    def test_classes_count_their_rows_and_the_receipt_holds_them(self):
        receipt = self.folder / "receipt.json"
        result = self.crossval("--model", MODEL, "--reference", "llama.cpp", "--prompt", PROMPT, "--receipt", receipt)
        self.expect(result, "match", 0)
        points = result.json["noise_floor"]["points"]
        rows = {(p["positions"], p["stage"]): p["n_rows"] for p in points}
        n = len(result.json["positions"])
        # 400 calibration tokens in sequences of at most the trained context; each sequence has a first position.
        sequences = 1 + math.ceil(400 / min(400, int(result.json["engines"][1]["model_facts"]["n_ctx_train"]["value"])))
        self.assertEqual(rows["first", "q_proj"], sequences)
        self.assertEqual(rows["prefill", "q_proj"], n + 400)
        self.assertNotIn(("decode", "q_proj"), rows)
        self.assertNotIn(("prefill", "logits"), rows)
        self.assertEqual(json.loads(receipt.read_text())["noise_floor"]["points"], points)
        text = run("crossval", "--model", MODEL, "--reference", "llama.cpp", "--prompt", PROMPT).out
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


if __name__ == "__main__":
    main()

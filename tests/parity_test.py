"""One question of two engines each: the order of the next tokens, the NLL of a text, greedy tokens, token ids; and one engine against
two references. Figures are computed here once more, from traces and token ids."""
import array
import json
import math
import re
import signal
import struct
import subprocess
import time

from driver import CACHE, PARITYBIT, RELU2, ROOT, SILU, Case, environment, main, run

MODEL, OTHER = SILU / "tiny-bitnet-silu-tq2_0.gguf", RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
LLAMA = "llama.cpp,cpu.library=haswell"
TEXT = ("And God said, Let there be light: and there was light. And God saw the light, that it was good: and God divided the light from "
        "the darkness. And God called the light Day, and the darkness he called Night. And the evening and the morning were the first day.")
# One channel of the last norm is lost: the median of tau stays above 0.9.
MUTANT = "mutant,mutant.defect=act_gelu,mutant.stage=ffn_act,mutant.layer=5"


class ParityCase(Case):
    def command(self, name, *args, **kwargs):
        """With JSON output, whose exit code must be the process's own."""
        result = run(name, "--format", "json", *args, **kwargs)
        self.assertTrue(result.out, result)
        self.assertEqual(result.code, result.json["exit_code"], result)
        return result

    def failing_engines(self, name, *args):
        """Every way to compare nothing, or to compare what was not computed."""
        common = ("-m", MODEL, *args)
        for reference, verdict, code, reason in (("faulty,faulty.mode=crash", "engine-failed", 4, "reference-failed"),
                                                 ("faulty,faulty.mode=constant_logits", "invalid", 3, None),
                                                 ("faulty,faulty.mode=nan", "invalid", 3, None)):
            with self.subTest(reference=reference):
                result = self.command(name, *common, "-c", "faulty", "-r", reference)
                self.assertNotEqual(result.code, 0, result)
                if reason:
                    self.expect(result, verdict, code, reason)
        constant = "faulty,faulty.mode=constant_logits"
        self.expect(self.command(name, *common, "-c", constant, "-r", constant), "invalid", 3)
        self.expect(self.command(name, *common, "-c", "native", "-r", "faulty"), "invalid", 3, "tokens-differ")
        nothing = self.command(name, *common, env={"PARITYBIT_CACHE": self.folder / "empty"})
        self.expect(nothing, "incomplete", 3, "no-reference")
        self.assertIn("paritybit setup-cpp-auto", nothing.json["next"])


def logits_of(engine, tokens, folder, template):
    """The engine's rows over these very tokens, as its trace holds them."""
    manifest = json.loads((template / "manifest.json").read_text())
    manifest.update(tokens=tokens, n_prompt=len(tokens), n_records=0)
    like = folder / "like"
    like.mkdir()
    (like / "manifest.json").write_text(json.dumps(manifest))
    (like / "records.jsonl").write_text(json.dumps({"seq": 0, "position": 0, "tokens": tokens}) + "\n")
    out = folder / "trace"
    done = run("trace", "--model", MODEL, "--engine", engine, "--like", like, "--prefill", len(tokens), "--level", "full", "--filter",
               "stage=logits", "--out", out)
    assert done.code == 0, done
    rows = []
    for path in sorted(out.glob("payload-*.safetensors")):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in sorted(json.loads(data[8:8 + size]).items()):
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            flat = array.array("f", data[8 + size + begin:8 + size + end])
            width = entry["shape"][-1]
            rows += [flat[i:i + width] for i in range(0, len(flat), width)]
    assert len(rows) == len(tokens), (len(rows), len(tokens))
    return rows


def nll_of(row, token):
    largest = max(row)
    return largest + math.log(math.fsum(math.exp(x - largest) for x in row)) - row[token]


class Nll(ParityCase):
    def test_the_perplexity_is_that_of_llama_perplexity(self):
        """Its definition (tools/perplexity of llama.cpp): windows of n_ctx tokens, the first of each replaced by BOS where the model adds
        one, the second half of each predicted; recomputed from the reference's own logits."""
        window, text = 32, f"{TEXT} {TEXT}"
        result = self.command("nll-parity", "-m", MODEL, "-r", LLAMA, "--text", text, "--ctx-size", window)
        self.expect(result, "match", 0, "within-limit")
        template = self.folder / "template"
        self.assertEqual(run("trace", "--model", MODEL, "--prompt", text, "--level", "digest", "--filter", "stage=embeddings", "--out",
                             template).code, 0)
        tokens = json.loads((template / "manifest.json").read_text())["tokens"]
        self.assertEqual((result.json["text"]["n_tokens"], result.json["n_windows"]), (len(tokens), len(tokens) // window))
        nll = []
        for i in range(len(tokens) // window):
            part = [tokens[0], *tokens[i * window + 1:(i + 1) * window]]
            folder = self.folder / f"window{i}"
            folder.mkdir()
            rows = logits_of(LLAMA, part, folder, template)
            nll += [nll_of(rows[p], part[p + 1]) for p in range(window // 2, window - 1)]
        self.assertEqual(result.json["n_scored"], len(nll))
        mean = math.fsum(nll) / len(nll)
        self.assertAlmostEqual(result.json["reference"]["nll"], mean, places=6)
        self.assertAlmostEqual(result.json["reference"]["perplexity"], math.exp(mean), places=4)
        deviation = math.sqrt((math.fsum(v * v for v in nll) / len(nll) - mean * mean) / (len(nll) - 1))
        self.assertAlmostEqual(result.json["reference"]["perplexity_error"] / (deviation * math.exp(mean)), 1, places=4)
        difference = result.json["difference"]
        self.assertAlmostEqual(difference["nll"], result.json["candidate"]["nll"] - result.json["reference"]["nll"], places=12)
        self.assertLessEqual(difference["low"], difference["nll"])
        self.assertLess(abs(difference["high"]), 1e-3)

    def test_an_engine_that_computes_something_else(self):
        wrong = self.command("nll-parity", "-m", OTHER, "-r", LLAMA, "--text", TEXT * 4)
        self.expect(wrong, "diverged", 1, "nll-beyond-limit")
        self.assertGreater(abs(wrong.json["difference"]["low"]), 0.01)
        self.assertTrue(wrong.json["next"][0].startswith("paritybit crossval --model"), wrong)
        text = run("nll-parity", "-m", OTHER, "-r", LLAMA, "--text", TEXT * 4)
        self.assertEqual(text.code, 1)
        for words in ("DIVERGED", "perplexity", "differ     ffn.activation: relu2"):
            self.assertIn(words, text.out)

    def test_what_is_not_decided_is_incomplete(self):
        rounds = ("-m", MODEL, "-r", "native", "--set", "act.quant=none", "--text", TEXT * 3)
        told = self.command("nll-parity", *rounds).json["difference"]
        self.assertLess(told["low"], told["high"])
        middle = max(abs(told["low"]), abs(told["high"]))
        self.expect(self.command("nll-parity", *rounds, "--nll-max", middle * 1.01), "match", 0)
        self.expect(self.command("nll-parity", *rounds, "--nll-max", middle * 0.99), "incomplete", 3, "nll-undecided")
        few = self.command("nll-parity", "-m", MODEL, "-r", "native", "--text", "And God said, Let there be light")
        self.expect(few, "incomplete", 3, "too-few-tokens")

    def test_texts_and_windows_that_cannot_be(self):
        for args, words in ((["--text", "And"], "too few for two windows"), (["--text", TEXT, "--ctx-size", 500], "two windows take 1000"),
                            (["--text", TEXT, "--file", __file__], "give one of them"), (["--ctx-size", 1 << 19], "context has")):
            result = run("nll-parity", "-m", MODEL, "-r", "native", *args)
            self.assertEqual((result.code, words in result.err), (2, True), result)
        self.assertEqual(run("nll-parity", "-m", MODEL, "-r", "native", "--file", self.folder / "none").code, 5)

    def test_nothing_passes_on_nothing(self):
        self.failing_engines("nll-parity", "--text", TEXT)


def tau_b(x, y):
    """By the definition, pair by pair."""
    agree = n_x = n_y = 0
    for i in range(len(x)):
        for j in range(i):
            a, b = (x[i] > x[j]) - (x[i] < x[j]), (y[i] > y[j]) - (y[i] < y[j])
            agree, n_x, n_y = agree + a * b, n_x + a * a, n_y + b * b
    return agree / math.sqrt(n_x * n_y)


class Logits(ParityCase):
    PROMPT = "And God said, Let there be"

    def test_equal_engines_match_and_tau_is_what_the_definition_gives(self):
        steps = 12
        result = self.command("logit-parity", "-m", MODEL, "-r", LLAMA, "-c", MUTANT, "-p", self.PROMPT, "--tau-steps", steps)
        # The very rows, from crossval: where both tops hold the same tokens, the union is one of them.
        rows = self.crossval("-m", MODEL, "-r", LLAMA, "-c", MUTANT, "-p", self.PROMPT, "-n", steps - 1, "--scope", "logits-only").json["positions"]
        rows = {row["position"]: row for row in rows}
        checked = 0
        self.assertEqual(len(result.json["steps"]), steps)
        for step in result.json["steps"]:
            tops = [{entry["token"]: entry["logp"] for entry in rows[step["position"]]["top_k"][role]} for role in ("candidate", "reference")]
            if set(tops[0]) != set(tops[1]):
                continue
            ids = sorted(tops[0])
            self.assertAlmostEqual(step["tau"], tau_b([tops[0][i] for i in ids], [tops[1][i] for i in ids]), places=9)
            checked += 1
        self.assertGreater(checked, 2)
        taus = sorted(step["tau"] for step in result.json["steps"])
        self.assertAlmostEqual(result.json["tau"]["median"], (taus[steps // 2 - 1] + taus[steps // 2]) / 2, places=12)
        self.assertEqual(result.json["tau"]["least"], taus[0])
        sound = self.command("logit-parity", "-m", MODEL, "-r", LLAMA, "--examples", 4, "--tau-steps", 12)
        self.expect(sound, "match", 0, "within-limit")
        self.assertEqual((sound.json["noise"]["n_runs"], sound.json["tau"]["n_beyond_noise"], len(sound.json["prompts"])), (8, 0, 4))
        self.assertGreater(sound.json["tau"]["median"], 0.99)

    def test_an_engine_that_computes_something_else(self):
        result = self.command("logit-parity", "-m", OTHER, "-r", LLAMA, "-p", self.PROMPT)
        self.expect(result, "diverged", 1, "order-beyond-noise")
        self.assertIn("crossval", result.json["next"][0])
        text = run("logit-parity", "-m", OTHER, "-r", LLAMA, "-p", self.PROMPT)
        self.assertIn("beyond noise", text.out)
        self.assertIn("DIVERGED", text.out)

    def test_a_small_defect_passes_the_limit_and_not_the_noise(self):
        result = self.command("logit-parity", "-m", MODEL, "-r", "native", "-c", MUTANT, "-p", self.PROMPT, "--topk", 40)
        self.assertGreater(result.json["tau"]["median"], 0.6)
        self.expect(result, "diverged", 1, "order-beyond-noise")
        self.expect(self.command("logit-parity", "-m", MODEL, "-r", "native", "-c", MUTANT, "-p", self.PROMPT, "--topk", 40, "--noise-runs", 0),
                    "match", 0, "within-limit")

    def test_flags_and_variables_of_the_documented_system(self):
        def limits(*args, **env):
            result = self.command("logit-parity", "-m", MODEL, "-r", "native", *args, env=env)
            choices = {c["key"]: (c["value"], c["origin"]) for c in result.json["choices"]}
            return result, choices
        result, choices = limits("--examples", 1, "--noise-runs", 1)
        self.assertEqual([choices[key][0] for key in ("tau-steps", "topk", "tau-min", "tie-eps")], ["32", "10", "0.6", "1e-06"])
        self.assertEqual(len(result.json["steps"]), 32)
        result, choices = limits("--topk", 5, "--noise-runs", 1, PROP_EXAMPLES="2", TAU_STEPS="9", LOGIT_TOPK="7", TAU_MIN="0.5")
        self.assertEqual(choices["topk"], ("5", "flag --topk"))
        self.assertEqual(choices["tau-min"], ("0.5", "variable TAU_MIN"))
        self.assertEqual((len(result.json["prompts"]), len(result.json["steps"])), (2, 18))
        for name, value in (("TAU_MIN", "high"), ("TAU_STEPS", "0"), ("LOGIT_TOPK", "1.5"), ("TAU_MIN", "2")):
            self.assertEqual(run("logit-parity", "-m", MODEL, "-r", "native", env={name: value}).code, 2, name)

    def test_too_few_steps_are_incomplete(self):
        few = self.command("logit-parity", "-m", MODEL, "-r", "native", "-p", "And", "--tau-steps", 4, "--min-steps", 5)
        self.expect(few, "incomplete", 3, "too-few-steps")

    def test_nothing_passes_on_nothing(self):
        self.failing_engines("logit-parity", "-p", "And God", "--tau-steps", 4)


class Greedy(ParityCase):
    def test_equal_engines(self):
        result = self.command("greedy-parity", "-m", MODEL, "-r", LLAMA, "--examples", 5, "-n", 8, "--seed", 7)
        self.assertEqual(result.code, 0, result)
        self.assertIn(result.json["verdict"], ("match", "near-tie"))
        self.assertEqual((len(result.json["prompts"]), result.json["n_tokens"]), (5, 40))
        # The reference's choices are those that it generates by itself.
        row = result.json["prompts"][2]
        alone = run("infer", "-m", MODEL, "-e", LLAMA, "-p", row["text"], "-n", 8, "--ignore-eos", "--format", "json").json
        self.assertEqual((row["tokens"], row["decoded"]), (alone["prompt_tokens"], alone["tokens"]))

    def test_a_defect_ends_with_the_smallest_prompt(self):
        args = ("greedy-parity", "-m", MODEL, "-r", "native", "-c", "mutant,mutant.defect=act_relu,mutant.stage=ffn_act", "--examples", 20, "-n", 4)
        result = self.command(*args)
        self.expect(result, "diverged", 1, "top1-flip")
        smallest = result.json["smallest"]
        self.assertTrue(smallest["failed"])
        self.assertLessEqual(len(smallest["text"]), min(len(p["text"]) for p in result.json["prompts"] if p["failed"]))
        flip = next(f for f in smallest["flips"] if not f["explained"])
        self.assertGreater(flip["change"], result.json["gap_limit"])
        # Both engines by themselves, on that prompt.
        for role, engine in (("candidate", "mutant,mutant.defect=act_relu,mutant.stage=ffn_act"), ("reference", "native")):
            tokens = run("infer", "-m", MODEL, "-e", engine, "-p", smallest["text"], "-n", 4, "--ignore-eos", "--format", "json").json["tokens"]
            if flip["step"] == 0 or role == "reference":
                self.assertEqual(tokens[flip["step"]], flip[role])
        text = run(*args).out
        for words in ("the smallest prompt found", "differs", "paritybit crossval"):
            self.assertIn(words, text)

    def test_prompts_given_are_all_compared(self):
        result = self.command("greedy-parity", "-m", OTHER, "-r", LLAMA, "-p", "And God said", "-p", "In the beginning", "-n", 4)
        self.expect(result, "diverged", 1)
        self.assertEqual((len(result.json["prompts"]), result.json["smallest"]), (2, None))

    def test_settings_that_differ_are_no_fault(self):
        result = self.command("greedy-parity", "-m", MODEL, "-r", "native", "--set", "act.quant=none", "--examples", 40, "-n", 8)
        self.assertIn(result.json["verdict"], ("match", "near-tie", "incomplete", "drift"), result)

    def test_an_interrupted_run_goes_on(self):
        cache = {"PARITYBIT_CACHE": self.folder / "cache"}
        (self.folder / "cache").mkdir()
        for name in ("references", "models"):
            (self.folder / "cache" / name).symlink_to(f"{CACHE.name}/{name}")
        args = ["greedy-parity", "-m", MODEL, "-r", "native", "--examples", 400, "-n", 16, "--format", "json"]
        process = subprocess.Popen(["paritybit", *map(str, args)], executable=str(PARITYBIT), env=environment(cache), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        entries = []
        for _ in range(600):
            entries = list((self.folder / "cache" / "greedy").glob("*/*.json")) if (self.folder / "cache" / "greedy").exists() else []
            if len(entries) >= 3:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, json.loads(out)["verdict"]), (130, "interrupted"))
        # One that was changed is not believed.
        entries[0].write_text(entries[0].read_text().replace('"n_compared"', '"n_compareb"'))
        args[args.index(400)] = 400
        done = run(*args, env=cache)
        self.assertEqual(done.code, 0, done)
        n_kept = sum(p["from_cache"] for p in done.json["prompts"])
        self.assertGreaterEqual(n_kept, 2)
        self.assertLess(n_kept, 400)
        self.assertFalse(list((self.folder / "cache" / "greedy").glob("*")))

    def test_nothing_passes_on_nothing(self):
        self.failing_engines("greedy-parity", "-p", "And God", "-n", 3)
        self.assertEqual(run("greedy-parity", "-m", MODEL, "-r", "native", "--prompts", "/dev/null").code, 5)


class Tokens(ParityCase):
    def test_our_tokenizer_is_the_engines(self):
        corpus = ROOT / "models" / "heldout.txt"
        result = self.command("tokenizer-parity", "-m", MODEL, "-r", LLAMA, "--file", corpus, "--random", 300)
        self.expect(result, "match", 0, "equal")
        self.assertGreater(result.json["n_texts"], 400)
        self.assertGreater(result.json["n_bytes"], corpus.stat().st_size)
        both = self.command("tokenizer-parity", "-m", MODEL, "-c", "native", "-r", LLAMA, "--random", 20, "--no-battery")
        self.expect(both, "match", 0, "equal")
        self.assertEqual(both.json["n_texts"], 20)

    def other_words(self):
        """A model with a vocabulary of its own."""
        path = self.folder / "other.gguf"
        self.assertEqual(run("gen-fixtures", "--out", path, "--vocab", 700).code, 0)
        return path

    def test_the_smallest_text_that_differs(self):
        other = self.other_words()
        result = self.command("tokenizer-parity", "-m", MODEL, "--reference-model", other, "-c", "native", "-r", "native", "--no-battery",
                              "--random", 0, "--text", "On the 14th of May 1234 men and 56 horses went 7 miles, said the clerk's wife.")
        self.expect(result, "diverged", 1, "tokens-differ")
        difference = result.json["differences"][0]
        self.assertLess(len(difference["text"]), 6, difference)
        self.assertNotEqual(difference["candidate"]["ids"], difference["reference"]["ids"])
        # The engines by themselves.
        for role, model in (("candidate", MODEL), ("reference", other)):
            ids = self.crossval("-m", model, "-r", "native", "-p", difference["text"], "--scope", "logits-only").json["prompts"][0]["tokens"]
            self.assertEqual("".join(difference[role]["pieces"]).replace("<|begin_of_text|>", "").encode(), difference["text"].encode())
            self.assertEqual(ids, difference[role]["ids"])
        first = difference["first_difference"]
        self.assertEqual(difference["candidate"]["ids"][:first], difference["reference"]["ids"][:first])
        text = run("tokenizer-parity", "-m", MODEL, "--reference-model", other, "-c", "native", "-r", LLAMA, "--random", 0)
        self.assertEqual(text.code, 1, text)
        for words in ("bytes", "the smallest that differs", "DIVERGED"):
            self.assertIn(words, text.out)

    def test_bytes_are_escaped(self):
        hostile = self.folder / "hostile.txt"
        hostile.write_bytes(b"\x1b[31m red \xff\xfe\n\x00")
        self.assertEqual(run("tokenizer-parity", "-m", MODEL, "-r", "native", "--no-battery", "--random", 0, "--file", hostile).code, 0)
        result = run("tokenizer-parity", "-m", MODEL, "-c", "native", "-r", "faulty", "--no-battery", "--random", 0, "--file", hostile)
        self.assertEqual(result.code, 1, result)
        self.assertNotIn("\x1b", result.out)

    def test_nothing_passes_on_nothing(self):
        common = ("-m", MODEL, "--random", 0, "--no-battery")
        self.expect(self.command("tokenizer-parity", *common, "-r", "native"), "invalid", 3, "nothing-compared")
        self.expect(self.command("tokenizer-parity", *common, "-r", "faulty,faulty.mode=crash,faulty.at=model", "--text", "a"), "engine-failed", 4)
        self.expect(self.command("tokenizer-parity", *common, "--text", "a", env={"PARITYBIT_CACHE": self.folder / "none"}), "incomplete", 3,
                    "no-reference")
        empty = self.folder / "empty.txt"
        empty.touch()
        self.assertEqual(run("tokenizer-parity", *common, "-r", "native", "--file", empty).code, 2)


class Both(ParityCase):
    PROMPT, LLAMA_B = "And God said", "llama.cpp,cpu.library=x64"

    def test_all_three_agree(self):
        out = self.folder / "out"
        result = self.command("parity-both", "-m", MODEL, "-r", LLAMA, "--reference-b", self.LLAMA_B, "-p", self.PROMPT, "--max-tokens", 1,
                              "--out-dir", out)
        self.assertEqual((result.code, result.json["status"], result.json["stands_alone"]), (0, "ok", "nobody"), result)
        self.assertEqual(result.json["overall"], {"both_passed": True, "exit_code": 0})
        self.assertEqual(result.json["tokenizer"]["status"], "ok")
        for lane, engine in (("reference", LLAMA), ("reference_b", self.LLAMA_B)):
            told = result.json["lanes"][lane]
            self.assertEqual((told["backend"], told["status"]), (engine, "ok"))
            self.assertGreater(told["mean_cosine_sim"], 0.999)
            receipt = json.loads((out / f"receipt_{lane}.json").read_text())
            self.assertEqual(str(out / f"receipt_{lane}.json"), told["receipt_path"])
            squares = [row["mse"] for row in receipt["positions"]]
            self.assertEqual(len(squares), 5)  # four tokens and a decode step
            self.assertAlmostEqual(told["mean_mse"], sum(squares) / len(squares), delta=1e-12 * told["mean_mse"])
            self.assertTrue(0 < told["mean_mse"] < 1e-3, told)
            self.assertIn(engine, json.dumps(receipt))

    def test_one_stands_alone(self):
        """llama.cpp runs SiLU where this model declares squared ReLU."""
        args = ("parity-both", "-p", self.PROMPT, "-n", 0, "--out-dir", self.folder)
        alone = self.command(*args, "--model-gguf", OTHER, "-r", LLAMA, "--reference-b", "native")
        self.assertEqual((alone.code, alone.json["stands_alone"]), (1, "reference"), alone)
        self.assertEqual([alone.json["lanes"][lane]["status"] for lane in ("reference", "reference_b")], ["failed", "ok"])
        text = run(*args, "-m", OTHER, "-r", "native", "--reference-b", LLAMA)
        self.assertEqual(text.code, 1)
        self.assertIn(f"{LLAMA} stands alone: native and native agree", re.sub(r"\s+", " ", text.out))
        candidate = self.command(*args, "-m", MODEL, "-r", "native", "--reference-b", LLAMA, "-c", "mutant,mutant.defect=act_relu,mutant.stage=ffn_act")
        self.assertEqual((candidate.code, candidate.json["stands_alone"]), (1, "candidate"), candidate)

    def test_a_reference_that_is_not_here_is_never_a_pass(self):
        result = self.command("parity-both", "-m", MODEL, "-r", "native", "-p", self.PROMPT, "-n", 0, "--out-dir", self.folder,
                              env={"PARITYBIT_CACHE": self.folder / "none"})
        self.assertEqual((result.code, result.json["verdict"], result.json["stands_alone"]), (3, "incomplete", "undecided"), result)
        self.assertEqual(result.json["lanes"]["reference_b"]["backend"], "bitnet.cpp")
        self.assertIn("--reference-b llama.cpp,cpu.library=x64", result.json["next"][0])
        wrong = run("parity-both", "-m", MODEL, "-r", "native", "--reference-b", "no-such-engine", "-p", "a", "--out-dir", self.folder)
        self.assertEqual(wrong.code, 2, wrong)

    def test_documented_flags(self):
        result = run("parity-both", "--model-gguf", MODEL, "--tokenizer", MODEL, "-r", "native", "--reference-b", "native", "--prompt", "And",
                     "--max-tokens", 0, "--cos-tol", "0.999", "--out-dir", self.folder, "--format", "json", "--no-repair", "--metrics", "mse",
                     "--dump-ids")
        self.assertEqual(result.code, 0, result)
        self.assertIn("candidate ids of", result.err)


class Full(ParityCase):
    def test_in_one_go(self):
        result = self.command("full-crossval", "-m", MODEL, "-r", LLAMA, "-p", "And God", "-n", 1, "--offline")
        self.expect(result, "match", 0)
        wrong = self.command("full-crossval", "-m", OTHER, "-r", LLAMA, "-p", "And God", "-n", 0, "--offline")
        self.expect(wrong, "diverged", 1)
        for variable in ("CROSSVAL_GGUF", "BITNET_GGUF"):
            heard = run("full-crossval", "-r", LLAMA, "-p", "And God", "-n", 0, "--offline", "--format", "json", env={variable: OTHER})
            self.assertEqual(heard.json["choices"][0]["origin"], f"variable {variable}", heard)

    def test_what_cannot_be_fetched(self):
        result = run("full-crossval", "--offline", "-m", MODEL, env={"PARITYBIT_CACHE": self.folder / "empty"})
        self.assertEqual(result.code, 5, result)
        self.assertIn("offline", result.err)
        self.assertEqual(run("full-crossval", "--repo", "https://example.org/x.git").code, 2)


if __name__ == "__main__":
    main()

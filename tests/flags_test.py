"""Flags that no other test needs: each does what --help says of it."""
import json
import shutil

from driver import CACHE, RELU2, SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
SAME = ["-m", MODEL, "-p", "And God said, Let there be light: and there was light. And God saw the light, that it was good.",
        "-r", "native"]


class Comparing(Case):
    def test_all_and_quiet(self):
        few, every = run("crossval", *SAME), run("crossval", *SAME, "--all")
        positions = self.crossval(*SAME).json["positions"]
        self.assertGreater(len(positions), 20)

        def shown(text):
            return sum(line.strip().split(" ")[0].isdigit() and '"' in line for line in text.splitlines())

        self.assertEqual(shown(every.out), len(positions), every)
        self.assertLess(shown(few.out), len(positions), few)
        self.assertEqual(run("crossval", *SAME, "--quiet").out.count("\n"), 1)

    def test_quiet_is_verdict_place_and_blame_in_one_line(self):
        wrong = ("--set", "ffn.activation=relu2")
        folders = [self.folder / name for name in ("a", "b")]
        for folder, more in zip(folders, ((), wrong)):
            self.assertEqual(run("trace", "-m", MODEL, "-p", "And God", "--level", "full", "--out", folder, *more).code, 0)
        for args in (("audit", "-m", MODEL, "-p", "And God", *wrong), ("diagnose", *SAME, *wrong), ("trace-diff", *reversed(folders))):
            told, quiet = run(*args), run(*args, "-q")
            self.assertEqual((quiet.code, quiet.out.count("\n")), (told.code, 1), quiet)
            self.assertTrue(quiet.out.startswith("DIVERGED"), quiet)
            for words in ("at layer 0", "from the first token", *(() if args[0] == "trace-diff" else ("blame: ", "squared ReLU"))):
                self.assertIn(words, quiet.out, told)
        # Of the last run, too; which one that is stands beside it.
        own = {"PARITYBIT_CACHE": str(self.folder / "cache")}
        self.assertEqual(run("crossval", *SAME, *wrong, env=own).code, 1)
        quiet = run("diagnose", "--no-inject", "-q", env=own)
        self.assertEqual((quiet.code, quiet.out.count("\n")), (1, 1), quiet)
        self.assertIn("explains", quiet.err)

    def test_limits_of_ones_own(self):
        for flag in ("--max-abs", "--rel-l2", "--kl-mean", "--kl-worst"):
            other = ("--set", "act.quant=bitnet", "--set-reference", "act.quant=bitnet")
            self.expect(self.crossval(*SAME, *other, flag, "1e-9"), "match", 0)
            result = self.crossval(*SAME, "--set", "ffn.activation=relu2", "--scope", "logits-only", flag, "1e-9")
            self.assertEqual(result.code, 1, result)
            self.assertEqual([limit["origin"] for limit in result.json["limits"]].count("given by the user"), 1)

    def test_threads_change_a_setting_and_no_bit(self):
        one, two = self.crossval(*SAME, "--threads", 1), self.crossval(*SAME, "--threads", 2)
        self.assertEqual(one.json["prompts"][0]["logits_sha256"], two.json["prompts"][0]["logits_sha256"])
        for result, n in ((one, "1"), (two, "2")):
            for engine in result.json["engines"]:
                self.assertEqual(engine["session_facts"]["threads"]["value"], n)
        tokens = [run("infer", "-m", MODEL, "-p", "And", "-n", 4, "--threads", n, "--format", "json").json["tokens"] for n in (1, 2)]
        self.assertEqual(*tokens)

    def test_too_little_memory_is_a_failed_engine(self):
        for args in (["crossval", *SAME], ["infer", "-m", MODEL, "-p", "And"],
                     ["trace", "-m", MODEL, "-p", "And", "--out", self.folder / "t"]):
            result = run(*args, "--memory", 12, "--format", "json")
            self.assertEqual((result.code, result.json["verdict"]), (4, "engine-failed"), result)

    def test_logs_go_to_stderr(self):
        for args in (["crossval", *SAME], ["diagnose", *SAME], ["infer", "-m", MODEL, "-p", "And", "-n", 2]):
            quiet, told = run(*args, "--format", "json"), run(*args, "--format", "json", "--verbose")
            self.assertGreater(len(told.err), len(quiet.err), told)
            json.loads(told.out)


class Tracing(Case):
    def test_a_table_has_a_line_for_every_stage(self):
        for name in ("a", "b"):
            self.assertEqual(run("trace", "-m", MODEL, "-p", "And", "--threads", 2, "--out", self.folder / name).code, 0)
        short, table = (run("trace-diff", self.folder / "a", self.folder / "b", *more).out for more in ([], ["--table"]))
        for stage in ("attn_scores_softmax", "ffn_sub_norm"):
            self.assertIn(stage, table)
            self.assertNotIn(stage, short)


class Diagnosing(Case):
    def test_which_op_and_how_far(self):
        args = ["diagnose", "-m", RELU2 / "tiny-bitnet-relu2-tq2_0.gguf", "-r", "native", "--set", "ffn.activation=silu", "-p", "And",
                "-p", "And God said", "-n", 1, "--no-perplexity", "--no-inject", "--format", "json"]
        first = run(*args)
        self.assertEqual((first.code, first.json["injection"]), (1, None), first)
        place = run(*args, "--stage", "ffn_act", "--layer", 2, "--prompt-index", 1, "--step", 1).json["diagnosis"]["place"]
        self.assertEqual((place["stage"], place["layer"], place["prompt"]), ("ffn_act", 2, 1))


class Generating(Case):
    def test_a_system_message_is_framed(self):
        setup = run("setup-crossval", "--format", "json", timeout=1800)
        def prompt(*more):
            return run("infer", "-m", setup.json["model"], "--chat", "-p", "Hi", "-n", 1, "--format", "json", *more).json["prompt_tokens"]
        self.assertGreater(len(prompt("--system", "You are a very patient teacher of mathematics.")), len(prompt("--system", "You.")))

    def test_shapes(self):
        out = self.folder / "m.gguf"
        made = run("gen-fixtures", "--out", out, "--architecture", "bitnet", "--d-model", 256, "--heads", 4, "--kv-heads", 2, "--head-dim",
                   64, "--vocab", 700, "--distribution", "gaussian", "--activation", "gelu", "--weights", "F16")
        self.assertEqual(made.code, 0, made)
        self.assertIn("gelu", (self.folder / "config.json").read_text())
        engine = self.crossval("-m", out, "-p", "abc", "-r", "native").json["engines"][0]["model_facts"]
        facts = {key: engine[key]["value"] for key in ("head_dim", "n_vocab", "ffn.activation")}
        self.assertEqual(facts, {"head_dim": "64", "n_vocab": "700", "ffn.activation": "gelu"})


class SettingUp(Case):
    def test_offline_and_required(self):
        nothing = {"PARITYBIT_CACHE": self.folder / "empty"}
        for command in ("setup-cpp-auto", "setup-crossval"):
            result = run(command, "--offline", env=nothing)
            self.assertEqual(result.code, 5, result)
            self.assertIn("offline", result.err)
        self.assertEqual(run("preflight", env=nothing).code, 0)
        self.assertEqual(run("preflight", "--require-cpp", env=nothing).code, 3)
        self.assertEqual(run("preflight", "--require-cpp").code, 0)

    def test_rebuild_proves_the_reference_again(self):
        cache = self.folder / "cache"
        shutil.copytree(f"{CACHE.name}/references", cache / "references", symlinks=True)
        again = run("setup-cpp-auto", env={"PARITYBIT_CACHE": cache})
        self.assertNotIn("compiling", again.err)
        rebuilt = run("setup-cpp-auto", "--rebuild", "--offline", env={"PARITYBIT_CACHE": cache}, timeout=900)
        self.assertEqual(rebuilt.code, 0, rebuilt)
        self.assertIn("proving it with a golden forward pass", rebuilt.err)


if __name__ == "__main__":
    main()

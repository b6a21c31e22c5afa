"""The commands that paritybit suggests, run as they are printed: each works in a shell and shows the same finding."""
import os
import pathlib
import shutil
import subprocess

from driver import PARITYBIT, RELU2, SILU, Case, main, paste, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
PROMPT = "And God said, it's \"light\""
BAD = "mutant,mutant.defect=rope_late,mutant.stage=q_rope,mutant.layer=1"


class Next(Case):
    def follow(self, result, exit_code, kinds):
        """Each next command of a JSON result, run by a shell: those of `kinds`, in this order, end with this exit code."""
        commands = result.json["next"]
        self.assertEqual([command.split()[1] for command in commands], kinds, commands)
        self.assertEqual(len(result.json["next_for"]), len(commands))
        self.assertTrue(all(result.json["next_for"]), result.json["next_for"])
        found = []
        for command in commands:
            again = paste(command + " --format json", cwd=self.folder)
            self.assertEqual((again.code, again.err), (exit_code, ""), (command, again))
            found.append(again.json)
        return found


class Findings(Next):
    def test_of_a_wrong_op(self):
        result = self.crossval("--model", MODEL, "--candidate", BAD, "--reference", "native", "--prompt", PROMPT, "--threads", 2,
                               "--timeout", 77, "--accept-precision", "TQ2_0=none", "--keep-traces", self.folder / "kept")
        self.expect(result, "diverged", 1)
        diagnosed, bundle, diffed, by_token = self.follow(result, 1, ["diagnose", "repro", "trace-diff", "crossval-per-token"])
        self.assertEqual([diagnosed["diagnosis"]["place"]["stage"], bundle["stage"]], ["q_rope"] * 2)
        self.assertEqual(by_token["first_divergence"], result.json["first_divergence"])
        for command in (command for command in result.json["next"] if "trace-diff" not in command):
            for flag in ("--threads 2", "--timeout 77", "--accept-precision TQ2_0=none"):
                self.assertIn(flag, command)

    def test_of_a_limit_of_ones_own(self):
        result = self.crossval("--model", MODEL, "--candidate", "oracle", "--reference", "native", "--prompt", PROMPT, "--kl-worst",
                               "1e-30", "--strict-precision")
        self.expect(result, "diverged", 1)
        for again in self.follow(result, 1, ["diagnose", "crossval-per-token"]):
            self.assertEqual([r["code"] for r in again["reasons"]], result.codes())
        said = " ".join(paste(result.json["next"][0]).out.split())
        self.assertIn("not placed at an op; KL is above the limit of a single position", said)
        self.assertTrue(all("--kl-worst 1e-30" in c and "--strict-precision" in c for c in result.json["next"]))

    def test_of_the_logits_alone(self):
        result = self.crossval("--model", MODEL, "--candidate", BAD, "--reference", "native", "--prompt", PROMPT, "--scope",
                               "logits-only")
        diagnosed, by_token = self.follow(result, 1, ["diagnose", "crossval-per-token"])
        self.assertEqual(diagnosed["diagnosis"]["place"]["stage"], "q_rope")
        self.assertEqual(by_token["scope"], "logits-only")

    def test_of_an_engine_that_fails(self):
        for deed, kinds in (("crash", ["audit"]), ("hang", ["crossval", "audit"])):
            for sides in ("candidate", "reference"):
                other = "reference" if sides == "candidate" else "candidate"
                result = self.crossval("--model", MODEL, f"--{sides}", f"faulty,faulty.mode={deed}", f"--{other}", "faulty", "--prompt",
                                       "hi", "--timeout", "0.3")
                self.expect(result, "engine-failed", 4)
                self.assertEqual([command.split()[1] for command in result.json["next"]], kinds, result.json["next"])
                alone = paste(result.json["next"][-1] + " --format json", cwd=self.folder)
                self.assertEqual((alone.code, alone.json["verdict"]), (4, "engine-failed"), alone)
                if deed == "hang":
                    self.assertIn("--timeout 3", result.json["next"][0])

    def test_of_a_plugin_that_is_not_there(self):
        result = self.crossval("--model", MODEL, "--reference", "./plugin.so", "--prompt", "hi")
        self.expect(result, "incomplete", 3, "no-reference")
        self.follow(result, 0, ["check-features", "audit"])

    def test_a_setting_of_the_same_key_is_replaced(self):
        result = self.crossval("--model", MODEL, "--candidate", "native", "--reference", "native", "--prompt", PROMPT, "--set",
                               "act.quant=q8_k", "--set-reference", "act.quant=none")
        self.expect(result, "incomplete", 3)
        command = result.json["next"][0]
        self.assertIn(" --set act.quant=none --set-reference act.quant=none", command)
        self.assertEqual(paste(command + " --format json").json["verdict"], "match")

    def test_of_prompts_that_came_from_stdin(self):
        for flag, text in (("--prompts", "And God\nsaid, Let there be light\n"), ("--prompt-file", "And God\nsaid\n")):
            result = self.crossval("--model", MODEL, "--candidate", BAD, "--reference", "native", flag, "-", "--max-tokens", 2,
                                   stdin=text)
            self.assertEqual({p["origin"].split(":")[0] for p in result.json["prompts"]}, {"stdin"})
            found = self.follow(result, 1, ["diagnose", "repro", "crossval-per-token"])
            self.assertEqual([p["text"] for p in found[2]["prompts"]], [p["text"] for p in result.json["prompts"]])
            shutil.rmtree(next(self.folder.glob("repro-*")))

    def test_of_traces(self):
        for name, engine in (("a", BAD), ("b", "native")):
            made = run("trace", "--model", MODEL, "--engine", engine, "--prompt", PROMPT, "--set", "act.quant=bitnet", "--out",
                       self.folder / name)
            self.assertEqual(made.code, 0, made)
        result = run("trace-diff", self.folder / "a", self.folder / "b", "--rel-l2", "1e-3", "--filter", "layer=1", "--format", "json")
        self.assertEqual(result.code, 1, result)
        compared, again = self.follow(result, 1, ["crossval", "trace-diff"])
        self.assertEqual((compared["first_divergence"]["layer"], compared["first_divergence"]["stage"]), (1, "q_rope"))
        self.assertEqual(compared["engines"][1]["session_facts"]["act.quant"]["value"], "bitnet")
        self.assertEqual(again["reasons"], result.json["reasons"])

    def test_of_one_engine(self):
        result = run("audit", "--model", MODEL, "--engine", BAD, "--prompt=--threads are light", "--threads", 2, "--format", "json")
        self.assertEqual(result.code, 1, result)
        diagnosed, audited = self.follow(result, 1, ["diagnose", "audit"])
        self.assertEqual(diagnosed["blame"], "reference")
        self.assertEqual(audited["first_divergence"], result.json["first_divergence"])

    def test_of_an_activation_that_nobody_declares(self):
        shutil.copy(RELU2 / "tiny-bitnet-relu2-tq2_0.gguf", self.folder / "bare.gguf")
        for command in (["crossval", "--reference", "native"], ["audit"]):
            result = run(*command, "--model", "bare.gguf", "--prompt", "And", "--format", "json", cwd=self.folder)
            self.assertEqual(result.code, 3, result)
            self.assertEqual([c.split("ffn.activation=")[1].split()[0] for c in result.json["next"]], ["relu2", "silu"])
        self.follow(result, 0, ["audit", "audit"])

    def test_of_a_model_that_a_variable_names(self):
        result = self.crossval("--candidate", BAD, "--reference", "native", "--prompt", PROMPT, env={"CROSSVAL_GGUF": MODEL})
        self.follow(result, 1, ["diagnose", "repro", "crossval-per-token"])


class Called(Case):
    """The program stands in what it suggests as it was called."""

    ARGS = ("crossval", "--model", MODEL, "--candidate", BAD, "--reference", "native", "--prompt", "And God", "--format", "json")

    def call(self, name, cwd):
        import json
        process = subprocess.run([name, *map(str, self.ARGS)], executable=str(PARITYBIT), cwd=cwd, capture_output=True, text=True)
        self.assertEqual(process.returncode, 1, process)
        return json.loads(process.stdout)["next"][0]

    def test_by_a_path_or_by_name(self):
        odd = self.folder / "odd dir"
        odd.mkdir()
        (odd / "paritybit").symlink_to(PARITYBIT)
        relative = os.path.relpath(PARITYBIT, self.folder)
        for name, word in (("paritybit", "paritybit"), (relative, relative), ("./odd dir/paritybit", "'./odd dir/paritybit'"),
                           (str(PARITYBIT), str(PARITYBIT))):
            command = self.call(name, self.folder)
            self.assertTrue(command.startswith(word + " diagnose --model "), command)
            self.assertEqual(paste(command, cwd=self.folder).code, 1, command)

    def test_in_errors_and_remedies(self):
        nowhere = dict(os.environ, PARITYBIT_CACHE=str(self.folder))
        for args in (["nonsense"], ["crossval", "--nonsense"], ["preflight"], ["crossval", "-m", "smollm2", "-p", "And"],
                     ["self-check"], ["audit", "-m", MODEL, "--trace", self.folder]):
            said = subprocess.run(["./paritybit", *map(str, args)], executable=str(PARITYBIT), env=nowhere, capture_output=True,
                                  text=True)
            self.assertRegex(said.stdout + said.stderr, r"\./paritybit [a-z-]+", args)
            self.assertNotRegex(said.stdout + said.stderr, r"[^/]paritybit [a-z]+-[a-z]+", args)


class LastRuns(Case):
    """What diagnose and repro explain when they are asked about nothing."""

    def setUp(self):
        super().setUp()
        self.cache = {"PARITYBIT_CACHE": self.folder / "cache"}
        (self.folder / "cache").mkdir()
        # floors and references are the user's
        import driver
        for name in ("references", "models", "noise"):
            (self.folder / "cache" / name).symlink_to(pathlib.Path(driver.CACHE.name) / name)

    def judge(self, layer, *more, command="crossval"):
        engine = f"mutant,mutant.defect=rope_late,mutant.stage=q_rope,mutant.layer={layer}"
        return run(command, "--model", MODEL, "--candidate", engine, "--reference", "native", "--prompt", PROMPT, *more, env=self.cache)

    def explained(self, command="diagnose", *more):
        return run(command, *more, "--no-perplexity", "--no-inject", env=self.cache) if command == "diagnose" else run(
            command, *more, env=self.cache)

    def test_the_first_line_says_which_how_old_and_how_it_ended(self):
        self.assertEqual(self.judge(1, "--threads", 2, "--kl-worst", "1e-3").code, 1)
        said = self.explained()
        first = said.out.splitlines()[0]
        self.assertRegex(first, r"^explains   paritybit crossval --model .*layer=1 --reference native --threads 2 --kl-worst 0.001 "
                                r"--prompt .*  \(DIVERGED, (just now|\d+ seconds? ago)\)$")
        self.assertEqual(said.code, 1, said)
        told = self.explained("diagnose", "--format", "json").json
        self.assertIn("DIVERGED", told["explains"])
        self.assertEqual(told["engines"][0]["session_facts"]["threads"]["value"], "2")
        other = self.explained("diagnose", "--threads", 1, "--format", "json").json
        self.assertEqual(other["engines"][0]["session_facts"]["threads"]["value"], "1")
        self.assertIsNone(self.judge(1, "--format", "json", command="diagnose").json["explains"])

    def test_a_run_that_failed_or_matched_is_not_passed_over_in_silence(self):
        nothing = run("diagnose", env=self.cache)
        self.assertEqual(nothing.code, 5, nothing)
        self.assertEqual(run("crossval", "--model", "/no/such.gguf", "--prompt", "And", env=self.cache).code, 5)
        nothing = run("diagnose", env=self.cache)
        self.assertIn("A later run is not explained: paritybit crossval --model /no/such.gguf", nothing.err)
        self.assertEqual(self.judge(1).code, 1)
        self.assertNotIn("later run", self.explained().out)
        self.assertEqual(run("crossval", "--model", "/no/such.gguf", "--prompt", "And", env=self.cache).code, 5)
        said = self.explained()
        self.assertRegex(said.out.splitlines()[1], r"^ +A later run is not explained: paritybit crossval --model /no/such.gguf "
                                                   r"--prompt And \(ERROR, .*: /no/such.gguf: ")
        self.assertEqual(run("crossval", "--model", MODEL, "--reference", "native", "--prompt", "And", env=self.cache).code, 0)
        self.assertRegex(self.explained().out.splitlines()[1], r"\(MATCH, .*\)$")

    def test_diagnose_sets_what_repro_bundles(self):
        self.assertEqual(self.judge(1).code, 1)
        self.assertEqual(self.judge(3, "--no-inject", command="diagnose").code, 1)
        bundle = run("repro", "--out", self.folder / "b", "--format", "json", env=self.cache)
        self.assertEqual((bundle.code, bundle.json["layer"]), (1, 3), bundle)
        self.assertEqual(self.judge(1, "--stage", "q_rope", "--layer", 1, "--no-inject", command="diagnose").code, 1)
        bundle = run("repro", "--out", self.folder / "c", "--format", "json", env=self.cache)
        self.assertEqual((bundle.code, bundle.json["layer"]), (1, 1), bundle)
        self.assertIn("--stage q_rope --layer 1", bundle.json["explains"])

    def test_few_are_kept_and_each_is_whole(self):
        for i in range(10):
            engine = BAD if i % 2 == 0 else "native"
            run("crossval", "--model", MODEL, "--candidate", engine, "--reference", "native", "--prompt", "a" * i + "b", "--scope",
                "logits-only", "--kl-worst", "1e-9", env=self.cache)
        names = sorted(entry.name.split(".", 1)[1] for entry in (self.folder / "cache" / "runs").iterdir())
        self.assertLessEqual(len(names), 9)
        self.assertEqual(names.count("other.json"), 1)

    def test_prompts_are_kept_as_texts_wherever_they_came_from(self):
        listed = self.folder / "list.txt"
        long = [f"{i}: " + "And God said " * 20 for i in range(12)]
        listed.write_text("\n".join(long) + "\n")
        engine = ["--model", MODEL, "--candidate", BAD, "--reference", "native", "--scope", "logits-only"]
        self.assertEqual(run("crossval", *engine, "--prompts", listed, env=self.cache).code, 1)
        listed.unlink()
        said = self.explained("diagnose", "--format", "json")
        self.assertEqual(said.code, 1, said)
        by_token = paste([c for c in said.json["next"] if "per-token" in c][0] + " --format json", env=self.cache)
        self.assertEqual([p["text"] for p in by_token.json["prompts"]], long)


if __name__ == "__main__":
    main()

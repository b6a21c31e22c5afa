"""The command line without any reference engine: help, usage, exit codes, JSON, the ways to pass on nothing, interruption."""
import fcntl
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time

from driver import BUILD, PARITYBIT, PLUGINS, RELU2, ROOT, SILU, TINY, Case, main, run

COMMANDS = ["crossval", "crossval-per-token", "trace", "trace-diff", "diagnose", "repro", "infer", "setup-cpp-auto", "setup-crossval", "preflight", "gen-fixtures",
            "check-features", "verify-receipt", "gate", "history", "benchmark", "bench-compare"]
MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
def on_terminal(*args, width=80, interrupt_after=None):
    """(exit code, what a terminal of so many columns is sent, CR LF as LF); interrupted after so many seconds."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(["paritybit", *map(str, args)], executable=str(PARITYBIT), stdin=subprocess.DEVNULL, stdout=follower,
                               stderr=follower)
    os.close(follower)
    shown = b""
    if interrupt_after:
        threading.Timer(interrupt_after, process.send_signal, [signal.SIGINT]).start()
    while True:
        try:
            shown += os.read(leader, 65536)
        except OSError:
            break
    os.close(leader)
    return process.wait(timeout=60), shown.decode(errors="replace").replace("\r\n", "\n")


FIRST_FIELDS = ["schema", "verdict", "scope", "exit_code", "reasons", "next"]


class Help(Case):
    def test_every_command_explains_itself_with_an_example(self):
        top = run("--help")
        self.assertEqual(top.code, 0, top)
        for command in COMMANDS:
            self.assertIn(f"\n  {command} ", top.out)
            result = run(command, "--help")
            self.assertEqual(result.code, 0, result)
            self.assertIn(f"Example:\n  paritybit {command}", result.out)
            self.assertIn("--format", result.out)
            self.assertLessEqual(max(map(len, result.out.splitlines())), 80, result)
            example = result.out.split("Example:\n")[1].replace("\\\n", "")
            self.assertTrue(shlex.split(example)[:2] == ["paritybit", command], example)
        for code in ("125", "143", "SIGTERM", "git bisect"):
            self.assertIn(code, top.out)

    def test_on_a_narrow_terminal_it_still_reads(self):
        listed = re.findall(r"^  ([a-z-]+) ", run("--help").out, re.MULTILINE)
        self.assertGreaterEqual(set(listed), set(COMMANDS))
        for command in listed:
            text = on_terminal(command, "--help", width=60)[1]
            self.assertLessEqual(max(map(len, text.splitlines())), 60, text)
            self.assertEqual(re.sub(r"[\s\\]+", " ", text), re.sub(r"[\s\\]+", " ", run(command, "--help").out))

    def test_version(self):
        result = run("--version")
        self.assertEqual(result.code, 0)
        self.assertRegex(result.out, r"^paritybit \d+\.\d+\.\d+( \([0-9a-f]{12}(\+changes)?\))?\n$")
        told = run("--version", "-v")
        self.assertEqual((told.code, told.out.splitlines()[0]), (0, result.out.strip()))
        for words in ("compiler ", "targets .*: scalar avx2 avx512; here ", "reference  llama.cpp v0.5.0", "GGUF 2 and 3", "TQ2_0"):
            self.assertRegex(told.out, words)
        self.assertLessEqual(max(map(len, told.out.splitlines())), 80)
        facts = run("--version", "--format", "json").json
        self.assertIn(f"plugin ABI {facts['abi']}", told.out)
        header = (ROOT / "src/abi/engine.h").read_text()
        self.assertEqual(facts["abi"], ".".join(re.search(rf"#define PB_ABI_{n} (\d+)", header).group(1) for n in ("MAJOR", "MINOR")))
        self.assertRegex(facts["commit"], r"^([0-9a-f]{40}(\+changes)?)?$")
        self.assertEqual(run("check-features", "--format", "json").json["targets"], facts["targets"])
        self.assertEqual(run("--version", "--nonsense").code, 2)


class Threads(Case):
    def test_more_threads_than_processors_are_told_before_and_in_the_notes(self):
        many, enough = len(os.sched_getaffinity(0)) + 1, 1
        told = f"{many} threads on "
        common = ("-m", MODEL, "-p", "And")
        for args in [("trace", *common, "--out", self.folder / "t"), ("infer", *common, "-n", "2"),
                     ("crossval", *common, "-c", "native", "-r", "native", "--scope", "logits-only"), ("audit", *common)]:
            for flags in [("--threads", many), ("--set", f"threads={many}")]:
                result = run(*args, *flags, "--format", "json")
                shutil.rmtree(self.folder / "t", ignore_errors=True)
                self.assertEqual(result.err.count(f"note: native: {told}"), 1, result)
                self.assertTrue(any(note.startswith(f"native: {told}") for note in result.json["notes"]), result)
            result = run(*args, "--threads", enough, "--format", "json")
            shutil.rmtree(self.folder / "t", ignore_errors=True)
            self.assertNotIn("threads on", result.out + result.err)
        text = run("infer", *common, "-n", "2", "--threads", many)
        self.assertEqual(text.err.count(told), 1, text)


class Usage(Case):
    def test_mistakes_exit_2_and_name_what_is_wrong(self):
        for args, word in [([], "no command is named"), (["nonsense"], "nonsense"), (["crossval", "--nonsense"], "--nonsense"),
                           (["crossval", "--model", MODEL], "--prompt"), (["crossval", "--prompt", "hi"], "--model"),
                           (["crossval", "--format", "xml"], "xml"), (["crossval", "--max-tokens", "-1"], "max-tokens"),
                           (["crossval", "-m", MODEL, "-p", "hi", "-r", "faulty", "--set", "novalue"], "novalue"),
                           (["crossval", "-m", MODEL, "-p", "hi", "-r", "native", "--set", "no.such=1"], "no.such"),
                           (["infer", "-m", MODEL, "-p", ""], "prompt"),
                           (["crossval", "-m", MODEL, "-p", "hi", "-r", "no-such-engine"], "no-such-engine"),
                           (["crossval-per-token", "-m", MODEL, "-p", "hi", "--tokenizer", __file__], "unsupported")]:
            with self.subTest(args=args):
                result = run(*args)
                self.assertEqual(result.code, 2, result)
                self.assertIn(word, result.err)
                self.assertEqual(result.out, "")

    def test_slips_are_named(self):
        model = ["-m", MODEL, "-p", "hi", "-r", "native"]
        for args, code, words in (
                (["crossval", "--promt", "x"], 2, "error: --promt is no flag of crossval, did you mean --prompt?\n"),
                (["repro", "--ot", "folder"], 2, "error: --ot is no flag of repro, did you mean --out?\n"),
                (["trace-diff", "--rel-l", "1"], 2, "error: --rel-l is no flag of trace-diff, did you mean --rel-l2?\n"),
                (["completion", "--nonsense", "1"], 2, "error: --nonsense is no flag of completion\n"),
                (["crossval", "--promt=x"], 2, "did you mean --prompt?"), (["crossval", *model, "word"], 2, "`word` is one word too much"),
                (["crosval"], 2, "`crosval` is no command, did you mean crossval?"),
                (["crossval", "-m", "smollm3", "-p", "hi"], 5, "smollm3: no such model file, did you mean smollm2?"),
                (["crossval", *model, "--set", "ffn.activaton=silu"], 2, "did you mean ffn.activation?"),
                (["crossval", *model, "--set", "no.such=1"], 2, "ffn.activation act.quant kv.type attn.flash"),
                (["infer", *model[:4], "--set", "no.such=1"], 2, "ffn.activation act.quant kv.type attn.flash"),
                (["crossval", *model, "--timeout", "-1"], 2, "error: --timeout: `-1` is not above 0\n"),
                (["crossval", *model, "--timeout", "soon"], 2, "error: --timeout: `soon` is no number\n"),
                (["crossval", *model, "-n", "abc"], 2, "error: --max-tokens: `abc` is no whole number\n"),
                (["crossval", *model, "-n", "1.5"], 2, "`1.5` is no whole number"),
                (["crossval", *model, "-n", "9999999"], 2, "`9999999` is not from 0 to 1048576"),
                (["trace-diff", "a", "b", "--rel-l2", "-1"], 2, "`-1` is not 0 or above"),
                (["crossval", *model, "--format", "xml"], 2, "error: --format: `xml` is none of text, json\n")):
            said = run(*args)
            self.assertEqual((said.code, words in said.err), (code, True), (args, said))
            self.assertLess(len(said.err), 500)

    def test_help_by_other_names(self):
        self.assertEqual(run("help").out, run("--help").out)
        self.assertEqual(run("help", "crossval").out, run("crossval", "--help").out)
        self.assertIn("`crosval` is no command, did you mean crossval?", run("help", "crosval").err)
        nothing = run()
        self.assertEqual((nothing.code, nothing.err), (2, "error: no command is named\n       next: paritybit --help\n"))

    def test_an_engine_is_named_once(self):
        (self.folder / "junk.gguf").write_text("junk\n")
        for command in (["infer"], ["trace", "--out", self.folder / "t"]):
            said = run(*command, "-m", self.folder / "junk.gguf", "-p", "hi")
            self.assertEqual((said.code, said.err.startswith(f"error: native: {self.folder}")), (5, True), said)

    def test_an_engine_that_there_is_not(self):
        for args in (["crossval", "-m", MODEL, "-p", "hi", "-c", "bitnet.cpp"], ["audit", "-m", MODEL, "-p", "hi", "-e", "foo"],
                     ["infer", "-m", MODEL, "-p", "hi", "-e", "natve"]):
            said = run(*args)
            self.assertEqual(said.code, 2, said)
            self.assertRegex(said.err, r'no engine named "\S+" is known.*\n.* faulty, mutant, native, oracle, replay\n'
                                       r".* llama\.cpp(, \S+)* \(paritybit setup-cpp-auto\)\n.*the path of its plugin")
        self.assertIn("did you mean native?", said.err)

    def test_a_place_that_there_is_not(self):
        common = ["diagnose", "-m", MODEL, "-r", "native", "-p", "hi", "-n", 1, "--stage", "down_proj", "--layer"]
        for place, words in ((["99"], "the model has 6 layers"), (["1", "--step", 2], "1 decode steps"),
                             (["1", "--prompt-index", 1], "there is 1 prompt")):
            said = run(*common, *place)
            self.assertEqual((said.code, words in said.err), (2, True), said)

    def test_a_prompt_that_the_context_does_not_hold_is_refused_before_anything_runs(self):
        long = self.folder / "long.txt"
        long.write_text("a b " * 5000)
        hangs = "faulty,faulty.mode=hang"
        for args in (["crossval", "-r", "native"], ["crossval", "-r", "native", "-c", hangs], ["crossval-per-token", "-r", "native"],
                     ["diagnose", "-r", "native"], ["infer"], ["audit"], ["noise"], ["trace", "--out", self.folder / "t"]):
            said = run(*args, "-m", MODEL, "--prompt-file", long, timeout=60)
            self.assertEqual(said.code, 2, said)
            self.assertRegex(said.err, r"the prompt \(\S+long\.txt\) has \d{5} tokens, and the model's context has \d+")
        self.assertFalse((self.folder / "t").exists())
        little = run("infer", "-m", MODEL, "-p", "And God said", "--set", "n_ctx=3")
        self.assertEqual((little.code, "n_ctx=3 leaves room for 3" in little.err), (2, True), little)
        beyond = run("infer", "-m", MODEL, "-p", "a b " * 200, "--set", "n_ctx=900", "-n", 2)
        self.assertEqual(beyond.code, 0, beyond)

    def test_what_infer_does_not_take_is_told(self):
        for args, words in ((["-p", "hi", "-p", "ho"], "infer takes one prompt, and 2 were given"), (["-p", "hi", "--system", "Be kind"], "--chat"),
                            (["-p", ""], "is empty")):
            said = run("infer", "-m", MODEL, *args)
            self.assertEqual((said.code, words in said.err), (2, True), said)
        self.assertNotIn("repeated", re.search(r"--prompt TEXT.*\n", run("infer", "--help").out).group())

    def test_the_models_that_come_with_it_have_names(self):
        for name in ("tiny-bitnet-silu", "tiny-bitnet-relu2"):
            told = run("inspect", name, "--format", "json", cwd=self.folder)
            self.assertEqual(told.code, 0, told)
            self.assertEqual(run("inspect", TINY / name / f"{name}-tq2_0.gguf", "--digests", "--format", "json").json["tensors"],
                             run("inspect", name, "--digests", "--format", "json").json["tensors"])
        self.assertIn("did you mean tiny-bitnet-silu?", run("inspect", "tiny-bitnet-sil").err)

    def test_a_model_by_name_serves_the_reference_too(self):
        said = run("crossval", "-m", MODEL, "--reference-model", "smollm3", "-p", "hi", "-r", "native")
        self.assertEqual((said.code, "did you mean smollm2?" in said.err), (5, True), said)
        nothing = run("crossval", "-m", MODEL, "--reference-model", "smollm2", "-p", "hi", "-r", "native",
                      env={"PARITYBIT_CACHE": self.folder})
        self.assertIn("model smollm2 is not here", nothing.err)

    def test_commands_of_later_versions_are_unsupported_by_name(self):
        for command in ["analyze-library", "vendor-ggml"]:
            result = run(command, "--whatever")
            self.assertEqual(result.code, 2, result)
            self.assertIn(f"unsupported: `{command}`", result.err)

    def test_errors_are_json_alone_when_json_is_asked_for(self):
        for args in [["crossval", "--bogus"], ["crossval", "-m", "/no/such.gguf", "-p", "hi", "-r", "native"], ["analyze-library"]]:
            result = run(*args, "--format", "json")
            self.assertEqual(list(result.json)[:6], FIRST_FIELDS, result)
            self.assertEqual(result.json["exit_code"], result.code)
            self.assertTrue(result.json["reasons"], result)
            self.assertEqual(result.err, "")

    def test_a_tokenizer_apart_from_the_model_is_taken_only_when_it_is_the_same(self):
        same = run("crossval-per-token", "-m", MODEL, "-p", "hi", "-c", "native", "-r", "native", "--tokenizer",
                   SILU / "tiny-bitnet-silu-tq1_0.gguf")
        self.assertEqual(same.code, 0, same)
        made = self.folder / "other.gguf"
        self.assertEqual(run("gen-fixtures", "--out", made).code, 0)
        other = run("crossval-per-token", "-m", MODEL, "-p", "hi", "-r", "native", "--tokenizer", made)
        self.assertEqual(other.code, 2, other)
        self.assertIn("unsupported", other.err)


class ModelFiles(Case):
    def test_a_missing_or_damaged_model_exits_5_with_the_offset(self):
        missing = run("crossval", "-m", self.folder / "none.gguf", "-p", "hi", "-r", "native")
        self.assertEqual(missing.code, 5, missing)
        short = self.folder / "short.gguf"
        short.write_bytes(MODEL.read_bytes()[:100_000])
        for command in ("crossval", "crossval-per-token"):
            result = run(command, "-m", short, "-p", "hi", "-r", "native")
            self.assertEqual(result.code, 5, result)
            self.assertRegex(result.err, r"byte \d+|offset \d+")
        # the reference's own file is looked at as well
        result = run("crossval", "-m", MODEL, "--reference-model", short, "-p", "hi", "-r", "native")
        self.assertEqual(result.code, 5, result)


    def test_models_of_different_shape_are_compared_by_their_logits_and_nobody_is_blamed(self):
        """Their ops have no counterparts: what follows one would be fed other inputs, and its error laid at an engine's door."""
        models = {}
        for name, *shape in (("plain",), ("deeper", "--layers", 3), ("wider", "--d-ff", 768), ("heads", "--kv-heads", 4)):
            models[name] = self.folder / name / "model.gguf"
            models[name].parent.mkdir()
            made = run("gen-fixtures", "--out", models[name], *shape)
            self.assertEqual(made.code, 0, made)
        for name, what in (("deeper", "n_layers 3 and 2"), ("wider", "d_ff 768 and 512"), ("heads", "n_kv_heads 4 and 2")):
            with self.subTest(name):
                files = ("-m", models[name], "--reference-model", models["plain"], "-p", "And God said", "-r", "native")
                result = self.crossval(*files)
                self.assertEqual((result.json["verdict"], result.json["scope"], result.json["blame"]),
                                 ("diverged", "logits-only", "undetermined"), result)
                self.assertIn(what, "\n".join(result.json["notes"]))
                self.assertFalse([line for line in result.json["next"] if line.startswith("paritybit diagnose")])
                self.assertIn(what, run("diagnose", *files).out)


class NothingCompared(Case):
    """Each way to pass on nothing is its own failing verdict."""

    def faulty(self, mode, *more, side="--candidate"):
        return self.crossval("-m", MODEL, "-p", "And God said", "--candidate", "faulty", "--reference", "faulty", side,
                             f"faulty,{mode}", *more) if side == "--reference" else self.crossval(
                                 "-m", MODEL, "-p", "And God said", "--reference", "faulty", side, f"faulty,{mode}", *more)

    def test_the_sound_engine_matches_itself(self):
        self.expect(self.crossval("-m", MODEL, "-p", "And God said", "-c", "faulty", "-r", "faulty", "-n", "3"), "match", 0)

    def test_no_reference(self):
        result = self.crossval("-m", MODEL, "-p", "hi", "-r", "llama.cpp", env={"PARITYBIT_CACHE": self.folder})
        self.expect(result, "incomplete", 3, "no-reference")
        self.assertIn("paritybit setup-cpp-auto", result.json["next"])
        self.assertEqual(result.json["coverage"]["compared"], 0)

    def test_zero_prompts(self):
        empty = self.folder / "prompts.txt"
        empty.write_text("")
        self.expect(self.crossval("-m", MODEL, "--prompts", empty, "-r", "native"), "invalid", 3, "no-prompts")

    def test_empty_prompt(self):
        self.expect(self.crossval("-m", MODEL, "-p", "", "-r", "native"), "invalid", 3, "empty-prompt")
        self.expect(self.crossval("-m", MODEL, "-p", "hi", "-p", "", "-r", "native"), "invalid", 3, "empty-prompt")

    def test_engines_that_die_are_engine_failed_with_their_last_words(self):
        for mode in ("crash", "abort", "exit", "throw", "error"):
            for side in ("candidate", "reference"):
                with self.subTest(mode=mode, side=side):
                    other = "reference" if side == "candidate" else "candidate"
                    result = self.crossval("-m", MODEL, "-p", "hi", f"--{other}", "faulty", f"--{side}",
                                           f"faulty,faulty.mode={mode}")
                    self.expect(result, "engine-failed", 4, f"{side}-failed")
                    self.assertIn("faulty", json.dumps(result.json["reasons"]))

    def test_engines_that_die_before_they_compute(self):
        for place in ("create", "model", "session"):
            with self.subTest(place=place):
                result = self.crossval("-m", MODEL, "-p", "hi", "-c", f"faulty,faulty.mode=crash,faulty.at={place}", "-r",
                                       "faulty")
                self.expect(result, "engine-failed", 4, "candidate-failed")

    def test_a_hang_ends_at_the_limit(self):
        start = time.monotonic()
        result = self.crossval("-m", MODEL, "-p", "hi", "-c", "faulty,faulty.mode=hang", "-r", "faulty", "--timeout", "1")
        self.expect(result, "engine-failed", 4, "candidate-failed")
        self.assertLess(time.monotonic() - start, 20)
        result = self.crossval("-m", MODEL, "-p", "hi", "-c", "faulty,faulty.mode=hang", "-r", "faulty",
                               env={"CROSSVAL_TIMEOUT_SECS": 1})
        self.expect(result, "engine-failed", 4, "candidate-failed")
        choice = [c for c in result.json["choices"] if c["key"] == "timeout_seconds"][0]
        self.assertEqual(choice["origin"], "variable CROSSVAL_TIMEOUT_SECS")

    def test_lies_are_caught(self):
        for mode, verdict in [("nan", "invalid"), ("inf", "invalid"), ("wrong_vocab", None), ("skip_rows", None),
                              ("repeat_rows", None), ("reverse_rows", None), ("token_range", "engine-failed"),
                              ("token_value", "invalid"), ("no_model", "engine-failed")]:
            for side in ("candidate", "reference"):
                with self.subTest(mode=mode, side=side):
                    other = "reference" if side == "candidate" else "candidate"
                    result = self.crossval("-m", MODEL, "-p", "And God", "-n", "2", f"--{other}", "faulty", f"--{side}",
                                           f"faulty,faulty.mode={mode}")
                    self.assertIn(result.json["verdict"], [verdict] if verdict else ["invalid", "engine-failed"], result)
                    self.assertIn(result.code, (3, 4))

    def test_lies_about_tracepoints_are_caught(self):
        for mode, verdict in [("skip_points", "incomplete"), ("repeat_points", "incomplete"), ("extra_rows", "engine-failed"),
                              ("huge_shape", "engine-failed"), ("negative_shape", "engine-failed"),
                              ("null_data", "engine-failed"), ("stage_twice", "engine-failed"), ("slow", "match")]:
            for side in ("candidate", "reference"):
                with self.subTest(mode=mode, side=side):
                    other = "reference" if side == "candidate" else "candidate"
                    result = self.crossval("-m", MODEL, "-p", "And God", "-n", "2", f"--{other}", "faulty", f"--{side}",
                                           f"faulty,faulty.mode={mode}")
                    self.assertEqual(result.json["verdict"], verdict, result)
        # Shown twice before a slow candidate comes to it.
        result = self.crossval("-m", MODEL, "-p", "And God", "-r", "faulty,faulty.mode=repeat_points", "-c", "faulty,faulty.mode=slow")
        self.expect(result, "incomplete", 3, "points-missing")
        self.assertIn("the reference showed rows 0 to 8 where row 8 of 8 was due", result.json["coverage"]["missing"][0])
        # asked for less, nobody taps
        result = self.crossval("-m", MODEL, "-p", "And God", "-r", "faulty", "-c", "faulty,faulty.mode=skip_points", "--scope",
                               "logits-only")
        self.expect(result, "match", 0)
        self.assertEqual(result.json["scope"], "logits-only")

    def test_wrong_results_that_look_right_are_no_match(self):
        """What would pass if tracepoints or logits were believed unseen; each with the reason that finds it."""
        for mode, verdict, reason in [("wrong_unwatched", "diverged", "observer-effect"),
                                      ("shown_not_used", "diverged", "shown-not-used"),
                                      ("shown_not_used_a_bit", "incomplete", "shown-not-used"),
                                      ("other_logits", "diverged", "overwrite-ignored"),
                                      ("constant_logits", "diverged", "local-error-above-bound"),
                                      ("wrong_late", "diverged", "local-error-above-bound")]:
            with self.subTest(mode=mode):
                result = self.crossval("-m", MODEL, "-p", "And God", "-n", "4", "-r", "faulty", "-c",
                                       f"faulty,faulty.mode={mode}")
                self.assertEqual(result.json["verdict"], verdict, result)
                self.assertIn(reason, result.codes(), result)
        self.assertEqual((result.json["first_divergence"]["stage"], result.json["first_divergence"]["layer"]), ("ffn_gated", 1))
        # a right engine against one that rounds otherwise: what was not made equal is not judged
        result = self.crossval("-m", MODEL, "-p", "And God", "-n", "4", "-r", "faulty,noise.seed=3", "-c",
                               "faulty,faulty.mode=ignores_overwrites")
        self.expect(result, "incomplete", 3, "overwrite-ignored")
        second = self.crossval("-m", MODEL, "-p", "And", "-p", "And God", "-r", "faulty", "-c", "faulty,faulty.mode=wrong_late",
                               "-n", "3")
        self.assertEqual((second.json["verdict"], second.json["first_divergence"]["prompt"]), ("diverged", 0), second)
        short = self.crossval("-m", MODEL, "-p", "A", "-p", "And G", "-r", "faulty", "-c", "faulty,faulty.mode=wrong_late",
                              "-n", "2")
        self.assertEqual((short.json["verdict"], short.json["first_divergence"]["prompt"]), ("diverged", 1), short)

    def test_engines_that_agree_on_nothing_are_invalid(self):
        result = self.crossval("-m", MODEL, "-p", "And God", "-r", "faulty,faulty.mode=constant_logits", "-c",
                               "faulty,faulty.mode=constant_logits")
        self.expect(result, "invalid", 3, "constant-logits")

    def test_an_engine_that_hides_its_points_is_judged_by_its_logits_alone(self):
        for side, other in (("-c", "-r"), ("-r", "-c")):
            result = self.crossval("-m", MODEL, "-p", "And God", other, "faulty", side, "faulty,faulty.mode=hides_points")
            self.assertEqual((result.json["verdict"], result.json["scope"]), ("match", "logits-only"), result)
            self.assertIn("does not show its logits", "\n".join(result.json["notes"]))

    def test_engines_of_different_vocabularies(self):
        self.expect(self.crossval("-m", MODEL, "-p", "hi", "-c", "native", "-r", "faulty"), "invalid", 3, "tokens-differ")

    def test_allow_cpp_fail_is_printed_and_changes_nothing(self):
        result = self.crossval("-m", MODEL, "-p", "hi", "-c", "faulty", "-r", "faulty,faulty.mode=crash",
                               env={"CROSSVAL_ALLOW_CPP_FAIL": "1"})
        self.expect(result, "engine-failed", 4)
        self.assertTrue(any("CROSSVAL_ALLOW_CPP_FAIL" in note for note in result.json["notes"]), result)


class Declared(Case):
    def test_an_undeclared_activation_is_incomplete_whatever_the_logits_say(self):
        alone = self.folder / "model.gguf"
        shutil.copy(RELU2 / "tiny-bitnet-relu2-tq2_0.gguf", alone)
        result = self.crossval("-m", alone, "-p", "And God said", "-c", "native", "-r", "native")
        self.expect(result, "incomplete", 3, "undeclared")
        declared = self.crossval("-m", alone, "-p", "And God said", "-r", "native", "--set", "ffn.activation=relu2",
                                 "--set-reference", "ffn.activation=relu2")
        self.expect(declared, "match", 0)
        by_file = self.crossval("-m", alone, "-p", "And God said", "--hf-config", RELU2 / "config.json", "-r", "native",
                                "--set-reference", "ffn.activation=relu2")
        self.expect(by_file, "match", 0)

    def test_settings_that_differ_are_incomplete(self):
        for setting in ("act.quant=f16", "kv.type=f32"):
            result = self.crossval("-m", MODEL, "-p", "And God said", "-r", "native", "--set", setting)
            self.expect(result, "incomplete", 3, "settings-differ")

    def test_the_users_own_limit_is_enforced(self):
        result = self.crossval("-m", MODEL, "-p", "And God said", "-r", "native", "--set", "ffn.activation=relu2",
                               "--cos-tolerance", "0.999999")
        self.expect(result, "diverged", 1)
        self.assertTrue(any(limit["name"] == "cosine.min" for limit in result.json["limits"]), result)


class Findings(Case):
    def test_what_a_file_leaves_open_reaches_the_user(self):
        """Without tokenizer.ggml.pre words are cut by a default: nothing fails, and the user is told."""
        open_end = self.folder / "model.gguf"
        data = MODEL.read_bytes()
        self.assertEqual(data.count(b"tokenizer.ggml.pre"), 1)
        open_end.write_bytes(data.replace(b"tokenizer.ggml.pre", b"tokenizer.ggml.prx"))
        shutil.copy(SILU / "config.json", self.folder)
        told = r"native: .*tokenizer\.ggml\.pre is missing"
        result = self.crossval("-m", open_end, "-p", "And God said", "-r", "native")
        self.assertRegex("\n".join(result.json["notes"]), told)
        self.assertRegex(run("infer", "-m", open_end, "-p", "And God said", "-n", "2").err, "note: " + told)
        self.assertEqual(self.crossval("-m", MODEL, "-p", "And God said", "-r", "native").json["notes"], [])


class Output(Case):
    def test_json_alone_on_stdout_and_the_contract_fields(self):
        result = self.crossval("-m", MODEL, "-p", "And God said", "-r", "native", "-v")
        self.assertEqual(list(result.json)[:6], FIRST_FIELDS)
        for key in ("engines", "model", "coverage", "first_divergence", "blame", "limits", "positions"):
            self.assertIn(key, result.json)
        self.assertEqual(result.json["coverage"]["compared"], result.json["coverage"]["expected"])

    def test_a_receipt_is_written_and_quiet_is_one_line(self):
        receipt = self.folder / "receipt.json"
        result = run("crossval", "-m", MODEL, "-p", "And God said", "-r", "native", "-q", "--receipt", receipt)
        self.assertEqual(result.code, 0, result)
        self.assertEqual(result.out.count("\n"), 1, result)
        self.assertEqual(json.loads(receipt.read_text())["schema"], "paritybit.receipt/1")
        nowhere = run("crossval", "-m", MODEL, "-p", "And God said", "-r", "native", "--receipt", "/no/such/dir/r.json")
        self.assertEqual(nowhere.code, 5, nowhere)

    def test_prompts_from_stdin_and_files_keep_their_order(self):
        listed = self.folder / "list.txt"
        listed.write_text("And God said\nLet there be light\n")
        result = self.crossval("-m", MODEL, "--prompts", listed, "--prompt-file", "-", "-r", "native",
                               stdin="In the beginning")
        self.assertEqual([p["text"] for p in result.json["prompts"]],
                         ["In the beginning", "And God said", "Let there be light"], result)

    def test_flag_beats_variable(self):
        result = self.crossval("-m", MODEL, "-p", "And God", "-r", "native", env={"CROSSVAL_GGUF": "/no/such.gguf"})
        self.assertEqual(result.code, 0, result)
        self.assertEqual([c["origin"] for c in result.json["choices"] if c["key"] == "model"], ["flag --model"])
        result = self.crossval("-p", "And God", "-r", "native", env={"CROSSVAL_GGUF": MODEL})
        self.assertEqual([c["origin"] for c in result.json["choices"] if c["key"] == "model"], ["variable CROSSVAL_GGUF"])


class Example(Case):
    def test_the_smallest_plugin_reaches_a_verdict(self):
        """As docs/plugin_abi.md shows it: on any file it generates, on any GGUF file it is compared."""
        plugin = BUILD / "examples" / "minimal.so"
        text = run("infer", "-m", ROOT / "models" / "heldout.txt", "-e", plugin, "-p", "And God", "-n", 8)
        self.assertEqual((text.code, len(text.out.encode())), (0, 9), text)
        limits = ["--kl-mean", "1e-9", "--kl-worst", "1e-9"]
        self.expect(self.crossval("-m", MODEL, "-c", plugin, "-r", plugin, "-p", "And God", *limits), "match", 0)


class Progress(Case):
    """On a terminal a line that is cleared again; elsewhere nothing, or with -v a few lines."""

    HANGS = ["-m", MODEL, "-p", "And God said", "-e", "faulty,faulty.mode=hang"]

    def test_of_a_terminal_that_waits(self):
        for args in (["infer", *self.HANGS, "--timeout", 2], ["trace", *self.HANGS, "--timeout", 2, "--out", self.folder / "t"]):
            code, shown = on_terminal(*args)
            self.assertEqual(code, 4, shown)
            self.assertRegex(shown, r"\r\x1b\[K\[\.+\] 0/\d+ [a-z ]+, 1 s")
            self.assertRegex(shown, r"\r\x1b\[Kerror: ", shown)  # nothing is left on its line

    def test_an_interruption_leaves_the_terminal_clean(self):
        code, shown = on_terminal("infer", *self.HANGS, interrupt_after=2.5)
        self.assertEqual(code, 130, shown)
        self.assertTrue(shown.endswith("\r\x1b[Kinterrupted\n"), shown)

    def test_elsewhere_nothing_and_with_v_no_flood(self):
        args = ["crossval", "-m", MODEL, "-p", "And", "-p", "God", "-p", "said", "-r", "native", "--scope", "logits-only"]
        self.assertEqual(run(*args).err, "")
        told = run(*args, "-v").err.splitlines()
        self.assertTrue(0 < len(told) < 12, told)
        self.assertFalse([line for line in told if "\x1b" in line or "0/1" in line], told)
        self.assertIn("prompts: 0 of 3", told)


class Inference(Case):
    def test_one_token_has_no_rate(self):
        one = run("infer", "-m", MODEL, "-p", "And", "-n", 1)
        self.assertRegex(one.err, r"^\d+ prompt tokens, [\d.]+ tokens/s; 1 generated$")
        self.assertIsNone(run("infer", "-m", MODEL, "-p", "And", "-n", 1, "--format", "json").json["decode_tokens_per_second"])
        self.assertGreater(run("infer", "-m", MODEL, "-p", "And", "-n", 4, "--format", "json").json["decode_tokens_per_second"], 0)

    def test_greedy_is_what_the_sampler_at_temperature_zero_gives_and_seeds_repeat(self):
        def text(*args, **kwargs):
            result = run("infer", "-m", MODEL, "-p", "And God said", "-n", "16", "--format", "json", *args, **kwargs)
            self.assertEqual(result.code, 0, result)
            return result.json["tokens"]

        greedy = text()
        self.assertEqual(greedy, text("--temperature", "0", "--seed", "9"))
        self.assertEqual(greedy, text("--temperature", "2", "--top-k", "1"))
        warm = text("--temperature", "1.5", "--seed", "1")
        self.assertEqual(warm, text("--temperature", "1.5", "--seed", "1"))
        self.assertEqual(warm, text("--temperature", "1.5", env={"BITNET_SEED": "1"}))
        self.assertNotEqual(warm, text("--temperature", "1.5", "--seed", "2"))

    def test_text_streams_to_stdout_and_figures_to_stderr(self):
        result = run("infer", "-m", MODEL, "-p", "And God said", "-n", "8")
        self.assertEqual(result.code, 0, result)
        self.assertTrue(result.out.strip())
        self.assertRegex(result.err, r"tokens/s")

    def test_an_engine_that_dies_exits_4(self):
        result = run("infer", "-m", MODEL, "-p", "hi", "-e", "faulty,faulty.mode=crash", "-n", "2")
        self.assertEqual(result.code, 4, result)


class Interruption(Case):
    def test_sigint_exits_130_kills_the_engines_and_the_next_run_resumes(self):
        model = self.folder / "model" / "m.gguf"
        self.assertEqual(run("gen-fixtures", "--out", model, "--architecture", "llama", "--layers", "12", "--d-model", "768",
                             "--d-ff", "2048", "--heads", "12", "--kv-heads", "4").code, 0)
        plugin = self.folder / "reference.so"
        shutil.copy(PLUGINS / "native.so", plugin)
        cache = self.folder / "cache"
        command = [str(PARITYBIT), "crossval", "-m", str(model), "-p", "The quick brown fox", "-r", str(plugin), "--noise",
                   "whole", "--format", "json"]
        env = dict(os.environ, PARITYBIT_CACHE=str(cache))
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 300
        while len(list(cache.glob("noise/*/*.json"))) < 10 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        self.assertIsNone(process.poll(), "the run ended before it could be interrupted")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130, err)
        self.assertEqual(json.loads(out)["verdict"], "interrupted")
        time.sleep(0.5)
        self.assertEqual(self.children_of(plugin), [])
        for entry in cache.glob("noise/*/*"):
            json.loads(entry.read_text())
        again = self.crossval(*command[2:-2], env={"PARITYBIT_CACHE": str(cache)})
        self.expect(again, "match", 0)
        self.assertGreaterEqual(again.json["noise_floor"]["runs_from_cache"], 10, again)

    def children_of(self, plugin):
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(plugin) in entry.read_bytes().decode(errors="replace").replace("\0", " "):
                    found.append(entry.parent.name)
            except OSError:
                pass
        return found


class Fixtures(Case):
    def test_the_standard_set_runs(self):
        result = run("gen-fixtures", "--out", self.folder / "set", "--format", "json")
        self.assertEqual(result.code, 0, result)
        self.assertGreaterEqual(len(result.json["files"]), 5)
        for file in result.json["files"]:
            self.assertEqual(run("infer", "-m", file, "-p", "abc", "-n", "3").code, 0, file)

    def test_conversion_reports_what_it_changed(self):
        out = self.folder / "f16.gguf"
        result = run("gen-fixtures", "--convert", MODEL, "--weights", "f16", "--out", out, "--format", "json")
        self.assertEqual(result.code, 0, result)
        self.assertEqual(result.json["converted"], {"tensors": 42, "inexact": 0, "max_change": 0.0})
        self.assertEqual(run("gen-fixtures", "--weights", "Q9_9", "--out", out).code, 2)


class Features(Case):
    def test_the_build_says_what_it_contains(self):
        result = run("check-features", "--format", "json")
        self.assertEqual(result.code, 0, result)
        self.assertIn("I2_S", result.json["weight_types"])
        native = [engine for engine in result.json["engines"] if engine["name"] == "native"]
        self.assertTrue(native and "error" not in native[0], result)


if __name__ == "__main__":
    main()

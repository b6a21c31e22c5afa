"""The program in surroundings that do not help: nobody reads, nothing can be written, engines are killed, runs stand beside each
other, prompts are no text."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

from driver import BY_THE_TABLE, PARITYBIT, PLUGINS, SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
SAME = ["crossval", "-m", MODEL, "-p", "And God said", "-r", "native"]


def run_of(prompt):
    return ["-p", prompt, "-r", "native"]


def start(*args, **kwargs):
    return subprocess.Popen([str(PARITYBIT), *map(str, args)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **kwargs)


def engines_of(pid):
    """Process ids of the engines that a run has started."""
    found = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in path.read_text().split()]
        except OSError:
            pass
    return found


class Readers(Case):
    def test_a_reader_that_leaves_changes_no_exit_code(self):
        for args, code in (([*SAME], 0), ([*SAME, "--set", "kv.type=f32"], 3), (["--help"], 0)):
            read_end, write_end = os.pipe()
            os.close(read_end)
            process = start(*args, stdout=write_end)
            os.close(write_end)
            err = process.communicate(timeout=300)[1]
            # help is printed before interrupts are handled: it may die of the signal as any other program
            self.assertIn(process.returncode, (code, -signal.SIGPIPE) if args == ["--help"] else (code,), err)
            self.assertEqual(err, b"")

    def test_infer_stops_when_nobody_reads_on(self):
        process = start("infer", "-m", MODEL, "-p", "And God said", "-n", 400, "--ignore-eos", stdout=subprocess.PIPE)
        self.assertTrue(process.stdout.read(1))
        process.stdout.close()
        err = process.communicate(timeout=300)[1]
        self.assertEqual((process.returncode, err), (0, b""))  # not even the line of figures at the end
        whole = run("infer", "-m", MODEL, "-p", "And God said", "-n", 400, "--ignore-eos")
        self.assertIn("400 generated", whole.err)

    def test_output_that_cannot_be_written_is_no_success(self):
        for args, code in (([*SAME], 5), ([*SAME, "--format", "json"], 5), ([*SAME, "--set", "kv.type=f32"], 3),
                           (["check-features"], 5), (["infer", "-m", MODEL, "-p", "And", "-n", 2], 5)):
            with open("/dev/full", "wb") as full:
                process = start(*args, stdout=full)
                err = process.communicate(timeout=300)[1].decode()
            self.assertEqual(process.returncode, code, err)
            self.assertIn("stdout: cannot be written: No space left on device", err)

    def shell(self, redirections, *args, limits="", **kwargs):
        """paritybit with redirections and limits as a shell makes them."""
        command = f'{limits} exec "$@" {redirections}'
        return subprocess.run(["bash", "-c", command, "bash", str(PARITYBIT), *map(str, args)], capture_output=True, text=True,
                              errors="replace", timeout=300, **kwargs)

    def test_closed_streams_are_no_success_and_no_bug(self):
        for args in (["check-features"], SAME, [*SAME, "--format", "json"], ["--help"], ["infer", "-m", MODEL, "-p", "a", "-n", 1]):
            for closed in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
                self.assertEqual(self.shell(closed, *args).returncode, 5, (args, closed))
            self.assertEqual(self.shell("2>&-", *args).returncode, 0, args)
            self.assertEqual(self.shell("<&-", *args).returncode, 0, args)
        self.assertEqual(self.shell("2>&-", "crossval", "-m", "/no/such/file", "-p", "hi", "-r", "native").returncode, 5)
        said = self.shell("<&-", "crossval", "-m", MODEL, "--prompt-file", "-", "-r", "native")
        self.assertEqual((said.returncode, "stdin: cannot be read" in said.stderr), (5, True), said)

    def test_no_file_takes_the_place_of_a_closed_stream(self):
        kept = []
        for name, closed in (("open", ""), ("closed", "<&- >&- 2>&-")):
            self.shell(closed, "trace", "-m", MODEL, "-p", "And God said", "--out", self.folder / name, "-v")
            kept.append([json.loads(line) for line in (self.folder / name / "records.jsonl").read_text().splitlines()])
        self.assertGreater(len(kept[0]), 20)
        self.assertEqual([r.get("blake3") for r in kept[0]], [r.get("blake3") for r in kept[1]])

    def test_a_terminal_does_not_obey_what_a_model_writes(self):
        made = run("gen-fixtures", "--out", self.folder / "m.gguf", "--architecture", "llama")
        self.assertEqual(made.code, 0, made)
        args = ["infer", "-m", self.folder / "m.gguf", "-p", "\x01", "-n", 300, "--ignore-eos", "--temperature", 30]
        piped = subprocess.run([str(PARITYBIT), *map(str, args)], capture_output=True, timeout=300).stdout
        self.assertTrue(any(byte < 32 and byte != 10 for byte in piped), piped)  # the text does hold control bytes
        leader, follower = os.openpty()
        process = start(*args, stdout=follower)
        os.close(follower)
        shown = b""
        while True:
            try:
                shown += os.read(leader, 65536)
            except OSError:
                break
        process.communicate(timeout=300)
        os.close(leader)
        self.assertEqual([byte for byte in shown if byte < 32 and byte not in b"\r\n\t" or byte == 127], [], shown)
        self.assertIn(b"\\x", shown)


class Limits(Readers):
    """What a shell's ulimit allows: exit 5 and the limit's name, and never an engine's failure."""

    def expect_limit(self, flag, values, *args, may_pass=True):
        codes = set()
        for value in values:
            said = self.shell("", *[str(arg).replace("VALUE", str(value)) for arg in args], limits=f"ulimit -{flag} {value};",
                              env=dict(os.environ, PARITYBIT_CACHE=str(self.folder / f"cache{flag}{value}")))
            codes.add(said.returncode)
            self.assertIn(said.returncode, (0, 5) if may_pass else (5,), (flag, value, said.stdout[-900:], said.stderr))
            if said.returncode == 5:
                self.assertIn(f"ulimit -{flag} is {value}", said.stderr, (flag, value))
        return codes

    def test_few_descriptors(self):
        codes = self.expect_limit("n", (6, 7, 8, 9, 10, 11, 12, 13, 14, 15), *SAME)
        self.assertIn(5, codes)
        self.assertEqual(self.expect_limit("n", (32,), *SAME), {0})

    def test_small_files(self):
        self.assertEqual(self.expect_limit("f", (0, 1, 4, 16), "trace", "-m", MODEL, "-p", "And God said", "--out",
                                           self.folder / "tVALUE", "--level", "full"), {5})
        self.assertIn(5, self.expect_limit("f", (0, 1, 4, 16, 256), *SAME, "--receipt", self.folder / "r.json"))

    def test_few_processes(self):
        """Of a user whose processes count: the superuser's do not."""
        common = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"] if os.geteuid() == 0 else []
        self.folder.chmod(0o777)
        if common and subprocess.run([*common, "test", "-r", str(MODEL), "-a", "-x", str(PARITYBIT)]).returncode != 0:
            return print("this tree is the superuser's alone", end=" ")
        for args in (SAME, ["audit", *SAME[1:5]], ["infer", *SAME[1:5]]):
            command = ["bash", "-c", 'ulimit -u 1; exec "$@"', "bash", str(PARITYBIT), *map(str, args)]
            said = subprocess.run([*common, *command], capture_output=True, text=True, timeout=300,
                                  env=dict(os.environ, PARITYBIT_CACHE=str(self.folder / "cache")))
            self.assertEqual((said.returncode, "ulimit -u is 1" in said.stderr), (5, True), said)

    def test_little_memory(self):
        # Below the least of these not even the program's libraries have room, which the system's loader tells.
        loads = [v for v in range(12000, 80000, 4000) if self.shell("", "--version", limits=f"ulimit -v {v};").returncode == 0]
        self.assertIn(5, self.expect_limit("v", loads, *SAME))


class Files(Case):
    def test_a_receipt_that_cannot_be_written_is_told_before_anything_runs(self):
        # The engine would hang: it is not even started.
        for place in ("/no/such/folder/r.json", "/proc/r.json", self.folder, "/dev/null"):
            result = run("crossval", "-m", MODEL, "-p", "hi", "-r", "faulty,faulty.mode=hang", "--receipt", place, timeout=60)
            self.assertEqual(result.code, 5, result)
            self.assertIn(str(place), result.err)
        self.assertTrue(pathlib.Path("/dev/null").is_char_device())

    def tmpfs(self, size):
        """A file system of so many bytes; in a name space of its own, so that no privilege of the machine is needed."""
        return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
                f'mount -t tmpfs -o size={size} none "$0" && exec "$@"', str(self.folder)]

    def test_a_cache_on_a_full_disk_costs_time_only(self):
        command = [str(PARITYBIT), *map(str, SAME), "--format", "json"]
        limited = [*self.tmpfs(4096), *command]
        process = subprocess.run(limited, env=dict(os.environ, PARITYBIT_CACHE=str(self.folder / "cache")), capture_output=True,
                                 text=True)
        if "Operation not permitted" in process.stderr:  # a container without name spaces: a file where the folder has to be
            (self.folder / "cache").write_text("")
            process = subprocess.run(command, env=dict(os.environ, PARITYBIT_CACHE=str(self.folder / "cache")),
                                     capture_output=True, text=True)
        self.assertEqual(process.returncode, 0, process.stderr)
        told = json.loads(process.stdout)
        self.assertEqual((told["verdict"], told["noise_floor"]["n_runs"]), ("match", 8))

    def test_traces_that_the_disk_does_not_take_are_no_engines_fault(self):
        for size in ("4096", "65536", "1M"):
            command = [*self.tmpfs(size), str(PARITYBIT), *map(str, SAME), "--keep-traces", str(self.folder / "kept")]
            process = subprocess.run(command, capture_output=True, text=True)
            if "Operation not permitted" in process.stderr:  # a container without name spaces
                process = subprocess.run([*command[len(self.tmpfs(size)):-1], "/dev/full/kept"], capture_output=True, text=True)
                self.assertEqual(process.returncode, 5, process)
                continue
            self.assertEqual(process.returncode, 5, process)
            self.assertRegex(process.stderr, r"^error: \S+/kept/\S+: cannot \w+: No space left on device\n$")

    def test_a_receipt_that_the_disk_does_not_take_costs_neither_verdict_nor_honesty(self):
        for extra, verdict, code in (([], "MATCH", 5), (["--format", "json"], "match", 5),
                                     (["-c", "mutant,mutant.defect=rope_late,mutant.stage=q_rope,mutant.layer=1"], "DIVERGED", 1)):
            # A place that could be written when the run began and cannot when it ends.
            place = self.folder / "receipts"
            place.mkdir()
            process = start("crossval", "-m", MODEL, "-p", "And God said " * 60, "-n", 40, "-r", "native", *extra, "--receipt",
                            place / "r.json", stdout=subprocess.PIPE)
            self.addCleanup(process.kill)
            deadline = time.monotonic() + 60
            while not engines_of(process.pid) and time.monotonic() < deadline:
                time.sleep(0.005)
            place.rmdir()
            out, err = (text.decode() for text in process.communicate(timeout=300))
            self.assertEqual(process.returncode, code, (out[-900:], err))
            self.assertIn(verdict, out)
            if "json" in extra:
                told = json.loads(out)
                self.assertEqual((told["exit_code"], told["reasons"][-1]["code"]), (5, "io"))
            self.assertIn("r.json: cannot create", out if "json" in extra else err)

    def test_a_trace_on_a_full_disk_is_an_error_of_the_environment(self):
        result = run("trace", "-m", MODEL, "-p", "And God said", "--out", "/dev/full/t")
        self.assertEqual(result.code, 5, result)


class Engines(Case):
    def test_an_engine_that_is_killed_in_the_middle_is_a_failed_engine(self):
        for victim, role in ((0, "candidate"), (1, "reference")):
            process = start("crossval", "-m", MODEL, "-p", "And God said " * 100, "-n", 200, "-r", "native", "--format", "json",
                            stdout=subprocess.PIPE, env=dict(os.environ, PARITYBIT_CACHE=str(self.folder / role)))
            self.addCleanup(process.kill)
            deadline = time.monotonic() + 120
            while len(engines_of(process.pid)) < 2 and time.monotonic() < deadline:
                time.sleep(0.005)
            engines = sorted(engines_of(process.pid))
            self.assertEqual(len(engines), 2)
            time.sleep(0.2)
            os.kill(engines[victim], signal.SIGKILL)
            out, err = process.communicate(timeout=300)
            self.assertEqual(process.returncode, 4, err)
            result = json.loads(out)
            self.assertEqual((result["verdict"], result["reasons"][0]["code"]), ("engine-failed", f"{role}-failed"), result["reasons"])
            self.assertIn("signal 9", result["reasons"][0]["text"])

    def test_runs_beside_each_other_share_one_cache(self):
        cache = {"PARITYBIT_CACHE": self.folder / "cache"}
        results = [None] * 4

        def one(i):
            results[i] = self.crossval(*SAME[1:], env=cache)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            self.expect(result, "match", 0)
            self.assertEqual(result.json["limits"], results[0].json["limits"])
        entries = list((self.folder / "cache" / "noise").glob("*/*"))
        self.assertEqual(len(entries), 24)  # 8 runs over the prompt, the calibration tokens, and those of the points; nothing half
        for entry in entries:
            json.loads(entry.read_text())

    def test_an_interrupted_command_says_what_it_leaves(self):
        shutil.copy(PLUGINS / "faulty.so", self.folder)
        hangs = f"{self.folder / 'faulty.so'},faulty.mode=hang"
        for args, kept in ((["infer", "-m", MODEL, "-p", "And", "-e", hangs], "interrupted\n"),
                           (["trace", "-m", MODEL, "-p", "And", "-e", hangs, "--out", self.folder / "t"], "the trace is readable"),
                           (["crossval", "-m", MODEL, "-p", "And", "-r", "faulty", "-c", hangs], "finished noise runs are kept")):
            process = start(*args, stdout=subprocess.PIPE)
            self.addCleanup(process.kill)
            deadline = time.monotonic() + 60
            while not engines_of(process.pid) and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            err = process.communicate(timeout=60)[1].decode()
            self.assertEqual(process.returncode, 130, err)
            self.assertIn(kept, err)

    def test_a_signal_ends_a_command_with_its_own_exit_code_and_its_engines_with_it(self):
        shutil.copy(PLUGINS / "faulty.so", self.folder)
        hangs = f"{self.folder / 'faulty.so'},faulty.mode=hang"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = start("crossval", "-m", MODEL, "-p", "And", "-r", "faulty", "-c", hangs, "--format", "json",
                            stdout=subprocess.PIPE)
            self.addCleanup(process.kill)
            deadline = time.monotonic() + 60
            while not engines_of(process.pid) and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.2)
            engines = engines_of(process.pid)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 128 + number, err)
            told = json.loads(out)
            self.assertEqual((told["verdict"], told["exit_code"]), ("interrupted", 128 + number))
            self.assertIn(number.name, told["reasons"][0]["text"])
            deadline = time.monotonic() + 10
            while any(pathlib.Path(f"/proc/{pid}").exists() for pid in engines) and time.monotonic() < deadline:
                time.sleep(0.01)
            self.assertEqual([pid for pid in engines if pathlib.Path(f"/proc/{pid}").exists()], [])


class Prompts(Case):
    def test_bytes_that_are_no_utf8_are_judged_as_the_engines_tokenise_them(self):
        prompt = self.folder / "prompt.bin"
        prompt.write_bytes(b"And \xff\xfe God \xc3 said \xed\xa0\x80 \xe2\x82")
        result = self.crossval("-m", MODEL, "--prompt-file", prompt, "-r", "llama.cpp")
        self.expect(result, "match", 0)

    def test_code_points_that_do_not_exist_are_a_mistake_of_the_caller(self):
        prompt = self.folder / "prompt.bin"
        prompt.write_bytes(b"And God \xf4\x90\x80\x80 said")
        for args in (["crossval", "-r", "llama.cpp"], ["crossval-per-token", "-r", "native"], ["infer"],
                     ["trace", "--out", self.folder / "t"]):
            result = run(*args, "-m", MODEL, "--prompt-file", prompt)
            self.assertEqual(result.code, 2, result)
            self.assertIn("byte 8: a sequence for U+110000", result.err)
        self.assertFalse((self.folder / "t").exists())

    def test_positions_beyond_the_trained_context_are_told(self):
        """Decode steps may go beyond it; a prompt that does is refused (cli_test.py), unless n_ctx is said."""
        short = self.folder / "short.gguf"
        made = run("gen-fixtures", "--out", short, "--architecture", "llama", "--context", 64)
        self.assertEqual(made.code, 0, made)
        for steps, told in ((2, False), (70, True)):
            result = self.crossval("-m", short, "-p", "a" * 10, "-n", steps, "-r", BY_THE_TABLE)
            self.assertIn(result.json["verdict"], ("match", "near-tie"), result)
            self.assertEqual(any("trained context has 64" in note for note in result.json["notes"]), told, result.json["notes"])
            said = run("infer", "-m", short, "-p", "a" * 10, "-n", steps, "--ignore-eos").err
            self.assertEqual("trained context has 64" in said, told, said)
        out = run("trace", "-m", short, "-p", "a b " * 60, "--set", "n_ctx=400", "--level", "digest", "--out", self.folder / "t").out
        self.assertIn("trained context has 64", out)


class Names(Case):
    """Bytes that are no UTF-8 are told as \\xff, in text, in JSON and in receipts."""

    def setUp(self):
        super().setUp()
        self.odd = os.fsdecode(os.fsencode(str(self.folder)) + b"/nat\xff.so")
        shutil.copy(PLUGINS / "native.so", self.odd)
        self.model = os.fsdecode(os.fsencode(str(self.folder)) + b"/m\xfe.gguf")
        shutil.copy(MODEL, self.model)
        shutil.copy(SILU / "config.json", self.folder)

    def test_of_an_engine_and_of_a_model(self):
        receipt = os.fsdecode(os.fsencode(str(self.folder)) + b"/r\xfd.json")
        run_ = ["-m", self.model, "-c", "native", "-r", self.odd, "-p", "And God said"]
        result = self.crossval(*run_, "--receipt", receipt)
        self.expect(result, "match", 0)
        for text in (result.out, pathlib.Path(receipt).read_text()):
            told = json.loads(text)
            self.assertIn("nat\\xff.so", told["engines"][1]["spec"])
        self.assertTrue(result.json["model"]["path"].endswith("/m\\xfe.gguf"))
        shown = run("crossval", *run_)
        self.assertEqual(shown.code, 0, shown)
        self.assertIn("m\\xfe.gguf", shown.out)
        self.assertGreaterEqual(self.crossval(*run_).json["noise_floor"]["runs_from_cache"], 8)  # kept under that name

    def test_in_every_other_place(self):
        folder = os.fsdecode(os.fsencode(str(self.folder)) + b"/t\xfc")
        prompt = os.fsdecode(os.fsencode(str(self.folder)) + b"/p\xfb")
        pathlib.Path(prompt).write_text("And God said")
        cases = ((["trace", "-m", self.model, "--prompt-file", prompt, "-e", self.odd, "--out", folder], {}, 0),
                 (["trace-diff", folder, folder], {}, 0),
                 (["infer", "-m", self.model, "-p", "And", "-n", 2, "-e", self.odd], {}, 0),
                 (["audit", "-m", self.model, "-p", "And", "-e", self.odd], {}, 0),
                 (["crossval", "-m", MODEL, "-p", "And", "-r", "native", "--set", "act\udcff=no\udcfe"], {}, 2),
                 (["crossval", "-m", "/no/\udcff.gguf", "-p", "And", "-r", "native"], {}, 5),
                 (["crossval", "-m", MODEL, "--prompt-file", "/no/\udcff", "-r", "native"], {}, 5),
                 (["cross\udcff"], {}, 2), (["crossval", "--no\udcff"], {}, 2), (["crossval", "--format", "js\udcff"], {}, 2),
                 (["crossval", *run_of("And")], {"CROSSVAL_GGUF": b"/no/\xff"}, 5),
                 (["crossval", *SAME[1:]], {"PARITYBIT_CACHE": os.fsencode(str(self.folder)) + b"/c\xff"}, 0),
                 (["preflight", "-m", self.model], {}, None))
        for args, env, code in cases:
            for form in ([], ["--format", "json"]):
                if args[0] == "trace":
                    shutil.rmtree(folder, ignore_errors=True)
                process = subprocess.run([str(PARITYBIT), *map(str, args), *form], env={**os.environ, **env}, capture_output=True,
                                         timeout=300)
                self.assertIn(process.returncode, (code,) if code is not None else range(6), (args, process))
                text = (process.stdout + process.stderr).decode()  # all of it is UTF-8
                if form and process.stdout and args != ["crossval", "--format", "js\udcff"]:
                    json.loads(process.stdout)
                self.assertNotIn("\ufffd", text)

    def test_what_a_next_line_says_can_be_run(self):
        defect = "mutant,mutant.defect=rope_late,mutant.stage=q_rope,mutant.layer=1"
        prompt = "And \x1b[31mGod\x07 said\u202e 'x'"
        result = run("crossval", "-m", self.model, "-c", defect, "-r", "native", "-p", prompt, "-v")
        self.assertEqual(result.code, 1, result)
        self.assertEqual([c for c in result.out + result.err if ord(c) < 32 and c != "\n" or c in "\x7f\u202e"], [], result)
        whole = re.sub(r" \\\n +", " ", result.out)  # a command goes on behind a backslash
        lines = [line for line in whole.splitlines() if "paritybit diagnose" in line or "paritybit crossval-per-token" in line]
        self.assertEqual(len(lines), 2, result)
        for line in ["paritybit diagnose", *lines]:  # without arguments: the run that diverged last
            command = line[line.index("paritybit "):]
            again = subprocess.run(["bash", "-c", f'paritybit() {{ "{PARITYBIT}" "$@"; }}; {command} --format json'],
                                   capture_output=True, timeout=300)
            self.assertEqual(again.returncode, 1, (command, again))
            if "per-token" in command:
                self.assertEqual(json.loads(again.stdout)["prompts"][0]["text"], prompt)


class Logs(Case):
    def test_a_verbose_trace_tells_every_point_on_stderr(self):
        for extra, env in ((["-v"], {}), ([], {"BITNET_TRACE_VERBOSE": "1"})):
            folder = self.folder / f"t{len(extra)}"
            result = run("trace", "-m", MODEL, "-p", "And God said", "--out", folder, "--format", "json", *extra, env=env)
            names = [json.loads(line)["name"] for line in (folder / "records.jsonl").read_text().splitlines()[1:]]
            self.assertEqual([line.split("  ")[0] for line in result.err.splitlines()], names)
        quiet = run("trace", "-m", MODEL, "-p", "And", "--out", self.folder / "q", env={"BITNET_TRACE_VERBOSE": "0"})
        self.assertEqual((quiet.code, quiet.err), (0, ""), quiet)


if __name__ == "__main__":
    main()

"""The program in surroundings that do not help: nobody reads, nothing can be written, engines are killed, runs stand beside each
other, prompts are no text."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

from driver import PARITYBIT, PLUGINS, SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
SAME = ["crossval", "-m", MODEL, "-p", "And God said", "-r", "native"]


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

    def test_closed_stdout_is_no_success(self):
        process = subprocess.run(["sh", "-c", 'exec "$0" check-features >&-', str(PARITYBIT)], stderr=subprocess.PIPE)
        self.assertEqual(process.returncode, 5, process.stderr)


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
        short = self.folder / "short.gguf"
        made = run("gen-fixtures", "--out", short, "--architecture", "llama", "--context", 64)
        self.assertEqual(made.code, 0, made)
        for prompt, told in (("a" * 10, False), ("a b " * 60, True)):
            result = self.crossval("-m", short, "-p", prompt, "-r", "llama.cpp")
            self.assertIn(result.json["verdict"], ("match", "near-tie"), result)
            self.assertEqual(any("trained context has 64" in note for note in result.json["notes"]), told, result.json["notes"])
            said = run("infer", "-m", short, "-p", prompt, "-n", 2).err
            self.assertEqual("trained context has 64" in said, told, said)
        out = run("trace", "-m", short, "-p", "a b " * 60, "--level", "digest", "--out", self.folder / "t").out
        self.assertIn("trained context has 64", out)


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

#!/usr/bin/env python3
"""What a comparison costs beside the engines that it compares: crossval_cost.py BUILD_DIRECTORY [ROUNDS] (default 3).

SmolLM2 over 519 tokens and 16 decode steps, the native engine against llama.cpp, one thread each. In one run and in turn: both engines
alone (`infer` of the same tokens, one after the other), and crossval in four states of its cache: empty; with its noise floor; with
the reference's part kept; and by the logits alone. Prints a table of medians: seconds by the clock and by the processors (user and
system, all processes), both as multiples of the engines' own, and the peak of resident memory, proportional set sizes summed over all
processes. Nothing is judged: other work on the machine changes seconds, and ratios of the clock where processors are not free.
"""
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from resident import resident

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20
STEPS = 16


def run(argv, cache, expected=(0,)):
    """Seconds by the clock and by the processors, and the peak of memory, sampled."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env={**os.environ, "PARITYBIT_CACHE": str(cache)})
    peak, stop = [0], threading.Event()

    def watch():
        while not stop.wait(0.05):
            try:
                peak[0] = max(peak[0], resident(process.pid))
            except (OSError, ProcessLookupError):
                pass

    thread = threading.Thread(target=watch)
    thread.start()
    code = process.wait()
    seconds = time.monotonic() - start
    stop.set()
    thread.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code not in expected:
        sys.exit(f"{' '.join(argv)}: exit {code}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak[0]


def main():
    binary, rounds = str(pathlib.Path(sys.argv[1]) / "bin/paritybit"), int((sys.argv[2:] or ["3"])[0])
    users = pathlib.Path(os.environ.get("PARITYBIT_CACHE") or
                         pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "paritybit")
    with tempfile.TemporaryDirectory(prefix="paritybit-cost-") as folder:
        cache, prompt = pathlib.Path(folder) / "cache", pathlib.Path(folder) / "prompt.txt"
        prompt.write_text((ROOT / "models/heldout.txt").read_text()[:2300])
        cache.mkdir()
        for name in ("references", "models", "sha256"):
            (cache / name).symlink_to((users / name).resolve())
        common = ["--model", "smollm2", "--prompt-file", str(prompt), "-n", str(STEPS), "--format", "json"]
        alone = [[binary, "infer", "--engine", engine, *common, "--ignore-eos"] for engine in ("native", "llama.cpp")]
        crossval = [binary, "crossval", *common]
        rows = {name: [] for name in ("the engines alone", "crossval, the first time", "crossval, noise floor cached",
                                      "crossval, reference kept", "crossval, logits only")}

        def take(name, *parts):
            rows[name].append((sum(p[0] for p in parts), sum(p[1] for p in parts), max(p[2] for p in parts)))

        def forget(*names):
            for name in names:
                shutil.rmtree(cache / name, ignore_errors=True)

        for _ in range(rounds):
            forget("noise", "reference")
            take("the engines alone", *(run(argv, cache) for argv in alone))
            take("crossval, the first time", run(crossval, cache))
            for path in (cache / "reference").glob("*/tape.*"):
                path.unlink()
            take("crossval, noise floor cached", run(crossval, cache))
            take("crossval, reference kept", run(crossval, cache))
            take("crossval, logits only", run([*crossval, "--scope", "logits-only", "--reuse", "never"], cache))
    own = [statistics.median(r[i] for r in rows["the engines alone"]) for i in (0, 1)]
    print(f"{rounds} rounds, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"{'':32}{'clock':>16}{'processors':>18}{'memory':>12}")
    for name, results in rows.items():
        clock, cpu, peak = (statistics.median(r[i] for r in results) for i in range(3))
        print(f"{name:32}{clock:8.1f} s x {clock / own[0]:4.2f}{cpu:10.1f} s x {cpu / own[1]:4.2f}{peak / MIB:8.0f} MiB")


if __name__ == "__main__":
    main()

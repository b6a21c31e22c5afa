#!/usr/bin/env python3
"""What tracing costs: trace_cost.py BUILD_DIRECTORY [LEVEL] traces 512 tokens of SmolLM2 with the native engine.

Prints the time of the traced evaluation against the same evaluation without taps, side by side in one run, the best of five; and the
peak resident memory of paritybit and its engine together (proportional set size, so that shared memory counts once), the same of an
evaluation without taps, and both less the model file. Fails above 1.5 times and above 200 MB.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

from resident import resident

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20


def run(argv):
    """Standard output, and the peak of resident memory, sampled every few milliseconds."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    peak, stop = [0], threading.Event()

    def watch():
        while not stop.wait(0.005):
            try:
                peak[0] = max(peak[0], resident(process.pid))
            except (OSError, ProcessLookupError):
                pass

    thread = threading.Thread(target=watch)
    thread.start()
    out = process.communicate()[0]
    stop.set()
    thread.join()
    if process.returncode:
        sys.exit(f"{' '.join(argv)}: exit {process.returncode}")
    return out, peak[0]


def main():
    binary, level = str(pathlib.Path(sys.argv[1]) / "bin/paritybit"), (sys.argv[2:] or ["sketch"])[0]
    with tempfile.TemporaryDirectory() as folder:
        prompt = pathlib.Path(folder) / "prompt.txt"
        text = (ROOT / "models/heldout.txt").read_text()
        prompt.write_text(text[:2300])
        common = ["--model", "smollm2", "--prompt-file", str(prompt)]
        trace = [binary, "trace", *common, "--level", level, "--format", "json", "--out"]
        results = []
        for i in range(5):
            out, peak = run(trace + [os.path.join(folder, str(i))])
            results.append((json.loads(out), peak))
        plain = run([binary, "infer", *common, "--max-tokens", "1", "--format", "json"])[1]
    first = results[0][0]
    n_tokens, n_bytes = len(first["tokens"]), os.path.getsize(first["model"]["path"])
    traced = min(r["seconds"] for r, _ in results)
    untapped = min(r["seconds_untapped"] for r, _ in results)
    peak = max(p for _, p in results)
    print(f"{n_tokens} tokens, {first['n_records']} records, level {level}")
    print(f"time       {traced:.3f} s traced, {untapped:.3f} s without taps: x {traced / untapped:.2f}")
    print(f"memory     {peak / MIB:.0f} MiB at most, {plain / MIB:.0f} MiB without taps, model file {n_bytes / MIB:.0f} MiB; "
          f"above the model {(peak - n_bytes) / MIB:.0f} MiB")
    return 1 if traced > 1.5 * untapped or peak - n_bytes > 200e6 else 0


sys.exit(main())

#!/usr/bin/env python3
"""Decoding by the native engine and llama.cpp side by side: decode_speed.py BUILD_DIRECTORY [MODEL] [PAIRS]

Both generate 64 tokens in turn, one thread each, as often as PAIRS says (5); the ratio is taken pair by pair, so that a machine whose
speed drifts does not move it. Fails when the native engine's median falls below a third of llama.cpp's speed.
"""
import json
import pathlib
import statistics
import subprocess
import sys


def tokens_per_second(binary, engine, model):
    process = subprocess.run([binary, "infer", "--engine", engine, "--model", model, "--prompt", "Once upon a time", "--max-tokens",
                              "64", "--ignore-eos", "--format", "json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout)["decode_tokens_per_second"]


def main():
    binary = str(pathlib.Path(sys.argv[1]) / "bin/paritybit")
    model = sys.argv[2] if len(sys.argv) > 2 else "smollm2"
    pairs = []
    for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 5):
        pairs.append((tokens_per_second(binary, "native", model), tokens_per_second(binary, "llama.cpp", model)))
        print(f"native {pairs[-1][0]:6.1f} tokens/s   llama.cpp {pairs[-1][1]:6.1f}   ratio {pairs[-1][0] / pairs[-1][1]:.2f}", flush=True)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"median ratio {ratio:.2f}")
    return 1 if ratio < 1 / 3 else 0


sys.exit(main())

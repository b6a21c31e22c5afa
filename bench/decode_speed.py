#!/usr/bin/env python3
"""Prompts and decoding, the native engine and llama.cpp side by side: decode_speed.py BUILD_DIRECTORY [MODEL ...]
    [--reference ENGINE] [--native ENGINE] [--pairs 5] [--least 0.33]

Both read a prompt of some 300 tokens and generate 64, in turn, one thread each; the ratios are taken pair by pair, so that a machine
whose speed drifts does not move them. Fails where the native engine's median falls below --least times llama.cpp's speed.

    bench/decode_speed.py build/release smollm2 FILE.gguf --reference llama.cpp,cpu.library=haswell --least 0.8
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

PROMPT = "The clockmaker lived between two rivers, and his clocks were never wrong. " * 20
RATES = ("prompt_tokens_per_second", "decode_tokens_per_second")


def rates(binary, engine, model):
    process = subprocess.run([binary, "infer", "--engine", engine, "--model", model, "--prompt", PROMPT, "--max-tokens", "64",
                              "--ignore-eos", "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    said = json.loads(process.stdout)
    return [said[rate] for rate in RATES]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("models", nargs="*", default=["smollm2"])
    parser.add_argument("--reference", default="llama.cpp")
    parser.add_argument("--native", default="native")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--least", type=float, default=1 / 3)
    args = parser.parse_args()
    binary = str(args.build / "bin/paritybit")
    below = False
    print(f"tokens per second, {args.native} and {args.reference}; medians of {args.pairs} pairs")
    for model in args.models:
        pairs = [(rates(binary, args.native, model), rates(binary, args.reference, model)) for _ in range(args.pairs)]
        for i, what in enumerate(("prompt", "decode")):
            ratio = statistics.median(ours[i] / theirs[i] for ours, theirs in pairs)
            below |= ratio < args.least
            ours, theirs = (statistics.median(pair[side][i] for pair in pairs) for side in (0, 1))
            print(f"{pathlib.Path(model).name:32} {what}  {ours:8.1f} {theirs:8.1f}  ratio {ratio:.2f}", flush=True)
    return 1 if below else 0


sys.exit(main())

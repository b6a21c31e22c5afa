#!/usr/bin/env python3
"""Looks for false alarms: SmolLM2 over 20 prompts, llama.cpp against everything that differs from it by rounding alone.

    python3 bench/no_false_alarm.py BUILD_FOLDER [--model FILE] [--share N/M] [--json FILE]

The grid: the native engine, every CPU library of llama.cpp that this machine runs, batches of 1, 16 and 512, and random rounding with
seeds that no floor is measured with. Each cell is one crossval against llama.cpp over all prompts, 4 decode steps each. What is not
`match`, `near-tie` or `drift` is a false alarm, and the exit code is 1. Beside it: how many cells could be told from the reference's
own noise over all their positions (docs/numerics.md, "Rank"). --share 1/10 takes every tenth cell with 2 of the prompts.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import time

PARITYBIT = pathlib.Path()  # set by main
STEPS = 4
# Seeds 1 to 8 make the floor and 9 to 19 are ranked with it; these are of neither.
SEEDS = range(1001, 1009)

PROMPTS = [
    "The quick brown fox jumps over the lazy dog. The dog, who had been asleep since noon, did not so much as open an eye.",
    "Once upon a time, in a village between two rivers, there lived a clockmaker whose clocks were never wrong, and",
    "a",
    "Hi",
    "2+2=",
    "3.14159265358979323846264338327950288419716939937510",
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610,",
    "def fibonacci(n: int) -> int:\n    \"\"\"Returns the n-th number.\"\"\"\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return",
    "#include <vector>\n\nint main() {\n  std::vector<int> v{3, 1, 2};\n  std::sort(v.begin(), v.end());\n  return v[0];\n}\n",
    '{"name": "paritybit", "version": [0, 1, 0], "tags": ["llm", "numerics"], "nested": {"a": null, "b": true}}',
    "SELECT name, COUNT(*) FROM visits WHERE day >= '2024-01-01' GROUP BY name HAVING COUNT(*) > 3 ORDER BY 2 DESC;",
    "Der Zug nach München fährt heute von Gleis 12 ab; bitte beachten Sie die geänderte Wagenreihung. Größe, Übung, Straße.",
    "Le cœur a ses raisons que la raison ne connaît point ; on le sait en mille choses.",
    "今天天气很好，我们去公园散步吧。東京は日本の首都です。",
    "Привет, мир! Как дела? Это проверка кириллицы.",
    "🙂🚀✨ naïve café — “quotes” … ½ ± 3 µm, x² ≤ ∞, e\u0301, \u200bzero\u200bwidth",
    "    \t\n\n   spaces   and\ttabs \n\n\n and newlines   ",
    "the the the the the the the the the the the the the the the the the the the the the the the the the the the the",
    "WARNING!!! READ THIS: https://example.org/a/b?c=d&e=%20f#g <html><body class=\"x\">&amp;</body></html>",
    "Question: Which is heavier, a kilogram of feathers or a kilogram of lead?\nAnswer: They weigh the same, because a kilogram is a "
    "measure of mass.\nQuestion: Why do people often say lead?\nAnswer: Because lead is denser, so a kilogram of it is smaller, and a "
    "small heavy thing seems heavier than a large light one. This is called the size-weight illusion, and it was described by the "
    "French physician Augustin Charpentier in 1891. Lifting two boxes of equal weight, most people report the smaller one to be the "
    "heavier, even after they have seen both of them on a scale.\nQuestion: Is it the same with sound?\nAnswer:",
]


def call(*args):
    return subprocess.run([str(PARITYBIT), *map(str, args)], capture_output=True, text=True)


def libraries(model):
    """CPU libraries of llama.cpp that this machine runs: those a tiny comparison can be started with."""
    found = []
    for name in ("x64", "sse42", "sandybridge", "ivybridge", "piledriver", "haswell", "skylakex", "cannonlake", "cascadelake", "icelake",
                 "cooperlake", "zen4", "alderlake", "sapphirerapids"):
        result = call("infer", "--engine", f"llama.cpp,cpu.library={name}", "--model", model, "--prompt", "a", "--max-tokens", 1)
        if result.returncode == 0:
            found.append(name)
    return found


def grid(model):
    cells = ["native", *(f"llama.cpp,cpu.library={name}" for name in libraries(model))]
    cells += [f"llama.cpp,ubatch={n}" for n in (1, 16, 512)]
    return cells + [f"llama.cpp,noise.seed={seed}" for seed in SEEDS]


def check(model, candidate, prompts):
    args = ["crossval", "--format", "json", "--model", model, "--candidate", candidate, "--reference", "llama.cpp", "--max-tokens", STEPS,
            "--noise", "whole"]
    result = call(*args, *(part for prompt in prompts for part in ("--prompt", prompt)))
    if not result.stdout:
        sys.exit(f"{candidate}: exit {result.returncode}: {result.stderr[-500:]}")
    report = json.loads(result.stdout)
    rows = report["positions"]
    return {"candidate": candidate, "verdict": report["verdict"], "scope": report["scope"], "n_positions": len(rows),
            "n_points": report["coverage"]["compared"], "mean_kl": sum(row["kl"] or 0 for row in rows) / max(len(rows), 1),
            "worst_kl": max((row["kl"] or 0 for row in rows), default=0), "distance": report["distance"],
            "reasons": [reason["text"] for reason in report["reasons"] if reason["outcome"] != "match"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, help="such as build/release")
    parser.add_argument("--model", help="default: the SmolLM2 that setup-crossval brings")
    parser.add_argument("--share", default="1/1", help="N/M: of every M cells one, with as small a share of the prompts")
    parser.add_argument("--json", help="write all figures to this file")
    args = parser.parse_args()
    global PARITYBIT
    PARITYBIT = args.build / "bin" / "paritybit"
    model = args.model or json.loads(call("setup-crossval", "--format", "json").stdout)["model"]
    n, m = map(int, args.share.split("/"))
    cells, prompts = grid(model)[::m // n], PROMPTS[::m // n]
    start, done = time.monotonic(), []
    for candidate in cells:
        done.append(check(model, candidate, prompts))
        cell = done[-1]
        told = cell["distance"]
        print(f"{cell['verdict']:<10} {candidate:<32} mean KL {cell['mean_kl']:.1e}  worst {cell['worst_kl']:.1e}  "
              + (f"{told['n_as_far']} of {told['n_runs']} runs as far" if told else "not ranked")
              + "".join(f"\n           {reason}" for reason in cell["reasons"]), flush=True)
    alarms = [cell for cell in done if cell["verdict"] not in ("match", "near-tie", "drift") or cell["n_positions"] == 0]
    positions, points = sum(cell["n_positions"] for cell in done), sum(cell["n_points"] for cell in done)
    print(f"{len(alarms)} false alarms in {len(done)} comparisons of {len(prompts)} prompts: {positions} positions, {points} points, "
          f"{time.monotonic() - start:.0f} s")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(done, indent=1) + "\n")
    sys.exit(1 if alarms or not done else 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Every paritybit command in README.md and CONTRIBUTING.md's blocks does what is printed below it: readme_test.py BUILD_DIRECTORY.

A block line "$ paritybit ..." (or "paritybit ...") is run from the project's root. Its exit code must be the one behind a following
"$ echo $?", else 0; each line printed below it, up to "[...]" or the next command, must be in what it prints, figures aside.
"""
import re
import shlex
import subprocess
import sys

from driver import PARITYBIT, ROOT

NUMBER = re.compile(r"[0-9][0-9.]*(e[+-][0-9]+)?")


def commands(text):
    """(command, expected exit code, lines expected in the output) of each command in indented blocks."""
    found = []
    lines = [line[4:] if line.startswith("    ") else ("" if not line.strip() else None) for line in text.splitlines()]
    for i, line in enumerate(lines):
        match = re.match(r"(?:\$ )?(?:build/release/bin/)?(paritybit .*)", line or "")
        if not match:
            continue
        code, expected = 0, []
        for j in range(i + 1, len(lines)):
            below = lines[j]
            if below is None or re.match(r"(\$ )?paritybit ", below) or not line.startswith("$ "):
                break
            if below == "$ echo $?":
                code = int(lines[j + 1])
                break
            if below and below != "[...]":
                expected.append(below)
        found.append((match.group(1).split("  #")[0], code, expected))
    return found


def plain(text):
    """Figures differ from machine to machine; words do not."""
    return re.sub(r"\s+", " ", NUMBER.sub("N", text)).strip()


def check(command, code, expected):
    argv = shlex.split(command.split("   ")[0])
    run = subprocess.run(argv, executable=str(PARITYBIT), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1200)
    output = run.stdout.decode()
    errors = [] if run.returncode == code else [f"exit {run.returncode}, documented {code}"]
    words = plain(output)
    # Which CPU library and instruction set runs depends on the machine.
    loose = [re.sub(r"\((avx512|avx2|scalar|zen4|[a-z0-9]+), N thread\)", "(", plain(line)) for line in expected]
    errors += [f"not printed: {line}" for line in loose if line.split("(")[0].strip() not in words]
    if errors:
        print(f"$ {command}\n{output}")
    return [f"{command[:60]}: {error}" for error in errors]


def main():
    errors, n_commands, n_lines = [], 0, 0
    for name in ("README.md", "CONTRIBUTING.md", "docs/finding_the_bug.md", "docs/format_trace.md"):
        for command, code, expected in commands((ROOT / name).read_text()):
            if " --out " in command:  # writes a folder: trace_test.py runs it elsewhere
                continue
            n_commands += 1
            n_lines += len(expected)
            errors += check(command, code, expected)
    if n_commands < 3 or n_lines < 10:
        errors.append(f"only {n_commands} commands and {n_lines} printed lines found: is the parser blind?")
    print("\n".join(errors) or f"{n_commands} documented commands and {n_lines} lines below them hold")
    return 1 if errors else 0


sys.exit(main())

#!/usr/bin/env python3
"""Every command of every document does what is printed below it: readme_test.py BUILD_DIRECTORY [DOCUMENT ...]

- A block line "$ COMMAND" is run by a shell in a folder that has what the project's folder has, one folder for a document. Its exit code
  must be the one behind a following "$ echo $?", else 0; each line printed below it, up to "[...]" or the next command, must be in what it
  prints, figures aside.
- A line "paritybit COMMAND ..." without "$ " stands for what needs the network, minutes or files of the reader's: its commands and flags
  must be in the help. So must those of `paritybit COMMAND --flag` or `--flag` in the text.
- A block that begins with "error: " or "note: " and is no command's output quotes the program: its words, up to "[...]", must be in the
  sources' texts.

Documents with a test of their own for the first kind are in OWN.
"""
import pathlib
import re
import sys
import tempfile

DOCUMENTS = sys.argv[2:]
del sys.argv[2:]

from driver import BUILD, ROOT, paste, run  # noqa: E402  (takes the build folder of argv)

NUMBER = re.compile(r"[0-9][0-9.]*(e[+-][0-9]+)?")
OWN = {"docs/receipts.md": "tests/receipts_test.py", "docs/sweep.md": "tests/sweep_test.py", "docs/verify.md": "tests/verify_test.py",
       "python/README.md": "python/tests/readme_test.py"}
# Flags of the documented system (tests/documented_test.py types them) and of other programs.
FLAGS_OF_OTHERS = {"docs/commands.md", "bench/README.md"}


def blocks(text):
    """Runs of lines that are indented by four, without the indentation; empty lines belong to them."""
    found, block = [], []
    for line in re.sub(r"^```.*?^```", "x", text, flags=re.M | re.S).splitlines() + ["x"]:
        if line.startswith("    "):
            block.append(line[4:])
        elif not line.strip() and block:
            block.append("")
        elif block:
            found.append(block)
            block = []
    return found


def commands(text):
    """(command, expected exit code, lines expected in its output) of each "$ COMMAND"."""
    found = []
    for block in blocks(text):
        for i, line in enumerate(block):
            if not line.startswith("$ ") or line == "$ echo $?":
                continue
            command, below = line[2:], block[i + 1:]
            while command.endswith("\\"):
                command, below = command[:-1] + below[0].strip(), below[1:]
            code, expected = 0, []
            for j, printed in enumerate(below):
                if printed == "$ echo $?":
                    code = int(below[j + 1])
                if printed.startswith("$ "):
                    break
                if printed.strip() and printed.strip() != "[...]":
                    expected.append(printed)
            found.append((command.split("   #")[0], code, expected))
    return found


def plain(text):
    """Figures differ from machine to machine; words do not."""
    return re.sub(r"\s+", " ", NUMBER.sub("N", text)).strip()


def check(command, code, expected, folder):
    ran = paste(command, cwd=folder, timeout=1200)
    output = ran.out + ran.err
    errors = [] if ran.code == code else [f"exit {ran.code}, documented {code}"]
    words = plain(output)
    # Which CPU library and instruction set runs depends on the machine.
    loose = [re.sub(r"\((avx512|avx2|scalar|zen4|[a-z0-9]+), N thread\)", "(", plain(line)) for line in expected]
    errors += [f"not printed: {line}" for line in loose if line.split("(")[0].strip() not in words]
    if errors:
        print(f"$ {command}\n{output}")
    return [f"{command[:90]}: {error}" for error in errors]


class Flags:
    """What the help of each command takes."""

    def __init__(self):
        listed = re.findall(r"^  ([a-z-]+) ", run("--help").out.split("Flags:")[0], re.MULTILINE)
        self.of = {c: set(re.findall(r"--[a-z][a-z0-9-]*", run(c, "--help").out.split("Example:")[0])) | {"--help"} for c in listed}
        suite = set(re.findall(r"--[a-z][a-z-]*", (ROOT / "tests/abi_conformance_test.cc").read_text()))
        self.all = set.union(*self.of.values()) | {"--version"} | suite

    def unknown(self, line):
        """Of a line that calls commands: what is none, and flags that none of those called takes."""
        told = []
        for call in re.split(r"\bparitybit(?= [a-z])", re.sub(r'"[^"]*"', "", line))[1:]:
            words = re.split(r"\s#|[;|&()]", call)[0].split()
            known = self.of.get(words[0])
            if known is None:
                told.append(f"`{words[0]}` is no command")
                continue
            taken = set.union(known, *(self.of[w] for w in words[1:] if w in self.of))  # bisect ... -- crossval ...
            told += [f"{flag} is no flag of {words[0]}" for flag in re.findall(r"--[a-z][a-z0-9-]*", " ".join(words)) if flag not in taken]
        return told

    def unknown_in_prose(self, text):
        told = []
        outside = "\n".join(line for line in re.sub(r"^```.*?^```", "", text, flags=re.M | re.S).splitlines() if not line.startswith("    "))
        for span in re.findall(r"`([^`]+)`", outside):
            words = span.replace("paritybit ", "", 1).split()
            if words and (words[0] in self.of or span.startswith("paritybit ")) and words[0].islower():
                told += self.unknown(re.sub(r"^(paritybit )?", "paritybit ", " ".join(words)))
            elif span.startswith("--") and (flag := re.match(r"--[a-z][a-z0-9-]*", span)) and flag.group() not in self.all:
                told.append(f"{flag.group()} is a flag of no command")
        return told


def sources():
    """The texts of the program, literals that stand behind each other being one."""
    text = "\n".join(p.read_text(errors="replace") for room in ("src", "plugins") for p in sorted((ROOT / room).rglob("*.cc"))
                     if not p.name.endswith("_test.cc"))
    text = re.sub(r'"\s*\n?\s*"', "", text)
    return re.sub(r"\s+", " ", text.replace("\\n", " ").replace('\\"', '"'))


def quoted(text):
    """The messages that a document quotes without a command."""
    joined = ["\n".join(b) for b in blocks(text) if b[0].startswith(("error: ", "note: ")) and not any(line.startswith("$ ") for line in b)]
    return [message for block in joined for message in re.split(r"\n+(?=error: |note: )", block)]


def not_in_sources(message, texts):
    parts = [re.sub(r"\s+", " ", part).strip() for part in re.sub(r"^(error|note): ", "", message).split("[...]")]
    return [part for part in parts if part and part not in texts]


def main():
    documents = DOCUMENTS or sorted(str(p.relative_to(ROOT)) for pattern in ("*.md", "*/*.md") for p in ROOT.glob(pattern)
                                    if p.relative_to(ROOT).parts[0] not in ("build", "web"))
    flags, texts = Flags(), sources()
    errors, n_commands, n_lines, n_called, n_quoted = [], 0, 0, 0, 0
    for name in documents:
        text = (ROOT / name).read_text()
        told = []
        for block in blocks(text):
            joined = re.sub(r"\\\n\s*", "", "\n".join(block))
            for line in joined.splitlines():
                if re.match(r"\S*(paritybit|git bisect run) ", line):
                    n_called += 1
                    told += flags.unknown(line) if name not in FLAGS_OF_OTHERS else []
        told += flags.unknown_in_prose(text) if name not in FLAGS_OF_OTHERS else []
        for message in quoted(text):
            n_quoted += 1
            told += [f"no text of the program: {part}" for part in not_in_sources(message, texts)]
        with tempfile.TemporaryDirectory(prefix="paritybit-docs-") as folder:
            for entry in ROOT.iterdir():
                if entry.name not in ("build", ".git"):
                    (pathlib.Path(folder) / entry.name).symlink_to(entry)
            (pathlib.Path(folder) / "build").mkdir()
            (pathlib.Path(folder) / "build/release").symlink_to(BUILD)
            if name in OWN and name.rsplit("/", 1)[-1] not in (ROOT / OWN[name]).read_text():
                told.append(f"{OWN[name]} does not run its commands any more")
            for command, code, expected in [] if name in OWN else commands(text):
                n_commands += 1
                n_lines += len(expected)
                told += check(command, code, expected, folder)
        errors += [f"{name}: {what}" for what in told]
    if not DOCUMENTS and (n_commands < 20 or n_lines < 60 or n_called < 10 or n_quoted < 5):
        errors.append(f"only {n_commands} commands, {n_lines} printed lines, {n_called} calls and {n_quoted} messages: is the parser blind?")
    print("\n".join(errors) or f"{n_commands} commands and {n_lines} lines below them hold; flags of {n_called} calls; {n_quoted} messages")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())

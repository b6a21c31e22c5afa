#!/usr/bin/env python3
"""The include rule: a room includes only what its row of ARCHITECTURE.md names, CMake links the same row, nothing points up.

Also the toolchain fence (g++ 12 and clang 14), prints only in cli, exceptions nowhere, ASCII, and the length of files.
Usage: layers_test.py [ROOT]; without arguments it first proves on a made-up tree that each rule can fail.
"""
import pathlib
import re
import sys
import tempfile

SOURCES = (".h", ".cc")
MAX_LINES = 800
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
FENCE = {
    "std::format": r"\bstd::v?format(_to)?\b",
    "std::expected": r"\bstd::(un)?expected\b",
    "std::source_location": r"\bstd::source_location\b",
    "range views": r"\bstd::(ranges::)?views?::",
    "std::print": r"\bstd::print(ln)?\b",
    "a header that clang 14 or g++ 12 lacks": r"#\s*include\s+<(format|expected|source_location|print|generator|mdspan)>",
}
PRINTS = re.compile(r"\bstd::(cout|cerr|clog)\b|\b(std::)?(printf|puts|putchar)\s*\(|\bfmt::print(ln)?\s*\(|\bf(printf|puts)\s*\(\s*std(out|err)")
THROWS = re.compile(r"\bthrow\b")
# Below cli, output that is none of paritybit's to its user: the report of our own bug, the child's log, a bundle's own program.
MAY_PRINT = {"src/base/check.cc", "src/host/host_main.cc", "src/repro/program_main.cc"}
# What a plugin wraps besides the room of its own name: none but these.
PLUGIN_WRAPS = {"replay": {"trace", "tokenizer", "formats", "base"}, "mutant": {"native"}, "oracle": {"oracle", "host"}, "support": {"tokenizer", "base"}}


def strip(text):
    """The code without comments and the contents of literals."""
    pattern = r'R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|//[^\n]*|/\*.*?\*/'

    def keep(match):
        return '""' if match.group(0)[0] in "\"R'" else re.sub(r"[^\n]", "", match.group(0))

    return re.sub(pattern, keep, text, flags=re.S)


def read(path):
    return path.read_text(encoding="utf-8", errors="replace")


def table(root):
    """room -> (rank, rooms it may include) of ARCHITECTURE.md's table."""
    path = root / "ARCHITECTURE.md"
    if not path.exists():
        return {}
    rooms = {}
    for line in read(path).splitlines():
        cells = [c.strip().strip("`") for c in line.strip().strip("|").split("|")]
        if len(cells) == 4 and cells[0].isdigit():
            row = {r for r in re.split(r"[\s,`]+", cells[3]) if re.fullmatch(r"[a-z_]+", r)}
            rooms[cells[1].strip("*")] = (int(cells[0]), row)
    return rooms


def cmake_calls(root, function):
    """(folder, first argument, words after ROOMS) of each call in the tree's CMakeLists.txt."""
    for path in sorted(root.glob("src/*/CMakeLists.txt")) + sorted(root.glob("plugins/*/CMakeLists.txt")):
        for match in re.finditer(function + r"\(([^)]*)\)", re.sub(r"#.*", "", read(path))):
            words = match.group(1).split()
            rooms = []
            if "ROOMS" in words:
                for word in words[words.index("ROOMS") + 1:]:
                    if word.isupper():
                        break
                    rooms.append(word)
            yield path.parent.name, words[0], set(rooms)


def check_rooms(root):
    rooms = table(root)
    if not rooms:
        return ["ARCHITECTURE.md: no table of rooms"]
    errors = []
    linked = {name: row for _, name, row in cmake_calls(root, "pb_room")}
    folders = {p.name for p in (root / "src").iterdir() if p.is_dir()}
    for name in sorted(folders - set(rooms)):
        errors.append(f"src/{name}: not in ARCHITECTURE.md's table")
    for name in sorted(folders & set(rooms)):
        rank, row = rooms[name]
        if name not in linked:
            errors.append(f"src/{name}/CMakeLists.txt: no pb_room({name} ...)")
        elif linked[name] != row:
            errors.append(f"src/{name}/CMakeLists.txt: ROOMS {sorted(linked[name])}, ARCHITECTURE.md: {sorted(row)}")
        for other in sorted(row):
            if other not in rooms:
                errors.append(f"ARCHITECTURE.md: {name} includes {other}, which is no room")
            elif rooms[other][0] > rank or (rooms[other][0] == rank and name in rooms[other][1]):
                errors.append(f"ARCHITECTURE.md: {name} (rank {rank}) may not include {other} (rank {rooms[other][0]})")
        for path in sorted((root / "src" / name).glob("*")):
            if path.suffix in SOURCES:
                tests = {"tests"} if re.search(r"_(test\.cc|for_tests\.h)$", path.name) else set()
                errors += check_includes(root, path, row | {name} | tests)
    return errors + check_cycles(rooms)


def check_cycles(rooms):
    done, errors = set(), []

    def visit(name, above):
        if name in above:
            errors.append("ARCHITECTURE.md: a circle: " + " -> ".join(above[above.index(name):] + [name]))
        elif name not in done and name in rooms:
            for other in sorted(rooms[name][1]):
                visit(other, above + [name])
            done.add(name)

    for name in sorted(rooms):
        visit(name, [])
    return errors


def check_includes(root, path, allowed):
    errors = []
    for include in INCLUDE.findall(read(path)):
        room = include.split("/")[0]
        where = f"{path.relative_to(root)}: includes \"{include}\""
        if "/" not in include:
            if not (path.parent / include).exists():
                errors.append(where + ", which is neither room/file.h nor beside it")
        elif room not in allowed:
            errors.append(where + f", but may include only {sorted(allowed)}")
        elif not (root / "src" / include).exists() and not (root / include).exists() and not (root / "plugins" / include).exists():
            errors.append(where + ", which does not exist")
    return errors


def check_plugins(root):
    rooms, errors = table(root), []
    linked = {folder: row for folder, _, row in cmake_calls(root, "pb_plugin")}
    for folder in sorted(p for p in (root / "plugins").glob("*") if p.is_dir()):
        name = folder.name
        wraps = {"abi"} | PLUGIN_WRAPS.get(name, {name} if name in rooms else set())
        for room in list(wraps):
            wraps |= rooms.get(room, (0, set()))[1]
        extra = linked.get(name, set()) - wraps - {"plugin_support"}
        if extra:
            errors.append(f"plugins/{name}/CMakeLists.txt: links {sorted(extra)}, but wraps {sorted(wraps)}")
        if name == "llama_cpp":
            continue  # compiled against the reference's headers, where nothing of src/ but abi/ is in reach
        for path in sorted(folder.glob("*")):
            if path.suffix in SOURCES:
                errors += check_includes(root, path, wraps | {"plugins", name})
    return errors


def check_fence(root):
    errors = []
    for folder in ("src", "plugins", "tests", "examples", "bench", "fuzz"):
        for path in sorted((root / folder).glob("**/*")):
            if path.suffix not in SOURCES:
                continue
            name = str(path.relative_to(root))
            text = read(path)
            code = strip(text)
            for what, pattern in FENCE.items():
                if re.search(pattern, code):
                    errors.append(f"{name}: {what}, which is beyond the toolchain fence")
            if not text.isascii():
                errors.append(f"{name}: not ASCII")
            if text.count("\n") > MAX_LINES:
                errors.append(f"{name}: {text.count(chr(10))} lines, at most {MAX_LINES}")
            if not name.startswith("src/") or re.search(r"_(test|bench|fuzz)\.(cc|h)$", name):
                continue
            if THROWS.search(code):
                errors.append(f"{name}: throws; errors are values")
            if not name.startswith("src/cli/") and name not in MAY_PRINT and PRINTS.search(code):
                errors.append(f"{name}: prints; only cli does")
    return errors


def check(root):
    return check_rooms(root) + check_plugins(root) + check_fence(root)


def prove_that_it_fails():
    """Each rule on a small tree that breaks it, and on the same tree made right."""
    good = {
        "ARCHITECTURE.md": "| rank | room | owns | may include |\n|---|---|---|---|\n| 0 | base | x | - |\n| 1 | formats | x | base |\n",
        "src/base/CMakeLists.txt": "pb_room(base)\n",
        "src/base/a.h": "// std::format in a comment is fine\n",
        "src/formats/CMakeLists.txt": "pb_room(formats ROOMS base LIBS x)\n",
        "src/formats/b.cc": '#include "base/a.h"\nconst char* s = "throw std::cout";\n',
        "src/formats/b_test.cc": '#include "tests/paths.h"\n',
        "tests/paths.h": "int p;\n",
        "plugins/p/CMakeLists.txt": "pb_plugin(p SOURCES p.cc ROOMS abi)\n",
        "plugins/p/p.cc": "int p;\n",
    }
    bad = {
        "an include that points up": {"src/base/a.h": '#include "formats/b.h"\n', "src/formats/b.h": "\n"},
        "an include of the tests": {"src/formats/b.cc": '#include "tests/paths.h"\n'},
        "an include of nothing": {"src/formats/b.cc": '#include "base/missing.h"\n'},
        "a link beyond the row": {"src/base/CMakeLists.txt": "pb_room(base ROOMS formats)\n"},
        "a room without a row": {"src/other/CMakeLists.txt": "pb_room(other)\n"},
        "a plugin that links an engine": {"plugins/p/CMakeLists.txt": "pb_plugin(p SOURCES p.cc ROOMS abi formats)\n"},
        "a plugin that includes a room": {"plugins/p/p.cc": '#include "base/a.h"\n'},
        "std::format": {"src/formats/b.cc": "auto s = std::format(x);\n"},
        "views": {"src/formats/b.cc": "auto s = x | std::views::take(2);\n"},
        "a print": {"src/formats/b.cc": "void f() { std::printf(x); }\n"},
        "a throw": {"src/formats/b.cc": "void f() { throw 1; }\n"},
        "a long file": {"src/formats/b.cc": "\n" * (MAX_LINES + 1)},
        "no table": {"ARCHITECTURE.md": "nothing\n"},
    }
    for what, change in [("", {})] + list(bad.items()):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in {**good, **change}.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            errors = check(root)
            if bool(errors) != bool(what):
                sys.exit(f"layers_test itself is wrong: {what or 'a good tree'}: {errors}")


def main():
    if len(sys.argv) < 2:
        prove_that_it_fails()
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    errors = check(root)
    for error in errors:
        print(error)
    if errors:
        sys.exit(1)
    print(f"{len(table(root))} rooms keep to their rows")


if __name__ == "__main__":
    main()

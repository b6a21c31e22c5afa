#!/usr/bin/env python3
"""Every link in every document leads somewhere: files, headings, and files named in code. links_test.py [ROOT]

Without arguments it first proves on a made-up tree that each kind of broken link is seen.
"""
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# `docs/sweep.md`, `tests/x.py`: what looks like a file of this project.
NAMED = re.compile(r"`((?:docs|tests|src|tools|plugins|python|models|examples|bench|web|cmake)/[\w./-]*\w)`")
PLAIN = re.compile(r"(?<![\w/`(\[-])((?:docs|examples|python|bench|models)/[\w/]+\.md)\b")


def documents(root):
    """Those of the project: not what is built, fetched or left by tests."""
    return sorted(p for p in root.rglob("*.md") if not {"build", ".git", ".cache", "node_modules"} & set(p.relative_to(root).parts))


def without_blocks(text):
    """Text outside of code blocks, where brackets and hashes mean something else."""
    return "\n".join(line for line in re.sub(r"^```.*?^```", "", text, flags=re.M | re.S).splitlines() if not line.startswith("    "))


def anchors(text):
    """The anchors of the headings, as GitHub makes them."""
    found = {}
    for title in re.findall(r"^#{1,6} +(.+?)\s*$", without_blocks(text), re.M):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


def check(root, named=True):
    errors, n_links = [], 0
    for document in documents(root):
        text = document.read_text()
        where = document.relative_to(root)
        prose = without_blocks(text)
        for target in LINK.findall(prose):
            if re.match(r"[a-z]+:", target):
                continue
            n_links += 1
            file, _, anchor = target.partition("#")
            path = (document.parent / file).resolve() if file else document
            if not path.exists():
                errors.append(f"{where}: {target}: there is no such file")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text()):
                errors.append(f"{where}: {target}: there is no such heading")
        for name in (NAMED.findall(prose) + PLAIN.findall(prose)) if named else ():
            n_links += 1
            if not (root / name).exists() and not list(root.glob(name + ".*")):
                errors.append(f"{where}: {name}: there is no such file")
    return errors, n_links


def prove_that_it_sees():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "docs").mkdir()
        (root / "docs/a.md").write_text("# One `two` (three)\n# Same\n# Same\n[x](#one-two-three) [y](#same-1) [z](../b.md)\n")
        (root / "b.md").write_text("[a](docs/a.md#same) and `docs/a.md`\n\n    [in a block](nowhere.md)\n")
        assert check(root) == ([], 5), check(root)
        for text in ("[a](docs/b.md)", "[a](docs/a.md#same-2)", "[a](#none)", "`docs/c.md`", "see docs/c.md", "![p](docs/p.png)"):
            (root / "b.md").write_text(text)
            assert len(check(root)[0]) == 1, (text, check(root))


def main():
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    if len(sys.argv) == 1:
        prove_that_it_sees()
    errors, n_links = check(root, named=len(sys.argv) == 1)
    if len(sys.argv) == 1 and n_links < 20:
        errors.append(f"only {n_links} links found: is the parser blind?")
    print("\n".join(errors) or f"{n_links} links hold")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""The blocks of python/README.md do what they show, one after the other: Python sessions, and commands with what they print.

A block that begins with "$ " is commands of the program: each must succeed and print the lines below it, up to "[...]". Paths in /tmp
are moved to a folder of the test's own.
"""
import doctest
import os
import shlex

from support import BUILD, ROOT, Case, main, paritybit


def blocks(text):
    """Runs of lines that are indented by four, without the indentation."""
    block = []
    for line in text.splitlines() + [""]:
        if line.startswith("    "):
            block.append(line[4:])
        elif block:
            yield block
            block = []


class Readme(Case):
    def test_every_block(self):
        self.assertTrue((BUILD / "bin/paritybit").exists(), BUILD)
        os.chdir(ROOT)
        text = (ROOT / "python/README.md").read_text().replace("/tmp/", f"{self.folder}/")
        names, n_run = {}, {"$": 0, ">>>": 0}
        for block in blocks(text):
            kind = block[0].split()[0]
            if kind == "$":
                self.commands(block)
            elif kind == ">>>":
                test = doctest.DocTestParser().get_doctest("\n".join(block) + "\n", names, "README.md", "README.md", 0)
                failed = doctest.DocTestRunner().run(test, clear_globs=False).failed
                names = test.globs
                self.assertEqual(failed, 0)
            n_run[kind] = n_run.get(kind, 0) + 1
        self.assertGreaterEqual(min(n_run["$"], n_run[">>>"]), 2, n_run)

    def commands(self, block):
        printed = ""
        for line in block:
            if line.startswith("$ paritybit "):
                printed = paritybit(*shlex.split(line)[2:])
            elif line != "[...]":
                self.assertIn(line.strip(), printed)


if __name__ == "__main__":
    main()

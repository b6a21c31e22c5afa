#!/usr/bin/env python3
"""What is installed works wherever it stands: install_test.py BUILD_DIRECTORY. Nothing is compiled: `cmake --install` and `cpack` take
what was built."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import driver
from driver import BUILD, ROOT, Outcome

LIMITS = ("--kl-mean", "1e-6", "--kl-worst", "1e-6")  # the fp64 oracle has no noise to measure


def call(argv, **kwargs):
    return subprocess.run([str(a) for a in argv], capture_output=True, text=True, errors="replace", timeout=300, **kwargs)


def must(argv, **kwargs):
    done = call(argv, **kwargs)
    if done.returncode:
        raise AssertionError(f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Stranger:
    """Somebody with an empty home and no variables, who has the program at PREFIX/bin in $PATH."""

    def __init__(self, prefix, home):
        self.prefix, self.home = prefix, home
        home.mkdir(exist_ok=True)
        self.env = {"HOME": str(home), "PATH": f"{prefix}/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

    def run(self, *args, **env):
        done = call(["paritybit", *args], executable=str(self.prefix / "bin/paritybit"), cwd=self.home, env=self.env | env)
        return Outcome(done)

    def shell(self, *argv):
        return call(argv, cwd=self.home, env=self.env)


class Prefix(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory(prefix="paritybit-install-")
        folder = pathlib.Path(cls.holder.name)
        must(["cmake", "--install", BUILD, "--prefix", folder / "first"])
        cls.prefix = folder / "moved here"
        (folder / "first").rename(cls.prefix)
        cls.user = Stranger(cls.prefix, folder / "home")

    @classmethod
    def tearDownClass(cls):
        cls.holder.cleanup()

    def test_it_compares_engines(self):
        made = self.user.run("gen-fixtures", "--out", "m.gguf")
        self.assertEqual(made.code, 0, made)
        told = self.user.run("crossval", "--model", "m.gguf", "--candidate", "native", "--reference", "oracle", "--prompt", "abc", *LIMITS)
        self.assertEqual(told.code, 0, told)
        self.assertIn("\nMATCH ", told.out)
        bundled = self.user.run("audit", "--model", "tiny-bitnet-relu2", "--engine", "native", "--prompt", "And God said")
        self.assertEqual(bundled.code, 0, bundled)

    def test_a_reference_that_is_set_up_serves_it(self):
        """The adapter is found by the digest of its installed sources; repro takes its program from the installation."""
        cache = {"PARITYBIT_CACHE": os.environ["PARITYBIT_CACHE"]}
        told = self.user.run("repro", "--model", "tiny-bitnet-relu2", "--reference", "llama.cpp", "--prompt", "And God", "--out", "bug", **cache)
        self.assertEqual(told.code, 1, told)
        self.assertRegex(told.out, r"\nblame +reference\n")
        self.assertTrue((self.user.home / "bug/repro.cc").stat().st_size > 1000)

    def test_without_a_reference_it_says_what_to_type(self):
        told = self.user.run("crossval", "--model", "tiny-bitnet-relu2", "--prompt", "And God")
        self.assertEqual(told.code, 3, told)
        self.assertIn('no reference named\n           "llama.cpp" is set up', told.out)
        self.assertIn("paritybit setup-cpp-auto", told.out)

    def test_nothing_points_back(self):
        for path in sorted(self.prefix.rglob("*")):
            if path.is_file():
                self.assertNotIn(str(BUILD).encode(), path.read_bytes(), path)
        for program in [self.prefix / "bin/paritybit", *(self.prefix / "lib/paritybit").iterdir()]:
            self.assertNotRegex(must(["readelf", "-d", program]), "RPATH|RUNPATH", program)
        self.assertEqual({p.name for p in (self.prefix / "lib/paritybit").iterdir()},
                         {"native.so", "oracle.so", "replay.so", "mutant.so", "paritybit-host"})

    def commands(self):
        return re.findall(r"^  ([a-z-]+) ", self.user.run("--help").out.split("Flags:")[0], re.MULTILINE)

    def test_bash_completes(self):
        script = self.prefix / "share/bash-completion/completions/paritybit"
        done = self.user.shell("bash", "-c", 'source "$1"; COMP_WORDS=(paritybit trace-); COMP_CWORD=1; _paritybit; echo "${COMPREPLY[@]}"',
                               "bash", script)
        self.assertEqual((done.returncode, done.stdout.split(), done.stderr), (0, ["trace-diff"], ""))

    def test_zsh_and_fish_take_their_scripts(self):
        site, fish = self.prefix / "share/zsh/site-functions", self.prefix / "share/fish/vendor_completions.d/paritybit.fish"
        self.assertTrue((site / "_paritybit").read_text().startswith("#compdef paritybit\n"))
        if shutil.which("zsh"):
            done = self.user.shell("zsh", "-fc", 'fpath=("$1" $fpath); autoload -U compinit; compinit -u -D; _describe() { print -l $commands }; '
                                   'words=(paritybit ""); CURRENT=2; _paritybit', "zsh", site)
            self.assertIn("trace-diff:", done.stdout, done)
        if shutil.which("fish"):
            done = self.user.shell("fish", "--no-config", "-c", f"source '{fish}'; complete -C 'paritybit trace-'")
            self.assertIn("trace-diff", done.stdout, done)

    def test_each_command_has_its_page(self):
        pages = self.prefix / "share/man/man1"
        self.assertEqual({p.name for p in pages.iterdir()}, {"paritybit.1", *(f"paritybit-{c}.1" for c in self.commands())})
        whole = sorted(pages.iterdir())
        lint = call(["mandoc", "-T", "lint", "-W", "style", *whole])
        self.assertEqual((lint.returncode, lint.stdout + lint.stderr), (0, ""))
        for command in self.commands():
            shown = re.sub(r".\x08", "", must(["mandoc", "-T", "ascii", "-O", "width=200", pages / f"paritybit-{command}.1"]))
            page, told = re.sub(r"\s+", " ", shown), self.user.run(command, "--help").out.split("\n\nExample:")[0]
            for flag in re.findall(r"\s(--[a-z0-9-]+)", told):
                self.assertIn(flag, page, command)
            # What stands in the help stands in the page, word for word.
            for text in re.findall(r"^ {27}(\S.*)$", told, re.MULTILINE):
                self.assertIn(re.sub(r"\s+", " ", text.removesuffix("-")), page, command)

    def test_documents_are_there_and_their_links_hold(self):
        docs = self.prefix / "share/doc/paritybit"
        self.assertRegex(must([sys.executable, ROOT / "tests/links_test.py", docs]), r"^\d+ links hold\n$")
        for words in ("MIT License", "preact, bundled into", "d3-scale, bundled into"):
            self.assertIn(words, (docs / "copyright").read_text())


class Debian(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.holder = tempfile.TemporaryDirectory(prefix="paritybit-deb-")
        folder = pathlib.Path(cls.holder.name)
        must(["cpack", "-G", "DEB", "-D", f"CPACK_PACKAGE_DIRECTORY={folder}", "-D", "CPACK_DEBIAN_COMPRESSION_TYPE=gzip"], cwd=BUILD)
        (cls.package,) = folder.glob("*.deb")
        cls.root = folder / "root"
        must(["dpkg-deb", "-x", cls.package, cls.root])
        cls.user = Stranger(cls.root / "usr", folder / "home")

    @classmethod
    def tearDownClass(cls):
        cls.holder.cleanup()

    def field(self, name):
        return must(["dpkg-deb", "-f", self.package, name]).strip()

    def test_it_says_what_it_is_and_needs(self):
        version = self.user.run("--version").out.split()[1]
        self.assertEqual((self.field("Package"), self.field("Version")), ("paritybit", version))
        self.assertEqual(self.package.name, f"paritybit_{version}_{must(['dpkg', '--print-architecture']).strip()}.deb")
        needed = {re.split(r"[ :]", entry)[0] for entry in self.field("Depends").split(", ")}
        libraries = {}  # what the programs ask for by themselves: where it is here
        for program in ("bin/paritybit", "lib/paritybit/paritybit-host", "lib/paritybit/native.so"):
            found = must(["ldd", self.root / "usr" / program])
            for library in re.findall(r"NEEDED.*\[(.*)\]", must(["readelf", "-d", self.root / "usr" / program])):
                if not library.startswith("ld-linux"):
                    path = os.path.realpath(re.search(rf"{re.escape(library)} => (\S+)", found).group(1))
                    libraries[library] = {path, path.removeprefix("/usr")}  # /lib may be a link to /usr/lib
        self.assertGreater(len(libraries), 6)
        told = call(["dpkg", "-S", *set().union(*libraries.values())]).stdout.splitlines()
        owner = {line.split(": ")[1]: line.split(":")[0] for line in told}
        for library, paths in libraries.items():
            self.assertTrue({owner.get(path) for path in paths} & needed, (library, told))
        self.assertRegex(self.field("Recommends"), r"\bg\+\+")  # compiles the adapter
        self.assertLess(max(map(len, self.field("Description").splitlines())), 80)

    def test_it_runs_where_it_was_unpacked(self):
        self.assertEqual(self.user.run("gen-fixtures", "--out", "m.gguf").code, 0)
        told = self.user.run("crossval", "-m", "m.gguf", "-r", "oracle", "-p", "abc", "-q", *LIMITS)
        self.assertEqual(told.code, 0, told)
        self.assertTrue(told.out.startswith("MATCH"), told)

    def test_it_keeps_debians_rules(self):
        usr = self.root / "usr"
        for path in ("share/doc/paritybit/copyright", "share/doc/paritybit/changelog.gz", "share/man/man1/paritybit-crossval.1.gz",
                     "share/zsh/vendor-completions/_paritybit", "share/bash-completion/completions/paritybit"):
            self.assertTrue((usr / path).is_file(), path)
        self.assertEqual(list(usr.rglob("*.1")), [])
        self.assertNotIn(".debug_info", must(["readelf", "-S", usr / "bin/paritybit"]))
        for line in must(["dpkg-deb", "-c", self.package]).splitlines():
            self.assertRegex(line, r"^(drwxr-xr-x|-rwxr-xr-x|-rw-r--r--) root/root ", line)


if __name__ == "__main__":
    driver.main()

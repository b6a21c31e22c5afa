"""What the tests of the package share. Usage of each: python3 TEST_FILE BUILD_DIRECTORY (a folder that holds bin/paritybit)."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]) else ROOT / "build/release"
PARITYBIT = BUILD / "bin" / "paritybit"
MODELS = ROOT / "models"
sys.path.insert(0, str(ROOT / "python"))


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="paritybit-python-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)


def paritybit(*arguments, expect=0):
    """Runs the program; its standard output."""
    run = subprocess.run([str(PARITYBIT), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if run.returncode != expect:
        raise AssertionError(f"exit {run.returncode}, expected {expect}: {arguments}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")
    return run.stdout


def cache_folder():
    """The user's cache, as src/base/file.h has it."""
    own, xdg = os.environ.get("PARITYBIT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return pathlib.Path(own) if own else (pathlib.Path(xdg) if xdg else pathlib.Path.home() / ".cache") / "paritybit"


def main():
    unittest.main(verbosity=2)

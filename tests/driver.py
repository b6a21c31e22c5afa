"""Runs the paritybit program for tests: exit code, stdout as JSON, stderr. The build tree is argv[1] of the test."""
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]) else ROOT / "build/release"
PARITYBIT = BUILD / "bin" / "paritybit"
PLUGINS = BUILD / "lib" / "paritybit"
TINY = ROOT / "models"
SILU = TINY / "tiny-bitnet-silu"
RELU2 = TINY / "tiny-bitnet-relu2"
# A CPU library that rounds the input of products as ggml's table has it. Others multiply F16 weights by inputs that nobody rounded
# (matrix units), which is a difference of its own: a test that means equal arithmetic names this one.
BY_THE_TABLE = "llama.cpp,cpu.library=haswell"


def _private_cache():
    """A cache that shares the reference, the models and the noise floors with the user's, and nothing else: tests that run beside
    each other, or beside a user's work, do not exchange the run that diverged last."""
    own, xdg = os.environ.get("PARITYBIT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    users = pathlib.Path(own) if own else (pathlib.Path(xdg) if xdg else pathlib.Path.home() / ".cache") / "paritybit"
    holder = tempfile.TemporaryDirectory(prefix="paritybit-cache-")
    for name in ("references", "models", "noise"):
        (users / name).mkdir(parents=True, exist_ok=True)
        (pathlib.Path(holder.name) / name).symlink_to(users.resolve() / name)
    os.environ["PARITYBIT_CACHE"] = holder.name
    return holder  # removed when the process ends


CACHE = _private_cache()


def vocabulary(name):
    """A file of the vocabularies that came with the reference."""
    references = pathlib.Path(CACHE.name) / "references"
    return references / json.loads((references / "llama.cpp/reference.json").read_text())["vocabulary_dir"] / f"ggml-vocab-{name}.gguf"


def sealed(value):
    """The text of a kept JSON object: its last member is the SHA-256 of all bytes before it."""
    body = json.dumps({k: v for k, v in value.items() if k != "sha256"}, separators=(",", ":"))[:-1]
    return body + ',"sha256":"' + hashlib.sha256(body.encode()).hexdigest() + '"}\n'


class Outcome:
    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    @property
    def json(self):
        return json.loads(self.out)

    def codes(self):
        return [reason["code"] for reason in self.json["reasons"]]

    def __str__(self):
        return f"exit {self.code}\n--- stdout\n{self.out[:2500]}\n--- stderr\n{self.err[-3000:]}"


def environment(env=None):
    """That of a command under test; env: variables to add (None removes one)."""
    variables = {k: v for k, v in os.environ.items()
                 if not k.startswith(("CROSSVAL_", "BITNET_", "COLUMNS")) and not k.endswith("_NUM_THREADS")}
    for key, value in (env or {}).items():
        if value is None:
            variables.pop(key, None)
        else:
            variables[key] = str(value)
    return variables


def run(*args, env=None, stdin="", timeout=600, cwd=None):
    """Runs `paritybit ARGS...`, as a shell does that finds it by PATH."""
    return Outcome(subprocess.run(["paritybit", *map(str, args)], executable=str(PARITYBIT), env=environment(env), input=stdin,
                                  capture_output=True, text=True, errors="replace", timeout=timeout, cwd=cwd))


def paste(line, env=None, timeout=600, cwd=None):
    """Runs a command line in a shell whose PATH has paritybit, without anything on its stdin."""
    variables = environment(env)
    variables["PATH"] = f"{PARITYBIT.parent}:{variables['PATH']}"
    return Outcome(subprocess.run(["bash", "-c", line], env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", timeout=timeout, cwd=cwd))


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="paritybit-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def crossval(self, *args, **kwargs):
        """A crossval with JSON output; its exit code must agree with the object's own."""
        result = run("crossval", "--format", "json", *args, **kwargs)
        self.assertTrue(result.out, result)
        self.assertEqual(result.code, result.json["exit_code"], result)
        return result

    def expect(self, result, verdict, exit_code, code=None):
        self.assertEqual((result.json["verdict"], result.code), (verdict, exit_code), result)
        if code:
            self.assertIn(code, result.codes(), result)


def main():
    unittest.main(verbosity=2)

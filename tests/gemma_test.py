"""Gemma 3 270M, a real model of a newer family: K-quants, norms on both sides, a window, a tied embedding of 262144 tokens. It comes by
package, 238 MB, into the user's cache.

PARITYBIT_GEMMA_LIBRARY: a CPU library of the reference to try at length, in place of a few tokens on one (tools/verify-full --part
gemma): a prompt longer than the window, and decode steps."""
import os
import pathlib

import driver
from driver import ROOT, run

LIBRARY = os.environ.get("PARITYBIT_GEMMA_LIBRARY", "")
REFERENCE = f"llama.cpp,cpu.library={LIBRARY or 'haswell'}"
LAYERS, WINDOW, STEPS = 18, 512, 32
TEXT = "The clockmaker lived between two rivers, and his clocks were never wrong; people came from far away to ask him the time, and he told"


class Gemma(driver.Case):
    @classmethod
    def setUpClass(cls):
        fetched = run("download-model", "gemma3-270m", "--accept-terms", timeout=1800)
        assert fetched.code == 0, fetched
        cls.model = next((pathlib.Path(os.environ["PARITYBIT_CACHE"]) / "models").glob("gemma-3-270m*.gguf"))

    def prompt(self):
        """The flags of what is computed."""
        if not LIBRARY:
            return "--prompt", TEXT
        path = self.folder / "long.txt"
        path.write_text((ROOT / "models/heldout.txt").read_text()[:2400])
        return "--prompt-file", path, "--max-tokens", STEPS

    def check(self, command, result, verdicts):
        said, tokens = result.json, len(result.json["prompts"][0]["tokens"])
        print(f"\nfigures: {command} {said['verdict']}, {tokens} tokens: " + "; ".join(r["text"] for r in said["reasons"]), flush=True)
        self.assertIn(said["verdict"], verdicts, result)
        self.assertGreater(tokens, WINDOW if LIBRARY else 27)
        self.assertGreater(said["coverage"]["compared"], LAYERS * 20)

    def test_the_native_engine_computes_what_the_reference_does(self):
        result = self.crossval("--model", self.model, "--reference", REFERENCE, *self.prompt(), timeout=7200)
        self.check("crossval", result, ("match", "near-tie"))
        self.assertEqual(result.json["scope"], "local", result)

    def test_the_reference_computes_what_the_file_declares(self):
        result = run("audit", "--model", self.model, "--engine", REFERENCE, *self.prompt(), "--format", "json", timeout=7200)
        self.check("audit", result, ("match",))

    def test_the_file_is_sound(self):
        said = run("verify", self.model, "--strict", "--format", "json")
        self.assertEqual(said.code, 0, said)


if __name__ == "__main__":
    driver.main()

"""Gemma 3 270M, a real model of a newer family: K-quants, norms on both sides, a window, a tied embedding of 262144 tokens. It comes by
package, 238 MB, into the user's cache."""
import os
import pathlib

import driver
from driver import run

TEXT = "The clockmaker lived between two rivers, and his clocks were never wrong; people came from far away to ask him the time, and he told"


class Gemma(driver.Case):
    @classmethod
    def setUpClass(cls):
        fetched = run("download-model", "gemma3-270m", "--accept-terms", timeout=1800)
        assert fetched.code == 0, fetched
        cls.model = next((pathlib.Path(os.environ["PARITYBIT_CACHE"]) / "models").glob("gemma-3-270m*.gguf"))

    def test_the_reference_computes_what_the_file_declares(self):
        audit = run("audit", "--model", self.model, "--engine", "llama.cpp,cpu.library=haswell", "--prompt", TEXT, "--format", "json",
                    timeout=1800)
        self.assertEqual((audit.json["verdict"], audit.code), ("match", 0), audit)
        self.assertGreater(audit.json["coverage"]["compared"], 18 * 20)
        self.assertGreaterEqual(len(audit.json["prompts"][0]["tokens"]), 28)

    def test_the_file_is_sound(self):
        said = run("verify", self.model, "--strict", "--format", "json")
        self.assertEqual(said.code, 0, said)


if __name__ == "__main__":
    driver.main()

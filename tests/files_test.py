"""Model files as people have them: in shards, with another alignment, big-endian, and read without a copy in memory."""
import struct
import subprocess
import sys

import tiny_gguf
from driver import PARITYBIT, Case, environment, main, run
from tiny_gguf import I32, U16, U32, tiny

LLAMA = "llama.cpp,cpu.library=haswell"
PROMPT = "and the men"


class Files(Case):
    def shards(self, folder, n=3, **shape):
        """The tensors of a model in n files, and the model in one."""
        whole = tiny(layers=3, **shape)
        whole.write(folder / "whole.gguf")
        names = list(whole.tensors)
        for i in range(n):
            part = tiny(layers=3, **shape)
            for at, name in enumerate(names):
                if at * n // len(names) != i:
                    part.drop(name)
            if i:
                part.values.clear()
            part.set("split.no", U16, i)
            part.set("split.count", U16, n)
            part.set("split.tensors.count", I32, len(names))
            part.write(folder / f"m-{i + 1:05}-of-{n:05}.gguf")
        return folder / f"m-00001-of-{n:05}.gguf"

    def tokens(self, model):
        result = run("infer", "-m", model, "-p", PROMPT, "--max-tokens", 8, "--format", "json")
        self.assertEqual(result.code, 0, result)
        return result.json["tokens"]

    def test_shards_are_one_model(self):
        first = self.shards(self.folder)
        result = self.crossval("-m", first, "-r", LLAMA, "-p", PROMPT)
        self.expect(result, "match", 0)
        digest = result.json["model"]["sha256"]
        whole = self.crossval("-m", first, "--reference-model", self.folder / "whole.gguf", "-r", "native", "-p", PROMPT)
        self.expect(whole, "match", 0)
        self.assertEqual(self.tokens(first), self.tokens(self.folder / "whole.gguf"))
        audit = run("audit", "-m", first, "-e", LLAMA, "-p", PROMPT, "--format", "json")
        self.assertEqual((audit.code, audit.json["verdict"]), (0, "match"), audit)
        # The digest is of all of them.
        second = self.folder / "m-00002-of-00003.gguf"
        data = bytearray(second.read_bytes())
        data[-2] ^= 1
        second.write_bytes(data)
        changed = self.crossval("-m", first, "-r", "native", "-p", PROMPT)
        self.assertNotEqual(digest, changed.json["model"]["sha256"])

    def test_weights_of_every_shard_are_multiplied(self):
        """Diagnosis asks the reference's own scalar product for the outputs of a wrong product: of rows in the last file."""
        first = self.shards(self.folder, weights="TQ2_0", d=256, ff=256, tied=False)
        wrong = "mutant,mutant.defect=factor_1.05,mutant.stage=down_proj,mutant.layer=2"
        result = self.crossval("-m", first, "--candidate", wrong, "-r", LLAMA, "-p", PROMPT)
        self.expect(result, "diverged", 1)
        sides = {side["role"]: side for side in result.json["diagnosis"]["codes"]["engines"]}
        self.assertGreater(sides["reference"]["products"]["n"], 0, result)
        facts = next(engine for engine in result.json["engines"] if engine["role"] == "reference")["model_facts"]
        whole = self.crossval("-m", self.folder / "whole.gguf", "-r", LLAMA, "-p", PROMPT)
        of_whole = next(engine for engine in whole.json["engines"] if engine["role"] == "reference")["model_facts"]
        for fact in ("weights", "output.tied"):
            self.assertEqual(facts[fact], of_whole[fact])

    def test_shards_that_are_no_set(self):
        first = self.shards(self.folder)
        second = self.folder / "m-00002-of-00003.gguf"
        result = run("infer", "-m", second, "-p", PROMPT)
        self.assertIn("shard 2 of 3: name the first, m-00001-of-00003.gguf", result.err)
        renamed = self.folder / "model.gguf"
        renamed.write_bytes(first.read_bytes())
        self.assertIn("split.count is 3, and the name is not that of a shard", run("infer", "-m", renamed, "-p", PROMPT).err)
        third = self.folder / "m-00003-of-00003.gguf"
        kept = third.read_bytes()
        third.write_bytes(second.read_bytes())
        self.assertIn("it does not say that it is shard 3 of 3", run("infer", "-m", first, "-p", PROMPT).err)
        third.unlink()
        missing = run("infer", "-m", first, "-p", PROMPT)
        self.assertIn("m-00003-of-00003.gguf", missing.err)
        self.assertNotEqual(missing.code, 0)
        third.write_bytes(kept[:-64])
        self.assertNotEqual(run("infer", "-m", first, "-p", PROMPT).code, 0)

    def test_other_alignments(self):
        plain = tiny().write(self.folder / "32.gguf")
        for alignment in (8, 64, 4096):  # llama.cpp itself aborts on less than 32
            reference = LLAMA if alignment > 32 else "native"
            with self.subTest(alignment):
                file = tiny()
                file.set("general.alignment", U32, alignment)
                tiny_gguf.ALIGNMENT = alignment
                try:
                    path = file.write(self.folder / f"{alignment}.gguf")
                finally:
                    tiny_gguf.ALIGNMENT = 32
                self.expect(self.crossval("-m", path, "-r", reference, "-p", PROMPT), "match", 0)
                self.assertEqual(self.tokens(path), self.tokens(plain))

    def test_big_endian_is_refused_by_name(self):
        path = self.folder / "big.gguf"
        path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
        for command in (["infer", "-m", path, "-p", PROMPT], ["crossval", "-m", path, "-r", "native", "-p", PROMPT]):
            result = run(*command)
            self.assertIn("byte 4: a big-endian GGUF file: convert it to little-endian", result.out + result.err)
            self.assertNotEqual(result.code, 0)

    def test_resident_memory_does_not_double(self):
        """Weights are repacked, or used where they lie in the map; what was repacked is let go."""
        path = self.folder / "large.gguf"
        made = run("gen-fixtures", "--out", path, "--weights", "Q8_0", "--architecture", "llama", "--d-model", 1024, "--heads", 8,
                   "--kv-heads", 8, "--d-ff", 4096, "--layers", 6, "--vocab", 2048)
        self.assertEqual(made.code, 0, made)
        size = path.stat().st_size
        self.assertGreater(size, 90 << 20)
        code = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
        done = subprocess.run([sys.executable, "-c", code, str(PARITYBIT), "infer", "-m", str(path), "-p", PROMPT, "--max-tokens", "2"],
                              env=environment(), capture_output=True, text=True, check=True)
        self.assertLess(int(done.stdout) * 1024, size * 1.5 + (64 << 20))


if __name__ == "__main__":
    main()

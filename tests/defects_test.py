"""Known defects, each found and placed at its own op and row; and benign differences, none of which is called a defect.

The candidate reads a copy of the tiny SiLU BitNet with one defect, the reference the good file. All through the program itself.
Fails, never skips, where the reference is missing.
"""
import os
import pathlib
import shutil
import tempfile

import defects
from driver import BY_THE_TABLE, RELU2, SILU, Case, main, run

PROMPT = "And God said, Let there be light: and there was light. And God saw the light, that it was good."
CPU_LIBRARIES = ("default", "haswell", "sse42", "x64")


def above_bound(result):
    """(stage, layer) of every point beyond its bound that neither codes nor the engines' precision explain."""
    return {(p["stage"], p["layer"]) for p in result.json["points"] if not explained(p)}


def explained(point):
    if point["bound_ratio"] is None:
        return False
    return point["bound_ratio"] <= 1 or point["explained_by_codes"] or point["explained_by_precision"]


class Engines(Case):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="paritybit-defects-")
        cls.addClassCleanup(holder.cleanup)
        cls.files = pathlib.Path(holder.name)
        shutil.copy(SILU / "config.json", cls.files)
        for weights in ("tq1_0", "tq2_0"):
            shutil.copy(SILU / f"tiny-bitnet-silu-{weights}.gguf", cls.files / f"{weights}.gguf")
        f16 = run("gen-fixtures", "--convert", cls.files / "tq2_0.gguf", "--weights", "F16", "--out", cls.files / "f16.gguf")
        assert f16.code == 0, f16

    def compare(self, model, *args, prompt=PROMPT):
        return self.crossval("--model", model, "--prompt", prompt, *args)

    def expect_agreement(self, result):
        """Every point compared but the ones that the reference hides, none beyond its bound."""
        self.assertIn(result.json["verdict"], ("match", "near-tie", "drift"), result)
        self.assertEqual((result.code, result.json["scope"]), (0, "local"), result)
        self.assertEqual(above_bound(result), set())
        self.assertIsNone(result.json["first_divergence"])
        self.expect_coverage(result)

    def expect_coverage(self, result):
        coverage = result.json["coverage"]
        self.assertEqual(coverage["unit"], "points")
        self.assertGreater(coverage["expected"], 0)
        self.assertEqual(coverage["compared"], coverage["expected"], coverage)
        self.assertEqual((coverage["missing"], coverage["unmapped"]), ([], []))
        self.assertEqual([u.split(":")[0] for u in coverage["unobservable"]], ["ffn_act"])


class Defects(Engines):
    def all_defects(self, good):
        """The defects of a file whose good copy gives these tokens."""
        tokens = [p["token"] for p in good.json["positions"]]
        position = next(i for i in range(5, len(tokens)) if tokens.count(tokens[i]) == 1)
        absent = next(t for t in range(300, 2000) if t not in tokens)
        return defects.defects(tokens[position], position, absent)

    def expect_place(self, result, defect):
        self.assertEqual((result.json["verdict"], result.code, result.json["scope"]), ("diverged", 1, "local"), result.json["reasons"])
        self.expect_coverage(result)
        place = result.json["first_divergence"]
        self.assertEqual(place["layer"], defect.layer, place)
        self.assertIn(place["stage"], defect.stages, place)
        self.assertEqual(place["feature"], defect.feature, place)
        if defect.position is not None:
            self.assertEqual(place["position"], defect.position, place)
        self.assertIn("local-error-above-bound", result.codes())
        found = above_bound(result)
        self.assertLessEqual({(stage, defect.layer) for stage in defect.stages}, found)
        spoilt = {(stage, layer) for stage, layer in found if stage in defect.also}
        self.assertEqual(found - spoilt, {(stage, defect.layer) for stage in defect.stages} - spoilt)

    def place_all(self, weights, candidate, reference, turn):
        good = self.files / f"{weights}.gguf"
        engines = ("--candidate", candidate, "--reference", reference, "--reference-model", good)
        same = self.compare(good, *engines)
        self.expect_agreement(same)
        # In the gate each defect is tried in one of the four pairs, in turn.
        share = slice(None) if os.environ.get("PARITYBIT_WHOLE") else slice(turn, None, 4)
        for defect in self.all_defects(same)[share]:
            with self.subTest(defect.name, weights=weights, candidate=candidate):
                spoilt = self.folder / "spoilt.gguf"
                defects.write(good, spoilt, defect)
                shutil.copy(SILU / "config.json", self.folder)
                self.expect_place(self.compare(spoilt, *engines), defect)

    def test_native_against_llama_cpp_tq2_0(self):
        self.place_all("tq2_0", "native", "llama.cpp", 0)

    def test_native_against_llama_cpp_f16(self):
        self.place_all("f16", "native", BY_THE_TABLE, 1)

    def test_llama_cpp_against_itself_tq2_0(self):
        self.place_all("tq2_0", "llama.cpp,cpu.library=haswell", "llama.cpp", 2)

    def test_llama_cpp_against_itself_f16(self):
        self.place_all("f16", "llama.cpp,cpu.library=x64", BY_THE_TABLE, 3)


class Benign(Engines):
    """Correct engines that round differently: no local error above its bound but what codes explain."""

    def expect_benign(self, model, libraries):
        worst = {}
        for library in libraries:
            # The libraries take the candidate's side, so that one noise floor, the native engine's, serves for all.
            engine = "llama.cpp" if library == "default" else f"llama.cpp,cpu.library={library}"
            with self.subTest(library=library, model=str(model)):
                result = self.compare(model, "--candidate", engine, "--reference", "native")
                self.expect_agreement(result)
                for p in result.json["points"]:
                    if not p["explained_by_codes"] and not p["explained_by_precision"]:
                        worst[p["stage"]] = max(worst.get(p["stage"], 0), p["bound_ratio"])
                n = sum(p["explained_by_codes"] for p in result.json["points"])
                coverage = result.json["coverage"]
                print(f"{pathlib.Path(model).name}, {library}: {coverage['compared']} of {coverage['expected']} points compared, "
                      f"{n} explained by codes", flush=True)
        print("  worst error over its bound: " + ", ".join(f"{s} {r:.3f}" for s, r in worst.items()), flush=True)

    def test_tq2_0(self):
        self.expect_benign(self.files / "tq2_0.gguf", CPU_LIBRARIES)

    def test_tq1_0(self):
        self.expect_benign(self.files / "tq1_0.gguf", CPU_LIBRARIES)

    def test_f16(self):
        self.expect_benign(self.files / "f16.gguf", CPU_LIBRARIES)

    def test_native_against_llama_cpp(self):
        for weights, reference in (("tq2_0", "llama.cpp"), ("tq1_0", "llama.cpp"), ("f16", BY_THE_TABLE)):
            self.expect_agreement(self.compare(self.files / f"{weights}.gguf", "--reference", reference))

    def test_smollm2(self):
        result = run("setup-crossval", "--format", "json", timeout=1800)
        self.assertEqual(result.code, 0, result)
        self.expect_benign(result.json["model"], CPU_LIBRARIES)
        # At position 0 every head of a group hands on the same value: its code on a boundary lies in three blocks of one row.
        shared = self.compare(result.json["model"], "--candidate", "llama.cpp,cpu.library=x64", "--reference", "native",
                              prompt="1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610,")
        self.expect_agreement(shared)
        point = next(p for p in shared.json["points"] if (p["stage"], p["layer"]) == ("attn_out", 29))
        self.assertRegex(point["explanation"], "^6 of 32832 activation codes lie on a rounding boundary")


class Activation(Engines):
    """The ReLU2 model, whose activation llama.cpp's graph does not run: wrong at the GLU output, not before and not after."""

    def test_first_divergence_is_the_glu_output(self):
        result = self.compare(RELU2 / "tiny-bitnet-relu2-tq2_0.gguf", "--reference", "llama.cpp")
        self.assertEqual((result.json["verdict"], result.code, result.json["scope"]), ("diverged", 1, "local"), result.json["reasons"])
        place = result.json["first_divergence"]
        self.assertEqual((place["position"], place["layer"], place["stage"]), (0, 0, "ffn_gated"), place)
        self.assertIsNone(place["feature"])
        self.assertEqual(above_bound(result), {("ffn_gated", layer) for layer in range(6)})
        self.expect_coverage(result)


if __name__ == "__main__":
    main()

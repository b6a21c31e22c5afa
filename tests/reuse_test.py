"""What the reference computed over a prompt is kept and used again: the same verdict and figures as of the live run, and nothing of it
where anything that it depends on is another, or where it is not what was written."""
import json
import os
import pathlib
import shutil
import subprocess

from driver import CACHE, PARITYBIT, RELU2, ROOT, SILU, Case, environment, main, run, sealed

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
OTHER = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
PROMPT = "And God said, Let there be light"
SCORES, SOFTMAX = 12, 13  # stages, as src/abi/vocabulary.h counts them
BAD = "mutant,mutant.defect=rope_late,mutant.stage=q_rope,mutant.layer=1"


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def figures(result):
    """All that a run told, but for where it took it from and how long that took."""
    told = dict(result.json)
    for key in ("wall_seconds", "command", "notes", "host", "next", "choices"):
        told.pop(key)
    told["prompts"] = [{k: v for k, v in p.items() if k not in ("reference_from_cache", "reference_proof_from_cache")} for p in told["prompts"]]
    told["noise_floor"] = {k: v for k, v in told["noise_floor"].items() if k != "runs_from_cache"}
    if told["reference_default"]:
        told["reference_default"].pop("from_cache")
    return told


class Reuse(Case):
    def setUp(self):
        super().setUp()
        self.cache = self.folder / "cache"
        self.cache.mkdir()
        for name in ("references", "models"):
            (self.cache / name).symlink_to((pathlib.Path(CACHE.name) / name).resolve())

    def judge(self, *args, candidate="native", reference="oracle", model=MODEL, prompt=PROMPT, steps=2, reuse="always"):
        return self.crossval("--model", model, "--candidate", candidate, "--reference", reference, "--prompt", prompt, "-n", steps,
                             "--reuse", reuse, *args, env={"PARITYBIT_CACHE": self.cache})

    def tapes(self):
        return sorted((self.cache / "reference").glob("*/tape.json"))

    def reused(self, result):
        return [p["reference_from_cache"] is not None for p in result.json["prompts"]]

    def test_it_gives_what_the_live_run_gives(self):
        for candidate in ("native", BAD):
            with self.subTest(candidate):
                live = self.judge(candidate=candidate, reuse="never")
                self.assertEqual(self.reused(live), [False])
                shutil.rmtree(self.cache / "reference", ignore_errors=True)
                kept = self.judge(candidate=candidate)
                self.assertEqual(self.reused(kept), [False])
                again = self.judge(candidate=candidate)
                self.assertEqual(self.reused(again), [True])
                self.assertEqual(figures(kept), figures(live))
                self.assertEqual(figures(again), figures(live))
                named = [note for note in again.json["notes"] if "the reference did not run over prompt 0" in note]
                self.assertEqual(len(named), 1, again.json["notes"])
                part = again.json["prompts"][0]["reference_from_cache"]
                self.assertIn(part["data_blake3"][:12], named[0])
                self.assertEqual(part["proofs"], ["observer effect", "shown is delivered"])

    def test_a_part_is_watched_where_that_tells_as_much(self):
        """Beside a kept part of a long prompt the candidate is watched over its first positions; where an op, the logits or the proof
        is in doubt over all of it, with the verdict, place and blame of a run that watches all in any case."""
        text = (ROOT / "models/heldout.txt").read_text()[:1800]
        for candidate, reference, watched in [("native", "native", 130), (BAD, "native", None), ("faulty", "faulty", 130),
                                              ("faulty,faulty.mode=wrong_unwatched", "faulty", None),
                                              ("faulty,faulty.mode=shown_not_used", "faulty", None),
                                              ("faulty,faulty.mode=wrong_late", "faulty", None),
                                              ("faulty,faulty.mode=wrong_long_unwatched", "faulty", None)]:
            with self.subTest(candidate):
                prompt = text[:450] if reference == "faulty" else text
                whole = self.judge("--watch", "whole", candidate=candidate, reference=reference, prompt=prompt)
                for again in (False, True):
                    if not again:
                        shutil.rmtree(self.cache / "reference", ignore_errors=True)
                    part = self.judge(candidate=candidate, reference=reference, prompt=prompt)
                    self.assertEqual(part.json["prompts"][0]["candidate_watched_positions"], watched, part)
                    for key in ("verdict", "reasons", "first_divergence", "blame", "points", "positions", "engines"):
                        self.assertEqual(part.json.get(key), whole.json.get(key), key)
                self.assertIsNone(whole.json["prompts"][0]["candidate_watched_positions"])

    def test_what_a_mask_hides_is_not_kept_and_comes_back(self):
        """Half of scores and probabilities; but where an engine shows what follows a position, all is kept as it was shown."""
        fault = "mutant,mutant.defect=mask_future,mutant.stage=attn_scores,mutant.layer=1"
        for reference, whole in [("oracle", []), (fault, [1])]:
            with self.subTest(reference):
                live = self.judge(reference=reference, reuse="never")
                shutil.rmtree(self.cache / "reference", ignore_errors=True)
                for reused in (False, True):
                    kept = self.judge(reference=reference)
                    self.assertEqual(self.reused(kept), [reused])
                    self.assertEqual(figures(kept), figures(live))
                tape, = self.tapes()
                prefill = json.loads(tape.read_text())["passes"][0]["items"]
                # kind, stage, layer, first position, occurrence, two names, shape, offset, values, hidden
                scores = {item[2]: item[10] for item in prefill if item[1] == SCORES}
                softmax = {item[2]: item[10] for item in prefill if item[1] == SOFTMAX}
                for layers, hidden in [(scores, 0xff800000), (softmax, 0)]:
                    self.assertEqual({layer for layer, bits in layers.items() if bits is None}, set(whole))
                    self.assertEqual({bits for bits in layers.values() if bits is not None}, {hidden})
                n = prefill[0][7][0]
                first, = [item for item in prefill if item[1] == SCORES and item[2] == 0]
                behind = min(item[8] for item in prefill if item[8] > first[8])
                self.assertEqual(behind - first[8], first[7][1] * n * (n + 1) // 2)

    def test_where_a_recording_is_gone_its_proof_is_left(self):
        """The reference then runs once, watched; against an engine that computes otherwise while it is watched no proof was ever kept."""
        live = self.judge(reuse="never")
        self.judge()
        for round in range(2):
            for path in (self.cache / "reference").glob("*/tape.*"):
                path.unlink()
            again = self.judge()
            self.assertEqual(self.reused(again), [False])
            proof = again.json["prompts"][0]["reference_proof_from_cache"]
            self.assertEqual(proof["logits_sha256"], live.json["prompts"][0]["logits_sha256"]["reference"])
            self.assertTrue(any("ran once over prompt 0, watched" in note for note in again.json["notes"]), again.json["notes"])
            self.assertEqual(figures(again), figures(live))
            self.assertEqual(len(self.tapes()), 1)  # recorded again
        # Of other logits than it tells the proof is none.
        told, = (self.cache / "reference").glob("*/proof.json")
        for path in (self.cache / "reference").glob("*/tape.*"):
            path.unlink()
        entry = json.loads(told.read_text())
        entry["logits_sha256"] = "0" * 64
        told.write_text(sealed(entry))
        without = self.judge()
        self.assertIsNone(without.json["prompts"][0]["reference_proof_from_cache"])
        self.assertEqual(figures(without), figures(live))
        self.judge("--prompt", "And", candidate="native", reference="faulty,faulty.mode=wrong_unwatched")
        self.assertEqual(len(list((self.cache / "reference").glob("*/proof.json"))), 1)

    def test_a_candidate_that_changed_meets_the_same_reference(self):
        self.assertEqual(self.reused(self.judge()), [False])
        bad = self.judge(candidate=BAD)
        self.assertEqual(self.reused(bad), [True])
        self.expect(bad, "diverged", 1)
        self.assertEqual((bad.json["first_divergence"]["stage"], bad.json["first_divergence"]["layer"]), ("q_rope", 1))

    def test_one_processor_gives_what_several_give(self):
        """On one an engine stands while the other computes, and its tensors are read where they lie; else both run on."""
        processors = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, processors)
        for candidate in ("native", BAD):
            several = self.judge(candidate=candidate, reuse="never")
            os.sched_setaffinity(0, {min(processors)})
            for reuse in ("never", "always", "always"):
                with self.subTest(candidate, reuse=reuse):
                    self.assertEqual(figures(self.judge(candidate=candidate, reuse=reuse)), figures(several))
            os.sched_setaffinity(0, processors)

    def peak(self, *args):
        """The most memory that a process of a comparison takes."""
        command = [PARITYBIT, "crossval", "--format", "json", "--model", MODEL, "--candidate", "native", "--reference", "native",
                   "--reuse", "always", *args]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, env=environment({"PARITYBIT_CACHE": self.cache}))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        return usage.ru_maxrss * 1024

    def test_of_what_is_kept_only_what_is_at_hand_is_in_memory(self):
        text = self.folder / "text.txt"
        text.write_text((ROOT / "models" / "heldout.txt").read_text()[:900])
        _, short = (self.peak("--prompt", "And God") for _ in range(2))
        before = self.tapes()
        _, long = (self.peak("--prompt-file", text) for _ in range(2))
        tape, = set(self.tapes()) - set(before)
        n_bytes = tape.with_name("tape.f32").stat().st_size
        self.assertGreater(n_bytes, 30 << 20)
        self.assertLess(long, short + n_bytes // 2)

    def test_llama_cpp_too(self):
        for reuse in ("always", "never"):
            result = self.judge(reference="llama.cpp,cpu.library=haswell", reuse=reuse)
            self.assertEqual(self.reused(result), [False])
        again = self.judge(reference="llama.cpp,cpu.library=haswell")
        self.assertEqual(self.reused(again), [True])
        self.assertEqual(figures(again), figures(result))
        self.assertTrue(again.json["reference_default"]["from_cache"])

    def test_nothing_serves_where_anything_is_another(self):
        first = self.judge()
        self.assertEqual(self.reused(first), [False])
        for name, change in {
                "tokens": {"prompt": PROMPT + "."},
                "model": {"model": OTHER},
                "engine": {"reference": "native"},
                "setting": {"reference": "oracle,kv.type=f32"},
                "steps": {"steps": 3},
                "batches": {"candidate": "native,ubatch=4"},
        }.items():
            with self.subTest(name):
                self.assertEqual(self.reused(self.judge(**change)), [False])
        with self.subTest("a variable of the reference's libraries"):
            result = run("crossval", "--format", "json", "--model", MODEL, "--reference", "oracle", "--prompt", PROMPT, "-n", 2,
                         "--reuse", "always", env={"PARITYBIT_CACHE": self.cache, "GGML_ANYTHING": 1})
            self.assertEqual(self.reused(result), [False])
        with self.subTest("the model's config.json"):
            shutil.copytree(SILU, self.folder / "model")
            model = self.folder / "model" / MODEL.name
            self.assertEqual(self.reused(self.judge(model=model)), [True])  # the same files elsewhere
            config = model.with_name("config.json")
            config.write_text(config.read_text() + "\n")
            self.assertEqual(self.reused(self.judge(model=model)), [False])
        self.assertEqual(self.reused(self.judge()), [True])

    def test_what_is_not_what_was_written_is_computed_anew(self):
        honest = self.judge()
        index, = self.tapes()
        data = index.with_name("tape.f32")
        good = index.read_text()
        other = self.judge(prompt=PROMPT + ".")
        self.assertEqual(self.reused(other), [False])
        another = next(path for path in self.tapes() if path != index)
        without = {k: v for k, v in json.loads(good).items() if k != "sha256"}
        bent = json.loads(good)["passes"]
        bent[0]["items"][0][8] = 10**15
        spoils = {
            "a bit of the data": lambda: flip(data, data.stat().st_size // 2),
            "the last bit": lambda: flip(data, data.stat().st_size - 4),
            "data cut": lambda: data.write_bytes(data.read_bytes()[:-4]),
            "no data": data.unlink,
            "a bit of the index": lambda: flip(index, good.index('"offset"') if '"offset"' in good else len(good) // 2),
            "index cut": lambda: index.write_text(good[:-20]),
            "of other tokens": lambda: [shutil.copy(another.with_name(n), index.with_name(n)) for n in ("tape.json", "tape.f32")],
            "data of other tokens": lambda: shutil.copy(another.with_name("tape.f32"), data),
            "items beyond the data": lambda: index.write_text(sealed({**without, "passes": bent})),
            "no list of passes": lambda: index.write_text(sealed({**without, "passes": [{"tokens": "x"}]})),
            "nested": lambda: index.write_text("[" * 200000),
        }
        for name, spoil in spoils.items():
            with self.subTest(name):
                spoil()
                result = self.judge()
                self.assertEqual(self.reused(result), [False])
                self.assertEqual(figures(result), figures(honest))
                again = self.judge()
                self.assertEqual(self.reused(again), [True])
                self.assertEqual(figures(again), figures(honest))


if __name__ == "__main__":
    main()

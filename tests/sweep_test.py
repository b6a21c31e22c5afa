"""paritybit sweep: the documented folder, plans, states that are no pass, interruption, SQLite, and the same cells by Slurm: real daemons
(slurm_cluster.py), a task killed and requeued. Fails where Slurm is not installed: tools/setup.sh --tests installs it."""
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import time

from driver import PARITYBIT, PLUGINS, RELU2, ROOT, SILU, Case, environment, main, paste, run
import slurm_cluster

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
LIBRARY = "llama.cpp,cpu.library=haswell"
FAULTY = str(PLUGINS / "faulty.so")
# Two releases of one engine where tools/verify-full has set another one up; else two CPU libraries of one.
SECOND = os.environ.get("PARITYBIT_SECOND_RELEASE")
OTHER = f"{SECOND},cpu.library=haswell" if SECOND else "llama.cpp,cpu.library=x64"
HANGS = f"{FAULTY},faulty.mode=hang,faulty.at=eval"


def entry(kind, **values):
    """A table of a plan."""
    return f"[[{kind}]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


class Sweep(Case):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "out"

    def plan(self, *tables, head=""):
        path = self.folder / "plan.toml"
        path.write_text(head + "\n".join(tables))
        return path

    def sweep(self, *args, code=0, env=None, out=None):
        result = run("sweep", *args, "--out", out or self.out, "--format", "json", env=env, cwd=self.folder)
        self.assertEqual(result.code, code, result)
        self.assertEqual(result.json["exit_code"], code)
        return result.json

    def quick(self, *more, **scenario):
        """Cells of a native engine against itself: no reference, half a second each."""
        return self.plan(entry("scenario", name="s", **{"prompt": "2+2=", "max_tokens": 1, **scenario}),
                         entry("engines", name="self", reference="native"),
                         entry("settings", name="fast", arguments=["--scope", "logits-only"]), *more)


def essence(cell):
    """All that two runs of a cell have in common."""
    return {key: cell[key] for key in ("name", "key", "scenario", "model", "engines", "settings", "state", "exit_code", "why", "figures")}


class Documented(Sweep):
    def test_the_documented_folder_and_nothing_twice(self):
        first = self.sweep(MODEL, MODEL, "--reference", LIBRARY)
        self.assertEqual((first["verdict"], first["n_cells"], first["n_from_before"]), ("match", 3, 0))
        for name, prompt, n_forced in (("scenario1", "2+2=", 1), ("scenario2", "Hello", 2), ("scenario3", "Count: 1,2,3,", 4)):
            folder = self.out / name
            for side in ("rs", "cpp"):
                manifest = json.loads((folder / f"{side}-traces/manifest.json").read_text())
                self.assertEqual((manifest["prompt"], manifest["level"]), (prompt, "sketch"))
                self.assertIn(json.dumps(prompt), (folder / f"{side}-output.txt").read_text())
            receipt = json.loads((folder / "logits-comparison.json").read_text())
            self.assertEqual((receipt["prompts"][0]["text"], receipt["prompts"][0]["steps_asked"]), (prompt, n_forced))
            self.assertEqual(run("verify-receipt", folder / "logits-comparison.json").code, 0)
            self.assertRegex((folder / "report.txt").read_text(), r"\nMATCH ")
            diff = run("trace-diff", folder / "rs-traces", folder / "cpp-traces")
            self.assertEqual(diff.code, 0, diff)
        self.assertIn("Nothing: every cell passed", (self.out / "summary.md").read_text())

        again = self.sweep(MODEL, MODEL, "--reference", LIBRARY)
        self.assertEqual(again["n_from_before"], 3)
        self.assertEqual([c["started"] for c in again["cells"]], [c["started"] for c in first["cells"]])

        # a file of a cell that is not what it was, and a cell that is gone, are run again; the third is not
        (self.out / "scenario1/report.txt").write_text("all well")
        (self.out / "cells/scenario2.json").unlink()
        mended = self.sweep(MODEL, MODEL, "--reference", LIBRARY)
        self.assertEqual([c["from_before"] for c in mended["cells"]], [False, False, True])
        self.assertEqual([essence(c) for c in mended["cells"]], [essence(c) for c in first["cells"]])

        # as what was typed alone
        recorded = first["cells"][2]["command"]
        self.assertEqual(recorded[1], "crossval")
        shutil.rmtree(self.out / "scenario3")
        (self.out / "scenario3").mkdir()
        self.assertEqual(run(*recorded[1:]).code, 0)
        self.assertTrue((self.out / "scenario3/logits-comparison.json").exists())

    def test_by_place(self):
        bad = run("sweep", MODEL, RELU2 / "config.json", cwd=self.folder)
        self.assertEqual(bad.code, 5, bad)
        self.assertIn("there is no model", bad.err)  # it is no tokenizer.json
        for args, words in (([], "no plan and no model"), (["p.toml", "out", "more"], "one word too much"),
                            (["p.toml", "-c", "native"], "the plan names its engines"), (["p.toml", "--set", "a=b"], "the plan names its engines"), (["none.toml"], "none.toml"),
                            (["--run-cell", 0], "name it with --plan")):
            said = run("sweep", *args, cwd=self.folder, env={"CROSSVAL_GGUF": None})
            self.assertIn(said.code, (2, 5), said)
            self.assertIn(words, said.err)
        self.assertEqual(sorted(self.folder.iterdir()), [])  # nothing is made of what makes no sense

    def test_where_it_writes(self):
        done = run("sweep", MODEL, MODEL, "here", "-r", "native", "--trace-level", "none", cwd=self.folder)
        self.assertEqual(done.code, 0, done)
        self.assertTrue((self.folder / "here/summary.md").exists())
        self.assertFalse((self.folder / "here/scenario1/rs-traces").exists())
        self.assertRegex(done.out, r"MATCH +all 3 cells: match\n$")


class Plans(Sweep):
    def test_one_that_diverges_tells_what_to_do_next(self):
        path = self.plan(entry("scenario", name="s", prompt="2+2="), entry("model", name="good", path=str(MODEL)),
                         entry("model", name="bad", path=str(RELU2 / "tiny-bitnet-relu2-tq2_0.gguf")),
                         entry("engines", name="e", reference=LIBRARY))
        done = self.sweep(path, code=1)
        self.assertEqual([(c["name"], c["state"], c["exit_code"]) for c in done["cells"]],
                         [("s+good+e", "match", 0), ("s+bad+e", "diverged", 1)])
        self.assertEqual(done["cells"][1]["figures"]["first_divergence"], "prompt 0, position 0, layer 0, ffn_gated")
        summary = (self.out / "summary.md").read_text()
        commands = re.findall(r"^    (.*)$", summary, re.M)
        self.assertEqual([shlex.split(c)[1] for c in commands], ["trace-diff", "diagnose", "crossval"])
        for command in [commands[0], done["next"][0]]:
            self.assertEqual(paste(command).code, 1, command)
        self.assertIn("ffn_gated", paste(commands[0]).out)

    def test_a_changed_input_is_run_again(self):
        model = self.folder / "model/m.gguf"
        model.parent.mkdir()
        shutil.copy(MODEL, model)
        shutil.copy(SILU / "config.json", model.parent)
        path = self.quick(entry("model", name="m", path="model/m.gguf"), entry("model", name="n", path=str(MODEL)))
        first = self.sweep(path)
        self.assertEqual(self.sweep(path)["n_from_before"], 2)
        shutil.copy(RELU2 / "tiny-bitnet-relu2-tq2_0.gguf", model)
        second = self.sweep(path)
        self.assertEqual([c["from_before"] for c in second["cells"]], [False, True])
        self.assertNotEqual(first["cells"][0]["key"], second["cells"][0]["key"])
        shutil.copy(RELU2 / "config.json", model.parent)
        self.assertEqual([c["from_before"] for c in self.sweep(path)["cells"]], [False, True])
        self.quick(entry("model", name="m", path="model/m.gguf"), entry("model", name="n", path=str(MODEL)), max_tokens=2)
        self.assertEqual(self.sweep(path)["n_from_before"], 0)

    def test_words_are_checked_before_anything_runs(self):
        for table, words in ((entry("settings", name="t", arguments=["--bogus"]), "--bogus"),
                             (entry("engines", name="t", reference="no-such-engine"), "no-such-engine"),
                             (entry("engines", name="t", reference="native", set=["novalue"]), "novalue")):
            path = self.plan(entry("model", name="m", path=str(MODEL)), table)
            said = run("sweep", path, self.out, cwd=self.folder)
            self.assertIn(words, said.err)
            self.assertNotEqual(said.code, 0)
            self.assertFalse((self.out / "scenario1+m").exists())

    def test_a_budget_that_no_cell_fits_in(self):
        path = self.quick(entry("model", name="m", path=str(MODEL), memory_mib=500))
        self.assertIn("takes about 500 MiB", self.sweep(path, "--memory", 400, code=2)["reasons"][0]["text"])
        self.assertIn("takes 2, 1 for each", self.sweep(path, "--threads", 1, code=2)["reasons"][0]["text"])
        self.sweep(path, "--memory", 500, "--threads", 2, "--jobs", 1)

    def test_the_database_is_made_of_the_cells(self):
        path = self.quick(entry("model", name="m", path=str(MODEL)), entry("model", name="gone", path="gone.gguf"))
        first = self.sweep(path, code=5)

        def contents():
            with sqlite3.connect(self.out / "sweep.sqlite") as database:
                return [database.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall() for table in
                        ("cells", "reasons", "positions")]
        with sqlite3.connect(self.out / "sweep.sqlite") as database:
            rows = database.execute("SELECT name, state, exit_code, n_positions, worst_kl FROM cells ORDER BY name").fetchall()
        self.assertEqual([row[:3] for row in rows], [("s+gone+self+fast", "error", 5), ("s+m+self+fast", "match", 0)])
        receipt = json.loads((self.out / "s+m+self+fast/logits-comparison.json").read_text())
        self.assertEqual(rows[1][3:], (len(receipt["positions"]), max(p["kl"] for p in receipt["positions"])))
        before = contents()
        self.assertEqual([(p[2], p[4], p[5]) for p in before[2]], [(p["position"], p["token"], p["kl"]) for p in receipt["positions"]])
        (self.out / "sweep.sqlite").unlink()
        collected = self.sweep(path, "--collect", code=5)
        self.assertEqual(contents(), before)
        self.assertEqual([essence(c) for c in collected["cells"]], [essence(c) for c in first["cells"]])
        (self.out / "cells/s+m+self+fast.json").unlink()
        self.assertEqual([c["state"] for c in self.sweep(path, "--collect", code=5)["cells"]], ["not-run", "error"])


class States(Sweep):
    """None of them is a pass."""

    def one(self, *args, code, candidate=HANGS, reference=FAULTY, env=None):
        path = self.plan(entry("scenario", name="s", prompt="2+2="), entry("model", name="m", path=str(MODEL)),
                         entry("engines", name="e", candidate=candidate, reference=reference))
        done = self.sweep(path, *args, code=code, env=env)
        return done["cells"][0]

    def test_the_time_of_a_cell_and_more_of_it(self):
        cell = self.one("--timeout", 2, "--stall", 60, code=3)
        self.assertEqual((cell["state"], cell["why"]), ("timeout", "its 2 s were up before it had a verdict"))
        self.assertIn("--timeout 8", (self.out / "summary.md").read_text())
        self.assertTrue(self.one("--timeout", 1, "--stall", 60, code=3)["from_before"])
        # more time: an engine without progress is ended by its own limit
        cell = self.one("--timeout", 60, "--stall", 1, code=4)
        self.assertEqual((cell["state"], cell["from_before"]), ("engine-failed", False))
        self.assertTrue(self.one("--timeout", 60, "--stall", 1, code=4)["from_before"])
        self.assertFalse(self.one("--timeout", 60, "--stall", 1, "--retry", code=4)["from_before"])

    def test_the_documented_variable_is_the_time_of_a_cell(self):
        cell = self.one("--stall", 60, code=3, env={"CROSSVAL_TIMEOUT_SECS": 2})
        self.assertEqual(cell["why"], "its 2 s were up before it had a verdict")

    def test_an_engine_that_dies(self):
        cell = self.one(candidate=HANGS.replace("hang", "crash"), code=4)
        self.assertEqual(cell["state"], "engine-failed")

    def test_a_reference_that_is_not_here(self):
        empty = self.folder / "cache"
        empty.mkdir()
        cell = self.one(candidate="native", reference="llama.cpp", code=3, env={"PARITYBIT_CACHE": empty})
        self.assertEqual(cell["state"], "incomplete")
        self.assertIn("no-reference", [reason["code"] for reason in cell["figures"]["reasons"]])


class Interruption(Sweep):
    def start(self, path):
        return subprocess.Popen(["paritybit", "sweep", str(path), str(self.out), "--jobs", "1", "--format", "json"],
                                executable=PARITYBIT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                cwd=self.folder)

    def results(self):
        return {p.name: p.read_bytes() for p in (self.out / "cells").glob("*.json")} if self.out.exists() else {}

    def interrupted_when(self, path, n_done, how):
        """The results that were there when a cell after the first n_done was running."""
        process = self.start(path)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 120
        while len(self.results()) < n_done and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        while not any((p / "log.txt").exists() and f"{p.name}.json" not in self.results() for p in self.out.iterdir()):
            self.assertIsNone(process.poll(), "it ended before it could be interrupted")
            time.sleep(0.01)
        process.send_signal(how)
        out, _ = process.communicate(timeout=30)
        return process.returncode, out, self.results()

    def test_two_and_the_same_command_goes_on(self):
        path = self.plan(entry("scenario", name="s", prompt="And God said", max_tokens=4),
                         *(entry("model", name=f"m{i}", path=str(MODEL)) for i in range(4)), entry("engines", name="e", reference="native"))
        code, out, first = self.interrupted_when(path, 1, signal.SIGINT)
        self.assertEqual((code, json.loads(out)["verdict"]), (130, "interrupted"))
        self.assertIn("the same command goes on", json.loads(out)["reasons"][0]["text"])
        code, out, second = self.interrupted_when(path, 2, signal.SIGKILL)
        self.assertEqual((code, out), (-signal.SIGKILL, ""))
        time.sleep(1)
        for running in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.assertNotIn(str(self.out).encode(), running.read_bytes(), running)
            except OSError:
                pass
        done = self.sweep(path)
        self.assertEqual([c["state"] for c in done["cells"]], ["match"] * 4)
        self.assertEqual([c["from_before"] for c in done["cells"]], [f"{c['name']}.json" in second for c in done["cells"]])
        final = self.results()
        for before in (first, second):
            self.assertGreaterEqual(len(before), 1)
            for name, content in before.items():
                self.assertEqual(final[name], content, name)
        whole = self.sweep(path, out=self.folder / "whole")
        self.assertEqual([essence(c) for c in done["cells"]], [essence(c) for c in whole["cells"]])


class Slurm(Sweep):
    @classmethod
    def setUpClass(cls):
        missing = slurm_cluster.missing()
        assert not missing, f"Slurm is not installed ({missing}): tools/setup.sh --tests"
        cls.cluster = slurm_cluster.Cluster(pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"paritybit-slurm-{os.getpid()}")
        cls.addClassCleanup(shutil.rmtree, cls.cluster.folder, ignore_errors=True)
        cls.addClassCleanup(cls.cluster.stop)
        cls.cluster.start()

    def sweep(self, *args, **kwargs):
        cluster = {key: self.cluster.environment[key] for key in ("SLURM_CONF", "PATH")}
        return super().sweep(*args, **{**kwargs, "env": {**cluster, **(kwargs.get("env") or {})}})

    def test_the_same_cells_as_here_and_one_killed_and_requeued(self):
        made = self.folder / "made.gguf"
        self.assertEqual(run("gen-fixtures", "--out", made).code, 0)
        models = {"silu": MODEL, "relu2": RELU2 / "tiny-bitnet-relu2-tq2_0.gguf", "made": made}
        path = self.plan(entry("scenario", name="s", prompt="2+2=", max_tokens=1),
                         *(entry("model", name=name, path=str(model)) for name, model in models.items()),
                         entry("engines", name="one", reference=LIBRARY),
                         entry("engines", name="two", candidate=LIBRARY, reference=OTHER))
        here = self.sweep(path, out=self.folder / "here", code=1)
        self.assertEqual([c["name"] for c in here["cells"] if c["state"] != "match"], ["s+relu2+one"])

        submitted = self.sweep(path, "--executor", "slurm", "--no-wait", "--jobs", 1, code=3)
        self.assertEqual([c["state"] for c in submitted["cells"]], ["not-run"] * 6)
        victim = self.running()
        self.assertEqual(self.cluster.call("scontrol", "requeue", victim).returncode, 0)
        there = self.sweep(path, "--executor", "slurm", "--jobs", 1, code=1)
        self.assertEqual([essence(c) for c in there["cells"]], [essence(c) for c in here["cells"]])
        plans = list((self.out / "slurm").glob("*.json"))
        self.assertEqual(len(plans), 1, "the second call submitted what was queued already")
        logs = {p.name: p.read_text() for p in (self.out / "slurm").glob("*.log")}
        self.assertEqual(sum("REQUEUE" in text or "CANCELLED" in text for text in logs.values()), 1, logs)
        self.assertEqual(self.sweep(path, "--executor", "slurm", code=1)["n_from_before"], 6)
        # and locally what came from there
        self.assertEqual(self.sweep(path, code=1)["n_from_before"], 6)

    def test_a_task_that_is_cancelled_is_no_pass_and_is_submitted_again(self):
        path = self.plan(entry("scenario", name="s", prompt="2+2="), entry("model", name="m", path=str(MODEL)),
                         entry("model", name="n", path=str(MODEL)), entry("engines", name="e", reference="native"))
        self.sweep(path, "--executor", "slurm", "--no-wait", "--sbatch=--begin=now+3600", code=3)
        queued = self.cluster.call("squeue", "-h", "-r", "-o", "%F_%K").stdout.split()
        self.assertEqual(len(queued), 2)
        self.cluster.call("scancel", *queued)
        done = self.sweep(path, "--executor", "slurm")
        self.assertEqual([c["state"] for c in done["cells"]], ["match"] * 2)

    def test_other_inputs_while_tasks_run(self):
        path = self.quick(entry("model", name="m", path=str(MODEL)))
        self.sweep(path, "--executor", "slurm", "--no-wait", "--sbatch=--begin=now+3600", code=3)
        self.quick(entry("model", name="m", path=str(MODEL)), max_tokens=3)
        said = self.sweep(path, "--executor", "slurm", code=2)["reasons"][0]["text"]
        self.assertIn("with other inputs", said)
        self.assertEqual(self.cluster.call(*re.search(r"`(scancel \d+)`", said)[1].split()).returncode, 0)
        self.sweep(path, "--executor", "slurm")

    def test_no_slurm_here(self):
        path = self.quick(entry("model", name="m", path=str(MODEL)))
        said = self.sweep(path, "--executor", "slurm", code=5, env={"PATH": str(self.folder)})["reasons"][0]["text"]
        self.assertIn("--executor local", said)
        said = self.sweep(path, "--executor", "slurm", "--sbatch=--partition=none", code=5)["reasons"][0]["text"]
        self.assertIn("invalid partition", said)

    def running(self):
        """A task of this folder's that runs."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            running = self.cluster.call("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%F_%K").stdout.split()
            if running:
                return running[0]
            time.sleep(0.05)
        self.fail("no task runs")


class Manual(Sweep):
    def test_its_commands_do_what_stands_below_them(self):
        text = (ROOT / "docs/sweep.md").read_text()
        plan = re.search(r"^```toml\n(.*?)^```", text, re.M | re.S)[1]
        (self.folder / "plan.toml").write_text(plan)
        (self.folder / "models").symlink_to(ROOT / "models")
        blocks = re.findall(r"^    \$ (paritybit .*|sqlite3 .*)\n((?:    .*\n)*)", text, re.M)
        self.assertGreaterEqual(len(blocks), 3)
        for command, below in blocks:
            lines = [line[4:] for line in below.splitlines()]
            expected = int(lines[lines.index("$ echo $?") + 1]) if "$ echo $?" in lines else 0
            said = paste(command, cwd=self.folder)
            self.assertEqual(said.code, expected, f"{command}\n{said}")
            for line in lines[:lines.index("$ echo $?")] if "$ echo $?" in lines else lines:
                words = re.sub(r"[0-9][0-9.]*(e[+-][0-9]+)?", "N", line).split()
                said_words = re.sub(r"[0-9][0-9.]*(e[+-][0-9]+)?", "N", said.out).split()
                self.assertIn(" ".join(words), " ".join(said_words), command)


if __name__ == "__main__":
    main()

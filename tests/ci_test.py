#!/usr/bin/env python3
"""What --report writes for CI systems and other tools, held against their published schemas; --git-bisect and bisect, shown finding
what was planted; the steps of examples/ci: ci_test.py BUILD_DIRECTORY."""
import json
import os
import re
import subprocess
import tarfile
import unittest

import jsonschema
import yaml
from lxml import etree

from driver import PARITYBIT, RELU2, ROOT, SILU, Case, environment, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
WRONG = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
HASWELL = "llama.cpp,cpu.library=haswell"
PROMPT = "And God said, Let there be light"
BROKEN = "mutant,mutant.defect=weight_flipped,mutant.stage=down_proj,mutant.layer=1"


def schema(package, name):
    """A file of a package that tools/setup.sh --tests fetches for what it carries."""
    found = sorted((ROOT / "build" / "schemas").glob(f"{package}-*.tar.gz"))
    if not found:
        raise RuntimeError(f"build/schemas has no {package}: tools/setup.sh --tests fetches it")
    with tarfile.open(found[-1]) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith("/" + name))
        return archive.extractfile(member).read()


SARIF = jsonschema.Draft7Validator(json.loads(schema("compose_lint", "sarif-schema-2.1.0.json")))
JUNIT = etree.XMLSchema(etree.fromstring(schema("pytest", "junit-10.xsd")))


def outside_of_fences(text):
    """Markdown without its blocks of code, which nothing in them ends."""
    return re.sub(r"^(`{3,})sh\n.*?\n\1$", "", text, flags=re.S | re.M)


class Reports(Case):
    def write(self, *args, code, env=None):
        """A run's reports: SARIF, JUnit, Markdown, annotations, JSON."""
        files = {name: self.folder / name for name in ("r.sarif", "r.xml", "r.md", "r.json", "github.txt")}
        words = [word for name, path in files.items() for word in ("--report", f"github={path}" if name == "github.txt" else path)]
        result = run(*args, *words, env=env)
        self.assertEqual(result.code, code, result)
        texts = {name: path.read_text() for name, path in files.items()}
        self.report = json.loads(texts["r.json"])
        self.assertEqual(self.report["exit_code"], code)
        self.check_sarif(json.loads(texts["r.sarif"]), code)
        self.check_junit(texts["r.xml"], code)
        self.check_markdown(texts["r.md"])
        self.check_annotations(texts["github.txt"], code)
        return texts

    def check_sarif(self, log, code):
        self.assertEqual([e.message for e in SARIF.iter_errors(log)], [])
        results = log["runs"][0]["results"]
        self.assertEqual([r["ruleId"] for r in results], [r["code"] for r in self.report["reasons"]])
        self.assertEqual(any(r["level"] == "error" for r in results), code != 0)
        self.assertEqual(log["runs"][0]["invocations"][0]["exitCode"], code)

    def check_junit(self, text, code):
        tree = etree.fromstring(text.encode())
        JUNIT.assertValid(tree)
        cases = tree.findall(".//testcase")
        self.assertEqual(int(tree.get("tests")), len(cases))
        self.assertGreaterEqual(len(cases), 2)
        failed = [c.get("name") for c in cases if c.find("failure") is not None]
        self.assertEqual("verdict" in failed, code != 0)
        if code == 0:
            self.assertEqual(failed, [])
        self.failed = failed

    def check_markdown(self, text):
        self.assertTrue(text.startswith("### paritybit "), text)
        self.assertIn(self.report["verdict"].upper(), text.splitlines()[0])
        outside = outside_of_fences(text)
        self.assertEqual(outside.count("<details>"), outside.count("</details>"))
        self.assertNotIn("```", outside)

    def check_annotations(self, text, code):
        lines = text.splitlines()
        for line in lines:
            self.assertRegex(line, r"^::(error|notice) title=[^:,\n]+::.+$")
        self.assertEqual(lines[0].startswith("::error "), code != 0)
        self.assertLessEqual(len(lines), 10)

    def test_diverged(self):
        texts = self.write("crossval", "--model", WRONG, "--reference", HASWELL, "--prompt", PROMPT, code=1)
        self.assertIn("op ffn_gated", self.failed)
        self.assertNotIn("op q_proj", self.failed)
        log = json.loads(texts["r.sarif"])
        place = log["runs"][0]["results"][0]["locations"][0]
        self.assertEqual(place["logicalLocations"][0]["fullyQualifiedName"], "layer 0, ffn_gated")
        self.assertTrue(place["physicalLocation"]["artifactLocation"]["uri"].endswith("tiny-bitnet-relu2-tq2_0.gguf"))
        for text in (texts["r.md"], texts["github.txt"], texts["r.xml"]):
            self.assertIn("squared ReLU", text)
        # The command in it is this comparison.
        self.assertRegex(texts["r.md"], r"```sh\n\S*paritybit crossval --model \S+relu2-tq2_0.gguf")

    def test_match_audit_incomplete_and_two_traces(self):
        self.write("crossval", "--model", MODEL, "--reference", HASWELL, "--prompt", PROMPT, code=0)
        self.write("audit", "--model", WRONG, "--engine", HASWELL, "--prompt", PROMPT, code=1)
        self.assertIn("op ffn_gated", self.failed)
        cache = self.folder / "cache"
        cache.mkdir()
        self.write("crossval", "--model", MODEL, "--reference", "llama.cpp", "--prompt", PROMPT, code=3, env={"PARITYBIT_CACHE": cache})
        self.assertIn("coverage", self.failed)
        folders = []
        for name in ("a", "b"):
            folders.append(self.folder / name)
            self.assertEqual(run("trace", "-m", MODEL, "-e", "native", "-p", PROMPT, "--level", "full", "-o", folders[-1]).code, 0)
        self.write("trace-diff", *folders, code=0)

    def test_what_comes_from_outside_stays_text(self):
        """A prompt of markup, mentions, references and workflow commands."""
        prompt = "``` </details> <b>@someone</b> #1 | [a](http://b) ]]> \"&\r\n::error::taken %0A"
        texts = self.write("crossval", "--model", MODEL, "--candidate", "native", "--reference", "native", "--prompt", prompt, code=0)
        outside = outside_of_fences(texts["r.md"])
        for word in ("<b>", "@someone", "[a]", "#1"):
            self.assertNotIn(word, outside)
        self.assertNotIn("\n::error::taken", texts["github.txt"])

    def test_model_explorer(self):
        """Node data of a graph: every key is a node's id, every edge comes from a node."""
        data, graph = self.folder / "data.json", self.folder / "graph.json"
        result = run("crossval", "--model", WRONG, "--reference", HASWELL, "--prompt", PROMPT, "--report", f"node-data={data}",
                     "--report", f"node-graph={graph}")
        self.assertEqual(result.code, 1)
        nodes = {node["id"]: node for node in json.loads(graph.read_text())["graphs"][0]["nodes"]}
        values = json.loads(data.read_text())["ops"]["results"]
        self.assertEqual(set(values), set(nodes))
        self.assertGreater(values["layer_0/ffn_gated"]["value"], 1)
        self.assertLessEqual(values["layer_0/q_proj"]["value"], 1)
        sources = {id: [edge["sourceNodeId"] for edge in node["incomingEdges"]] for id, node in nodes.items()}
        self.assertEqual(sources["embeddings"], [])
        self.assertEqual(sources["layer_0/attn_norm"], ["embeddings"])
        self.assertEqual(sources["layer_1/attn_norm"], ["layer_0/layer_out"])
        self.assertEqual(sources["logits"], ["final_norm"])
        self.assertEqual(sources["final_norm"], ["layer_5/layer_out"])
        for edges in sources.values():
            self.assertLessEqual(set(edges), set(nodes))

    def test_stdout_and_refusals(self):
        result = run("crossval", "--model", MODEL, "--reference", "native", "--prompt", "Hi", "-q", "--report", "github=-")
        self.assertEqual(result.code, 0, result)
        self.assertTrue(result.out.splitlines()[-1].startswith("::notice "), result)
        base = ("crossval", "--model", MODEL, "--reference", "native", "--prompt", "Hi")
        for report, says in (("r.pdf", "ending"), ("pdf=r", "ending"), (self.folder / "none" / "r.md", "cannot create")):
            refused = run(*base, "--report", report)
            self.assertIn(refused.code, (2, 5), refused)
            self.assertIn(says, refused.err)
        self.assertEqual(run(*base, "--report", "github=-", "--format", "json").code, 2)


class Bisect(Case):
    def git(self, *args):
        done = subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *args], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_finds_a_planted_commit(self):
        """Fifteen commits of an engine's settings: one plants a defect, another cannot be run."""
        self.git("init", "-q")
        commits = []
        for i in range(15):
            engine = "native" if i < 9 else BROKEN
            if i == 7:  # the middle: an engine that is not there
                engine = "./not-built.so"
            (self.folder / "engine.txt").write_text(engine + "\n")
            (self.folder / "n.txt").write_text(str(i))
            self.git("add", ".")
            self.git("commit", "-qm", f"change {i}")
            commits.append(self.git("rev-parse", "HEAD").strip())
        self.git("bisect", "start", "HEAD", commits[0])
        script = self.folder / "check.sh"
        script.write_text(f'exec "{PARITYBIT}" crossval --git-bisect -q --candidate "$(cat engine.txt)" --reference native '
                          f'--model "{MODEL}" --prompt "{PROMPT}"\n')
        done = subprocess.run(["git", "bisect", "run", "sh", "check.sh"], cwd=self.folder, capture_output=True, text=True, env=environment())
        self.assertIn(f"{commits[9]} is the first bad commit", done.stdout, done.stdout + done.stderr)

    def test_codes(self):
        base = ("--model", MODEL, "--reference", "native", "--prompt", "Hi", "--git-bisect", "-q")
        for words, code in ((("crossval", *base), 0),
                            (("crossval", *base, "--candidate", BROKEN), 1),
                            (("crossval", *base, "--candidate", "faulty,faulty.mode=nan"), 1),
                            (("crossval", *base, "--candidate", "./none.so"), 125),
                            (("crossval", *base, "--candidate", "faulty,faulty.mode=crash,faulty.at=model"), 125),
                            (("crossval", *base, "--no-such-flag"), 128),
                            (("audit", "--model", MODEL, "--engine", BROKEN, "--prompt", "Hi", "--git-bisect"), 1)):
            result = run(*words)
            self.assertEqual(result.code, code, f"{words}\n{result}")

    def test_releases(self):
        """Eight releases side by side, the sixth of which breaks; the fourth cannot be run."""
        releases = ["native"] * 5 + [BROKEN] * 3
        releases[3] = "./gone.so"
        words = [word for release in releases for word in ("--release", release)]
        command = ("--", "crossval", "--model", MODEL, "--candidate", "{}", "--reference", "native", "--prompt", PROMPT)
        result = run("bisect", *words, "--format", "json", *command)
        self.assertEqual(result.code, 1, result)
        states = [r["state"] for r in result.json["releases"]]
        self.assertEqual((states[4], states[5]), ("good", "bad"))
        self.assertEqual(result.json["first_bad"], BROKEN)
        self.assertIn("not tried", states)
        text = run("bisect", *words, *command)
        self.assertIn("is the first release that fails", text.out.replace("\n           ", " "))
        alike = run("bisect", "--release", "native", "--release", "native", *command)
        self.assertEqual(alike.code, 0, alike)
        self.assertEqual(run("bisect", "--release", "native", *command).code, 2)


class Examples(Case):
    """Each step of the examples' jobs that calls paritybit does what it is there for."""

    def run_step(self, script, code=0):
        done = subprocess.run(["bash", "-e", "-c", script], cwd=self.folder, capture_output=True, text=True,
                              env=environment({"PATH": f"{PARITYBIT.parent}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": self.folder / "summary.md"}))
        self.assertEqual(done.returncode, code, script + done.stdout + done.stderr)

    def prepare(self):
        (self.folder / "models").mkdir()
        (self.folder / "models/model.gguf").symlink_to(MODEL)
        (self.folder / "models/config.json").symlink_to(MODEL.parent / "config.json")
        for name in ("policy.toml", "prompts.txt"):
            (self.folder / name).write_text((ROOT / "examples/ci" / name).read_text())

    def test_github_workflow(self):
        self.prepare()
        workflow = yaml.safe_load((ROOT / "examples/ci/github-workflow.yml").read_text())
        steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "paritybit " in step.get("run", "")]
        self.assertGreaterEqual(len(steps), 2)
        for step in steps:
            if "setup" not in step:
                self.run_step(step)
        self.assertIn("paritybit crossval: MATCH", (self.folder / "summary.md").read_text())

    def test_gitlab_job(self):
        self.prepare()
        jobs = yaml.safe_load((ROOT / "examples/ci/gitlab-ci.yml").read_text())
        lines = [line for job in jobs.values() if isinstance(job, dict) for line in job.get("script", []) if line.startswith("paritybit ")]
        self.assertGreaterEqual(len(lines), 2)
        for line in lines:
            if "setup" not in line:
                self.run_step(line)
        JUNIT.assertValid(etree.fromstring((self.folder / "paritybit.xml").read_bytes()))


if __name__ == "__main__":
    main()

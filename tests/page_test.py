#!/usr/bin/env python3
"""The page of --report in a browser: page_test.py BUILD_DIRECTORY. Figures are held against the JSON report of the same run,
which --report writes beside it."""
import math
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest
import json

import browser
import driver
import tiny_gguf

PROMPT = "And God said, Let there be light: and there was light."
SILU = driver.SILU / "tiny-bitnet-silu-tq2_0.gguf"
RELU2 = driver.RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
HASWELL = "llama.cpp,cpu.library=haswell"


def shown(value):
    """As the page shows a figure: 4.9e-07."""
    return "0" if value == 0 else f"{value:.1e}"


def token_text(text):
    """As the page shows a token: blanks and line ends as signs, other control characters and bytes' marks by number."""
    signs = {" ": "\u00b7", "\n": "\u23ce", "\t": "\u21e5"}
    return "".join(signs.get(c, f"\\u{ord(c):04x}" if ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u00ad" else c) for c in text) or "\u2205"


class InBrowser(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="paritybit-page-")
        cls.browser = browser.Browser()

    @classmethod
    def tearDownClass(cls):
        cls.browser.__exit__()
        cls.folder.cleanup()

    def report(self, *args, code, **kwargs):
        """Opens the page of a run; its JSON report."""
        page, data = (pathlib.Path(self.folder.name) / f"report.{kind}" for kind in ("html", "json"))
        result = driver.run(*args, "--report", page, "--report", data, **kwargs)
        self.assertEqual(result.code, code, str(result))
        self.browser.open(page)
        self.assertEqual(self.browser.messages, [])
        self.assertEqual(self.browser.requests, [page.as_uri()])
        self.page = page
        return json.loads(data.read_text())


class Page(InBrowser):
    def check_verdict(self, report):
        self.assertEqual(self.browser.text("#word"), report["verdict"].upper())
        self.assertEqual(self.browser.text("#exit"), str(report["exit_code"]))
        # It is the first thing on the screen, beside whatever is selected further down.
        self.assertLess(self.browser.run("document.querySelector('#word').getBoundingClientRect().bottom"), 200)
        coverage = report["coverage"]
        self.assertEqual(self.browser.text("#compared"), f"{coverage['compared']} of {coverage['expected']}")
        for path in report.get("paths", {}).get("not_taken", []):
            self.assertIn(path, self.browser.run("document.querySelector('#coverage').textContent"))

    def check_points(self, report):
        """Every point's figures, as many rows as there are points."""
        self.browser.choose("#which", "all")
        while self.browser.run("!!document.querySelector('.more-button')"):
            self.browser.click(".more-button")
        rows = self.browser.run("""[...document.querySelectorAll('.points tbody tr')].map((row) => ({
            index: Number(row.dataset.index), ratio: row.querySelector('[data-ratio]').dataset.ratio,
            cells: [...row.cells].map((cell) => cell.textContent)}))""")
        self.assertEqual(sorted(row["index"] for row in rows), list(range(len(report["points"]))))
        for row in rows:
            point = report["points"][row["index"]]
            self.assertEqual(row["ratio"] if point["bound_ratio"] is None else float(row["ratio"]),
                             "null" if point["bound_ratio"] is None else point["bound_ratio"])
            self.assertIn(shown(point["rel_l2"]), row["cells"])

    def check_position(self, report, position):
        row = next(r for r in report["positions"] if r["prompt"] == 0 and r["position"] == position)
        self.assertEqual(float(self.browser.run("document.querySelector('#kl').dataset.value")), row["kl"])
        self.assertTrue(self.browser.text("#margin").startswith(shown(row["gap"]["reference"])))
        tables = self.browser.run("""[...document.querySelectorAll('table.choices')].map((t) =>
            [...t.tBodies[0].rows].map((r) => [r.cells[1].textContent, r.cells[2].textContent]))""")
        for side, table in zip(("candidate", "reference"), tables):
            self.assertEqual(len(table), len(row["top_k"][side]))
            for (text, percent), choice in zip(table, row["top_k"][side]):
                self.assertEqual(text, token_text(choice["text"]))
                number = re.fullmatch(r"(?:< )?([\d.]+) %", percent).group(1)
                self.assertAlmostEqual(float(number), 100 * math.exp(choice["logp"]), delta=0.06)

    def selected(self):
        return self.browser.run("Number(document.querySelector('.token[aria-selected=true]').dataset.position)")

    def test_diverged_with_a_cause(self):
        report = self.report("crossval", "--model", RELU2, "--reference", HASWELL, "--prompt", PROMPT, "-n", 2, code=1)
        self.check_verdict(report)
        self.assertEqual(self.browser.text("#blame"), "the referencellama.cpp")
        self.assertIn("squared ReLU", self.browser.text("#why"))
        self.assertIn("layer 0", self.browser.text("#where"))
        self.assertIn("relu2", self.browser.text(".facts tr.differs"))
        self.check_points(report)
        # By mouse, then by keyboard.
        self.browser.click('.token[data-position="3"]')
        self.browser.wait("document.querySelector('#position-title').textContent === 'After position 3'")
        self.check_position(report, 3)
        self.browser.run("document.querySelector('.token[aria-selected=true]').focus()")
        self.browser.key("ArrowRight", 39)
        self.browser.wait("document.querySelector('#position-title').textContent === 'After position 4'")
        self.assertEqual(self.selected(), 4)
        self.assertEqual(self.browser.run("document.activeElement.dataset.position"), "4")
        self.check_position(report, 4)
        self.browser.key("End", 35)
        self.browser.wait("document.querySelector('#position-title').textContent.startsWith('After position 1')")
        self.assertEqual(self.selected(), len(report["positions"]) - 1)

    def test_tokens_and_layers(self):
        """The figures of tokens, held against those of whole tensors: a tensor's worst row is one of them."""
        report = self.report("crossval", "--model", SILU, "--reference", HASWELL, "--prompt", PROMPT, code=0)
        self.check_verdict(report)
        self.browser.choose("#kind", "accumulated")
        self.browser.choose("#by", "tokens")
        self.browser.choose("#stage", "layer_out")
        layers = [p for p in report["accumulated"] if p["stage"] == "layer_out" and p["step"] == 0]
        self.assertGreater(len(layers), 3)
        for point in layers:
            self.browser.run("document.querySelector('.heat canvas').focus()")
            worst = point["worst_row"]
            self.browser.click(f'.token[data-position="{worst["position"]}"]')
            self.browser.wait("document.querySelector('.heat canvas')")
            self.browser.run("document.querySelector('.heat canvas').focus()")
            for _ in layers:
                self.browser.key("ArrowUp", 38)
            for _ in range(point["layer"]):
                self.browser.key("ArrowDown", 40)
            self.browser.wait(f"document.querySelector('#cell').textContent.startsWith('layer {point['layer']}, position {worst['position']} ')")
            text = self.browser.text("#cell").rsplit(": ", 1)[1]
            self.assertAlmostEqual(float(text) / worst["error"], 1, delta=0.08) if worst["error"] else self.assertEqual(text, "0")

    def test_audit(self):
        report = self.report("audit", "--model", RELU2, "--engine", HASWELL, "--prompt", PROMPT, code=1)
        self.check_verdict(report)
        self.assertEqual(self.browser.text("#blame"), "the enginellama.cpp")
        self.check_points(report)
        self.assertTrue(self.browser.run("!!document.querySelector('.token')"))

    def test_incomplete(self):
        with tempfile.TemporaryDirectory() as cache:
            report = self.report("crossval", "--model", SILU, "--reference", "llama.cpp", "--prompt", "Hi", code=3,
                                 env={"PARITYBIT_CACHE": cache})
        self.check_verdict(report)
        self.assertIn("no reference", self.browser.text("#sentence"))
        self.assertIn("setup-cpp-auto", self.browser.text(".next"))

    def test_two_traces(self):
        folders = []
        for name, model in (("a", SILU), ("b", RELU2)):
            folders.append(pathlib.Path(self.folder.name) / name)
            made = driver.run("trace", "--model", model, "--engine", "native", "--prompt", PROMPT, "--level", "full", "--out", folders[-1])
            self.assertEqual(made.code, 0, str(made))
        report = self.report("trace-diff", *folders, "--different-models", code=driver.run("trace-diff", *folders, "--different-models").code)
        self.check_verdict(report)
        self.assertIn("native", self.browser.text("#engines"))
        # Texts are the model file's, which is here.
        self.assertEqual(self.browser.text('.token[data-position="1"]').rstrip("\u2260"), "And")
        self.assertRegex(self.browser.text("table.choices"), r"rank1And\d")
        # The map's figures are those of the report.
        self.browser.choose("#kind", "accumulated")
        self.browser.run("document.querySelector('.heat canvas').focus()")
        for _ in range(3):
            self.browser.key("ArrowDown", 40)
        for _ in range(30):
            self.browser.key("ArrowLeft", 37)
        seen = set()
        for _ in range(9):
            self.browser.key("ArrowRight", 39)
            layer, stage, figure = re.fullmatch(r"layer (\d+), (\w+): (.+)", self.browser.text("#cell")).groups()
            errors = [p["rel_l2"] for p in report["points"] if (str(p["layer"]), p["stage"]) == (layer, stage)]
            self.assertEqual(figure, shown(max(errors)), (layer, stage))
            seen.add(stage)
        self.assertGreater(len(seen), 7)

    def test_nothing_of_a_model_or_prompt_is_markup(self):
        """Token texts and a prompt that would be script, markup or an end of both, if anything could be."""
        prompt = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> \u202e ]]>&amp;"
        report = self.report("crossval", "--model", SILU, "--candidate", "oracle", "--reference", "native", "--prompt", prompt,
                             code=0)
        self.check_verdict(report)
        self.assertEqual(self.browser.run("document.title"), f"{report['verdict'].upper()} - paritybit crossval")
        self.assertEqual(self.browser.run("document.querySelectorAll('img').length"), 0)
        self.assertEqual(self.browser.run("document.querySelectorAll('script').length"), 2)
        self.assertIn("<script>", self.browser.text("#coverage"))
        self.assertNotIn("\u202e", self.browser.text("body"))

    def test_themes_widths_and_paper(self):
        self.report("crossval", "--model", RELU2, "--reference", HASWELL, "--prompt", PROMPT, code=1)
        colours = []
        for dark in (False, True):
            self.browser.theme(dark)
            colours.append(self.browser.run("getComputedStyle(document.documentElement).backgroundColor"))
        self.browser.theme(False)
        self.assertEqual(colours, ["rgb(255, 255, 255)", "rgb(18, 23, 31)"])
        for width in (360, 768, 1600):
            self.browser.resize(width, 900)
            self.assertLessEqual(self.browser.run("document.documentElement.scrollWidth"), width)
        self.browser.resize(1200, 900)
        self.assertTrue(self.browser.pdf().startswith(b"%PDF"))
        self.assertEqual(self.browser.messages, [])

    def test_token_texts_of_a_model_are_text(self):
        """Every token of the vocabulary is script, markup or a control character."""
        folder = pathlib.Path(self.folder.name) / "hostile"
        folder.mkdir()
        model = tiny_gguf.tiny("llama", n_vocab=600)
        kind, tokens, element = model.values["tokenizer.ggml.tokens"]
        hostile = [f"</script><script>document.title='taken{i}'</script><img/src=x/onerror=1>" if i >= 256 else t for i, t in enumerate(tokens)]
        model.values["tokenizer.ggml.tokens"] = (kind, hostile, element)
        # Merges of tokens that are no more.
        model.set("tokenizer.ggml.merges", tiny_gguf.ARRAY, [], tiny_gguf.STRING)
        model.write(folder / "hostile.gguf")
        report = self.report("crossval", "--model", folder / "hostile.gguf", "--reference", "native", "--prompt", "Hi there",
                             "-n", 4, code=0)
        texts = [c["text"] for row in report["positions"] for c in row["top_k"]["reference"]]
        self.assertTrue(any("<script>" in text for text in texts))
        for position in range(len(report["positions"])):
            self.browser.click(f'.token[data-position="{position}"]')
            self.browser.wait(f"document.querySelector('#position-title').textContent === 'After position {position}'")
            self.check_position(report, position)
        self.assertEqual(self.browser.run("[document.querySelectorAll('img').length, document.querySelectorAll('script').length]"), [0, 2])
        self.assertNotIn("taken", self.browser.run("document.title"))

    def test_is_small(self):
        """512 tokens, 30 layers, each of whose tensors differs by rounding."""
        folder = pathlib.Path(self.folder.name)
        made = driver.run("gen-fixtures", "--out", folder / "deep.gguf", "--weights", "F16", "--distribution", "gaussian", "--layers", 30,
                          "--d-model", 64, "--d-ff", 128, "--context", 1024, "--vocab", 2000)
        self.assertEqual(made.code, 0, str(made))
        text = (driver.TINY / "heldout.txt").read_text()
        prompt = text[:860]
        report = self.report("crossval", "--model", folder / "deep.gguf", "--candidate", "mutant,mutant.defect=benign_ulp",
                             "--reference", "native", "--prompt", prompt, code=0)
        self.assertGreaterEqual(len(report["positions"]), 500)
        self.assertLess(self.page.stat().st_size, 2 << 20)


HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> \u202e ]]>&amp;"


class Tables(InBrowser):
    """The pages of many verdicts."""

    def rows(self, table):
        """Each row of a table by the names of its columns: the text, and what stands beside it."""
        return self.browser.run(f"""(() => {{ const t = document.querySelector('#{table} table');
            if (!t && document.querySelector('#{table}')) return [];
            const names = [...t.tHead.rows[0].cells].map((c) => c.textContent);
            const more = (c) => c.querySelector('.more')?.textContent ?? '';
            const text = (c) => c.textContent.slice(0, c.textContent.length - more(c).length);
            return [...t.tBodies[0].rows].map((r) => Object.fromEntries([...r.cells].map((c, i) =>
                [names[i], {{text: text(c).replace(/^[^a-z0-9]+ (?=[a-z])/, ''), more: more(c).trim()}}]))); }})()""")

    def check_surroundings(self, word, report):
        """Both themes, a phone, paper; nothing is markup."""
        self.assertEqual(self.browser.text("#word"), word)
        self.assertEqual(self.browser.text("#exit"), str(report["exit_code"]))
        for dark in (False, True):
            self.browser.theme(dark)
            paper, tag = self.browser.run("""[document.documentElement, document.querySelector('.tag')].map((e) => {
                const style = getComputedStyle(e); return e.className ? style.color : style.backgroundColor; })""")
            self.assertEqual(paper, "rgb(18, 23, 31)" if dark else "rgb(255, 255, 255)")
            self.assertNotEqual(tag, paper)
        self.browser.theme(False)
        for width in (390, 1200):
            self.browser.resize(width, 900)
            self.assertLessEqual(self.browser.run("document.documentElement.scrollWidth"), width)
        self.assertTrue(self.browser.pdf().startswith(b"%PDF"))
        self.assertEqual(self.browser.run("[document.querySelectorAll('img').length, document.querySelectorAll('script').length]"), [0, 2])
        self.assertNotIn("taken", self.browser.run("document.title"))
        self.assertNotIn("\u202e", self.browser.text("body"))
        self.assertEqual(self.browser.messages, [])

    def refused(self, command, *args):
        for report, offered in (("out.xml", "junit"), ("sarif=out", "sarif"), ("github=-", "github"), ("out.txt", "html markdown json")):
            result = driver.run(command, *args, "--report", report)
            self.assertEqual(result.code, 2, str(result))
            self.assertIn(offered, result.err)
            self.assertIn("json", result.err)

    def test_sweep(self):
        folder = pathlib.Path(self.folder.name)
        plan = folder / "plan.toml"
        plan.write_text("".join(f"[[{kind}]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()) for kind, values in (
            ("scenario", {"name": "plain", "prompt": "2+2=", "max_tokens": 1}),
            ("scenario", {"name": "hostile", "prompt": HOSTILE, "max_tokens": 0}),
            ("model", {"name": "silu", "path": str(SILU)}),
            ("engines", {"name": "self", "reference": "native"}),
            ("engines", {"name": "broken", "reference": "native",
                         "candidate": "mutant,mutant.defect=weight_flipped,mutant.stage=down_proj,mutant.layer=1"}),
            ("engines", {"name": "absent", "reference": "native", "candidate": str(folder / "</b><img src=x>.so")}))))
        report = self.report("sweep", plan, "--out", folder / "results", code=1)
        states = [cell["state"] for cell in report["cells"]]
        self.assertEqual(sorted(set(states)), ["diverged", "error", "match"])
        self.assertIn(self.browser.text("#sentence"), report["reasons"][0]["text"] + driver.run("sweep", plan, "--out", folder / "results", "--collect").out)
        grid = self.rows("grid")
        self.assertEqual([row["engines"]["text"] for row in grid], ["self", "broken", "absent"])
        for row in grid:
            for scenario in ("plain", "hostile"):
                cell = next(c for c in report["cells"] if (c["scenario"], c["engines"]) == (scenario, row["engines"]["text"]))
                self.assertEqual(row[scenario], {"text": cell["state"], "more": f"{cell['wall_seconds']:.1f} s"})
        for row, cell in zip(self.rows("figures"), report["cells"]):
            figures = cell["figures"] or {}
            self.assertEqual((row["cell"]["text"], row["verdict"]["text"]), (cell["name"], cell["state"]))
            self.assertEqual(row["MiB"]["text"], f"{cell['peak_mib']:.0f}")
            self.assertGreater(cell["peak_mib"], 1)
            self.assertEqual(row["s"]["text"], f"{cell['wall_seconds']:.1f}")
            self.assertEqual(row["first divergence"]["text"], figures.get("first_divergence") or "")
            self.assertEqual(row["blame"]["text"], figures.get("blame", ""))
            self.assertEqual(row["positions"]["text"], str(figures.get("n_positions", "")))
            self.assertEqual(row["compared"]["text"].split(" ")[0], str(figures.get("compared", "")))
            if figures.get("worst_kl") is not None:
                self.assertAlmostEqual(float(row["worst KL"]["text"]), figures["worst_kl"], delta=6e-3 * abs(figures["worst_kl"]))
        # A verdict of the grid leads to its cell, by keyboard too.
        at = next(i for i, cell in enumerate(report["cells"]) if cell["state"] == "diverged")
        self.browser.run(f"document.querySelector('#grid a[href=\"#cell-{at}\"]').focus()")
        self.browser.key("Enter", 13)
        self.browser.wait(f"document.querySelector('#cell-{at}').open")
        self.assertEqual(self.browser.run("document.activeElement.parentElement.id"), f"cell-{at}")
        part = self.browser.text(f"#cell-{at}")
        self.assertIn("layer 1, down_proj", part)
        self.assertIn(report["cells"][at]["why"], part)
        commands = self.browser.run(f"[...document.querySelectorAll('#cell-{at} .line code')].map((c) => c.textContent)")
        for command in commands[1:]:
            self.assertEqual(driver.paste(command).code, 1, command)
        self.assertEqual([command.split(" ")[1] for command in commands], ["trace-diff", "diagnose", "crossval"])
        self.check_surroundings("DIVERGED", report)

    def test_sweep_refuses_what_it_has_not(self):
        self.refused("sweep", SILU)
        folder = pathlib.Path(self.folder.name)
        report = self.report("sweep", SILU, "--reference", "native", "--out", folder / "empty", "--collect", code=3)
        self.assertEqual({row["verdict"]["text"] for row in self.rows("figures")}, {"not-run"})
        self.check_surroundings("INCOMPLETE", report)
        markdown = folder / "sweep.md"
        self.assertEqual(driver.run("sweep", SILU, "--reference", "native", "--out", folder / "empty", "--collect", "--report", markdown).code, 3)
        self.assertEqual(markdown.read_text(), (folder / "empty/summary.md").read_text())

    def check_self_check(self, report):
        """Matrix, harmless changes and what is not counted, against the JSON report."""
        names = {"defects": "defects", "detected": "detected", "exact op": "exact_op", "within one op": "within_one",
                 "blamed right": "blamed_right", "named right": "named_right", "not counted": "not_counted"}
        kinds = self.rows("kinds")
        self.assertEqual([row["kind"]["text"] for row in kinds], [row["kind"] for row in report["kinds"]] + ["all"])
        for row, expected in zip(kinds, report["kinds"] + [report["total"]]):
            self.assertEqual({name: int(row[name]["text"]) for name in names}, {name: expected[key] for name, key in names.items()})
            for name, key in list(names.items())[1:3] + list(names.items())[4:6]:
                short = expected["defects"] - expected[key]
                self.assertEqual(row[name]["more"], f"{short} short" if short else "", (row, name))
        self.assertEqual([int(row["changes"]["text"]) for row in self.rows("harmless")],
                         [report["harmless"][key] for key in ("change_bits", "false_alarms", "change_nothing", "failed")])
        self.assertEqual(sum(int(row["cases"]["text"]) for row in self.rows("unseen")), report["total"]["not_counted"])
        self.assertEqual(self.browser.text("#sentence"), report["summary"])

    def test_self_check(self):
        results = pathlib.Path(self.folder.name) / "results.jsonl"
        args = ["self-check", "--filter", "attn_sub_norm", "--share", 0.25, "--no-reference", "--results", results]
        report = self.report(*args, code=0)
        self.check_self_check(report)
        self.assertGreater(report["total"]["not_counted"], 0)
        self.assertEqual({row["outcome"]["text"] for row in self.rows("goals")}, {"holds"})
        self.check_surroundings("ALL GOALS HOLD", report)
        # A missed defect, one that nothing placed or blamed, a false alarm, and one that could not be run.
        lines = results.read_text().splitlines()
        cases = [json.loads(line) for line in lines[1:]]
        defects = [c for c in cases if not c["benign"] and not c["skipped"]]
        harmless = next(c for c in cases if c["benign"] and not c["skipped"])
        defects[0].update(detected=False, exact=False, blamed=False, named=False)
        defects[1].update(exact=False, blamed=False, place=HOSTILE)
        defects[2].update(error=HOSTILE)
        harmless.update(detected=True)
        results.write_text("\n".join([lines[0], *(driver.sealed({k: v for k, v in c.items() if k != "sha256"}).rstrip("\n") for c in cases)]) + "\n")
        report = self.report(*args, "--resume", code=3)
        self.check_self_check(report)
        goals = self.rows("goals")
        self.assertEqual([row["outcome"]["text"] for row in goals], ["missed"] * 5)
        self.assertEqual(sorted(row["outcome"]["more"] for row in goals), sorted(reason["text"] for reason in report["reasons"]))
        titles = self.browser.run("[...document.querySelectorAll('.part')].map((p) => p.querySelector('b').textContent)")
        self.assertEqual(sorted(titles), sorted(c["key"] for c in [*defects[:3], harmless]))
        for part in range(4):
            self.browser.click(f"#miss-{part} summary")
            self.browser.wait(f"document.querySelector('#miss-{part}').open")
        command = self.browser.text("#miss-0 .line code")
        self.assertTrue(command.endswith(f" self-check --filter '{titles[0]}'"), command)
        self.check_surroundings("INCOMPLETE", report)

    def test_self_check_refuses_what_it_has_not(self):
        self.refused("self-check", "--no-reference")
        folder = pathlib.Path(self.folder.name)
        report = self.report("self-check", "--filter", "no such case", "--no-reference", "--results", folder / "none.jsonl",
                             "--report", folder / "none.md", code=3)
        # What was not asked does not hold.
        self.assertEqual([row["outcome"]["text"] for row in self.rows("goals")], ["not judged"] * 5 + ["missed"])
        self.check_self_check(report)
        self.assertIn(report["summary"], (folder / "none.md").read_text())


class Sources(unittest.TestCase):
    def test_types(self):
        """The page's sources pass the type checker, whose version package-lock.json pins."""
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            for name in ("package.json", "package-lock.json", "tsconfig.json"):
                shutil.copy(driver.ROOT / "web" / name, work)
            shutil.copytree(driver.ROOT / "web" / "src", work / "src")
            for command in (["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["node_modules/.bin/tsc", "-p", "."]):
                done = subprocess.run(command, cwd=work, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    driver.main()

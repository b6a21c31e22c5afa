#!/usr/bin/env python3
"""What a terminal of 80 columns and 24 lines shows last: the verdict, the place and blame, one command: terminal_test.py BUILD_DIRECTORY.

The program runs in a pseudo-terminal; its lines are counted as they would stand there.
"""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import unittest

import gguf_edit
from driver import PARITYBIT, RELU2, SILU, Case, main, run

RELU2_MODEL = RELU2 / "tiny-bitnet-relu2-tq2_0.gguf"
SILU_MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
LLAMA = "llama.cpp,cpu.library=haswell"
LATE = "mutant,mutant.defect=rope_late,mutant.stage=q_rope,mutant.layer=1"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WORDS = ("MATCH", "NEAR-TIE", "DRIFT", "DIVERGED", "INCOMPLETE", "ENGINE-FAILED", "INVALID")


def on_terminal(*args, columns=80, lines=24, env=None):
    """Runs `paritybit ARGS...` with stdout in a terminal of this size: exit code, lines without colours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    variables = {k: v for k, v in os.environ.items() if k != "COLUMNS" and not k.startswith(("CROSSVAL_", "BITNET_"))}
    process = subprocess.Popen(["paritybit", *map(str, args)], executable=str(PARITYBIT), stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE,
                               env={**variables, **(env or {})})
    os.close(slave)
    shown = b""
    while True:
        ready, _, _ = select.select([master], [], [], 300)
        if not ready:
            process.kill()
            raise AssertionError("nothing was printed for 300 s")
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    process.communicate()
    text = COLOUR.sub("", shown.decode().replace("\r\n", "\n"))
    return process.returncode, text.splitlines()


def last_block(lines):
    """The lines from the verdict's word on."""
    begin = max(i for i, line in enumerate(lines) if line.split(" ")[0] in WORDS)
    return lines[begin:]


def sentence(block):
    return " ".join(" ".join(block).split())


class Screen(Case):
    def check(self, lines, columns=80):
        """No line is wider but one that holds a single word that is; nothing that a terminal would obey is in them."""
        for line in lines:
            if len(line) > columns:
                self.assertEqual(len(line.strip().removesuffix(" \\").split()), 1, line)
            self.assertEqual([c for c in line if ord(c) < 32 or c in "\x7f\u202e"], [], line)

    def verdict(self, args, word, code, place, next_line=None, columns=80):
        """The last lines of a report, of at most a third of the screen, and before them a blank line."""
        exit_code, lines = on_terminal(*args, columns=columns)
        self.assertEqual(exit_code, code, "\n".join(lines))
        self.check(lines, columns)
        block = last_block(lines)
        self.assertEqual(block[0].split(" ")[0], word, "\n".join(lines))
        self.assertEqual(lines[-len(block) - 1], "", "\n".join(lines))
        if columns == 80:
            self.assertLessEqual(len(block), 9, "\n".join(block))
        self.assertRegex(sentence(block), place)
        commands = [line for line in block if line.startswith("next ")]
        self.assertEqual(len(commands), next_line is not None, "\n".join(block))
        if next_line:
            self.assertTrue(block[-1].startswith("next ") or block[-2].endswith("\\"), "\n".join(block))
            self.assertRegex(commands[0], next_line)
        return lines


class Verdicts(Screen):
    def test_match(self):
        args = ["crossval", "-m", SILU_MODEL, "-r", LLAMA, "-p", "And God said, Let there be light"]
        lines = self.verdict(args, "MATCH", 0, r"^MATCH native computes what llama\.cpp computes: all 117 tensors agree on equal "
                             r"inputs, all 9 next-token choices are the same over 9 tokens; both read one file")
        # what says nothing more in a pass stands under -v
        for detail in ("distance ", "default ", "observer ", "1 - cosine", "window"):
            self.assertNotIn(detail, "\n".join(lines))
        _, verbose = on_terminal(*args, "-v")
        self.check(verbose)
        for detail in ("distance ", "default ", "observer ", "1 - cosine", "window"):
            self.assertIn(detail, "\n".join(verbose))

    def test_diverged(self):
        args = ["crossval", "-m", RELU2_MODEL, "-r", LLAMA, "-p", "And God said, Let there be light: and there was light."]
        for columns in (80, 60):
            lines = self.verdict(args, "DIVERGED", 1, r"^DIVERGED llama\.cpp runs SiLU, the model declares squared ReLU; \d+ of 15 "
                                 r"next-token choices differ \(exit 1\) at layer 0, gated product \(ffn_gated\), from the first "
                                 r"token; blame: reference next ", r"^next +paritybit diagnose$", columns)
            text = "\n".join(lines)
            for riddle in ("its inputs do not explain", "bound 0", "e+36", "local error"):
                self.assertNotIn(riddle, text)
            if columns == 80:  # what the verdict rests on is on its screen
                for fact in ("limits kl.worst", "16 points before it agree", "where exact zeros are expected"):
                    self.assertIn(fact, sentence(lines[-23:]))

    def test_every_command_under_v(self):
        kept = self.folder / "kept"
        exit_code, lines = on_terminal("crossval", "-m", SILU_MODEL, "-c", LATE, "-r", LLAMA, "-p", "And God said", "--keep-traces", kept, "-v")
        self.assertEqual(exit_code, 1, "\n".join(lines))
        self.check(lines)
        text = sentence(last_block(lines)).replace(" \\ ", " ")
        self.assertRegex(text, r"rotates by the position after; all 4 next-token choices are the same \(exit 1\) at layer 1, rotated "
                         r"queries \(q_rope\), .*; blame: candidate next ")
        for command in ("diagnose", "repro ", f"trace-diff {kept}/candidate {kept}/reference", "crossval-per-token "):
            self.assertIn("paritybit " + command, text)

    def test_incomplete(self):
        self.verdict(["crossval", "-m", SILU_MODEL, "-r", LLAMA, "-p", "And God said", "--set", "kv.type=f32"], "INCOMPLETE", 3,
                     r"so this is not a pass: kv\.type differs: the candidate runs f32 \[set\], the reference f16", "paritybit crossval")

    def test_no_reference(self):
        exit_code, lines = on_terminal("crossval", "-m", SILU_MODEL, "-r", "llama.cpp", "-p", "And God said",
                                       env={"PARITYBIT_CACHE": str(self.folder)})
        self.assertEqual(exit_code, 3)
        self.check(lines)
        self.assertEqual([line for line in lines if line.strip() in ("model", "candidate", "reference")], [])
        self.assertRegex(sentence(lines), r'no reference named "llama\.cpp" is set up \(exit 3\) next \S*paritybit setup-cpp-auto$')

    def test_engine_failed(self):
        lines = self.verdict(["crossval", "-m", SILU_MODEL, "-r", "faulty,faulty.mode=abort,faulty.at=model", "-p", "And God said"],
                             "ENGINE-FAILED", 4, r"^ENGINE-FAILED the reference failed: .*SIGABRT.* \(exit 4\) blame: reference",
                             "paritybit audit")
        self.assertIn("faulty: about to abort", "\n".join(lines[-12:]))
        self.assertEqual("\n".join(lines).count("about to abort"), 1)

    def test_drift(self):
        """Attention in one op: not called more than it is."""
        self.verdict(["crossval", "-m", SILU_MODEL, "-c", LLAMA + ",attn.flash=on", "-r", LLAMA, "-p", "And God said, Let there"], "DRIFT", 0,
                     r"^DRIFT every op that both show agrees on equal inputs; one engine computes attention as one op, the other step by "
                     r"step; all \d next-token choices are the same over \d tokens; the logits are within their limits$")

    def test_an_engine_with_itself(self):
        self.verdict(["crossval", "-m", SILU_MODEL, "-c", "native", "-r", "native", "-p", "And God said"], "MATCH", 0,
                     r"^MATCH native gives the same twice: .* shows that it repeats itself and not that it is right")
        self.verdict(["crossval", "-m", SILU_MODEL, "-c", "llama.cpp,cpu.library=x64", "-r", LLAMA, "-p", "And God said"], "MATCH", 0,
                     r"^MATCH two builds of llama\.cpp compute the same: .* a mistake that both make does not show")
        for name in ("t", "u"):
            run("trace", "-m", SILU_MODEL, "-p", "And God said", "--out", self.folder / name, "--level", "digest")
        self.verdict(["trace-diff", self.folder / "t", self.folder / "t"], "MATCH", 0, r"was compared with itself")
        self.verdict(["trace-diff", self.folder / "t", self.folder / "u"], "MATCH", 0, r"repeats itself and not that it is right")

    def test_an_override_is_shown(self):
        exit_code, lines = on_terminal("crossval", "-m", RELU2_MODEL, "-r", LLAMA, "-p", "And God", "--set", "ffn.activation=silu")
        self.assertEqual(exit_code, 0)
        text = "\n".join(lines)
        self.assertIn("ffn silu [set]", text)
        self.assertIn("ffn.activation is set to silu; the model declares relu2 [config.json]", sentence(lines))
        result = self.crossval("-m", RELU2_MODEL, "-r", LLAMA, "-p", "And God", "--set", "ffn.activation=silu").json
        self.assertIn({"key": "ffn.activation", "value": "silu", "origin": "flag --set"}, result["choices"])
        self.assertIn("ffn.activation is set to silu; the model declares relu2 [config.json]", result["notes"])

    def test_nan_in_a_weight_against_a_good_file(self):
        """One sentence: the file, the tensor, the row."""
        model = gguf_edit.Gguf(SILU_MODEL)
        _, _, offset, _ = model.tensors["blk.2.ffn_norm.weight"]
        struct.pack_into("<f", model.data, offset + 4 * 17, float("nan"))
        bad = self.folder / "bad.gguf"
        model.save(bad)
        (self.folder / "config.json").write_bytes((SILU / "config.json").read_bytes())
        lines = self.verdict(["crossval", "-m", bad, "--reference-model", SILU_MODEL, "-r", LLAMA, "-p", "And God said"], "INVALID", 3,
                             r"^INVALID each engine computes what its own file says, and the files differ: blk\.2\.ffn_norm\.weight "
                             r"differs in 1 of 256 channels, first 17, .*NaN.* \(exit 3\) at layer 2, FFN norm \(ffn_norm\), from the first "
                             r"token; blame: model-file", r"diagnose$")
        self.assertNotIn("nothing here that could be judged", sentence(lines))

    def test_one_line(self):
        exit_code, lines = on_terminal("crossval", "-m", RELU2_MODEL, "-r", LLAMA, "-p", "And God said", "-q")
        self.assertEqual((exit_code, len(lines)), (1, 1), lines)
        self.assertRegex(lines[0], r"^DIVERGED at layer 0, gated product \(ffn_gated\), from the first token; blame: reference; llama\.cpp runs "
                         r"SiLU, the model declares squared ReLU; \d of 4 next-token choices differ?")
        for once in ("ffn_gated", "SiLU", "reference", "layer 0"):
            self.assertEqual(lines[0].count(once), 1, lines[0])


class Tables(Screen):
    def test_tables_fit_and_say_what_they_leave_out(self):
        args = ["crossval-per-token", "-m", SILU_MODEL, "-r", LLAMA, "-p", "And God said, Let there be light"]
        for columns, heads in ((60, ["KL", "limit", "candidate", "reference"]), (80, ["KL", "limit", "rel-L2", "margin"]),
                               (120, ["KL", "limit", "rel-L2", "max abs", "1-cos", "top-k", "margin"])):
            exit_code, lines = on_terminal(*args, columns=columns)
            self.assertEqual(exit_code, 0)
            self.check(lines, columns)
            (head,) = [line for line in lines if line.startswith("pos ")]
            for name in heads:
                self.assertIn(name, head)
            self.assertEqual("not enough room for" in sentence(lines), columns < 120)
        for args in (["audit", "-m", RELU2_MODEL, "-e", LLAMA, "-p", "And God said", "--all"],
                     ["diagnose", "-m", RELU2_MODEL, "-r", LLAMA, "-p", "And God said", "--no-perplexity"],
                     ["noise", "-m", SILU_MODEL, "-e", "native", "-p", "And God"],
                     ["self-check", "--share", "0.0005", "--no-reference", "--results", self.folder / "results"]):
            for columns in (80, 60):
                self.check(on_terminal(*args, columns=columns)[1], columns)


class Hostile(Screen):
    """Nothing of a prompt, a name or a token reaches a terminal raw."""

    def test_prompt_and_names(self):
        odd = self.folder / "m\x1b[31m.gguf"
        os.symlink(SILU_MODEL, odd)
        os.symlink(SILU / "config.json", self.folder / "config.json")
        prompt = "And \x1b]0;God\x07 said\u202e"
        trace = self.folder / "t\x1b[2J"
        for args, code in ((["crossval", "-m", odd, "-c", LATE, "-r", "native", "-p", prompt, "-p", prompt, "-v"], 1),
                           (["crossval-per-token", "-m", odd, "-r", "native", "-p", prompt], 0),
                           (["crossval", "-m", odd, "-c", LATE, "-r", "native", "-p", prompt, "-q"], 1),
                           (["diagnose", "-m", odd, "-c", LATE, "-r", "native", "-p", prompt, "--no-inject"], 1),
                           (["audit", "-m", odd, "-p", prompt, "--all"], 0),
                           (["noise", "-m", odd, "-p", prompt, "-v"], 0),
                           (["trace", "-m", odd, "-p", prompt, "--out", trace, "--level", "digest"], 0),
                           (["trace-diff", trace, trace, "--table"], 0)):
            exit_code, lines = on_terminal(*args)
            self.assertEqual(exit_code, code, "\n".join(lines))
            for line in lines:
                self.assertEqual([c for c in line if ord(c) < 32 or c in "\x7f\u202e"], [], (args, line))


if __name__ == "__main__":
    main()

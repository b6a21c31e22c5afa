"""The documented system's command lines, as its users type them: each flag works with the meaning that it had, or refuses and names
what there is instead. What a flag does is tested where its command is; here it is that none is unknown."""
import json
import re
import shlex

from driver import SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
LLAMA = "llama.cpp,cpu.library=haswell"


class Documented(Case):
    def taken(self, *args, code=0, err="", **kwargs):
        result = run(*args, **kwargs)
        self.assertEqual(result.code, code, result)
        if err:
            self.assertRegex(result.err, err)
        return result

    def refused(self, *args, instead):
        """A usage error whose words name what to do: a command, a flag, or why there is nothing to."""
        result = run(*args)
        self.assertEqual(result.code, 2, result)
        self.assertNotRegex(result.err, "is no flag|one word too much|is no command")
        self.assertRegex(result.err, instead)

    def test_per_token(self):
        base = ["crossval-per-token", "--model", MODEL, "--tokenizer", MODEL, "--prompt", "What is 2+2?", "--max-tokens", 2]
        receipt = self.folder / "receipt.json"
        result = self.taken(*base, "--cos-tol", "0.999", "--format", "text", "--prompt-template", "auto", "--cpp-backend", "llama",
                            "--verbose", "--dump-ids", "--dump-cpp-ids", "--receipt", receipt, "--metrics", "mse,kl,topk",
                            err=r"candidate ids of --prompt: \[2046, ")
        self.assertIn("reference ids of --prompt: [2046, ", result.err)
        self.assertIn("MATCH", result.out)
        self.assertEqual(json.loads(receipt.read_text())["verdict"], "match")
        # The flag that only showed there decides here, and its exit code does not depend on the format.
        for form in ("text", "json"):
            self.taken(*base, "--set", "ffn.activation=relu2", "--cos-tol", "0.999", "--format", form, code=1)
        self.refused(*base, "--positions", 8, instead="every position is compared")
        self.refused(*base, "--ladder", "tokens", instead="all its rungs are one command")
        self.refused(*base, "--cpp-backend", "llama", "--reference", LLAMA, instead="give one of them")
        self.refused(*base, "--prompt-template", "chatml", instead="none of auto, raw, instruct, llama3-chat")

    def test_prompt_templates(self):
        def ids(*more):
            return json.loads(self.taken("infer", "--model", MODEL, "--max-new-tokens", 1, "--format", "json", *more).out)["prompt_tokens"]
        self.assertEqual(ids("--prompt", "Hi", "--template", "auto"), ids("--prompt", "Hi"))
        self.assertEqual(ids("--prompt", "Hi", "--template", "instruct"), ids("--prompt", "Q: Hi\nA:"))
        self.assertEqual(ids("--prompt", "Hi", "--template", "instruct", "--system-prompt", "Be brief."),
                         ids("--prompt", "System: Be brief.\n\nQ: Hi\nA:"))
        self.assertNotEqual(ids("--prompt", "Hi", "--template", "llama3-chat"), ids("--prompt", "Hi"))
        self.refused("infer", "-m", MODEL, "-p", "Hi", "--system-prompt", "Be brief.", instead="--prompt-template")
        self.refused("infer", "-m", MODEL, "-p", "Hi", "--chat", "--template", "instruct", instead="both frame the prompt")
        # A next command keeps how the prompt was framed.
        result = self.crossval("-m", MODEL, "-r", "native", "-p", "Hi", "--set", "ffn.activation=relu2", "--prompt-template", "instruct")
        self.assertTrue(result.json["next"])
        for command in result.json["next"]:
            self.assertIn("--prompt-template instruct", command)

    def test_infer(self):
        base = ["infer", "--model", MODEL, "--prompt", "Hi", "--max-new-tokens", 2, "--temperature", 0, "--seed", 42]
        self.taken(*base, "--deterministic", "--format", "human", err="note: --deterministic: ")
        self.taken(*base, "--deterministic", "true")
        self.taken(*base[:-4], "--temperature", 0.7, "--top-k", 40, "--top-p", 0.9, "--repetition-penalty", 1.1, "--tokenizer", MODEL)
        self.refused(*base, "--allow-mock", instead="no engine here is a mock")
        self.refused(*base, "--gpu", instead="--engine")
        self.refused(*base, "--auto-download", instead="paritybit download-model")

    def test_crossval(self):
        base = ["crossval", "--model", MODEL, "--prompt", "Hi", "--reference", LLAMA]
        self.taken(*base, "--release", err="note: --release: ")
        self.refused(*base, "--cpp-dir", "/tmp", instead="setup-cpp-auto --from DIR")
        self.refused(*base, "--dry-run", instead="paritybit preflight")

    def test_sweep(self):
        out = self.folder / "results"
        self.taken("sweep", MODEL, MODEL, out, "--reference", LLAMA)
        for name in ("rs-traces", "cpp-traces", "rs-output.txt", "cpp-output.txt", "logits-comparison.json", "report.txt"):
            self.assertTrue((out / "scenario3" / name).exists(), name)
        self.assertTrue((out / "summary.md").exists())

    def test_gen_fixtures(self):
        shapes = {}
        for size in ("tiny", "small"):
            result = self.taken("gen-fixtures", "--size", size, "--output", self.folder / "fixtures")
            path = result.out.strip()
            self.assertTrue(path.endswith("/model.gguf"), path)
            said = self.crossval("--model", path, "--reference", LLAMA, "--prompt", "Hi").json
            self.assertEqual(said["verdict"], "match")
            facts = said["engines"][1]["model_facts"]
            shapes[size] = tuple(int(facts[key]["value"]) for key in ("n_vocab", "d_model", "n_layers"))
        self.assertEqual(shapes, {"tiny": (100, 64, 2), "small": (1000, 128, 4)})
        self.refused("gen-fixtures", "--size", "huge", "--output", self.folder, instead="tiny, small, medium")

    # Command lines of the documented system's own documents: each flag is one of the command's. Nothing is there that they name, and
    # "--offline" and "--dry-run" keep them from looking; that they do what they say is tested where each command is.
    LINES = """
        download-model --id microsoft/bitnet-b1.58-2B-4T-gguf --file ggml-model-i2_s.gguf --out models --sha256 00 --force --rev main
            --no-progress -v --base-url https://example.org --json --retries 3 --timeout 1800 --offline
        download-model --ref main --quiet --offline
        tokenizer --into models --source mirror --force -v --offline
        fetch-cpp --tag main --force --clean --backend cpu --cmake-flags "" --repo https://example.org/BitNet.git --dry-run
        setup-cpp-auto --emit sh
        preflight --backend bitnet -v --repair never --no-repair --require-cpp
        crossval --model m.gguf --prompt p --release
        full-crossval --force --tag main --backend cpu --cmake-flags "" --repo https://example.org/BitNet.git
            --offline --model m.gguf
        crossval-per-token --model m.gguf --tokenizer t.json --prompt p --max-tokens 4 --cos-tol 0.999 --format text --prompt-template auto
            --system-prompt s --cpp-backend bitnet --verbose --dump-ids --dump-cpp-ids --receipt r.json --metrics mse,kl,topk
        parity-both --model-gguf m.gguf --tokenizer t.json --prompt p --max-tokens 4 --cos-tol 0.999 --out-dir .parity --format text
            --prompt-template auto --system-prompt s --no-repair -v --dump-ids --dump-cpp-ids --metrics mse
        trace-diff rs cpp
        gate mapper --model m.gguf
        verify --model m.gguf --tokenizer t.json --format human --strict
        gen-fixtures --size small --output crossval/fixtures/
        gen-mini-gguf --output tests/models/mini.gguf --version 3
        benchmark --model m.gguf --tokenizer t.json --tokens 128 --prompt p --gpu --allow-mock --no-output --json --warmup-tokens 10
        infer --model m.gguf --tokenizer t.json --template auto --prompt p --max-new-tokens 32 --temperature 0 --seed 42 --gpu
            --allow-mock --auto-download --deterministic --format human
        verify-receipt --path ci/inference.json --require-gpu-kernels
        bench-compare --current c --baseline auto --device auto --category all --thresholds t.toml --format markdown -o out --ci
            --fail-on-regression -v
        clean-cache --dry-run
        check-features
        gpu-preflight --require --format json
    """

    def test_every_documented_flag_is_known(self):
        lines = re.sub(r"\n {12}", " ", self.LINES.strip("\n")).split("\n")
        for words in filter(None, (shlex.split(line) for line in lines)):
            with self.subTest(" ".join(words)):
                result = run(*words, cwd=self.folder)
                self.assertNotRegex(result.out + result.err, "is no flag|one word too much|is no command|not in this version", result)

    def test_no_help_shows_what_is_only_taken(self):
        for command in ("crossval", "infer"):
            page = run(command, "--help").out
            self.assertFalse(re.search("--allow-mock|--release|--gpu|human", page), page)


if __name__ == "__main__":
    main()

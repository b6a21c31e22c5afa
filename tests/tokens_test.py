"""Whose token ids a run has: the model file's tokeniser, a tokenizer.json in its place, or the engines' own where ours does not know
the file; and what infer samples from them."""
import json

from driver import Case, main, run
from tiny_gguf import MERGES, STRING, tiny

LLAMA = "llama.cpp,cpu.library=haswell"
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEXT = "On the 14th of May 1234 men and 56 horses went"


def tokenizer_json(model):
    """The tokeniser of a tiny model as a tokenizer.json."""
    tokens = model.values["tokenizer.ggml.tokens"][1]
    bos, eos = len(tokens) - 2, len(tokens) - 1
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": i, "content": tokens[i], **special} for i in (bos, eos)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}, byte_level]},
        "post_processor": {"type": "TemplateProcessing", "pair": [], "single": [
            {"SpecialToken": {"id": tokens[bos], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}}},
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens[:bos])}, "merges": MERGES}}


class Tokens(Case):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "m.gguf"
        file = tiny()
        file.write(self.model)
        self.json = tokenizer_json(file)
        self.file = self.folder / "tokenizer.json"
        self.file.write_text(json.dumps(self.json))

    def infer(self, *more, code=0):
        result = run("infer", "-m", self.model, "-p", TEXT, "--max-tokens", 8, "--format", "json", *more)
        self.assertEqual(result.code, code, result)
        return result

    def other(self):
        """One without merges: other ids for the same text."""
        self.json["model"]["merges"] = []
        path = self.folder / "other.json"
        path.write_text(json.dumps(self.json))
        return path

    def test_infer_reads_with_a_tokenizer_json(self):
        own, file = self.infer().json, self.infer("--tokenizer", self.file).json
        for key in ("prompt_tokens", "tokens", "text"):
            self.assertEqual(own[key], file[key], key)
        self.assertIn("token ids are those of", " ".join(file["notes"]))
        other = self.infer("--tokenizer", self.other()).json
        self.assertGreater(len(other["prompt_tokens"]), len(own["prompt_tokens"]))
        self.assertEqual(self.infer("--tokenizer", self.model).json["tokens"], own["tokens"])

    def test_what_is_no_tokenizer_of_this_model(self):
        self.json["added_tokens"][1]["content"] = "<new>"
        self.json["model"]["vocab"].update({f"x{i}": 258 + len(MERGES) + i for i in range(40)})
        self.json["added_tokens"] = []
        self.json["model"]["merges"] = []
        self.json["model"]["vocab"]["O"] = 290
        self.file.write_text(json.dumps(self.json))
        result = self.infer("--tokenizer", self.file, code=2)
        self.assertIn("token 290 is beyond the model's vocabulary of", result.json["reasons"][0]["text"])
        self.json["normalizer"] = {"type": "Odd"}
        self.file.write_text(json.dumps(self.json))
        result = run("infer", "-m", self.model, "-p", TEXT, "--tokenizer", self.file)
        self.assertIn("normalizer.type: the normaliser Odd is not supported", result.err)
        self.file.write_text('{"model": }')
        result = run("infer", "-m", self.model, "-p", TEXT, "--tokenizer", self.file)
        self.assertIn("byte 10: not valid JSON", result.err)

    def test_crossval_reads_with_a_tokenizer_json(self):
        own = self.crossval("-m", self.model, "-r", LLAMA, "-p", TEXT)
        file = self.crossval("-m", self.model, "-r", LLAMA, "-p", TEXT, "--tokenizer", self.file)
        other = self.crossval("-m", self.model, "-r", LLAMA, "-p", TEXT, "--tokenizer", self.other())
        for result in (own, file, other):
            self.expect(result, "match", 0)
        self.assertEqual(own.json["prompts"][0]["tokens"], file.json["prompts"][0]["tokens"])
        self.assertNotEqual(own.json["prompts"][0]["tokens"], other.json["prompts"][0]["tokens"])
        self.assertIn("not of the engines' tokenisers", " ".join(other.json["notes"]))
        self.assertNotIn("tokenisers", " ".join(own.json["notes"]))

    def test_tokenizer_parity_takes_one_as_a_side(self):
        def parity(file):
            return run("tokenizer-parity", "-m", self.model, "-r", LLAMA, "--tokenizer", file, "--random", 200, "--format", "json")
        self.expect(parity(self.file), "match", 0, "equal")
        self.expect(parity(self.other()), "diverged", 1, "tokens-differ")
        text = run("tokenizer-parity", "-m", self.model, "-r", LLAMA, "--tokenizer", self.file, "--random", 50)
        self.assertRegex(text.out, r"candidate +\S*tokenizer.json")
        self.assertIn("are no UTF-8", text.out)
        both = run("tokenizer-parity", "-m", self.model, "-r", LLAMA, "-c", "native", "--tokenizer", self.file)
        self.assertEqual(both.code, 2, both)

    def test_engines_ids_serve_where_ours_does_not_know_the_file(self):
        """superbpe is a pre-tokeniser of llama.cpp's that paritybit does not offer."""
        foreign = self.folder / "foreign" / "m.gguf"
        file = tiny()
        file.set("tokenizer.ggml.pre", STRING, "superbpe")
        file.write(foreign)
        for candidate in ("native", "llama.cpp,cpu.library=x64"):
            result = self.crossval("-m", foreign, "-c", candidate, "-r", LLAMA, "-p", TEXT)
            self.expect(result, "match", 0)
            notes = " ".join(result.json["notes"])
            self.assertIn("paritybit's tokeniser did not check them", notes)
            self.assertIn('tokenizer.ggml.pre is "superbpe"', notes)
            self.assertEqual(candidate == "native", "the candidate does not read the file's tokeniser" in notes, notes)
            self.assertGreater(len(result.json["prompts"][0]["tokens"]), 10)
        # Nobody reads it: refused by name.
        alone = self.crossval("-m", foreign, "-c", "native", "-r", "native", "-p", TEXT)
        self.expect(alone, "incomplete", 3, "unsupported")
        self.assertEqual(run("infer", "-m", foreign, "-p", TEXT).code, 3)
        # The report of one engine says so, too.
        audit = run("audit", "-m", foreign, "-e", LLAMA, "-p", TEXT, "--format", "json")
        self.assertEqual((audit.code, audit.json["verdict"]), (0, "match"), audit)
        self.assertIn("token ids were not checked", json.dumps(audit.json))

    def test_samplers(self):
        greedy = self.infer().json["tokens"]
        warm = ("--temperature", 3, "--seed", 5)
        drawn = self.infer(*warm).json["tokens"]
        self.assertNotEqual(greedy, drawn)
        self.assertEqual(drawn, self.infer(*warm).json["tokens"])
        for flags in (("--top-p", 0), ("--min-p", 1), ("--top-k", 1)):  # each leaves the likeliest alone
            self.assertEqual(greedy, self.infer(*warm, *flags).json["tokens"], flags)
        self.assertNotEqual(drawn, self.infer(*warm, "--typical-p", 0.01).json["tokens"])
        # A large penalty of all that was seen: no token comes twice, and none of the prompt's.
        for flags in (("--presence-penalty", 100), ("--frequency-penalty", 100)):
            result = self.infer(*flags, "--repeat-last-n", -1).json
            self.assertEqual(len(set(result["tokens"])), 8, flags)
            self.assertFalse(set(result["tokens"]) & set(result["prompt_tokens"]), flags)
        self.assertNotEqual(greedy, self.infer("--repetition-penalty", 1.5).json["tokens"])
        self.assertEqual(greedy, self.infer("--repetition-penalty", 1.5, "--repeat-last-n", 0).json["tokens"])
        for flags in (("--top-p", 1.5), ("--min-p", -1), ("--repetition-penalty", 0)):
            self.assertEqual(run("infer", "-m", self.model, "-p", TEXT, *flags).code, 2, flags)


if __name__ == "__main__":
    main()

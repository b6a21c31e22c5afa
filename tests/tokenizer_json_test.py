"""tokenizer.json files against the `tokenizers` package itself: ids, with and without special tokens, and
the text that comes back, over hard and random texts, for every component that is read. Whatever is not
read is refused by name; damaged and hostile files end in an error within bounded time.

python3 tokenizer_json_test.py BUILD_DIRECTORY
"""
import base64
import copy
import json
import random
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from driver import BUILD, CACHE, ROOT, vocabulary as vocabulary_of
from gguf_edit import Gguf

REFERENCES = (Path(CACHE.name) / "references").resolve()
sys.path.insert(0, str(REFERENCES.parent / "python-tests"))
import tokenizers  # noqa: E402  (pinned: python/tests/requirements.txt)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: E402

PROBE = BUILD / "bin" / "json_tokenizer_probe"
CORPUS = [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
TEXTS = [
    "", " ", "  ", "a", "Hello world", " Hello  world ", "don't I'LL we've 'S", "line\nline\r\n\r\n\tx", "12345678 1,234.5",
    "caf\u00e9 cafe\u0301", "\u0130stanbul STRASSE \u00df", "\u4f60\u597d\u4e16\u754c hello\u4f60", "\u3053\u3093\u306b\u3061\u306f", "\ud55c\uad6d\uc5b4",
    "\u0639\u0631\u0628\u064a \u0669\u0668", "\U0001F468\u200d\U0001F469\u200d\U0001F467 \U0001F600", "\u00a0nbsp\u3000wide\u2009thin", "x\x00y\x07z\x7f",
    "<s>text</s> <s>", "a<|end|>b <|end|>", "[MASK] a [MASK]b word[MASK]", "  <pad>  x", "\u2581under\u2581", "\ufb01ne \u2460 \uff21\uff22", "A" * 300,
    "\u1e9b\u0323 \u2126 \u212b", "I\u0307 \u01c5", "snake_case camelCase x86_64", "'\u017f \u212a's", "e\u0301\u0302\u0303x", "...!!! ?! -- __", "\u00b2\u00b9\u00bd\u2167",
]


def random_texts(n, seed, extra=()):
    """Assigned characters of many scripts, spaces, digits, code, and the texts of special tokens."""
    rng = random.Random(seed)
    ranges = [(0x20, 0x7E), (0xA0, 0x17F), (0x300, 0x33F), (0x391, 0x3A1), (0x410, 0x44F), (0x5D0, 0x5EA), (0x621, 0x63A),
              (0x660, 0x669), (0x905, 0x939), (0xE01, 0xE2E), (0x2010, 0x2027), (0x2150, 0x2188), (0x3041, 0x3096),
              (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFF01, 0xFF5E), (0x1F600, 0x1F64F), (0x1D400, 0x1D454)]
    words = ["the", " of", "Hello", "don't", "\n", "\n\n", "\r\n", "\t", "  ", " ", "1", "234", "_", "\u00a0", "\u3000", "'s", "'RE", "..."] + list(extra)
    texts = []
    for _ in range(n):
        text = ""
        for _ in range(rng.randint(1, 14)):
            if rng.random() < 0.5:
                text += rng.choice(words)
            else:
                first, last = rng.choice(ranges)
                text += "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 4)))
        texts.append(text)
    return texts


def trained(model, trainer, pre=None):
    made = Tokenizer(model)
    if pre is not None:
        made.pre_tokenizer = pre
    made.train_from_iterator(CORPUS, trainer)
    return json.loads(made.to_str())


def split(pattern, behaviour="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behaviour, "invert": invert}


def byte_level(**more):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **more}


def added(index, content, **more):
    return {"id": index, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True, **more}


# The published expressions of LLaMA 3, Qwen 2, o200k, DeepSeek 3 and Kimi K2.
PATTERNS = {
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
             r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
             r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek3": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "kimi": r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t)?|\p{N}{1,3}|\s+|.",
    "bailing": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "digits": r"\d{1,3}(?=(?:\d{3})*\b)",
    "superbpe": r"(?=(\d{3})+(?!\d))",
    "words": r"\w+|[^\w\s]+",
    "lazy": r"a.*?b|\s+?|\S{2,4}",
    "behind": r"(?<=\s)\S+|(?<!\S)x",
    "lines": r"^.+$|\n",
    "posix": r"\h+|\H",
}


class TokenizerJson(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = Path(cls.folder.name) / "tokenizer.json"
        specials = ["<unk>", "<s>", "</s>", "<pad>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        cls.bpe = trained(models.BPE(), trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False),
                          pre_tokenizers.ByteLevel(add_prefix_space=False))
        cls.char_bpe = trained(models.BPE(unk_token="<unk>"),
                               trainers.BpeTrainer(vocab_size=700, special_tokens=specials, show_progress=False),
                               pre_tokenizers.Metaspace())
        cls.unigram = trained(models.Unigram(),
                              trainers.UnigramTrainer(vocab_size=500, special_tokens=specials, unk_token="<unk>",
                                                      show_progress=False), pre_tokenizers.Metaspace())
        cls.wordpiece = trained(models.WordPiece(unk_token="[UNK]"),
                                trainers.WordPieceTrainer(vocab_size=700, show_progress=False,
                                                          special_tokens=["[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
                                pre_tokenizers.BertPreTokenizer())

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def probe(self, file, texts, timeout=120):
        self.path.write_text(file if isinstance(file, str) else json.dumps(file))
        done = subprocess.run([PROBE, self.path], input="".join(t.encode().hex() + "\n" for t in texts), text=True,
                              capture_output=True, timeout=timeout)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def compare(self, file, extra=(), n=150, seed=1):
        """Ours and the package's, text by text."""
        theirs = Tokenizer.from_str(json.dumps(file))
        theirs.no_truncation(), theirs.no_padding()
        texts = TEXTS + random_texts(n, seed, extra)
        n_ids = 0
        for text, ours in zip(texts, self.probe(file, texts)):
            for mode, special in enumerate((True, False)):
                theirs.encode_special_tokens = not special
                expected = theirs.encode(text, add_special_tokens=special).ids
                self.assertNotIn("error", ours, text)
                self.assertEqual(ours["ids"][mode], expected, f"{text!r} special={special}")
                for k, shown in enumerate((True, False)):
                    back = bytes.fromhex(ours["back"][2 * mode + k]).decode("utf-8", "replace")
                    self.assertEqual(back, theirs.decode(expected, skip_special_tokens=not shown), repr(text))
                n_ids += len(expected)
        self.assertGreater(n_ids, len(texts) // 2)

    def refused(self, file, *words):
        self.path.write_text(file if isinstance(file, str) else json.dumps(file))
        done = subprocess.run([PROBE, self.path], input="", text=True, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 5, done.stdout)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_version_is_the_pinned_one(self):
        pinned = (ROOT / "python" / "tests" / "requirements.txt").read_text()
        self.assertIn(f"tokenizers=={tokenizers.__version__} ", pinned)

    def test_byte_level_bpe(self):
        self.compare(self.bpe)
        file = copy.deepcopy(self.bpe)
        file["pre_tokenizer"]["add_prefix_space"] = True
        file["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        file["model"]["ignore_merges"] = True
        self.compare(file)

    def test_published_expressions(self):
        for name, pattern in PATTERNS.items():
            with self.subTest(name):
                file = copy.deepcopy(self.bpe)
                file["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split(pattern), byte_level(use_regex=False)]}
                file["decoder"] = byte_level()
                self.compare(file, n=100)

    def test_behaviours(self):
        for behaviour in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
            for invert in (False, True):
                for kind, pattern in (("Regex", r"\s|[.']"), ("String", "e")):
                    with self.subTest(f"{behaviour} {invert} {kind}"):
                        file = copy.deepcopy(self.bpe)
                        file["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
                            split(pattern, behaviour, invert, kind), byte_level(use_regex=False)]}
                        self.compare(file, n=40)

    def test_pre_tokenisers(self):
        for pre in ({"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
                    {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "Digits", "individual_digits": True},
                    {"type": "Digits", "individual_digits": False}, {"type": "CharDelimiterSplit", "delimiter": "e"},
                    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
                    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": False}):
            with self.subTest(pre["type"]):
                file = copy.deepcopy(self.bpe)
                file["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [pre, byte_level(use_regex=False)]}
                self.compare(file, n=60)

    def test_normalisers(self):
        bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
        cases = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt")]
        cases += [bert, {**bert, "strip_accents": False, "clean_text": False}, {"type": "Strip", "strip_left": True, "strip_right": True},
                  {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
                  {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
                  {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]}]
        for normalizer in cases:
            with self.subTest(json.dumps(normalizer)):
                file = copy.deepcopy(self.bpe)
                file["normalizer"] = normalizer
                self.compare(file, n=60)
        file = copy.deepcopy(self.bpe)
        file["normalizer"], file["pre_tokenizer"] = {"type": "ByteLevel"}, split(r"\S+")
        self.compare(file, n=60)

    def test_bpe_over_characters(self):
        self.compare(self.char_bpe)
        for settings in ({"fuse_unk": True}, {"byte_fallback": True}, {"unk_token": None}):
            with self.subTest(str(settings)):
                file = copy.deepcopy(self.char_bpe)
                file["model"].update(settings)
                if "byte_fallback" in settings:  # all but the last half of the bytes
                    for byte in range(256):
                        file["model"]["vocab"][f"<0x{byte:02X}>"] = len(file["model"]["vocab"])
                file["decoder"] = {"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
                self.compare(file)

    def test_suffixes_and_prefixes(self):
        file = trained(models.BPE(unk_token="<unk>"), trainers.BpeTrainer(
            vocab_size=600, end_of_word_suffix="</w>", special_tokens=["<unk>"], show_progress=False),
            pre_tokenizers.WhitespaceSplit())
        file["model"]["end_of_word_suffix"] = "</w>"
        file["decoder"] = {"type": "BPEDecoder", "suffix": "</w>"}
        self.compare(file)
        file = trained(models.BPE(unk_token="<unk>"), trainers.BpeTrainer(
            vocab_size=600, continuing_subword_prefix="##", special_tokens=["<unk>"], show_progress=False),
            pre_tokenizers.WhitespaceSplit())
        file["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
        self.compare(file)

    def test_unigram(self):
        self.compare(self.unigram)
        file = copy.deepcopy(self.unigram)
        file["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0 - byte / 7] for byte in range(256)]
        file["model"]["byte_fallback"] = True
        file["decoder"] = {"type": "Sequence", "decoders": [
            {"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}]}
        self.compare(file)

    def test_wordpiece(self):
        file = copy.deepcopy(self.wordpiece)
        file["normalizer"] = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                              "lowercase": True}
        file["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
        for post in ({"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
                     {"type": "RobertaProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1], "trim_offsets": True,
                      "add_prefix_space": False}):
            file["post_processor"] = post
            self.compare(file, extra=["[MASK]", " [MASK]"])

    def test_templates_and_added_tokens(self):
        n = len(self.bpe["model"]["vocab"])
        file = copy.deepcopy(self.bpe)
        file["added_tokens"] = [added(n, "<s>"), added(n + 1, "</s>"), added(n + 2, "<pad>", lstrip=True, rstrip=True),
                                added(n + 3, "<|end|>", normalized=True, special=False), added(n + 4, "<|end|>b"),
                                added(n + 5, "word", single_word=True, special=False, normalized=True),
                                added(n + 6, "Hello", special=False, normalized=True), added(n + 7, "[MASK]", lstrip=True)]
        file["post_processor"] = {"type": "Sequence", "processors": [byte_level(), {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [n], "tokens": ["<s>"]},
                               "</s>": {"id": "</s>", "ids": [n + 1, n + 1], "tokens": ["</s>", "</s>"]}}}]}
        extra = ["<s>", "</s>", " <pad> ", "<|end|>", "<|end|>b", "word", " word", "words", "hello", "Hello", "[MASK]"]
        for normalizer in (None, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "x"}):
            with self.subTest(str(normalizer)):
                file["normalizer"] = normalizer
                self.compare(file, extra=extra, n=300)
        file["normalizer"] = None
        file["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
            {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}, byte_level(use_regex=False)]}
        file["decoder"] = None
        self.compare(file, extra=extra, n=300)

    def test_charsmap(self):
        """The compiled normalisation of nomic-bert-moe's vocabulary, which is XLM-RoBERTa's (nmt_nfkc)."""
        vocabulary = Gguf(vocabulary_of("nomic-bert-moe"))
        file = copy.deepcopy(self.unigram)
        file["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(
            bytes(b & 255 for b in vocabulary.array("tokenizer.ggml.precompiled_charsmap"))).decode()}
        self.compare(file, n=300)

    def test_a_real_vocabulary(self):
        """LLaMA 3's, as tokenizer.json has it: 128 thousand tokens, 280 thousand merges."""
        vocabulary = Gguf(vocabulary_of("llama-bpe"))
        tokens = vocabulary.array("tokenizer.ggml.tokens")
        types = vocabulary.array("tokenizer.ggml.token_type")
        file = copy.deepcopy(self.bpe)
        file["model"].update(vocab={t: i for i, t in enumerate(tokens) if types[i] == 1}, ignore_merges=True,
                             merges=vocabulary.array("tokenizer.ggml.merges"))
        file["added_tokens"] = [added(i, t) for i, t in enumerate(tokens) if types[i] == 3]
        file["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split(PATTERNS["llama3"]), byte_level(use_regex=False)]}
        file["decoder"] = byte_level()
        self.compare(file, extra=["<|begin_of_text|>", "<|eot_id|>"], n=400)

    def test_refusals_name_the_place(self):
        def with_change(change):
            file = copy.deepcopy(self.bpe)
            change(file)
            return file

        self.refused(with_change(lambda f: f.update(normalizer={"type": "Fancy"})), "normalizer.type: the normaliser Fancy is not")
        self.refused(with_change(lambda f: f.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [byte_level(), {"type": "UnicodeScripts"}]})),
                     "pre_tokenizer.pretokenizers[1].type: the pre-tokeniser UnicodeScripts is not supported")
        self.refused(with_change(lambda f: f.update(decoder={"type": "CTC"})), "decoder.type: the decoder CTC")
        self.refused(with_change(lambda f: f["model"].update(type="WordLevel")), "model.type: the model WordLevel")
        self.refused(with_change(lambda f: f["model"].update(dropout=0.1)), "model.dropout")
        self.refused(with_change(lambda f: f["model"].update(novelty=1)), "model.novelty is not supported")
        self.refused(with_change(lambda f: f["model"]["merges"].append(["zq", "qz"])), "model.merges[", "is not in the vocabulary")
        self.refused(with_change(lambda f: f.update(post_processor={"type": "Odd"})), "post_processor.type: the post-processor Odd")
        self.refused(with_change(lambda f: f.update(added_tokens=[added(5, "<new>")])), "added_tokens[0].id")
        self.refused(with_change(lambda f: f.update(pre_tokenizer=split(r"(a)\1"))), "pre_tokenizer.pattern.Regex", "byte 3 of the expression: \\1")
        self.refused(with_change(lambda f: f.update(pre_tokenizer=split("a(b"))), "byte 1 of the expression: a group without its end")
        self.refused(with_change(lambda f: f["model"]["vocab"].update({"far": 16_000_000})), "model.vocab: the id 16000000", "without a token")
        self.refused('{"model": {"type": "BPE",, }}', "byte 25: not valid JSON")
        self.refused("[1, 2]", "it is no object")
        self.refused("{}", "model: there is no model")

    def test_hostile_files(self):
        begin = time.monotonic()
        file = copy.deepcopy(self.bpe)
        for pattern in (r"(a|a)*b", r"(?:a?){40}a{40}", r"(a*)*b", r"((((a{9}){9}){9}){9}){9}", "(" * 5000 + ")" * 5000, "[a-" * 300, r"\p{L}" * 9000):
            file["pre_tokenizer"] = split(pattern)
            self.path.write_text(json.dumps(file))
            done = subprocess.run([PROBE, self.path], input="aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".encode().hex() + "\n", text=True,
                                  capture_output=True, timeout=30)
            self.assertIn(done.returncode, (0, 5), pattern[:40])
        text = json.dumps(self.unigram)
        rng = random.Random(7)
        for _ in range(60):  # bytes that changed on the way
            at = rng.randrange(len(text))
            self.path.write_text(text[:at] + chr(rng.randint(32, 126)) + text[at + 1:])
            done = subprocess.run([PROBE, self.path], input="61\n", text=True, capture_output=True, timeout=30)
            self.assertIn(done.returncode, (0, 5))
        self.assertLess(time.monotonic() - begin, 60)

    def test_a_long_text_takes_time_in_proportion(self):
        text = (" ".join(CORPUS) * 10)[:1_000_000]
        for file in (self.bpe, self.char_bpe, self.unigram, self.wordpiece):
            begin = time.process_time()
            self.probe(file, [text], timeout=60)
            self.assertLess(time.process_time() - begin, 20)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

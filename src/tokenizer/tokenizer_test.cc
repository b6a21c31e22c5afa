// The tokenizer on small tables whose ids follow by hand, and on tables and texts meant to break
// it.
#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <ctime>
#include <thread>

#include "tokenizer/bpe.h"
#include "tokenizer/gguf_keys.h"

namespace pb {
namespace {

using Ids = std::vector<int32_t>;

// Letters a-z are 0-25, space (written U+0120) is 26; further tokens and merges follow.
TokenizerData Letters(std::vector<std::string> more = {}, std::vector<std::string> merges = {}) {
  TokenizerData data;
  data.model = "gpt2";
  data.pre = "gpt-2";
  for (char c = 'a'; c <= 'z'; ++c) data.tokens.emplace_back(1, c);
  data.tokens.emplace_back("\xC4\xA0");
  for (auto& token : more) data.tokens.push_back(std::move(token));
  data.merges = std::move(merges);
  return data;
}

std::unique_ptr<const Tokenizer> Make(TokenizerData data) {
  auto result = Tokenizer::Create(std::move(data));
  EXPECT_TRUE(result.ok()) << result.error().message;
  return result.ok() ? std::move(result).value() : nullptr;
}

std::string RefusedWith(TokenizerData data) {
  auto result = Tokenizer::Create(std::move(data));
  return result.ok() ? "accepted" : result.error().message;
}

Ids Encode(const Tokenizer& t, std::string_view text, bool add_special = false, bool parse_special = false) {
  auto ids = t.Encode(text, {add_special, parse_special});
  EXPECT_TRUE(ids.ok()) << ids.error().message;
  return ids.ok() ? *ids : Ids{};
}

std::string Decode(const Tokenizer& t, const Ids& ids, bool special = true) {
  auto text = t.Decode(ids, special);
  return text.ok() ? *text : "error: " + text.error().message;
}

const std::string kMark = "\xE2\x96\x81";  // for a space

// Byte tokens 0-255, the space (U+2581) 256, letters a-z 257-282; further tokens follow, with these
// scores.
TokenizerData Scored(std::vector<std::pair<std::string, float>> more = {}) {
  TokenizerData data;
  data.model = "llama";
  for (int byte = 0; byte < 256; ++byte) data.tokens.push_back(fmt::format("<0x{:02X}>", byte));
  data.token_types.assign(256, 6);
  data.tokens.emplace_back("\xE2\x96\x81");
  for (char c = 'a'; c <= 'z'; ++c) data.tokens.emplace_back(1, c);
  data.scores.assign(data.tokens.size(), 0);
  for (auto& [text, score] : more) data.tokens.push_back(text), data.scores.push_back(score);
  data.token_types.resize(data.tokens.size(), 1);
  return data;
}
constexpr int32_t kSpaceId = 256, kA = 257, kNext = 283;

TEST(Spm, TheBestScoreIsJoinedFirstThenFromTheLeft) {
  auto t = Make(Scored({{"ab", -2}, {"bc", -1}, {"abc", -3}, {"aa", -4}}));
  EXPECT_EQ(Encode(*t, "abc"), (Ids{kSpaceId, kNext + 2}));  // b and c, then a and bc
  EXPECT_EQ(Encode(*t, "abd"), (Ids{kSpaceId, kNext, kA + 3}));
  EXPECT_EQ(Encode(*t, "aaa"), (Ids{kSpaceId, kNext + 3, kA}));
  EXPECT_EQ(Encode(*t, ""), Ids{});
}

TEST(Spm, ASpaceComesBeforeTextAndBehindSpecialTokens) {
  TokenizerData data = Scored({{"<s>", 0},
                               {"\xE2\x96\x81"
                                "a",
                                -1}});
  data.token_types[kNext] = 3;
  data.bos = kNext, data.add_bos = true;
  auto t = Make(data);
  EXPECT_EQ(Encode(*t, "a", true), (Ids{kNext, kNext + 1}));
  EXPECT_EQ(Encode(*t, "b<s>a", false, true), (Ids{kSpaceId, kA + 1, kNext, kNext + 1}));
  EXPECT_EQ(Decode(*t, {kNext, kNext + 1, kA}), "<s> aa");
  EXPECT_EQ(Decode(*t, {kNext, kNext + 1, kA}, false), " aa");
  data.add_space_prefix = false;
  EXPECT_EQ(Encode(*Make(data), "a a", true), (Ids{kNext, kA, kNext + 1}));
}

TEST(Spm, WhatIsNoTokenIsSpeltInBytes) {
  auto t = Make(Scored());
  EXPECT_EQ(Encode(*t, "\xC3\xA9!"), (Ids{kSpaceId, 0xC3, 0xA9, '!'}));
  EXPECT_EQ(Encode(*t, "\xFF"), (Ids{kSpaceId, 0xFF}));
  EXPECT_EQ(Encode(*t, "\xE2"), (Ids{kSpaceId, 0xE2}));  // a character that ends before it should
  EXPECT_EQ(Decode(*t, {0xC3, 0xA9}), "\xC3\xA9");
}

TEST(Spm, TablesThatCannotBe) {
  TokenizerData data = Scored();
  data.scores.pop_back();
  EXPECT_NE(RefusedWith(data).find("tokenizer.ggml.scores"), std::string::npos);
  data = Scored();
  data.tokens[7] = "seven";
  EXPECT_NE(RefusedWith(data).find("<0x07>"), std::string::npos);
}

TEST(Bpe, MergesByRankThenFromTheLeft) {
  auto t = Make(Letters({"bc", "ab", "abc", "aa"}, {"b c", "a b", "ab c", "a a"}));
  // "b c" outranks "a b", and then nothing joins a and bc
  EXPECT_EQ(Encode(*t, "abc"), (Ids{0, 27}));
  EXPECT_EQ(Encode(*t, "abd"), (Ids{28, 3}));
  EXPECT_EQ(Encode(*t, "aaaaa"), (Ids{30, 30, 0}));
  EXPECT_EQ(Encode(*t, "aab"), (Ids{0, 28}));  // "a b" before "a a"
  EXPECT_EQ(Encode(*t, ""), Ids{});
}

TEST(Bpe, OfTwoEqualMergesTheFirstCounts) {
  auto t = Make(Letters({"ab", "bc"}, {"a b", "b c", "a b"}));
  EXPECT_EQ(Encode(*t, "abc"), (Ids{27, 2}));
}

// A merge may lead through, or to, a string that is no token: it is spelt byte by byte, and bytes
// without a token vanish.
TEST(Bpe, StringsThatAreNoTokens) {
  auto t = Make(Letters({"abc"}, {"a b", "ab c", "x y"}));
  EXPECT_EQ(Encode(*t, "abc"), (Ids{27}));
  EXPECT_EQ(Encode(*t, "abd"), (Ids{0, 1, 3}));
  EXPECT_EQ(Encode(*t, "aQb"), (Ids{0, 1}));
  EXPECT_EQ(Encode(*t, "a\xC3\xA9"), (Ids{0}));
  auto raw = Make(
      Letters({"\xC4"}));  // a token of one raw byte serves for the first half of U+0120..., as in llama.cpp
  EXPECT_EQ(Encode(*raw, "\x01"), (Ids{27}));
}

TEST(Bpe, IgnoreMergesTakesWholeWords) {
  TokenizerData data = Letters({"abc"});
  EXPECT_EQ(Encode(*Make(data), "abc"), (Ids{0, 1, 2}));
  data.pre = "llama-bpe";
  EXPECT_EQ(Encode(*Make(data), "abc abc"), (Ids{27, 26, 0, 1, 2}));
}

TEST(Bpe, ByteText) {
  std::string bytes;
  EXPECT_TRUE(
      ReadByteText("\xC4\xA0"
                   "a\xC4\x8A",
                   &bytes));
  EXPECT_EQ(bytes, " a\n");
  EXPECT_TRUE(ReadByteText("\xC5\x83", &bytes));  // U+0143, the last of the table
  EXPECT_EQ(bytes, "\xAD");
  for (const char* text : {" ", "\xC5\x84", "\xC4", "\xE2\x96\x81", "\xC0\x80", "\n"})
    EXPECT_FALSE(ReadByteText(text, &bytes)) << text;
}

TEST(Tokenizer, BosAndEos) {
  TokenizerData data = Letters({"<s>", "</s>"});
  data.token_types.assign(27, 1);
  data.token_types.insert(data.token_types.end(), {3, 3});
  data.bos = 27, data.eos = 28, data.add_bos = true, data.add_eos = true;
  auto t = Make(data);
  EXPECT_EQ(Encode(*t, "a", true), (Ids{27, 0, 28}));
  EXPECT_EQ(Encode(*t, "a", false), (Ids{0}));
  EXPECT_EQ(Encode(*t, "", true), (Ids{27, 28}));
  EXPECT_EQ(Encode(*t, "<s>a", true, true), (Ids{27, 27, 0, 28}));  // twice, as asked for
  EXPECT_EQ(Encode(*t, "<s>a", true, false), (Ids{27, 18, 0, 28}));
  EXPECT_TRUE(t->IsEndOfGeneration(28));
  EXPECT_FALSE(t->IsEndOfGeneration(27));
}

TEST(Tokenizer, SpecialTokensLongestFirst) {
  TokenizerData data = Letters({"ab", "abc", "<u>", "zz", "aza"});
  data.token_types.assign(27, 1);
  data.token_types.insert(data.token_types.end(), {4, 3, 2, 4, 4});
  auto t = Make(data);
  EXPECT_EQ(Encode(*t, "xabcx<u>", false, true), (Ids{23, 28, 23, 29}));
  // only user-defined ones
  EXPECT_EQ(Encode(*t, "xabcx<u>", false, false), (Ids{23, 27, 2, 23, 20}));
  EXPECT_EQ(Encode(*t, "zzz", false, false), (Ids{30, 25}));
  EXPECT_EQ(Encode(*t, "zaza", false, false), (Ids{25, 31}));
  EXPECT_EQ(Encode(*t, "abab", false, false), (Ids{27, 27}));
}

TEST(Tokenizer, SpecialTokensTakeWhiteSpaceInKnownFamilies) {
  TokenizerData data = Letters({"<|x|>", "</s>", "<s>"});
  data.token_types.assign(27, 1);
  data.token_types.insert(data.token_types.end(), {3, 3, 3});
  EXPECT_EQ(Encode(*Make(data), "a <|x|> b", false, true), (Ids{0, 26, 27, 26, 1}));
  data.name = "My Phi-3 Mini";
  EXPECT_EQ(Encode(*Make(data), "a <|x|> \n b<s> c", false, true), (Ids{0, 26, 27, 1, 29, 26, 2}));
  data.name = "";
  data.tokens[27] = "<mask>";
  data.pre = "jina-v2-code";
  EXPECT_EQ(Encode(*Make(data), "a  <mask> b", false, true), (Ids{0, 27, 26, 1}));
}

TEST(Tokenizer, TokensThatLookLikeControlTokensAre) {
  TokenizerData data = Letters(
      {"<|im_end|>", "<|fim_prefix|>", "<fim_pad>", "<|channel|>", "<|end|>", "<|call|>", "<|return|>"});
  data.eos = 0;
  auto t = Make(data);
  EXPECT_EQ(Encode(*t, "<|im_end|><|fim_prefix|><fim_pad><|channel|>", false, true), (Ids{27, 28, 29, 30}));
  EXPECT_EQ(Encode(*t, "<|channel|>a", false, false),
            (Ids{30, 0}));  // user-defined, as is <|end|> beside <|call|> and <|return|>
  EXPECT_EQ(Encode(*t, "<|end|>a", false, false), (Ids{31, 0}));
  for (int32_t id : {0, 27, 29, 32, 33}) EXPECT_TRUE(t->IsEndOfGeneration(id)) << id;
  for (int32_t id : {1, 28, 30, 31}) EXPECT_FALSE(t->IsEndOfGeneration(id)) << id;
  EXPECT_EQ(Decode(*t, {27, 0, 30}, false), "a<|channel|>");
  data.fim[0] = 5;  // the key names another: the text decides nothing
  EXPECT_EQ(Encode(*Make(data), "<|fim_prefix|>", false, true), Encode(*t, "<|fim_prefix|>", false, false));
}

TEST(Tokenizer, Decode) {
  TokenizerData data =
      Letters({"<s>", "\xC3\x83\xC2\xA9", "\xC4\x8A\xC4\xA0", "raw token", "<0x41>", "none"});
  data.token_types.assign(27, 1);
  data.token_types.insert(data.token_types.end(), {3, 1, 1, 4, 6, 5});
  auto t = Make(data);
  EXPECT_EQ(Decode(*t, {27, 28, 29, 30, 31, 32, 0}), "<s>\xC3\xA9\n raw tokenAa");
  EXPECT_EQ(Decode(*t, {27, 28}, false), "\xC3\xA9");
  EXPECT_EQ(Decode(*t, {}), "");
  EXPECT_EQ(Decode(*t, {0, 33}), "error: token 33 at position 1 is not in the vocabulary of 33 tokens");
  EXPECT_EQ(Decode(*t, {-1}), "error: token -1 at position 0 is not in the vocabulary of 33 tokens");
}

TEST(Tokenizer, TextThatTheReferenceCannotTake) {
  auto t = Make(Letters({"<x>"}));
  auto ids = t->Encode("ab\xF4\x90\x80\x80", {});
  ASSERT_FALSE(ids.ok());
  EXPECT_EQ(ids.error().code, Code::kMalformed);
  EXPECT_NE(ids.error().message.find("byte 2: a sequence for U+110000"), std::string::npos)
      << ids.error().message;
}

TEST(Tokenizer, Findings) {
  TokenizerData data = Letters({"", std::string("a\0b", 3) + "!"}, {"nospace", "a b", "\xE2\x96\x81 a"});
  data.tokens[28][0] = 'q';
  data.tokens[28][1] = 'Q';  // "qQb!"
  data.tokens.push_back(std::string("Z\0z", 3));
  data.pre = "";
  auto t = Make(data);
  ASSERT_EQ(t->findings().size(), 4u);
  EXPECT_NE(t->findings()[0].find("tokenizer.ggml.pre is missing"), std::string::npos);
  EXPECT_NE(t->findings()[1].find("tokens[27] is empty"), std::string::npos);
  EXPECT_NE(t->findings()[2].find("tokens[29] holds a zero byte"), std::string::npos);
  EXPECT_NE(t->findings()[3].find("2 of 3 can never apply (the first is [0]"), std::string::npos);
  EXPECT_EQ(Encode(*t, "Z"), (Ids{29}));
  EXPECT_TRUE(Make(Letters())->findings().empty());
}

// Scores of pieces sum; U+2581 is written before words.
TEST(Tokenizer, UnigramTakesTheBestSum) {
  TokenizerData data;
  data.model = "t5";
  data.tokens = {"<pad>", "</s>", "<unk>", kMark + "ab", "a", "b", kMark, "abc", "c", "<x y>"};
  data.token_types = {3, 3, 2, 1, 1, 1, 1, 1, 1, 4};
  data.scores = {0, 0, 0, -2, -1, -1, -1, -6, -1.5f, 0};
  data.unknown = 2, data.eos = 1, data.add_eos = true, data.add_space_prefix = true;
  auto t = Make(data);
  EXPECT_EQ(Encode(*t, "ab"), (Ids{3}));                      // -2, against -3 by letters
  EXPECT_EQ(Encode(*t, "abc"), (Ids{3, 8}));                  // -3.5, against -7 and -4.5
  EXPECT_EQ(Encode(*t, "aZZb", true), (Ids{6, 4, 2, 5, 1}));  // unknown characters in a row are one
  EXPECT_EQ(Encode(*t, "a  b"), (Ids{6, 4, 6, 6, 5}));
  EXPECT_EQ(Encode(*t, "a<x y>b"), (Ids{6, 4, 9, 6, 5}));
  EXPECT_EQ(Decode(*t, {3, 8, 1}), " abc</s>");
  data.remove_extra_spaces = true;
  EXPECT_EQ(Encode(*Make(data), "a  b"), (Ids{6, 4, 6, 5}));
  data.chars_map = "abc";
  EXPECT_EQ(RefusedWith(data), "tokenizer.ggml.precompiled_charsmap: it has 3 bytes, too few for its length");
}

TEST(Tokenizer, WordPieceTakesTheLongest) {
  TokenizerData data;
  data.model = "bert";
  data.tokens = {"[PAD]",     "[UNK]", "[CLS]", "[SEP]", kMark + "un",
                 kMark + "a", "able",  "a",     "ble",   kMark + "!"};
  data.token_types = {3, 3, 3, 3, 1, 1, 1, 1, 1, 1};
  data.unknown = 1, data.bos = 2, data.separator = 3;
  auto t = Make(data);
  EXPECT_EQ(Encode(*t, "unable", true), (Ids{2, 4, 6, 3}));
  EXPECT_EQ(Encode(*t, "A!  \xC3\x81"), (Ids{5, 9, 5}));  // lower case, marks apart, without accents
  EXPECT_EQ(Encode(*t, "unx un"), (Ids{1, 4}));           // unknown as a whole
  EXPECT_EQ(Decode(*t, {4, 6, 9}), " unable !");
  data.lowercase = data.strip_accents = false;
  EXPECT_EQ(Encode(*Make(data), "A a"), (Ids{1, 5}));
}

TEST(Tokenizer, CharactersMergeWhereTokensAreText) {
  TokenizerData data;
  data.model = "gemma4";
  data.tokens = {"<bos>", "a", "b", kMark, kMark + "a", "\n\n", "<0xC3>", "<0xA9>", "\xC3\xBC"};
  data.token_types = {3, 1, 1, 1, 1, 1, 6, 6, 1};
  data.merges = {kMark + " a"};
  data.bos = 0;
  auto t = Make(data);
  EXPECT_EQ(Encode(*t, "a ab", true), (Ids{0, 1, 4, 2}));
  EXPECT_EQ(Encode(*t, "\n\n"), (Ids{5}));                    // line feeds that are a token
  EXPECT_EQ(Encode(*t, "\xC3\xA9\xC3\xBC"), (Ids{6, 7, 8}));  // bytes, and a character that no merge has
  EXPECT_EQ(Decode(*t, {4, 2, 6, 7}), " ab\xC3\xA9");
}

TEST(Tokenizer, RefusesTablesThatContradictThemselves) {
  auto with = [](auto change) {
    TokenizerData data = Letters();
    change(&data);
    return RefusedWith(std::move(data));
  };
  EXPECT_NE(
      with([](auto* d) { d->model = "rwkv"; }).find("tokenizer.ggml.model rwkv is not supported (gpt2, "),
      std::string::npos);
  EXPECT_EQ(with([](auto* d) { d->model = "bert"; }),
            "tokenizer.ggml.bos_token_id is missing, and WordPiece needs it");
  EXPECT_EQ(with([](auto* d) { d->model = "t5"; }),
            "tokenizer.ggml.unknown_token_id is missing, and Unigram needs it");
  EXPECT_NE(with([](auto* d) {
              d->pre = "whitespace";
            }).find("tokenizer.ggml.pre is \"whitespace\"; supported: llama-bpe "),
            std::string::npos);
  EXPECT_EQ(with([](auto* d) { d->tokens.clear(); }), "tokenizer.ggml.tokens is empty");
  EXPECT_EQ(with([](auto* d) { d->tokens[9] = "c"; }), "tokenizer.ggml.tokens[2] and [9] are both \"c\"");
  EXPECT_EQ(with([](auto* d) {
              d->token_types = {1, 1};
            }),
            "tokenizer.ggml.token_type has 2 entries for 27 tokens");
  EXPECT_EQ(with([](auto* d) { d->bos = 27; }),
            "tokenizer.ggml.bos_token_id is 27, the vocabulary has 27 tokens");
  EXPECT_EQ(with([](auto* d) { d->eos = -2; }),
            "tokenizer.ggml.eos_token_id is -2, the vocabulary has 27 tokens");
  EXPECT_EQ(with([](auto* d) { d->eot = 99; }),
            "tokenizer.ggml.eot_token_id is 99, the vocabulary has 27 tokens");
  EXPECT_EQ(with([](auto* d) { d->fim[4] = 1 << 30; }),
            "tokenizer.ggml.fim_token_id is 1073741824, the vocabulary has 27 tokens");
  EXPECT_EQ(with([](auto* d) { d->add_bos = true; }),
            "tokenizer.ggml.add_bos_token is true and there is no BOS");
  EXPECT_EQ(with([](auto* d) { d->add_eos = true; }),
            "tokenizer.ggml.add_eos_token is true and there is no EOS");
  EXPECT_EQ(with([](auto* d) { d->tokens[3].assign(70000, 'x'); }),
            "tokenizer.ggml.tokens[3] has 70000 bytes, more than 65536");
  EXPECT_EQ(with([](auto* d) { d->token_types.assign(27, 77); }), "accepted");
}

// One word of 400 KB, in every manner that a quadratic step would make hang.
TEST(Tokenizer, LongInputsTakeTimeInProportion) {
  TokenizerData data =
      Letters({"aa", "aaaa", "<|x|>", "<", "|"}, {"a a", "aa aa", "b a", "\xC4\xA0 \xC4\xA0"});
  data.token_types.assign(data.tokens.size(), 1);
  data.token_types[29] = data.token_types[30] = 3;
  auto repeat = [](std::string_view text) {
    std::string out;
    while (out.size() < 400'000) out += text;
    return out;
  };
  for (const char* pre : {"llama-bpe", "smollm", "default", "deepseek-llm", "gpt-4o", "tiny_aya"}) {
    data.pre = pre;
    auto t = Make(data);
    for (std::string_view unit :
         {"a", "ba", " ", "\n ", "          x", "7", "\xFF", "\xE6\x97\xA5", "<|x|>", "<|", "A", "=", "'"}) {
      const std::clock_t begin = std::clock();
      Ids ids = Encode(*t, repeat(unit) + "z", false, true);
      EXPECT_LT(std::clock() - begin, 20 * CLOCKS_PER_SEC) << pre << " " << unit;
      EXPECT_EQ(ids.back(), 25);
    }
    EXPECT_EQ(Encode(*t, repeat("a")).size(), 100'000u);
  }
}

TEST(Tokenizer, ManySpecialTokensDoNotMultiplyTheWork) {
  TokenizerData data = Letters();
  for (int i = 0; i < 50'000; ++i) data.tokens.push_back("<|reserved_" + std::to_string(i) + "|>");
  data.token_types.assign(27, 1);
  data.token_types.resize(data.tokens.size(), 3);
  auto t = Make(data);
  std::string text;
  while (text.size() < 1'000'000) text += "<|reserved_ <|reserved_77|>a";
  const std::clock_t begin = std::clock();
  Ids ids = Encode(*t, text, false, true);
  EXPECT_LT(std::clock() - begin, 20 * CLOCKS_PER_SEC);
  EXPECT_EQ(ids.back(), 0);
  EXPECT_EQ(ids[ids.size() - 2], 27 + 77);
}

TEST(Tokenizer, ThreadsShareOne) {
  auto t = Make(Letters({"ab", "abc"}, {"a b", "ab c"}));
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "abc ab 12 \xC3\xA9 ";
  const Ids expected = Encode(*t, text);
  std::vector<std::thread> threads;
  std::array<bool, 4> equal{};
  for (bool& result : equal)
    threads.emplace_back([&] { result = *t->Encode(text, {false, false}) == expected; });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(equal, (std::array<bool, 4>{true, true, true, true}));
}

TEST(Tokenizer, DefaultsOfMissingKeys) {
  auto is = [](std::string_view pre, size_t n, int32_t bos, int32_t eos, bool add_bos) {
    TokenizerDefaults d = DefaultsOf("gpt2", pre, n);
    return d.bos == bos && d.eos == eos && d.add_bos == add_bos;
  };
  EXPECT_TRUE(is("llama-bpe", 100, 11, 11, true));
  EXPECT_TRUE(is("tekken", 100, 11, 11, true));
  EXPECT_TRUE(is("smollm", 100, 11, 11, false));
  EXPECT_TRUE(is("", 11, -1, -1, false));
  EXPECT_TRUE(is("glm4", 100, -1, 11, false));
}

}  // namespace
}  // namespace pb

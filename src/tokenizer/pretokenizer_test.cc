// Where words end. Expected words follow from the published expressions by hand (GPT-2's
// encoder.py; the tokenizer.json of LLaMA 3, Qwen 2 and SmolLM); equality with llama.cpp is tested
// on ids, in tests/.
#include "tokenizer/pretokenizer.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>

namespace pb {
namespace {

using Strings = std::vector<std::string>;

Strings Cut(std::string_view pre, std::string_view text) {
  const PreTokenizerRow* row = FindPreTokenizer(pre);
  if (row == nullptr) return {"no such pre-tokeniser"};
  auto compiled = PreTokenizer::Compile(*row);
  if (!compiled.ok()) return {compiled.error().message};
  auto words = compiled->Split(text);
  if (!words.ok()) return {words.error().message};
  Strings out;
  size_t begin = 0;
  for (size_t end : words->ends) {
    out.push_back(words->text.substr(begin, end - begin));
    begin = end;
  }
  return out;
}

TEST(PreTokenizer, NamesAreUniqueAndCompile) {
  std::istringstream names(PreTokenizerNames());
  std::set<std::string> seen;
  for (std::string name; names >> name;) {
    EXPECT_TRUE(seen.insert(name).second) << name;
    EXPECT_EQ(Cut(name, "a"), Strings{"a"}) << name;
  }
  EXPECT_EQ(seen.size(), 88u);
  EXPECT_EQ(FindPreTokenizer("llama"), nullptr);
  EXPECT_EQ(FindPreTokenizer("llama-bpe llama3"), nullptr);
  EXPECT_EQ(FindPreTokenizer(""), FindPreTokenizer("default"));
}

TEST(PreTokenizer, Llama3) {
  EXPECT_EQ(Cut("llama-bpe", "Hello world, it's 12345 o'CLOCK"),
            (Strings{"Hello", " world", ",", " it", "'s", " ", "123", "45", " o", "'CLOCK"}));
  EXPECT_EQ(Cut("llama-bpe", "WE'RE I'LL"), (Strings{"WE", "'RE", " I", "'LL"}));
  EXPECT_EQ(Cut("llama-bpe", "a  b\n\n c \n"), (Strings{"a", " ", " b", "\n\n", " c", " \n"}));
  EXPECT_EQ(Cut("llama-bpe", "x = {};\r\n\r\n\ty"), (Strings{"x", " =", " {};\r\n\r\n", "\ty"}));
  EXPECT_EQ(Cut("llama-bpe", "(ok)?!\n  "), (Strings{"(ok", ")?!\n", "  "}));
  // A combining mark is no letter; an Arabic-Indic digit is a number; a no-break space is white
  // space.
  EXPECT_EQ(Cut("llama-bpe", "e\xCC\x81x"), (Strings{"e", "\xCC\x81x"}));
  EXPECT_EQ(Cut("llama-bpe", "\xD9\xA3\xD9\xA3\xD9\xA3\xD9\xA3"),
            (Strings{"\xD9\xA3\xD9\xA3\xD9\xA3", "\xD9\xA3"}));
  EXPECT_EQ(Cut("llama-bpe", "a\xC2\xA0\xC2\xA0"), (Strings{"a", "\xC2\xA0\xC2\xA0"}));
}

TEST(PreTokenizer, SmolLmTakesDigitsOneByOne) {
  EXPECT_EQ(Cut("smollm", "in 1999, we'Ve"), (Strings{"in", " ", "1", "9", "9", "9", ",", " we", "'", "Ve"}));
  EXPECT_EQ(Cut("gpt-2", "in 1999, we've"), (Strings{"in", " 1999", ",", " we", "'ve"}));
  EXPECT_EQ(Cut("smollm", "a   7"),
            (Strings{"a", "   ", "7"}));  // a piece between digits ends where the digit begins
}

TEST(PreTokenizer, Others) {
  EXPECT_EQ(Cut("qwen2", "ab 123"), (Strings{"ab", " ", "1", "2", "3"}));
  EXPECT_EQ(Cut("qwen35", "e\xCC\x81x"), (Strings{"e\xCC\x81x"}));
  EXPECT_EQ(Cut("tekken", "HelloWorld ABCd"), (Strings{"Hello", "World", " ABCd"}));
  EXPECT_EQ(Cut("gpt-4o", "don't //x"), (Strings{"don't", " //", "x"}));
  EXPECT_EQ(Cut("falcon", "a+b 12345"), (Strings{"a", "+", "b", " ", "123", "45"}));
  EXPECT_EQ(Cut("", "it's 12345!"), (Strings{"it", "'", "s", " ", "123", "45", "!"}));
}

TEST(PreTokenizer, BytesThatAreNotUtf8) {
  EXPECT_EQ(Cut("gpt-2",
                "a\xFF\x80"
                "b"),
            (Strings{"a", "\xEF\xBF\xBD\xEF\xBF\xBD", "b"}));
  // cut short: one for each byte
  EXPECT_EQ(Cut("gpt-2", "\xE2\x82"), (Strings{"\xEF\xBF\xBD\xEF\xBF\xBD"}));
  EXPECT_EQ(Cut("gpt-2", "\xC1\x81"), (Strings{"A"}));  // overlong form of A
  // a lone surrogate stays
  EXPECT_EQ(Cut("gpt-2", "\xED\xA0\x80"), (Strings{"\xED\xA0\x80"}));
  EXPECT_EQ(Cut("gpt-2", std::string_view("a\0b", 3)), (Strings{"a", std::string(1, '\0'), "b"}));
  EXPECT_EQ(
      Cut("gpt-2", "abc\xF4\x90\x80\x80"),
      Strings{
          "byte 3: a sequence for U+110000, beyond Unicode's last (U+10FFFF); llama.cpp cannot tokenise it"});
  EXPECT_EQ(Cut("gpt-2", ""), Strings{});
}

}  // namespace
}  // namespace pb

// Escapes against hand-written expectations, and quoted words against the shell that reads them.
#include "base/text.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

namespace pb {
namespace {

TEST(Text, InvalidBytesAloneAreEscapedForJson) {
  EXPECT_EQ(EscapeInvalid("nat\xff.so \xc3\xa9\x1b\\"), "nat\\xff.so \xc3\xa9\x1b\\");
  EXPECT_EQ(EscapeInvalid("\xed\xa0\x80"), "\\xed\\xa0\\x80");
  const nlohmann::json object = {{"k\xff", {1, "v\xfe", {{"in", "\xc3"}}}}, {"ok", "\xc3\xa9"}};
  EXPECT_EQ(nlohmann::json::parse(DumpJson(object)),
            nlohmann::json::parse(R"({"k\\xff": [1, "v\\xfe", {"in": "\\xc3"}], "ok": "\u00e9"})"));
  EXPECT_EQ(DumpJson(nlohmann::ordered_json{{"z", "\xff"}, {"a", 1}}), R"({"z":"\\xff","a":1})");
}

TEST(Text, NothingThatATerminalWouldObeyIsLeft) {
  EXPECT_EQ(EscapeUnsafe("a\nb\tc \"\\ \x1b[31m\r\x9b\x7f"), "a\nb\tc \"\\ \\x1b[31m\\x0d\\x9b\\x7f");
  EXPECT_EQ(EscapeUnsafe("\xc2\x9b \xe2\x80\xae \xef\xbb\xbf \xe2\x80\x8f"), "\\x9b \\u202e \\ufeff \\u200f");
}

std::string ReadByShell(const std::string& word) {
  const std::string script = testing::TempDir() + "/paritybit-quote-" + std::to_string(getpid());
  std::ofstream(script) << "printf %s " << word;
  FILE* pipe = popen(("bash " + script + " && rm " + script).c_str(), "r");
  std::string out;
  for (int c; pipe != nullptr && (c = fgetc(pipe)) != EOF;) out.push_back(static_cast<char>(c));
  if (pipe != nullptr) pclose(pipe);
  return out;
}

TEST(Text, QuotedWordsAreReadAsTheyWere) {
  EXPECT_EQ(ShellQuote("a/b-c_1.gguf"), "a/b-c_1.gguf");
  EXPECT_EQ(ShellQuote(""), "''");
  EXPECT_EQ(ShellQuote("it's $x"), "'it'\\''s $x'");
  EXPECT_EQ(ShellQuote("nat\xff.so"), "$'nat\\377.so'");
  EXPECT_EQ(ShellQuote("\x1b[1m7\n'\\"), "$'\\033[1m7\\n\\'\\\\'");
  for (const char* text : {"plain", "it's $x", "nat\xff.so", "\x1b[1m7\n\t'\\", "\xe2\x80\xae'\"`$(x)",
                           "\xff"
                           "12",
                           "\\x41", "!*?~#"})
    EXPECT_EQ(ReadByShell(ShellQuote(text)), text) << ShellQuote(text);
}

}  // namespace
}  // namespace pb

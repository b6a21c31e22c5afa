// Matches that follow from the syntax by hand (Oniguruma's RE document), what is refused, and the
// bound on time. Equality with Oniguruma itself is tested in tests/tokenizer_json_test.py.
#include "tokenizer/pattern.h"

#include <gtest/gtest.h>

#include <string>

namespace pb {
namespace {

using Strings = std::vector<std::string>;

// All matches in a text of Latin-1.
Strings All(std::string_view expression, std::string_view text) {
  auto pattern = Pattern::Compile(expression, UnicodeVersion::k16);
  if (!pattern.ok()) return {pattern.error().message};
  std::vector<uint32_t> points;
  for (char c : text) points.push_back(static_cast<unsigned char>(c));
  PatternBudget budget(points.size());
  Strings out;
  for (size_t at = 0; at <= points.size();) {
    auto match = pattern->Find(points, at, &budget);
    if (!match.ok()) return {match.error().message};
    if (!*match) break;
    out.emplace_back(text.substr((*match)->begin, (*match)->end - (*match)->begin));
    at = std::max((*match)->end, (*match)->begin + 1);
  }
  return out;
}

TEST(Pattern, FirstWayByPreference) {
  EXPECT_EQ(All("a|ab", "abab"), (Strings{"a", "a"}));
  EXPECT_EQ(All("(?:a|ab)c?b", "abcb"), (Strings{"ab"}));
  EXPECT_EQ(All("a.*b", "aXbYb"), (Strings{"aXbYb"}));
  EXPECT_EQ(All("a.*?b", "aXbYb"), (Strings{"aXb"}));
  EXPECT_EQ(All("a*+a", "aaa"), Strings{});
  EXPECT_EQ(All("(?>a|ab)b", "abb"), (Strings{"ab"}));
  EXPECT_EQ(All("(?:ab){2,3}", "abababab"), (Strings{"ababab"}));
  EXPECT_EQ(All("(?:ab)+?c|b", "ababc"), (Strings{"ababc"}));
  EXPECT_EQ(All("x{,2}y", "xxxy"), (Strings{"xxy"}));
}

TEST(Pattern, LooksAround) {
  EXPECT_EQ(All("\\s+(?!\\S)", "a   b  "), (Strings{"  ", "  "}));
  EXPECT_EQ(All("\\w(?=\\d)", "a1b2c"), (Strings{"a", "b"}));
  EXPECT_EQ(All("(?<=a)b|(?<!a)c", "abcac"), (Strings{"b", "c"}));
  EXPECT_EQ(All("\\bab?\\b", "ab abc a"), (Strings{"ab", "a"}));
  EXPECT_EQ(All("^b$", "a\nb\nc"), (Strings{"b"}));
  EXPECT_EQ(All("b\\z", "b\nb"), (Strings{"b"}));
}

TEST(Pattern, Classes) {
  EXPECT_EQ(All("[a-c&&[^b]]+", "abcaac"), (Strings{"a", "caac"}));
  EXPECT_EQ(All("[^\\s\\p{L}]+", "ab 12 cd!"), (Strings{"12", "!"}));
  EXPECT_EQ(All("[\\]\\-a]+", "]-ab"), (Strings{"]-a"}));
  EXPECT_EQ(All("[x-]+", "x-y"), (Strings{"x-"}));
  EXPECT_EQ(All("\\p{^Lu}", "aB"), (Strings{"a"}));
  EXPECT_EQ(All("\\x41\\u0042\\x{43}", "ABC"), (Strings{"ABC"}));
  EXPECT_EQ(All("(?i:'S|k)+", "'sK'S"), (Strings{"'sK'S"}));
  EXPECT_EQ(All("(?i)a(?-i)b", "AbAB"), (Strings{"Ab"}));
  EXPECT_EQ(All("[\xC3\xA0-\xC3\xBF]", "\xE9"), (Strings{"\xE9"}));  // ranges beyond ASCII
}

TEST(Pattern, RefusesByNameAndByte) {
  auto said = [](std::string_view expression) { return All(expression, "")[0]; };
  EXPECT_EQ(said("ab(\\1)"), "byte 3 of the expression: \\1 is not supported");
  EXPECT_EQ(said("a\\p{Nope}"), "byte 1 of the expression: the property \\p{Nope} is not supported");
  EXPECT_EQ(said("(ab"), "byte 0 of the expression: a group without its end");
  EXPECT_EQ(said("ab)"), "byte 2 of the expression: a closing parenthesis without its opening one");
  EXPECT_EQ(said("a[b"), "byte 1 of the expression: a class without its end");
  EXPECT_EQ(said("[z-a]"), "byte 2 of the expression: a range that ends before it begins");
  EXPECT_EQ(said("*a"), "byte 0 of the expression: a repetition of nothing");
  EXPECT_EQ(said("(a*)*"), "an endless repetition of what may be empty is not supported");
  EXPECT_EQ(said("(?<=a+)b"), "what a look behind matches has no fixed width");
  EXPECT_EQ(said("a{2000}"),
            "byte 1 of the expression: a repetition of more than 1000 times is not supported");
  EXPECT_NE(said("((((a|b){999}){999}){999})").find("larger than is supported"), std::string::npos);
  EXPECT_NE(said(std::string(200, '(')).find("more than 100 nested groups"), std::string::npos);
}

TEST(Pattern, SpendsNoMoreThanItsBudget) {
  EXPECT_EQ(All("(?:a|a)*b", std::string(64, 'a')),
            Strings{"the expression takes too many steps on this text"});
  // A run that ends in nothing is not begun anew at each of its spaces.
  EXPECT_EQ(All("\\s+\\z", std::string(300'000, ' ') + "x "), Strings{" "});
}

}  // namespace
}  // namespace pb

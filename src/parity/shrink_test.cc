// What is left is 1-minimal.
#include "parity/shrink.h"

#include <gtest/gtest.h>

namespace pb::parity {
namespace {

TEST(ShrinkText, LeavesOnlyWhatMatters) {
  const auto holds = [](const std::string& text) -> Result<bool> {
    return text.find('a') != std::string::npos && text.find("\u00e9") != std::string::npos;
  };
  const auto shrunk = ShrinkText("some text with caf\u00e9 and more behind it", 10'000, holds);
  ASSERT_TRUE(shrunk.ok());
  EXPECT_EQ(shrunk->text, "a\u00e9");
}

TEST(ShrinkText, ABrokenByteIsACharacter) {
  const auto shrunk = ShrinkText("abc\xff\xe4\xbd", 1000, [](const std::string& text) -> Result<bool> {
    return text.find('\xff') != std::string::npos;
  });
  ASSERT_TRUE(shrunk.ok());
  EXPECT_EQ(shrunk->text, "\xff");
}

TEST(ShrinkText, NothingIsNeverTried) {
  int n = 0;
  const auto shrunk = ShrinkText("abcdef", 1000, [&](const std::string& text) -> Result<bool> {
    ++n;
    EXPECT_FALSE(text.empty());
    return true;
  });
  ASSERT_TRUE(shrunk.ok());
  EXPECT_EQ(shrunk->text.size(), 1u);
  EXPECT_EQ(shrunk->n_tried, n);
}

TEST(ShrinkText, TriesEnd) {
  const auto shrunk =
      ShrinkText(std::string(1000, 'x'), 3, [](const std::string&) -> Result<bool> { return false; });
  ASSERT_TRUE(shrunk.ok());
  EXPECT_EQ(shrunk->text.size(), 1000u);
}

}  // namespace
}  // namespace pb::parity

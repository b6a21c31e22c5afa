// Prompts are the same for a seed, vary, and shrink to the smallest that still fails.
#include "parity/prompts.h"

#include <gtest/gtest.h>

#include <set>

namespace pb::parity {
namespace {

TEST(RandomPrompts, TheSeedSaysWhichTheyAre) {
  const RandomPrompts one(7, 30), same(7, 30), other(8, 30);
  std::set<std::string> texts;
  int n_equal = 0;
  for (int i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one.At(i), same.At(i));
    EXPECT_FALSE(one.At(i).empty());
    n_equal += one.At(i) == other.At(i);
    texts.insert(one.At(i));
  }
  EXPECT_GE(texts.size(), 25u);
  EXPECT_LE(n_equal, 5);
}

TEST(RandomPrompts, ShrinkToTheSmallestThatFails) {
  const RandomPrompts prompts(3, 40);
  int n_found = 0;
  for (int i = 0; i < prompts.size(); ++i) {
    if (prompts.At(i).find(" light") == std::string::npos) continue;
    ++n_found;
    const auto smallest = prompts.Shrink(
        i, 1000, [](const std::string& text) { return text.find(" light") != std::string::npos; });
    ASSERT_TRUE(smallest.ok());
    EXPECT_EQ(smallest->text, " light");
    EXPECT_TRUE(smallest->is_minimal);
  }
  EXPECT_GE(n_found, 3);
}

// One that has smaller ones.
int Longest(const RandomPrompts& prompts) {
  int longest = 0;
  for (int i = 0; i < prompts.size(); ++i)
    if (prompts.At(i).size() > prompts.At(longest).size()) longest = i;
  return longest;
}

TEST(RandomPrompts, TriesAreCounted) {
  const RandomPrompts prompts(3, 40);
  const auto smallest = prompts.Shrink(Longest(prompts), 2, [](const std::string&) { return false; });
  ASSERT_TRUE(smallest.ok());
  EXPECT_EQ(smallest->n_tried, 2);
  EXPECT_FALSE(smallest->is_minimal);
}

TEST(RandomPrompts, AnErrorEndsTheSearch) {
  const RandomPrompts prompts(3, 40);
  const auto smallest = prompts.Shrink(Longest(prompts), 100, [](const std::string&) -> Result<bool> {
    return MakeError(Code::kEngine, "gone");
  });
  ASSERT_FALSE(smallest.ok());
  EXPECT_EQ(smallest.error().code, Code::kEngine);
}

}  // namespace
}  // namespace pb::parity

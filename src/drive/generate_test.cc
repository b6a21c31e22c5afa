// The greedy choice, and UTF-8 that is not finished yet.
#include "drive/generate.h"

#include <gtest/gtest.h>

#include <limits>

namespace pb::drive {
namespace {

TEST(Greedy, LowestIdOfEqualsAndNothingOfNothingFinite) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(),
                  kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Greedy(std::vector<float>{1, 3, 3, 2}), 1);
  EXPECT_EQ(Greedy(std::vector<float>{kNaN, -2, kInf, -3}), 1);
  EXPECT_EQ(Greedy(std::vector<float>{kNaN, kInf, -kInf}), -1);
  EXPECT_EQ(Greedy(std::vector<float>{}), -1);
}

TEST(CompleteUtf8, HoldsBackUnfinishedSequencesOnly) {
  EXPECT_EQ(CompleteUtf8(""), 0u);
  EXPECT_EQ(CompleteUtf8("ab"), 2u);
  EXPECT_EQ(CompleteUtf8("a\xC3"), 1u);  // first half of an e with acute
  EXPECT_EQ(CompleteUtf8("a\xC3\xA9"), 3u);
  EXPECT_EQ(CompleteUtf8("\xF0\x9F\x98"), 0u);  // three bytes of an emoji
  EXPECT_EQ(CompleteUtf8("x\xF0\x9F\x98\x80"), 5u);
  EXPECT_EQ(CompleteUtf8("\xE2\x82"), 0u);
  EXPECT_EQ(CompleteUtf8("\x80\x80\x80\x80"), 4u);  // no UTF-8: not held back for ever
  EXPECT_EQ(CompleteUtf8("\xFF"), 1u);
}

}  // namespace
}  // namespace pb::drive

// Sampling against the probabilities it should draw with, and UTF-8 that is not finished yet.
#include "drive/generate.h"

#include <gtest/gtest.h>

#include <cmath>
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

// Shares of draws against exp(logit / temperature) normalised; five standard deviations of a
// binomial share.
TEST(Sampler, DrawsInProportionToTheTemperedProbabilities) {
  const std::vector<float> row = {0, 1, 2, -1};
  const double temperature = 0.7;
  double z = 0;
  for (float logit : row) z += std::exp(logit / temperature);
  Sampler sampler({temperature, 0, 42});
  constexpr int kDraws = 20000;
  std::vector<int> counts(row.size());
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sampler.Choose(row))];
  for (size_t i = 0; i < row.size(); ++i) {
    double p = std::exp(row[i] / temperature) / z;
    EXPECT_NEAR(counts[i] / double{kDraws}, p, 5 * std::sqrt(p * (1 - p) / kDraws)) << i;
  }
}

TEST(Sampler, TopKLeavesOutTheRestAndOneIsGreedy) {
  const std::vector<float> row = {0.9f, 1, 0.8f, 1.1f};
  Sampler two({5.0, 2, 7}), one({5.0, 1, 7}), cold({0, 0, 7});
  bool seen[4] = {};
  for (int i = 0; i < 200; ++i) {
    seen[two.Choose(row)] = true;
    EXPECT_EQ(one.Choose(row), 3);
    EXPECT_EQ(cold.Choose(row), 3);
  }
  EXPECT_TRUE(seen[1] && seen[3] && !seen[0] && !seen[2]);
}

TEST(Sampler, SameSeedSameDraws) {
  const std::vector<float> row = {0, 0, 0, 0, 0, 0, 0, 0};
  Sampler a({1.0, 0, 3}), b({1.0, 0, 3}), c({1.0, 0, 4});
  bool differs = false;
  for (int i = 0; i < 50; ++i) {
    int32_t id = a.Choose(row);
    EXPECT_EQ(id, b.Choose(row));
    differs |= id != c.Choose(row);
  }
  EXPECT_TRUE(differs);
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

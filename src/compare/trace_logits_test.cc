// The figures of the logits that a trace keeps, against those of the whole rows.
#include "compare/trace_logits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/random.h"
#include "compare/logits.h"

namespace pb::compare {
namespace {

using trace::TopTokensOf;

std::vector<float> Logits(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<float> row;
  for (size_t i = 0; i < n; ++i) row.push_back(static_cast<float>(3 * random.Normal()));
  return row;
}

// With a vocabulary of no more tokens than a record names nothing is lost.
TEST(TraceLogits, NamedTokensGiveTheKlOfTheRows) {
  for (double distance : {0.0, 1e-6, 1e-3, 1.0}) {
    const std::vector<float> r = Logits(8, 1);
    std::vector<float> c = r;
    Random random(2);
    for (float& v : c) v += static_cast<float>(distance * random.Normal());
    const auto exact = CompareLogits(c, r);
    ASSERT_TRUE(exact.ok());
    const LogitsRow told = CompareTops(TopTokensOf(c), TopTokensOf(r));
    EXPECT_NEAR(told.kl, exact->kl, 1e-14 + 1e-9 * exact->kl) << distance;
    EXPECT_EQ(told.top1[0], exact->top1[0]);
    EXPECT_EQ(told.top1[1], exact->top1[1]);
    EXPECT_EQ(told.gap_change, exact->gap_change);
    EXPECT_EQ(told.gap_reference, exact->gap_reference);
  }
}

// All other tokens together: exact where they only change their common weight, never above the KL
// of the rows.
TEST(TraceLogits, OtherTokensCountTogether) {
  const std::vector<float> r = Logits(300, 3);
  const auto top = TopTokensOf(r).tokens;
  std::vector<float> c = r;
  for (size_t i = 0; i < c.size(); ++i) {
    const bool named = std::any_of(top.begin(), top.end(), [&](const auto& t) { return t.first == int(i); });
    if (!named) c[i] -= 0.5f;
  }
  const auto shifted = CompareLogits(c, r);
  EXPECT_GT(shifted->kl, 1e-3);
  EXPECT_NEAR(CompareTops(TopTokensOf(c), TopTokensOf(r)).kl, shifted->kl, 1e-6 * shifted->kl);
  for (uint64_t seed = 10; seed < 40; ++seed) {
    std::vector<float> other = r;
    Random random(seed);
    for (float& v : other) v += static_cast<float>(0.3 * random.Normal());
    const LogitsRow told = CompareTops(TopTokensOf(other), TopTokensOf(r));
    const double exact = CompareLogits(other, r)->kl;
    EXPECT_LE(told.kl, exact * (1 + 1e-6));
    EXPECT_GT(told.kl, 0.05 * exact);
  }
}

TEST(TraceLogits, AGapThatNeedsATokenNobodyNamesIsALeastOne) {
  std::vector<float> r = Logits(300, 3);
  const auto top = TopTokensOf(r).tokens;
  std::vector<float> c = r;
  const int32_t unlikely = static_cast<int32_t>(std::min_element(r.begin(), r.end()) - r.begin());
  c[static_cast<size_t>(unlikely)] = top[0].second + 1;
  const LogitsRow told = CompareTops(TopTokensOf(c), TopTokensOf(r));
  const auto exact = CompareLogits(c, r);
  EXPECT_EQ(told.top1[0], unlikely);
  EXPECT_TRUE(told.flipped());
  EXPECT_FLOAT_EQ(static_cast<float>(told.gap_change), top[0].second - top[9].second + 1);
  EXPECT_LT(told.gap_change, exact->gap_change);
}

TEST(TraceLogits, NanIsTold) {
  std::vector<float> r = Logits(300, 3), c = r;
  c[7] = std::numeric_limits<float>::quiet_NaN();
  const LogitsRow told = CompareTops(TopTokensOf(c), TopTokensOf(r));
  EXPECT_FALSE(told.finite);
  EXPECT_EQ(told.n_non_finite[0], 1);
  EXPECT_EQ(told.n_non_finite[1], 0);
}

TEST(TraceLogits, EqualLogitsTheLowestIdFirst) {
  const std::vector<float> r = {1, 3, 3, 2};
  const auto top = TopTokensOf(r);
  ASSERT_EQ(top.tokens.size(), 4u);
  EXPECT_EQ(top.tokens[0].first, 1);
  EXPECT_EQ(top.tokens[1].first, 2);
  EXPECT_EQ(top.tokens[3].first, 0);
  EXPECT_EQ(top.rest, 0);
}

}  // namespace
}  // namespace pb::compare

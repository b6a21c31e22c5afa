// Tau-b by hand and by published examples.
#include "parity/kendall.h"

#include <gtest/gtest.h>

#include <cmath>

namespace pb::parity {
namespace {

using Values = std::vector<double>;

TEST(KendallTauB, PublishedAndHandDerivedValues) {
  // The example of scipy.stats.kendalltau's documentation: -0.4714045207910316.
  EXPECT_NEAR(*KendallTauB(Values{12, 2, 1, 12, 2}, Values{1, 4, 7, 1, 0}, 0), -0.4714045207910316, 1e-15);
  EXPECT_EQ(*KendallTauB(Values{1, 2, 3, 4}, Values{10, 20, 30, 40}, 0), 1);
  EXPECT_EQ(*KendallTauB(Values{1, 2, 3, 4}, Values{4, 3, 2, 1}, 0), -1);
  // One of six pairs reversed: (5 - 1) / 6.
  EXPECT_NEAR(*KendallTauB(Values{1, 2, 3, 4}, Values{1, 2, 4, 3}, 0), 4.0 / 6, 1e-15);
  // A tie in y alone: C = 2, D = 0, of 3 pairs 1 is tied: 2 / sqrt(3 * 2).
  EXPECT_NEAR(*KendallTauB(Values{1, 2, 3}, Values{1, 2, 2}, 0), 2 / std::sqrt(6.0), 1e-15);
  // The same tie in both leaves an order that agrees.
  EXPECT_NEAR(*KendallTauB(Values{1, 2, 2}, Values{1, 2, 2}, 0), 1, 1e-15);
}

TEST(KendallTauB, TiesWithinATolerance) {
  EXPECT_NEAR(*KendallTauB(Values{1, 2, 2 + 1e-7}, Values{1, 3, 2}, 1e-6), 2 / std::sqrt(6.0), 1e-15);
  EXPECT_LT(*KendallTauB(Values{1, 2, 2 + 1e-7}, Values{1, 3, 2}, 0), 0.5);
}

TEST(KendallTauB, WhatHasNoOrderTellsNothing) {
  EXPECT_FALSE(KendallTauB(Values{}, Values{}, 0));
  EXPECT_FALSE(KendallTauB(Values{1}, Values{1}, 0));
  EXPECT_FALSE(KendallTauB(Values{5, 5, 5}, Values{1, 2, 3}, 0));
  EXPECT_FALSE(KendallTauB(Values{1, 2, 3}, Values{5, 5, 5}, 0));
  EXPECT_FALSE(KendallTauB(Values{1, NAN}, Values{1, 2}, 0));
  EXPECT_FALSE(KendallTauB(Values{1, 2}, Values{1, 2, 3}, 0));
}

TEST(CompareOrder, TheUnionOfBothTops) {
  // Top 2 of the reference: 0 1; of the candidate: 0 3. In the union {0, 1, 3} the pair (1, 3) is
  // exchanged: tau = (2 - 1) / 3.
  const std::vector<float> reference = {5, 4, 0, 3}, candidate = {5, 3.5, 9e-3f, 4};
  const Order order = CompareOrder(candidate, reference, 2, 0);
  EXPECT_EQ(order.n_tokens, 3);
  EXPECT_EQ(order.n_exchanges, 1);
  EXPECT_NEAR(*order.tau, 1.0 / 3, 1e-15);
  ASSERT_TRUE(order.worst);
  EXPECT_EQ(std::pair(order.worst->first, order.worst->second), std::pair(1, 3));
  EXPECT_NEAR(order.worst->gap_reference, 1, 1e-6);
  EXPECT_NEAR(order.worst->change, 1.5, 1e-6);
  EXPECT_NEAR(order.spread, 1.5, 1e-6);  // token 3 by +1, token 1 by -0.5
}

TEST(CompareOrder, AConstantOnAllLogitsChangesNothing) {
  const std::vector<float> reference = {1, 3, 2, 0}, candidate = {11, 13, 12, 10};
  const Order order = CompareOrder(candidate, reference, 3, 0);
  EXPECT_EQ(*order.tau, 1);
  EXPECT_EQ(order.n_exchanges, 0);
  EXPECT_EQ(order.spread, 0);
}

TEST(Median, OfOddAndEvenNumbers) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(Median({7}), 7);
}

}  // namespace
}  // namespace pb::parity

// The exact test of Mann and Whitney (its published counts), and what two measurements come to.
#include "receipt/speeds.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

double P(std::vector<double> larger, std::vector<double> smaller) { return RankP(larger, smaller); }

// Orders of three and three values by the pairs in favour, 0 to 9: 1 1 2 3 3 3 3 2 1 1 of 20.
TEST(RankP, IsTheExactTestOfMannAndWhitney) {
  EXPECT_DOUBLE_EQ(P({4, 5, 6}, {1, 2, 3}), 1. / 20);
  EXPECT_DOUBLE_EQ(P({3, 5, 6}, {1, 2, 4}), 2. / 20);
  EXPECT_DOUBLE_EQ(P({3, 4, 6}, {1, 2, 5}), 4. / 20);
  EXPECT_DOUBLE_EQ(P({1, 2, 3}, {4, 5, 6}), 1);
  EXPECT_DOUBLE_EQ(P({6, 7, 8, 9, 10}, {1, 2, 3, 4, 5}), 1. / 252);
  EXPECT_DOUBLE_EQ(P({5, 7, 8, 9, 10}, {1, 2, 3, 4, 6}), 2. / 252);
  EXPECT_DOUBLE_EQ(P({1, 1}, {1, 1}), 4. / 6);  // ties: half of the pairs, as {1, 4} and {2, 3} have
  EXPECT_DOUBLE_EQ(P({}, {1}), 1);
}

Json Receipt(std::vector<double> decode, std::vector<double> prompt = {1, 1, 1, 1, 1}) {
  const auto speed = [](int64_t n, const std::vector<double>& seconds) {
    return Json{{"n_tokens", n}, {"seconds", seconds}};
  };
  return Json{{"command", "benchmark"},
              {"model", {{"sha256", "m"}}},
              {"host", {{"cpu", "c"}}},
              {"benchmark",
               {{"prompt", speed(8, prompt)},
                {"decode", speed(100, decode)},
                {"prompt_tokens", {1, 2}},
                {"threads", 1},
                {"bandwidth", {{"bytes_per_second", 1e9}}}}}};
}

const std::vector<double> kBefore = {1.00, 1.01, 1.02, 1.03, 1.04};

TEST(CompareSpeeds, SlowerBeyondThresholdAndSpreadIsARegression) {
  const auto speeds = CompareSpeeds(Receipt({1.50, 1.51, 1.52, 1.53, 1.54}), Receipt(kBefore), {});
  ASSERT_EQ(speeds.changes.size(), 2u);
  EXPECT_TRUE(speeds.changes[1].regression);
  EXPECT_FALSE(speeds.changes[0].regression);
  EXPECT_NEAR(speeds.changes[1].percent, 100 * (1.02 / 1.52 - 1), 1e-9);
  EXPECT_EQ(speeds.why_not, "");
}

// A machine whose repeats differ as much says nothing.
TEST(CompareSpeeds, ASpreadAsLargeAsTheChangeIsNone) {
  const auto speeds =
      CompareSpeeds(Receipt({1.0, 1.5, 1.5, 1.6, 2.0}), Receipt({0.9, 1.0, 1.1, 1.2, 1.9}), {});
  EXPECT_LT(speeds.changes[1].percent, -20);
  EXPECT_FALSE(speeds.changes[1].regression);
}

TEST(CompareSpeeds, AFallBelowTheThresholdIsAllowedAndARiseIsTold) {
  EXPECT_FALSE(
      CompareSpeeds(Receipt({1.10, 1.11, 1.12, 1.13, 1.14}), Receipt(kBefore), {}).changes[1].regression);
  EXPECT_TRUE(CompareSpeeds(Receipt({1.10, 1.11, 1.12, 1.13, 1.14}), Receipt(kBefore), {5, 5, 5})
                  .changes[1]
                  .regression);
  EXPECT_TRUE(
      CompareSpeeds(Receipt({0.80, 0.81, 0.82, 0.83, 0.84}), Receipt(kBefore), {}).changes[1].improvement);
}

TEST(CompareSpeeds, WhatIsNotOfTheSameThingIsNotCompared) {
  const auto why = [](void (*change)(Json*)) {
    Json other = Receipt(kBefore);
    change(&other);
    const auto speeds = CompareSpeeds(other, Receipt(kBefore), {});
    EXPECT_TRUE(speeds.changes.empty());
    return speeds.why_not;
  };
  EXPECT_NE(why([](Json* r) { (*r)["model"]["sha256"] = "n"; }), "");
  EXPECT_NE(why([](Json* r) { (*r)["host"]["cpu"] = "d"; }), "");
  EXPECT_NE(why([](Json* r) { (*r)["command"] = "audit"; }), "");
  EXPECT_NE(why([](Json* r) { (*r)["benchmark"]["threads"] = 2; }), "");
  EXPECT_NE(why([](Json* r) { (*r)["benchmark"]["decode"]["n_tokens"] = 2; }), "");
  EXPECT_NE(CompareSpeeds(Receipt({1, 1, 1, 1}), Receipt(kBefore), {}).why_not, "");
}

}  // namespace
}  // namespace pb::receipt

// Truths against what is said, limits of shares, and each goal of generated defects seen broken.
#include "selfcheck/generated.h"

#include <gtest/gtest.h>

#include <cmath>

namespace pb::selfcheck {
namespace {

using diagnose::Match, diagnose::ParseConclusion;

Match Of(const std::string& said, const std::string& truth) {
  return MatchTruth(ParseConclusion(said).value(), ParseTruth(truth).value());
}

TEST(Truth, OfSeveralThatComeToTheSameTheBestCounts) {
  const std::string truth =
      "where=product part=columns:31-255%32/256 when=always what=absent | where=product part=code:31/32 "
      "when=always what=absent";
  EXPECT_EQ(Of("where=product part=code:31/32 when=always what=absent", truth), Match::kRight);
  EXPECT_EQ(Of("where=product part=columns:31-255%32/256 when=always what=absent", truth), Match::kRight);
  EXPECT_EQ(Of("where=product part=code:31/32", truth), Match::kPartial);
  EXPECT_EQ(Of("where=product", truth), Match::kNothing);
  EXPECT_EQ(Of("unknown", truth), Match::kNothing);
  EXPECT_EQ(Of("where=product part=code:30/32", truth), Match::kWrong);
  EXPECT_EQ(Of("where=codes part=code:31/32 when=always what=absent", truth), Match::kWrong);
}

TEST(Truth, ANameThatEndsWithAnEqualsSignStandsForItsBeginning) {
  const std::string truth =
      "where=weights part=all what=other-part | where=weights part=all what=variation:weight.order=";
  EXPECT_EQ(Of("where=weights part=all what=variation:weight.order=reversed", truth), Match::kRight);
  EXPECT_EQ(Of("where=weights part=all what=variation:weight.offset=1", truth), Match::kWrong);
  EXPECT_EQ(Of("where=weights part=all what=variation:quant.clamp=63", "what=variation:quant.clamp=6"),
            Match::kWrong);
}

TEST(Truth, WhatIsNoConclusionIsRefused) {
  for (const char* text : {"where=nowhere", "where=codes | ", "where=codes | what", "nothing", ""})
    EXPECT_EQ(ParseTruth(text).error().code, Code::kUsage) << text;
}

// 1 - 0.05^(1/n) where there is none; else values of tables (Clopper, Pearson 1934, one-sided 95 %).
TEST(UpperLimit, IsTheOneOfTables) {
  EXPECT_NEAR(UpperLimit(0, 300), 1 - std::pow(0.05, 1.0 / 300), 1e-12);
  EXPECT_NEAR(UpperLimit(0, 1), 0.95, 1e-12);
  EXPECT_NEAR(UpperLimit(1, 10), 0.3942, 5e-5);
  EXPECT_NEAR(UpperLimit(2, 20), 0.2826, 5e-5);
  EXPECT_EQ(UpperLimit(10, 10), 1);
  EXPECT_EQ(UpperLimit(0, 0), 1);
}

SelfResult Seen(const char* kind = "weights") {
  SelfResult r;
  r.kind = kind, r.detected = r.exact = r.blamed = true, r.found_by = "plain", r.match = "right",
  r.truth = "where=weights";
  return r;
}

std::vector<SelfResult> Hundred() {
  std::vector<SelfResult> results(100, Seen());
  SelfResult harmless;
  harmless.benign = true;
  results.push_back(harmless);
  return results;
}

// Whether each goal holds, in their order.
std::string GoalsOf(const std::vector<SelfResult>& results) {
  std::string goals;
  for (const Goal& goal : CountGenerated(results).goals) goals += goal.holds ? 'x' : '-';
  return goals;
}

TEST(Generated, EachGoalIsSeenBroken) {
  std::vector<SelfResult> results = Hundred();
  EXPECT_EQ(GoalsOf(results), "xxxxx");
  results[3].detected = results[3].exact = results[3].blamed = false, results[3].match = "",
  results[3].found_by = "";
  EXPECT_EQ(GoalsOf(results), "-xxxx");
  results = Hundred();
  results[0].exact = results[1].blamed = false;
  EXPECT_EQ(GoalsOf(results), "xxxxx");
  results[2].exact = false;
  EXPECT_EQ(GoalsOf(results), "x-xxx");
  results = Hundred();
  for (size_t i = 0; i < 20; i++) results[i].match = "partial";
  EXPECT_EQ(GoalsOf(results), "xxxxx");
  results[20].match = "nothing";
  EXPECT_EQ(GoalsOf(results), "xx-xx");
  results = Hundred();
  results[9].match = "wrong";
  EXPECT_EQ(GoalsOf(results), "xxx-x");
  results = Hundred();
  results.back().detected = true;
  EXPECT_EQ(GoalsOf(results), "xxxx-");
  EXPECT_EQ(GoalsOf({}), "-----");
}

TEST(Generated, CountsByKindAndWhatDoesNotCount) {
  std::vector<SelfResult> results = Hundred();
  results[0].kind = "mask", results[0].found_by = "two threads";
  results[1].skipped = "the op gives the same values on this model";
  results[2].error = "it died";
  const GeneratedTable t = CountGenerated(results);
  ASSERT_EQ(t.rows.size(), 2u);
  EXPECT_EQ(t.rows[0].kind, "mask");
  EXPECT_EQ(t.rows[0].plain, 0);
  EXPECT_EQ(t.total.n, 98);
  EXPECT_EQ(t.total.plain, 97);
  EXPECT_EQ(t.total.skipped, 1);
  EXPECT_EQ(t.total.failed, 1);
  EXPECT_FALSE(t.complete());
  ASSERT_EQ(t.misses.size(), 1u);
}

}  // namespace
}  // namespace pb::selfcheck

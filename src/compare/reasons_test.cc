// The table of reasons: codes are unique, and each has the outcome that the verdicts rest on.
#include "compare/reasons.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace pb::compare {
namespace {

// Codes are stable: scripts compare them. Those that README and docs name, and one of each make.
TEST(Reasons, CodesAreWhatTheyWere) {
  EXPECT_STREQ(ReasonName(ReasonCode::kKlWorstAboveLimit), "kl-worst-above-limit");
  EXPECT_STREQ(ReasonName(ReasonCode::kTop1Flip), "top1-flip");
  EXPECT_STREQ(ReasonName(ReasonCode::kRelL2AboveLimit), "rel-l2-above-limit");
  EXPECT_STREQ(ReasonName(ReasonCode::kUndeclared), "undeclared");
  EXPECT_STREQ(ReasonName(ReasonCode::kNoReference), "no-reference");
  EXPECT_STREQ(ReasonName(ReasonCode::kCandidateFailed), "candidate-failed");
}

TEST(Reasons, EachHasACodeOfItsOwn) {
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(ReasonCode::kWithinLimits); ++i)
    EXPECT_TRUE(names.insert(ReasonName(static_cast<ReasonCode>(i))).second);
  for (int i = 0; i <= static_cast<int>(ReasonCode::kWithinLimits); ++i)
    EXPECT_EQ(FindReason(ReasonName(static_cast<ReasonCode>(i))), static_cast<ReasonCode>(i));
  EXPECT_EQ(FindReason("no such reason"), std::nullopt);
  EXPECT_EQ(FindOutcome("near-tie"), Outcome::kNearTie);
  EXPECT_EQ(FindOutcome("invalid"), Outcome::kInvalid);
  EXPECT_EQ(FindOutcome("passed"), std::nullopt);
  EXPECT_EQ(names.size(), static_cast<size_t>(ReasonCode::kWithinLimits) + 1);
}

TEST(Reasons, OutcomesAreTheTablesWhereTheyAreFixed) {
  EXPECT_EQ(Reason(ReasonCode::kNoNoiseFloor, "").outcome, Outcome::kIncomplete);
  EXPECT_EQ(Reason(ReasonCode::kEngineFailed, "").outcome, Outcome::kEngineFailed);
  EXPECT_EQ(FixedOutcome(ReasonCode::kTokensDiffer), std::nullopt);
  EXPECT_EQ(Reason(Outcome::kDrift, ReasonCode::kDistinguishable, "").outcome, Outcome::kDrift);
  EXPECT_DEATH(Reason(ReasonCode::kTokensDiffer, ""), "FixedOutcome");
  EXPECT_DEATH(Reason(Outcome::kMatch, ReasonCode::kNonFinite, ""), "FixedOutcome");
}

}  // namespace
}  // namespace pb::compare

// Every pattern of agreement.
#include "parity/three_way.h"

#include <gtest/gtest.h>

namespace pb::parity {
namespace {

using compare::Outcome;

TEST(WhoStandsAlone, TwoThatAgreeLeaveTheThird) {
  const Outcome yes = Outcome::kMatch, no = Outcome::kDiverged;
  EXPECT_EQ(WhoStandsAlone(yes, yes, yes), Alone::kNobody);
  EXPECT_EQ(WhoStandsAlone(no, no, yes), Alone::kCandidate);
  EXPECT_EQ(WhoStandsAlone(no, yes, no), Alone::kReference);
  EXPECT_EQ(WhoStandsAlone(yes, no, no), Alone::kReferenceB);
  EXPECT_EQ(WhoStandsAlone(no, no, no), Alone::kAllDiffer);
}

TEST(WhoStandsAlone, DriftAndNearTiesAgree) {
  EXPECT_EQ(WhoStandsAlone(Outcome::kDrift, Outcome::kNearTie, Outcome::kMatch), Alone::kNobody);
}

TEST(WhoStandsAlone, WhatIsNotKnownDecidesNothing) {
  for (const Outcome unknown : {Outcome::kIncomplete, Outcome::kEngineFailed, Outcome::kInvalid}) {
    EXPECT_EQ(WhoStandsAlone(unknown, Outcome::kMatch, Outcome::kMatch), Alone::kUndecided);
    EXPECT_EQ(WhoStandsAlone(Outcome::kDiverged, Outcome::kDiverged, unknown), Alone::kUndecided);
  }
  // A agrees with both, and these not with each other.
  EXPECT_EQ(WhoStandsAlone(Outcome::kMatch, Outcome::kMatch, Outcome::kDiverged), Alone::kUndecided);
}

}  // namespace
}  // namespace pb::parity

// What separates wrong passes from right ones.
#include "diagnose/when.h"

#include <gtest/gtest.h>

namespace pb::diagnose {
namespace {

SeenPass Right(int64_t n, int64_t first = 0) { return {n, first, false, -1, 1}; }
SeenPass Wrong(int64_t n, int64_t first = 0, int64_t row = -1) {
  return {n, first, true, row < 0 ? first : row, 1, row > first ? row - 1 : -1};
}
std::string When(std::vector<SeenPass> passes, bool positions = true) {
  return WhenText(WhenOf(passes, positions));
}

TEST(WhenOf, OnePassTellsNothing) {
  EXPECT_EQ(When({Wrong(7)}), "unknown");
  EXPECT_EQ(When({Wrong(7), Wrong(9)}), "unknown");
  EXPECT_EQ(When({Right(7), Right(1, 7)}), "unknown");
}

TEST(WhenOf, BothKindsOfPassTell) {
  EXPECT_EQ(When({Wrong(7), Wrong(1, 7)}), "unknown") << "even numbers of tokens may be right";
  EXPECT_EQ(When({Wrong(2), Wrong(3), Wrong(5), Wrong(8), Wrong(12), Wrong(1, 7)}), "always");
  EXPECT_EQ(When({Wrong(7), Wrong(2), Right(1, 7)}), "prefill");
  EXPECT_EQ(When({Wrong(7), Right(1, 7)}), "unknown") << "from 2, 3, 4, ... tokens on";
  EXPECT_EQ(When({Right(7), Right(2), Wrong(1, 7), Wrong(1, 8)}), "decode");
  EXPECT_EQ(When({Right(7), Right(3), Wrong(1, 7)}), "decode");
  EXPECT_EQ(When({Right(7), Wrong(1, 9), Wrong(1, 10)}), "unknown") << "up to 1, 2, 3, ... tokens";
}

TEST(WhenOf, SizesTellWhereOneStepLiesBetween) {
  EXPECT_EQ(When({Right(7), Right(24), Wrong(40), Right(1, 7)}), "from-batch:32");
  EXPECT_EQ(When({Right(7), Wrong(40), Right(1, 7)}), "unknown") << "8, 16 or 32";
  EXPECT_EQ(When({Right(31), Wrong(32), Right(1, 7)}), "from-batch:32");
  EXPECT_EQ(When({Wrong(3), Wrong(3, 3), Right(4), Right(7), Right(1, 7)}), "up-to-batch:3");
  EXPECT_EQ(When({Right(8), Wrong(6), Right(12), Wrong(9), Right(1, 20)}), "odd-batch:4");
  EXPECT_EQ(When({Right(8), Wrong(7), Right(12), Wrong(9), Right(1, 20)}), "unknown") << "2 or 4";
}

TEST(WhenOf, PositionsTell) {
  EXPECT_EQ(When({Wrong(40, 0, 32), Wrong(1, 40)}), "from-position:32");
  EXPECT_EQ(When({Wrong(40, 0, 32), Wrong(1, 40)}, false), "unknown") << "rows that happen to be right";
  EXPECT_EQ(When({Right(7), Right(1, 7), Right(17), Wrong(40), Wrong(1, 40)}), "unknown");
  EXPECT_EQ(When({Right(7), Right(1, 7), Wrong(1, 8), Wrong(1, 9)}), "from-position:8");
  EXPECT_EQ(When({Right(40), Right(1, 7), Wrong(1, 40), Wrong(1, 41)}), "unknown")
      << "or decode, where it shows";
}

TEST(WhenOf, OtherTokensTellPositionsFromValues) {
  SeenPass same = Wrong(40, 0, 32), other = same;
  other.other_tokens = true;
  EXPECT_EQ(When({same, other}, false), "from-position:32");
  other.first_wrong = 20, other.last_right = 19;
  EXPECT_EQ(When({same, other}, false), "unknown") << "it goes with the tokens";
  EXPECT_EQ(When({same, other}, true), "unknown");
}

TEST(WhenOf, RowsThatAreRightBehindWrongOnesAreNoPosition) {
  SeenPass mixed = Wrong(40, 0, 32);
  mixed.mixed = true;
  EXPECT_EQ(When({mixed, Wrong(1, 40)}), "unknown");
  SeenPass unknown = Wrong(40, 0, 32);
  unknown.last_right = 20;  // rows 21 to 31 show nothing
  EXPECT_EQ(When({unknown, Wrong(1, 40)}), "unknown");
}

// Where a mistake shows in some rows alone, one text tells the last that is right, another the first
// that is wrong; with other tokens it has to begin thereabouts.
TEST(WhenOf, SeveralTextsTellAPosition) {
  SeenPass first = Wrong(40, 0, 32), second = Wrong(40, 0, 33);
  first.last_right = 29, second.last_right = 31, second.other_tokens = true;
  EXPECT_EQ(When({first, second}), "from-position:32");
  second.last_right = 30;
  EXPECT_EQ(When({first, second}), "unknown") << "it may begin at 31";
  second.last_right = 31, second.first_wrong = 38;
  EXPECT_EQ(When({first, second}, false), "unknown") << "with other tokens it begins elsewhere";
  second.first_wrong = 34;
  EXPECT_EQ(When({first, second}, false), "from-position:32");
}

TEST(WhenOf, WhatDiffersOfEqualInputsIsNotRepeatable) {
  SeenPass again = Wrong(12);
  again.differs = true;
  EXPECT_EQ(When({Right(7), Wrong(8), Wrong(1, 7), again}), "not-repeatable");
}

// Of a point, rows from a position on of which those from `wrong` on are.
compare::PointRow Row(int64_t n, int32_t first, int32_t wrong = -1) {
  compare::PointRow row;
  row.n_rows = n, row.first_position = first, row.first_row_above = wrong;
  row.bound_ratio = wrong < 0 ? 0.5 : 10;
  return row;
}

TEST(AddSeen, PiecesAreOnePass) {
  std::vector<SeenPass> passes;
  AddSeen(Row(32, 0), false, &passes);
  AddSeen(Row(32, 32, 40), true, &passes);
  AddSeen(Row(6, 64, 64), true, &passes);
  ASSERT_EQ(passes.size(), 1);
  EXPECT_EQ(passes[0].n_tokens, 70);
  EXPECT_TRUE(passes[0].wrong);
  EXPECT_EQ(passes[0].first_wrong, 40);
  EXPECT_EQ(passes[0].last_right, 39);
  EXPECT_FALSE(passes[0].mixed);
  AddSeen(Row(1, 70), false, &passes);
  AddSeen(Row(32, 71, 71), false, &passes);
  AddSeen(Row(2, 103), true, &passes);
  ASSERT_EQ(passes.size(), 3);
  EXPECT_FALSE(passes[1].wrong);
  EXPECT_TRUE(passes[2].mixed);
}

TEST(NextSize, HalvesWhatLiesBetween) {
  EXPECT_EQ(NextSize(std::vector{Right(8), Wrong(12), Wrong(16)}), 10);
  EXPECT_EQ(NextSize(std::vector{Right(11), Wrong(12)}), std::nullopt);
  EXPECT_EQ(NextSize(std::vector{Wrong(1, 3), Wrong(3), Right(8)}), 5);
  EXPECT_EQ(NextSize(std::vector{Wrong(3), Wrong(4)}), std::nullopt);
  EXPECT_EQ(NextSize(std::vector{Right(5), Wrong(40, 0, 32)}), std::nullopt) << "it is a position";
}

TEST(NextSize, TellsDivisorsApart) {
  EXPECT_EQ(NextSize(std::vector{Right(8), Wrong(7), Right(12), Wrong(9), Right(1, 20)}), 6);
  EXPECT_EQ(NextSize(std::vector{Right(8), Wrong(7), Right(12), Wrong(9), Right(1, 20), Right(6)}),
            std::nullopt);
}

TEST(WhenOf, ThreadsTell) {
  SeenPass two = Wrong(7);
  two.threads = 2;
  EXPECT_EQ(When({Right(7), Right(1, 7), two}), "threads:2");
}

}  // namespace
}  // namespace pb::diagnose

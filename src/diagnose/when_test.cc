// What separates wrong passes from right ones.
#include "diagnose/when.h"

#include <gtest/gtest.h>

namespace pb::diagnose {
namespace {

SeenPass Right(int64_t n, int64_t first = 0) { return {n, first, false, -1, 1}; }
SeenPass Wrong(int64_t n, int64_t first = 0, int64_t row = -1) {
  return {n, first, true, row < 0 ? first : row, 1};
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
  EXPECT_EQ(When({Wrong(7), Right(1, 7)}), "prefill");
  EXPECT_EQ(When({Right(7), Wrong(1, 7), Wrong(1, 8)}), "decode");
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
}

TEST(WhenOf, ThreadsTell) {
  SeenPass two = Wrong(7);
  two.threads = 2;
  EXPECT_EQ(When({Right(7), Right(1, 7), two}), "threads:2");
}

}  // namespace
}  // namespace pb::diagnose

// Which rows of a product hypotheses are tried on.
#include "diagnose/part.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

namespace pb::diagnose {
namespace {

constexpr int64_t kRows = 20, kWidth = 3;

// Rows of ones, of which some are off.
std::vector<float> Rows(const std::vector<std::pair<int64_t, float>>& off) {
  std::vector<float> values(kRows * kWidth, 1);
  for (const auto& [row, by] : off) values[static_cast<size_t>(row * kWidth + 1)] += by;
  return values;
}

TEST(ChooseRows, TakesTheWorstAndSpreadsTheOthers) {
  const std::vector<int64_t> rows =
      ChooseRows(Rows({{3, 0.5f}, {13, 2}, {14, 1}, {19, -0.25f}}), Rows({}), kRows, 6);
  // 3, 13 and 14 are the worst three; of the other seventeen the first, the sixth and the twelfth.
  EXPECT_EQ(rows, (std::vector<int64_t>{0, 3, 6, 12, 13, 14}));
}

TEST(ChooseRows, TakesRowsOnceAndInOrder) {
  for (int64_t n = 1; n <= kRows; n++) {
    const std::vector<int64_t> rows = ChooseRows(Rows({{7, 1}, {19, 2}}), Rows({}), kRows, n);
    ASSERT_EQ(static_cast<int64_t>(rows.size()), n);
    EXPECT_TRUE(std::ranges::adjacent_find(rows, std::greater_equal()) == rows.end()) << n;
    EXPECT_TRUE(std::ranges::find(rows, 19) != rows.end()) << n;
  }
}

TEST(ChooseRows, ARowThatIsNotFiniteIsTheWorst) {
  const std::vector<float> output = Rows({{2, 100}, {17, NAN}});
  EXPECT_EQ(ChooseRows(output, Rows({}), kRows, 1), std::vector<int64_t>{17});
}

TEST(ChooseRows, TakesAllWhereThereAreNoMore) {
  EXPECT_EQ(ChooseRows(Rows({}), Rows({}), kRows, kRows + 5).size(), static_cast<size_t>(kRows));
}

}  // namespace
}  // namespace pb::diagnose

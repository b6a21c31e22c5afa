// Figures of single tokens: by hand, and at the place where a whole tensor's worst row is.
#include "compare/token_grid.h"

#include <gtest/gtest.h>

#include <cmath>

namespace pb::compare {
namespace {

TEST(TokenGrid, ErrorsOfRowsAreTheDefinitions) {
  // Norms 5 and 10; errors 0.05 and 0; a bound of 1e-3 of the norm.
  const float reference[] = {3, 4, 6, 8}, candidate[] = {3, 4.05f, 6, 8};
  const LocalBound bound{"test", 1, 1, false, {}, 1e-3};
  const RowErrors errors = ErrorsOfRows({candidate, 2, 2}, {reference, 2, 2}, {}, bound);
  EXPECT_NEAR(errors.rel_l2[0], 0.01, 1e-6);
  EXPECT_NEAR(errors.over_bound[0], 10, 1e-3);
  EXPECT_EQ(errors.rel_l2[1], 0);
  EXPECT_EQ(errors.over_bound[1], 0);
  const auto whole = ComparePoint({candidate, 2, 2}, {reference, 2, 2}, {}, bound);
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->worst_row, errors.rel_l2[0]);
}

TEST(TokenGrid, UnitsBoundEachRowByItself) {
  // Units of norm 2 and 0: what must be exact allows no error at all.
  const float reference[] = {1, 1, 1, 1}, candidate[] = {2, 1, 2, 1}, units[] = {2, 0, 0, 0};
  const LocalBound bound{"test", 1, 1, false, units, 0.5};
  const RowErrors errors = ErrorsOfRows({candidate, 2, 2}, {reference, 2, 2}, {}, bound);
  EXPECT_NEAR(errors.over_bound[0], 1, 1e-12);
  EXPECT_TRUE(std::isinf(errors.over_bound[1]));
}

TEST(TokenGrid, PiecesOfAPointJoinByPosition) {
  TokenGrid grid;
  const double later[] = {3, 4}, earlier[] = {1};
  grid.Add({0, 0, PB_STAGE_Q_PROJ, 2, 2}, later);
  grid.Add({0, 0, PB_STAGE_Q_PROJ, 2, 0}, earlier);
  const auto& values = grid.points().at({0, PB_STAGE_Q_PROJ, 2});
  ASSERT_EQ(values.size(), 4u);
  EXPECT_EQ(values[0], 1);
  EXPECT_TRUE(std::isnan(values[1]));
  EXPECT_EQ(values[3], 4);
  EXPECT_EQ(grid.n_left_out(), 0);
}

TEST(TokenGrid, IsBounded) {
  TokenGrid grid;
  const double one[] = {1};
  grid.Add({0, 0, PB_STAGE_Q_PROJ, 0, static_cast<int32_t>(TokenGrid::kMostValues)}, one);
  EXPECT_EQ(grid.n_left_out(), 1);
  EXPECT_TRUE(grid.points().at({0, PB_STAGE_Q_PROJ, 0}).empty());
}

}  // namespace
}  // namespace pb::compare

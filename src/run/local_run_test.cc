#include "run/local_run.h"

#include <gtest/gtest.h>

namespace pb::run {
namespace {

compare::PointRow Row(int32_t step, int32_t stage, double rel_l2, double bound_ratio) {
  compare::PointRow row;
  row.step = step;
  row.stage = stage;
  row.layer = 0;
  row.rel_l2 = rel_l2;
  row.bound = 1;
  row.bound_ratio = bound_ratio;
  return row;
}

TEST(CondensePoints, KeepsThePrefillAndTheWorstDecodeStepOfEachPoint) {
  std::vector<compare::PointRow> rows = {
      Row(0, PB_STAGE_Q_PROJ, 1e-8, 0.1), Row(0, PB_STAGE_K_PROJ, 1e-8, 0.1),
      Row(1, PB_STAGE_Q_PROJ, 3e-8, 0.2), Row(1, PB_STAGE_K_PROJ, 1e-8, 0.3),
      Row(2, PB_STAGE_Q_PROJ, 2e-8, 0.5), Row(2, PB_STAGE_K_PROJ, 1e-8, 0.1)};
  auto judged = CondensePoints(rows, true);
  ASSERT_EQ(judged.size(), 4u);
  EXPECT_EQ(judged[2].step, 2);  // the larger share of its bound
  EXPECT_EQ(judged[3].step, 1);
  auto told = CondensePoints(rows, false);
  ASSERT_EQ(told.size(), 4u);
  EXPECT_EQ(told[2].step, 1);  // the larger rel-L2
}

TEST(CondensePoints, KeepsEveryJudgedRowBeyondItsBound) {
  std::vector<compare::PointRow> rows = {Row(1, PB_STAGE_Q_PROJ, 1, 5), Row(2, PB_STAGE_Q_PROJ, 1, 2),
                                         Row(3, PB_STAGE_Q_PROJ, 1, 0.5), Row(4, PB_STAGE_Q_PROJ, 1, 0.4)};
  EXPECT_EQ(CondensePoints(rows, true).size(), 3u);
  EXPECT_EQ(CondensePoints(rows, false).size(), 1u);
}

}  // namespace
}  // namespace pb::run

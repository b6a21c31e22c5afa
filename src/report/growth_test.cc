// Growth of errors from points made by hand.
#include "report/growth.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace pb::report {
namespace {

compare::PointRow LayerOut(int32_t prompt, int32_t step, int32_t layer, double rel_l2) {
  compare::PointRow p;
  p.prompt = prompt, p.step = step, p.layer = layer, p.rel_l2 = rel_l2, p.worst_row = 2 * rel_l2;
  p.stage = PB_STAGE_LAYER_OUT;
  return p;
}

TEST(Growth, TakesThePrefillAndTheLargestOfPromptsAndPieces) {
  run::Comparison c;
  c.accumulated = {LayerOut(0, 0, 1, 3e-6), LayerOut(0, 0, 0, 1e-7), LayerOut(1, 0, 0, 5e-7),
                   LayerOut(0, 1, 0, 1.0)};
  c.accumulated.push_back(LayerOut(0, 0, 0, 0.5));
  c.accumulated.back().stage = PB_STAGE_DOWN_PROJ;
  std::vector<GrowthRow> rows = GrowthOf(c);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].layer, 0);
  EXPECT_EQ(rows[0].rel_l2, 5e-7);
  EXPECT_EQ(rows[0].worst_row, 1e-6);
  EXPECT_EQ(rows[1].rel_l2, 3e-6);
  c.accumulated = {LayerOut(0, 0, 0, std::nan("")), LayerOut(1, 0, 0, 1e-7)};
  EXPECT_TRUE(std::isnan(GrowthOf(c)[0].rel_l2));  // never hidden by a figure
  EXPECT_TRUE(GrowthOf({}).empty());
}

TEST(Growth, StandsBesideTheNoiseOfTheSamePrompts) {
  run::Comparison c;
  c.accumulated = {LayerOut(0, 0, 0, 1e-7), LayerOut(1, 0, 0, 5e-7), LayerOut(0, 0, 1, 3e-6)};
  auto noise = [&](std::optional<int32_t> prompt, compare::PositionClass positions, double median,
                   double largest) {
    compare::PointFloor p;
    p.prompt = prompt, p.stage = PB_STAGE_LAYER_OUT, p.layer = 0, p.positions = positions;
    p.median = median, p.largest = largest;
    c.floor.points.push_back(p);
  };
  noise(std::nullopt, compare::PositionClass::kPrefill, 9,
        9);  // everything pooled, calibration too: another tensor
  noise(0, compare::PositionClass::kDecode, 8, 8);
  noise(0, compare::PositionClass::kFirst, 7, 7);
  noise(0, compare::PositionClass::kPrefill, 1e-7, 4e-7);
  noise(1, compare::PositionClass::kPrefill, 2e-7, 3e-7);
  const std::vector<GrowthRow> rows = GrowthOf(c);
  ASSERT_TRUE(rows[0].noise);
  EXPECT_EQ(rows[0].noise->median, 2e-7);
  EXPECT_EQ(rows[0].noise->largest, 4e-7);
  EXPECT_FALSE(rows[1].noise);
}

TEST(Growth, CurveHasOneStepADecade) {
  std::vector<double> rows;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (double v : {0.0, 3e-12, 3e-8, 3e-7, 3e-6, 3e-5, 3e-4, 3e-3, 3e-2, 3e-1, 3.0, kInfinity})
    rows.push_back(v);
  const std::string e = "\xe2\x96";  // U+2581 .. U+2588 end in 0x81 .. 0x88
  EXPECT_EQ(GrowthCurve(rows, 40), "_" + e + "\x81" + e + "\x81" + e + "\x82" + e + "\x83" + e + "\x84" + e +
                                       "\x85" + e + "\x86" + e + "\x87" + e + "\x88" + e + "\x88?");
  // the largest of each three
  EXPECT_EQ(GrowthCurve(rows, 4), e + "\x81" + e + "\x84" + e + "\x87?");
  EXPECT_EQ(GrowthCurve({}, 40), "");
}

}  // namespace
}  // namespace pb::report

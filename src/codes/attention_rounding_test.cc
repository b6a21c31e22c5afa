// The parts of scores and of a context that rounding of queries and of probabilities makes, against
// sums by hand.
#include "codes/attention_rounding.h"

#include <gtest/gtest.h>

namespace pb::codes {
namespace {

// 0.1 in f16 is 1638.4 / 2^14 rounded: 1638 / 2^14; 0.3 is 1228.8 / 2^12: 1229 / 2^12.
constexpr double kTenth = 1638.0 / 16384 - double(0.1f), kThreeTenths = 1229.0 / 4096 - double(0.3f);

host::PointRef Point(int32_t stage, int32_t layer, int32_t first_position) {
  host::PointRef point;
  point.stage = stage, point.layer = layer, point.first_position = first_position;
  return point;
}

TEST(AttentionRounding, WeighsTheCachedValuesOfAllPositionsByTheStepsOfTheirProbabilities) {
  stages::ModelShape shape;
  shape.n_heads = 2, shape.n_kv_heads = 1, shape.head_dim = 2;
  AttentionRounding rounding(shape, 1, false);
  rounding.OnPoint(Point(PB_STAGE_V_PROJ, 0, 0), std::vector<float>{2, -4});
  // 1 + 2^-12 is stored as 1 in an f16 cache.
  rounding.OnPoint(Point(PB_STAGE_V_PROJ, 0, 1), std::vector<float>{1 + 0x1p-12f, 8});
  rounding.OnPoint(Point(PB_STAGE_ATTN_SCORES_SOFTMAX, 0, 1), std::vector<float>{0.1f, 0.3f, 0.5f, 0.1f});
  const std::vector<float> found = rounding.OfContext(0, 1, 1);
  ASSERT_EQ(found.size(), 4u);
  const double wanted[] = {kTenth * 2 + kThreeTenths, kTenth * -4 + kThreeTenths * 8, kTenth, kTenth * 8};
  for (size_t i = 0; i < 4; i++) EXPECT_NEAR(found[i], wanted[i], 1e-10) << i;
}

TEST(AttentionRounding, MultipliesTheCachedKeysByTheStepsOfTheirQueries) {
  stages::ModelShape shape;
  shape.n_heads = 2, shape.n_kv_heads = 1, shape.head_dim = 2;
  for (const bool of_queries : {false, true}) {  // half of a value in f16 is half of it
    AttentionRounding rounding(shape, 0.5, of_queries);
    rounding.OnPoint(Point(PB_STAGE_K_ROPE, 0, 0), std::vector<float>{2, -4});
    rounding.OnPoint(Point(PB_STAGE_Q_ROPE, 0, 1), std::vector<float>{0.1f, 0.3f, 0.5f, 0.1f});
    rounding.OnPoint(Point(PB_STAGE_K_ROPE, 0, 1), std::vector<float>{1 + 0x1p-12f, 8});
    const std::vector<float> found = rounding.OfScores(0, 1, 1);
    ASSERT_EQ(found.size(), 4u);
    const double wanted[] = {kTenth * 2 + kThreeTenths * -4, kTenth + kThreeTenths * 8, kTenth * -4,
                             kTenth * 8};
    for (size_t i = 0; i < 4; i++) EXPECT_NEAR(found[i], wanted[i] / 2, 1e-10) << i;
    EXPECT_TRUE(rounding.OfScores(1, 1, 1).empty());  // another layer
    EXPECT_TRUE(rounding.OfScores(0, 0, 1).empty());  // a position less
  }
  AttentionRounding capped(shape, 0, false);
  capped.OnPoint(Point(PB_STAGE_Q_ROPE, 0, 0), std::vector<float>{0.1f, 0.3f, 0.5f, 0.1f});
  capped.OnPoint(Point(PB_STAGE_K_ROPE, 0, 0), std::vector<float>{2, -4});
  EXPECT_TRUE(capped.OfScores(0, 0, 1).empty());
}

TEST(AttentionRounding, SaysNothingOfWhatItDidNotSee) {
  stages::ModelShape shape;
  shape.n_heads = shape.n_kv_heads = shape.head_dim = 1;
  AttentionRounding rounding(shape, 1, false);
  rounding.OnPoint(Point(PB_STAGE_V_PROJ, 0, 0), std::vector<float>{1});
  rounding.OnPoint(Point(PB_STAGE_ATTN_SCORES_SOFTMAX, 0, 0), std::vector<float>{1});
  EXPECT_EQ(rounding.OfContext(0, 0, 1).size(), 1u);
  EXPECT_TRUE(rounding.OfContext(1, 0, 1).empty());                       // another layer
  EXPECT_TRUE(rounding.OfContext(0, 1, 1).empty());                       // a position more
  rounding.OnPoint(Point(PB_STAGE_V_PROJ, 0, 2), std::vector<float>{1});  // position 1 left out
  EXPECT_TRUE(rounding.OfContext(0, 0, 1).empty());
}

}  // namespace
}  // namespace pb::codes

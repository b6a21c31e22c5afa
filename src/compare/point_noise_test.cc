// Noise at tracepoints against values derived by hand.
#include "compare/point_noise.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

namespace pb::compare {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

PointNoise At(int32_t prompt, PositionClass positions, int32_t stage, int32_t layer, double error2,
              double norm2, double worst_row) {
  PointNoise p;
  p.prompt = prompt, p.stage = stage, p.layer = layer, p.positions = positions;
  p.n_rows = 2, p.error2 = error2, p.norm2 = norm2, p.worst_row = worst_row;
  return p;
}

TEST(PointNoise, RowsByHand) {
  PointNoise p;
  EXPECT_EQ(p.rel_l2(), 0);
  p.AddRow(std::array{3.f, 4.5f}, std::array{3.f, 4.f});   // 0.5 of 5
  p.AddRow(std::array{0.f, 11.f}, std::array{0.f, 12.f});  // 1 of 12
  EXPECT_EQ(p.n_rows, 2);
  EXPECT_DOUBLE_EQ(p.worst_row, 0.1);
  EXPECT_DOUBLE_EQ(p.rel_l2(), std::sqrt(1.25 / 169));
}

TEST(PointNoise, HiddenScoresAreEqualAndOtherInfinitiesAreNot) {
  PointNoise masked;
  masked.AddRow(std::array{2.f, -kInfinity}, std::array{1.f, -kInfinity});
  EXPECT_EQ(masked.rel_l2(), 1);
  for (auto [d, u] :
       {std::pair{-kInfinity, 1.f}, {1.f, -kInfinity}, {kInfinity, kInfinity}, {std::nanf(""), 1.f}}) {
    PointNoise p;
    p.AddRow(std::array{2.f, d}, std::array{1.f, u});
    EXPECT_TRUE(std::isinf(p.rel_l2())) << d << " " << u;
    EXPECT_TRUE(std::isinf(p.worst_row));
  }
  PointNoise zero;
  zero.AddRow(std::array{0.f}, std::array{0.f});
  EXPECT_EQ(zero.rel_l2(), 0);
  zero.AddRow(std::array{1.f}, std::array{0.f});
  EXPECT_TRUE(std::isinf(zero.rel_l2()));
}

TEST(PointFloors, KeepCalibrationAndEachPromptApart) {
  constexpr auto kPrefill = PositionClass::kPrefill;
  // A calibration in two sequences, pooled: 4/10, 5/10, 9/10. The prompt: 3/5, 1/5, 2/5.
  auto calibration = [&](double error2, double worst) {
    return std::vector{At(kCalibration, kPrefill, 3, 1, error2 - 1, 40, worst),
                       At(kCalibration, kPrefill, 3, 1, 1, 60, 0.1)};
  };
  std::vector<PointNoise> runs[] = {calibration(16, 0.2), calibration(25, 0.9), calibration(81, 0.1)};
  runs[0].push_back(At(0, kPrefill, 3, 1, 9, 25, 0.7));
  runs[1].push_back(At(0, kPrefill, 3, 1, 1, 25, 0.3));
  runs[2].push_back(At(0, kPrefill, 3, 1, 4, 25, 0.5));
  runs[2].push_back(At(0, PositionClass::kDecode, 3, 1, 1, 1, 1));  // in one run only: left out
  const std::vector<std::span<const PointNoise>> spans(std::begin(runs), std::end(runs));
  const std::vector<PointFloor> floors = PointFloors(spans);
  ASSERT_EQ(floors.size(), 2u);
  EXPECT_FALSE(floors[0].prompt);
  EXPECT_DOUBLE_EQ(floors[0].median, 0.5);
  EXPECT_DOUBLE_EQ(floors[0].largest, 0.9);
  EXPECT_EQ(floors[0].worst_row, 0.9);
  EXPECT_EQ(floors[0].n_rows, 4);
  EXPECT_EQ(floors[0].n_runs, 3);
  EXPECT_EQ(floors[1].prompt, 0);
  EXPECT_DOUBLE_EQ(floors[1].median, 0.4);
  EXPECT_DOUBLE_EQ(floors[1].largest, 0.6);
  EXPECT_EQ(floors[1].worst_row, 0.7);
  EXPECT_EQ(floors[1].n_rows, 2);
  const std::vector<PointFloor> two = PointFloors(std::span(spans).first(2));
  EXPECT_DOUBLE_EQ(two[1].median, 0.4);  // halfway between two
  EXPECT_TRUE(PointFloors({}).empty());
}

}  // namespace
}  // namespace pb::compare

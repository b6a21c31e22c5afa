// What may step and what may not: blocks whose scales, codes and sums are plain by hand.
#include "codes/boundary_steps.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/random.h"
#include "codes/block_steps.h"

namespace pb::codes {
namespace {

using V = std::vector<double>;

// A matrix of float32 rows.
struct Rows {
  explicit Rows(std::vector<std::vector<float>> of) {
    n_rows = static_cast<int64_t>(of.size()), n_columns = static_cast<int64_t>(of[0].size());
    for (const auto& row : of) values.insert(values.end(), row.begin(), row.end());
  }
  WeightView view() const {
    return {BlockType::kF32, reinterpret_cast<const std::byte*>(values.data()), n_rows, n_columns,
            static_cast<uint64_t>(n_columns) * sizeof(float)};
  }
  std::vector<float> values;
  int64_t n_rows = 0, n_columns = 0;
};

// One block for each minimum, with weights that are this minimum alone: their codes are 0.
struct Minima {
  explicit Minima(const std::vector<float>& minima) {
    for (float m : minima) blocks.push_back({F32ToF16(1), F32ToF16(m), {}});
  }
  // n_rows rows of the same length.
  WeightView view(int64_t n_rows) const {
    const auto row = static_cast<int64_t>(blocks.size()) / n_rows;
    return {BlockType::kQ4_1, reinterpret_cast<const std::byte*>(blocks.data()), n_rows, 32 * row,
            static_cast<uint64_t>(row) * sizeof(BlockQ4_1)};
  }
  std::vector<BlockQ4_1> blocks;
};

// The largest value is 127 steps d, the second code 10, the third -20.
std::vector<float> Block(float d) {
  std::vector<float> x(32, 0);
  x[0] = 127 * d, x[1] = 10 * d, x[2] = -20 * d;
  return x;
}
// Weights that meet the three.
std::vector<float> Meets(float a, float b, float c) {
  std::vector<float> w(32, 0);
  w[0] = a, w[1] = b, w[2] = c;
  return w;
}

// Between 1 and 2 two f16 lie 2^-10 apart: 1 + 2^-11 is in the middle of the first two, and is
// rounded to 1, whose last bit is even.
constexpr float kMiddle = 1 + 0x1p-11f;

TEST(BoundarySteps, AScaleBetweenTwoHalvesStepsToTheOther) {
  const Rows w({Meets(1, 0, 0), Meets(0, 1, 1)});
  const WeightView view = w.view();
  for (ActScheme scheme : {ActScheme::kQ8_0, ActScheme::kQ8_1}) {
    const std::vector<float> x = Block(kMiddle);
    BoundarySteps steps(x, scheme, view, 2);
    // 2^-10 for every code: 127 in the first output, 10 - 20 in the second; and the factor 2.
    const V there{127 * 0x1p-9, -10 * 0x1p-9}, back{-127 * 0x1p-9, 10 * 0x1p-9};
    for (const V& difference : {there, back}) {
      const auto found = steps.Explain(difference, 1e-9);
      EXPECT_EQ(found.remainder_ratio, 0);
      EXPECT_EQ(steps.Count(found.steps).scales, 1);
      EXPECT_EQ(steps.Count(found.steps).all(), 1);
      std::vector<float> outputs{5, 6};
      steps.Subtract(found.steps, outputs.data());
      EXPECT_EQ(outputs[0], 5 - static_cast<float>(difference[0]));
      EXPECT_EQ(outputs[1], 6 - static_cast<float>(difference[1]));
    }
    // Half a step, two steps and the step of other codes are none.
    for (const V& difference :
         {V{127 * 0x1p-10, -10 * 0x1p-10}, V{127 * 0x1p-8, -10 * 0x1p-8}, V{127 * 0x1p-9, 10 * 0x1p-9}})
      EXPECT_GT(steps.Explain(difference, 1e-9).remainder_ratio, 1);
  }
}

TEST(BoundarySteps, AScaleThatIsOffByAnUlpOnNoBoundaryIsADefect) {
  const Rows w({Meets(1, 0, 0), Meets(0, 1, 1)});
  const WeightView view = w.view();
  // Exact, a quarter of the way to the next, and 100 float32 roundings beside the middle.
  for (float d : {1.0f, 1 + 0x1p-12f, kMiddle + 100 * 0x1p-24f, kMiddle - 100 * 0x1p-24f}) {
    const std::vector<float> x = Block(d);
    BoundarySteps steps(x, ActScheme::kQ8_0, view, 1);
    const auto found = steps.Explain(V{127 * 0x1p-10, -10 * 0x1p-10}, 1e-9);
    EXPECT_TRUE(found.steps.empty()) << d;
    EXPECT_GT(found.remainder_ratio, 1) << d;
  }
  // Few roundings beside it are a boundary.
  const std::vector<float> beside = Block(kMiddle + 2 * 0x1p-23f);
  BoundarySteps near(beside, ActScheme::kQ8_0, view, 1);
  EXPECT_LE(near.Explain(V{-127 * 0x1p-10, 10 * 0x1p-10}, 1e-9).remainder_ratio, 1);
  // Q8_K and BitNet keep float32: nothing of theirs steps but codes.
  const Rows wide({std::vector<float>(256, 1.0f), std::vector<float>(256, 2.0f)});
  const WeightView wide_view = wide.view();
  std::vector<float> x(256, 0);
  x[0] = 127 * kMiddle;
  for (ActScheme scheme : {ActScheme::kQ8_K, ActScheme::kBitnet})
    EXPECT_GT(
        BoundarySteps(x, scheme, wide_view, 1).Explain(V{127 * 0x1p-10, 254 * 0x1p-10}, 1e-9).remainder_ratio,
        1);
}

// Codes of one block whose stored sum, d x 2005 = 260.65, is rounded to 260.75 as d x 2006 = 260.78 is;
// d x 2007 = 260.91 to 261. Neither of two codes that step moves it, both do.
TEST(BoundarySteps, CodesOfABlockStepTogetherWhereItsStoredSumIsRounded) {
  const float d = 0.13f;
  std::vector<float> x(32, 0);
  x[0] = 127 * d, x[1] = x[2] = 10.5f * d, x[3] = 4 * d;
  std::fill_n(x.begin() + 4, 18, 103 * d);
  const Minima m({2, -1});
  const WeightView view = m.view(2);
  BoundarySteps steps(x, ActScheme::kQ8_1, view, 1);
  const auto found = steps.Explain(V{2 * 0.25, -0.25}, 1e-6);
  EXPECT_LE(found.remainder_ratio, 1);
  EXPECT_EQ(steps.Count(found.steps).codes, 2);
  EXPECT_EQ(steps.Count(found.steps).all(), 2);
  std::vector<float> outputs{1, 1};
  steps.Subtract(found.steps, outputs.data());
  EXPECT_EQ(outputs, (std::vector<float>{0.5f, 1.25f}));
  // Of half of it, and of one output alone, they are no explanation.
  for (const V& difference : {V{0.25, -0.125}, V{0.5, 0}})
    EXPECT_GT(steps.Explain(difference, 1e-6).remainder_ratio, 1);
}

// A block whose every code is whole, taken twice or not at all.
TEST(BoundarySteps, ABlockThatIsDoubledOrAbsentIsADefect) {
  std::vector<float> x(256, 0);
  x[0] = 127, x[1] = 10;
  const Rows wide({std::vector<float>(256, 1.0f), std::vector<float>(256, 2.0f)});
  const WeightView view = wide.view();
  for (ActScheme scheme : {ActScheme::kQ8_0, ActScheme::kQ8_1, ActScheme::kQ8_K, ActScheme::kBitnet}) {
    for (double sign : {1.0, -1.0}) {
      const auto found = BoundarySteps(x, scheme, view, 1).Explain(V{sign * 137, sign * 274}, 1e-3);
      EXPECT_TRUE(found.steps.empty()) << ActSchemeName(scheme);
      EXPECT_GT(found.remainder_ratio, 1) << ActSchemeName(scheme);
    }
  }
}

// Codes that sum to `sum`, the scale 1.
std::vector<float> Summing(int sum) {
  std::vector<float> x(32, 0);
  for (size_t k = 0; sum > 0; k++) x[k] = static_cast<float>(std::min(sum, 127)), sum -= std::min(sum, 127);
  return x;
}

TEST(BoundarySteps, AStoredSumBetweenTwoHalvesStepsToTheOther) {
  const Minima minima({-8, 0.5});
  const WeightView view = minima.view(2);
  // From 2048 to 4096 f16 has even numbers: 2049 is stored as 2048, by others as 2050.
  const std::vector<float> x = Summing(2049), with_f16_sum = Summing(2050);
  BoundarySteps steps(x, ActScheme::kQ8_1, view, 1);
  const auto found = steps.Explain(V{-16, 1}, 1e-9);
  EXPECT_EQ(found.remainder_ratio, 0);
  EXPECT_EQ(steps.Count(found.steps).sums, 1);
  EXPECT_EQ(steps.Count(found.steps).all(), 1);
  EXPECT_EQ(steps.Count(found.steps).Text(32, 1), "1 of 1 stored sums of activations");
  // 2050 is a number that f16 has, and its neighbours are wrong.
  BoundarySteps exact(with_f16_sum, ActScheme::kQ8_1, view, 1);
  EXPECT_TRUE(exact.Explain(V{-16, 1}, 1e-9).steps.empty());
  EXPECT_GT(exact.Explain(V{-16, 1}, 1e-9).remainder_ratio, 1);
  // Q8_0 stores no sum.
  EXPECT_GT(BoundarySteps(x, ActScheme::kQ8_0, view, 1).Explain(V{-16, 1}, 1e-9).remainder_ratio, 1);
}

TEST(BoundarySteps, ACodeAndItsBlocksScaleAndSumStepTogether) {
  // Codes 127, 10 and 2.5 of the scale 1 + 2^-11. One engine takes 2 and the scale 1, the other 3 and
  // 1 + 2^-10.
  std::vector<float> x(32, 0);
  x[0] = 127 * kMiddle, x[1] = 10 * kMiddle, x[2] = 2.5f * kMiddle;
  const Rows w({Meets(1, 0, 4), Meets(0, 1, -1), Meets(0.5, 0.5, 0.5)});
  const WeightView view = w.view();
  BoundarySteps steps(x, ActScheme::kQ8_0, view, 1);
  const double other = 1 + 0x1p-10;
  const V difference{other * (127 + 12) - (127 + 8), other * (10 - 3) - (10 - 2),
                     other * 0.5 * 140 - 0.5 * 139};
  // The two steps by themselves leave what they do to each other, 2^-10 of a code.
  const auto found = steps.Explain(difference, 0.01);
  EXPECT_LE(found.remainder_ratio, 1);
  const StepCounts counts = steps.Count(found.steps);
  EXPECT_EQ(counts.codes, 1);
  EXPECT_EQ(counts.scales, 1);
  EXPECT_EQ(counts.Text(32, 1), "1 of 32 activation codes and 1 of 1 scales of activations");
  std::vector<float> outputs(difference.begin(), difference.end());
  steps.Subtract(found.steps, outputs.data());
  for (float rest : outputs) EXPECT_NEAR(rest, 0, 1e-5);
}

// A row of blocks at random, and weights for it.
struct RandomRow {
  explicit RandomRow(uint64_t seed, size_t n_blocks = 24, size_t n_rows = 64) : random(seed) {
    for (size_t k = 0; k < 32 * n_blocks; k++) x.push_back(static_cast<float>(random.Normal()));
    for (size_t j = 0; j < n_rows; j++) {
      w.emplace_back();
      for (size_t k = 0; k < x.size(); k++) w.back().push_back(static_cast<float>(random.Normal()));
    }
  }
  // The output of row j where block b's scale is d(b).
  template <typename Scale>
  double Output(size_t j, Scale d) const {
    double sum = 0;
    for (size_t b = 0; b < x.size() / 32; b++) {
      const std::span<const float> block(x.data() + b * 32, 32);
      const ActBlock of = ActBlockOf(block, ActScheme::kQ8_0);
      for (size_t k = 0; k < 32; k++)
        sum += d(of) * std::nearbyint(block[k] * of.to_code) * double(w[j][b * 32 + k]);
    }
    return sum;
  }
  Random random;
  std::vector<float> x;
  std::vector<std::vector<float>> w;
};

TEST(BoundarySteps, ScalesThatAreTruncatedEverywhereAreADefect) {
  const RandomRow row(3);
  const Rows w(row.w);
  const WeightView view = w.view();
  // The f16 below, where rounding to the nearest takes the one above.
  const auto truncated = [](const ActBlock& b) {
    const uint16_t nearest = F32ToF16(static_cast<float>(b.sum_scale));
    return double(F16ToF32(static_cast<uint16_t>(nearest - (double(F16ToF32(nearest)) > b.sum_scale))));
  };
  V difference;
  double norm = 0;
  for (size_t j = 0; j < row.w.size(); j++) {
    const double right = row.Output(j, [](const ActBlock& b) { return b.from_code; });
    difference.push_back(row.Output(j, truncated) - right), norm += right * right;
  }
  // The bound of such a product between two engines.
  const double bound = 12 * 0x1p-24 * std::sqrt(double(row.x.size())) * std::sqrt(norm);
  BoundarySteps steps(row.x, ActScheme::kQ8_0, view, 1);
  EXPECT_GT(steps.Explain(difference, bound).remainder_ratio, 3);
}

// By other arithmetic, in float32: d as max * (1 / 127), codes from its reciprocal, the sum term by
// term from the end.
struct OtherWay {
  explicit OtherWay(const std::vector<float>& x) {
    float largest = 0, added = 0;
    for (float v : x) largest = std::max(largest, std::fabs(v));
    const float d = largest * (1 / 127.0f), to_code = 1 / d;
    for (size_t k = x.size(); k-- > 0;) {
      const float code = std::round(x[k] * to_code);
      sum += static_cast<int>(code), added += code * d;
    }
    scale = F16ToF32(F32ToF16(d)), stored = F16ToF32(F32ToF16(added));
  }
  int sum = 0;
  float scale = 0, stored = 0;
};

TEST(BlockSteps, OtherWaysToTheSameSumMayBeOnesThatFewBlocksHave) {
  Random random(7);
  int64_t n_others = 0, n_scales = 0, n_sums = 0;
  constexpr int kBlocks = 20000;
  for (int i = 0; i < kBlocks; i++) {
    std::vector<float> x(32);
    for (float& v : x) v = static_cast<float>(random.Normal());
    const ActBlock b = ActBlockOf(x, ActScheme::kQ8_1);
    const OtherWay other(x);
    n_others += other.stored != static_cast<float>(StoredSum(b, other.sum));
    EXPECT_TRUE(MayBeScale(b, other.scale)) << i;
    EXPECT_TRUE(MayBeSum(b, x, other.sum, other.stored)) << i;
    n_scales += OtherScale(b).has_value(), n_sums += OtherSum(b, x, b.sum).has_value();
  }
  EXPECT_GT(n_others, 0);
  // 16 of the 2^13 float32 between two f16, and where terms cancel more.
  EXPECT_LT(n_scales, kBlocks / 200);
  EXPECT_LT(n_sums, kBlocks / 25);
}

TEST(BlockSteps, OtherWaysToAScaleBesideTheMiddleOfTwoHalvesMayComeToEither) {
  Random random(9);
  int64_t n_others = 0;
  for (int i = 0; i < 2000; i++) {
    const auto h = static_cast<uint16_t>(0x2000 + random.Below(0x1800));
    std::vector<float> x(32, 0);
    x[0] = 127 * ((F16ToF32(h) + F16ToF32(static_cast<uint16_t>(h + 1))) / 2);
    for (uint64_t step = random.Below(3); step > 0; step--) x[0] = std::nextafter(x[0], 1e3f);
    const ActBlock b = ActBlockOf(x, ActScheme::kQ8_0);
    const OtherWay other(x);
    n_others += other.scale != static_cast<float>(b.from_code);
    EXPECT_TRUE(OtherScale(b).has_value()) << i;
    EXPECT_TRUE(MayBeScale(b, other.scale)) << i;
  }
  EXPECT_GT(n_others, 0);
}

TEST(ActBlock, FloatScalesMayDifferByTheirRoundings) {
  std::vector<float> x(256, 0);
  x[3] = 5.3f;
  for (ActScheme scheme : {ActScheme::kQ8_K, ActScheme::kBitnet}) {
    const ActBlock b = ActBlockOf(x, scheme);
    const auto d = static_cast<float>(b.from_code);
    EXPECT_TRUE(MayBeScale(b, d));
    EXPECT_TRUE(MayBeScale(b, std::nextafter(d, 2 * d)));
    EXPECT_FALSE(MayBeScale(b, d * (1 + 0x1p-20f)));
    EXPECT_FALSE(MayBeScale(b, -d));
  }
  EXPECT_FALSE(MayBeScale(ActBlockOf(std::span<const float>(x).first(32), ActScheme::kQ8_0), 5.3f / 127));
}

}  // namespace
}  // namespace pb::codes

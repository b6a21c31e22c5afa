// Rounding units of small ops, each derived by hand from its definition (docs/numerics.md,
// "Units").
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/half.h"
#include "formats/k_quants.h"
#include "oracle/ops_for_tests.h"

namespace pb::oracle {
namespace {

// The sum of squared partial sums: in this order, and on the mean over all orders, each of which is
// tried.
double Squares(std::vector<double> terms) {
  auto squares = [](const std::vector<double>& in_order) {
    double sum = 0, all = 0;
    for (double term : in_order) sum += term, all += sum * sum;
    return all;
  };
  const double own = squares(terms);
  std::vector<size_t> order(terms.size());
  std::iota(order.begin(), order.end(), 0);
  double total = 0, n = 0;
  do {
    std::vector<double> in_order;
    for (size_t at : order) in_order.push_back(terms[at]);
    total += squares(in_order), n++;
  } while (std::next_permutation(order.begin(), order.end()));
  return own + total / n;
}

TEST(Units, ProductIsTheRootSumOfSquaresOfItsPartialSums) {
  const float weights[] = {1, -2, 3, 0, 1, 1};  // two rows
  WeightView w;
  w.data = reinterpret_cast<const std::byte*>(weights), w.n_rows = 2, w.n_columns = 3, w.row_bytes = 12;
  ThreadPool pool(1);
  for (int64_t n : {1, 9}) {  // a tile, and one row more than a tile
    Rows x(n, 3), units;
    for (int64_t i = 0; i < n; i++)
      x.row(i)[0] = 2, x.row(i)[1] = 1, x.row(i)[2] = static_cast<double>(i + 1);
    auto y = Product(x, w, -2, ActScheme::kNone, OneHead(2), pool, &units);
    ASSERT_TRUE(y.ok()) << y.error().message;
    for (int64_t i = 0; i < n; i++) {
      const double last = static_cast<double>(i + 1);
      EXPECT_EQ(y->row(i)[0], -2 * 3 * last);
      EXPECT_DOUBLE_EQ(units.row(i)[0], 2 * std::sqrt(Squares({2, -2, 3 * last})));
      EXPECT_EQ(y->row(i)[1], -2 * (1 + last));
      EXPECT_DOUBLE_EQ(units.row(i)[1], 2 * std::sqrt(Squares({0, 1, last})));
    }
    auto without = Product(x, w, -2, ActScheme::kNone, OneHead(2), pool, nullptr);
    ASSERT_TRUE(without.ok());
    EXPECT_EQ(y->v, without->v);
  }
}

// Codes 2, scale 1, minimum -2: weights of 0, whose two parts cancel in every output, each as large
// as it is.
TEST(Units, TheTwoPartsOfABlockWithAMinimumAreRoundedApart) {
  BlockQ4_1 blocks[2];
  for (BlockQ4_1& block : blocks) {
    block.d = F32ToF16(1), block.m = F32ToF16(-2);
    std::fill(std::begin(block.qs), std::end(block.qs), uint8_t{0x22});
  }
  WeightView w;
  w.type = BlockType::kQ4_1;
  w.data = reinterpret_cast<const std::byte*>(blocks), w.n_rows = 1, w.n_columns = 64,
  w.row_bytes = sizeof(blocks);
  OpConfig c = OneHead(2);
  Rows x(1, 64), units;
  x.v[0] = x.v[32] = 127;  // scale 1, so that codes are values and the stored sums 127
  ThreadPool pool(1);
  auto y = Product(x, w, 1, ActScheme::kQ8_1, c, pool, &units);
  ASSERT_TRUE(y.ok()) << y.error().message;
  EXPECT_EQ(y->v[0], 0);
  // 32 partial sums of 254 and 32 of 508, and the mean over all orders of 64 terms, of which two
  // are 254 and the others 0; those of the minimum, block by block, -254 and -508, which is every
  // order.
  const double a = 254.0 * 254.0, b = 508.0 * 508.0;
  EXPECT_DOUBLE_EQ(units.v[0], std::sqrt(32 * (a + b) + 65 * (2 * a / 6 + b / 3) + 2 * (a + b)));
}

// In float32 exp(89) is infinite and x / (1 + exp(-x)) is 0, for an exact -89 exp(-89).
TEST(Units, SiluIsZeroFromWhereItsExponentialOverflows) {
  OpConfig c = OneHead(2);
  c.activation = Act::kSilu;
  Rows units;
  const Rows y = Activate(RowOf({-89}), c, &units);
  const float in_float = -89.0F / (1.0F + std::exp(89.0F));
  EXPECT_EQ(in_float, 0);
  EXPECT_LE(std::fabs(y.v[0] - double(in_float)), 16 * 0x1p-24 * units.v[0]);
  const Rows gated = Multiply(y, RowOf({3000}), c, &units);
  EXPECT_LE(std::fabs(gated.v[0]), 16 * 0x1p-24 * units.v[0]);
  // of a size that float32 holds nothing is forgiven
  EXPECT_LT(16 * 0x1p-24 * units.v[0], 1e-30);
}

// exp(-1.702 x) of a rounded exponent, in float32 as an engine computes it.
TEST(Units, TheExponentOfSwigluIsRounded) {
  OpConfig c = OneHead(2);
  c.activation = Act::kSwigluOai;
  Rows units;
  double worst = 0;
  for (int i = 1; i < 500; i++) {
    const float x = -0.1F * static_cast<float>(i), z = 1.702F * x;
    const Rows y = Activate(RowOf({x}), c, &units);
    const double error = std::fabs(y.v[0] - double(x / (1 + std::exp(-z))));
    EXPECT_LE(error, 4 * 0x1p-24 * units.v[0]) << x;
    worst = std::max(worst, error / (16 * 0x1p-24 * std::fabs(y.v[0])));
    const double own = units.v[0];
    const Rows gated = Multiply(y, RowOf({1}), c, &units);
    EXPECT_GE(units.v[0] * (1 + 1e-12), own * std::fabs(gated.v[0] / y.v[0])) << x;
  }
  EXPECT_GT(worst, 1);  // more than what one rounding of the value makes
}

// Weights of 0 in Q6_K are stored as codes of 32: what meets a large activation is 32 times it, and
// taken off again.
TEST(Units, AnOffsetOfCodesIsAPartToo) {
  BlockQ6_K block = {};
  block.d = F32ToF16(1);
  std::fill(std::begin(block.scales), std::end(block.scales), int8_t{1});
  std::fill(std::begin(block.qh), std::end(block.qh), uint8_t{0xaa});  // 2 << 4 in each
  WeightView w;
  w.type = BlockType::kQ6_K;
  w.data = reinterpret_cast<const std::byte*>(&block), w.n_rows = 1, w.n_columns = 256;
  w.row_bytes = sizeof block;
  OpConfig c = OneHead(2);
  Rows x(1, 256), units;
  x.v[0] = 127;  // scale 1, so that its code is its value
  ThreadPool pool(1);
  auto y = Product(x, w, 1, ActScheme::kQ8_K, c, pool, &units);
  ASSERT_TRUE(y.ok()) << y.error().message;
  EXPECT_EQ(y->v[0], 0);
  // 256 partial sums of 4064, and the mean over all orders of 256 terms of which one is 4064; of the
  // offsets 16 of -4064, and the same mean over 16.
  const double a = 4064.0 * 4064.0;
  EXPECT_DOUBLE_EQ(units.v[0], std::sqrt(256 * a + 257 * (a / 6 + a / 3) + 16 * a + 17 * (a / 6 + a / 3)));
  // Unrounded activations meet weights, which are 0.
  auto unrounded = Product(x, w, 1, ActScheme::kNone, c, pool, &units);
  ASSERT_TRUE(unrounded.ok());
  EXPECT_EQ(units.v[0], 0);
}

// f16 holds every whole number up to 2048 and every other one beyond: 2048 + 1 stays, and a sum of
// 2048 and four ones is 2048 where each sum is rounded. Judged, it is 2052 with a unit of f16's.
TEST(Product, SumsInF16AreRoundedOneByOneAndJudgedExactly) {
  const float weights[] = {2048, 1, 1, 1, 1};
  WeightView w;
  w.data = reinterpret_cast<const std::byte*>(weights), w.n_rows = 1, w.n_columns = 5;
  w.row_bytes = sizeof(weights);
  ThreadPool pool(1);
  const Rows x = RowOf({1, 1, 1, 1, 1});
  auto rounded = Product(x, w, 1, ActScheme::kF16Sums, OneHead(5), pool, nullptr);
  ASSERT_TRUE(rounded.ok());
  EXPECT_EQ(rounded->v[0], 2048);
  Rows units, units_f32;
  auto exact = Product(x, w, 1, ActScheme::kF16Sums, OneHead(5), pool, &units);
  auto in_f32 = Product(x, w, 1, ActScheme::kF16, OneHead(5), pool, &units_f32);
  ASSERT_TRUE(exact.ok() && in_f32.ok());
  EXPECT_EQ(exact->v[0], 2052);
  EXPECT_DOUBLE_EQ(units.v[0], 0x1p13 * units_f32.v[0]);
}

TEST(Units, NormRoundsItsSumOnceAndEachValueOnce) {
  Rows units;
  const float weight[] = {1, 2};
  const Rows y = Norm(RowOf({3, -4}), weight, {}, OneHead(2), &units);
  // Squares 9 and 16; the root of their mean halves a relative error.
  const double roundings = 1 + std::sqrt(Squares({9, 16})) / 25 / 2;
  EXPECT_DOUBLE_EQ(units.v[0], y.v[0] * roundings);
  EXPECT_DOUBLE_EQ(units.v[1], -y.v[1] * roundings);
}

TEST(Units, RotationGrowsWithTheAngleAndTheNumberOfFactors) {
  OpConfig c = OneHead(4);
  c.rope_pairing = RopePairing::kHalves;
  Rows units;
  Rope(RowOf({3, 0, 4, 1}), 100, c, &units);
  EXPECT_DOUBLE_EQ(units.v[0], 5 * (1 + 100.0));  // pair (0, 2): angle 100
  EXPECT_DOUBLE_EQ(units.v[2], units.v[0]);
  // pair (1, 3): angle 100 / sqrt(10000), multiplied up once
  EXPECT_DOUBLE_EQ(units.v[1], 1 + 1.0 * 2);
  c.rope_dims = 2;
  Rope(RowOf({3, 0, -4, 1}), 100, c, &units);
  EXPECT_DOUBLE_EQ(units.v[2], 4);  // beyond the rotated ones a value is copied
}

TEST(Units, Attention) {
  const OpConfig c = OneHead(2);
  Rows k(2, 2), units;
  k.v = {1, 1, 2, -1};
  const Rows scores = Scores(RowOf({3, 4}), k, 0, c, &units);
  EXPECT_DOUBLE_EQ(units.v[0], std::sqrt(Squares({3, 4})) / std::sqrt(2.0));
  EXPECT_EQ(units.v[1], 0) << "a hidden position";
  EXPECT_TRUE(std::isinf(scores.v[1]));

  const Rows p = Softmax(RowOf({-1, -1}), 2, {}, {}, &units);
  EXPECT_DOUBLE_EQ(units.v[0], 0.5 * (1 + 1 + 1 + std::sqrt(Squares({1, 1})) / 2));
  Rows context_units;
  Context(p, k, c, &context_units);
  EXPECT_DOUBLE_EQ(context_units.v[0], std::sqrt(Squares({0.5, 1})));
  EXPECT_DOUBLE_EQ(context_units.v[1], std::sqrt(Squares({0.5, -0.5})));
}

TEST(Units, OneOperationRoundsItsResult) {
  Rows units;
  AddScaled(RowOf({1, -3}), RowOf({2, 1}), 1, &units);
  EXPECT_EQ(units.v, (std::vector<double>{3, 2}));
  Multiply(RowOf({1, -3}), RowOf({2, 1}), OpConfig(), &units);
  EXPECT_EQ(units.v, (std::vector<double>{2, 3}));
  OpConfig c = OneHead(2);
  c.activation = Act::kRelu2;
  Activate(RowOf({-1, 3}), c, &units);
  EXPECT_EQ(units.v, (std::vector<double>{0x1p-126 * 0x1p24, 9})) << "0 may have underflowed";
}

}  // namespace
}  // namespace pb::oracle

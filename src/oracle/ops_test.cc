// Rounding units of small ops, each derived by hand from its definition (docs/numerics.md, "Units").
#include <gtest/gtest.h>

#include <cmath>

#include "oracle/ops_for_tests.h"

namespace pb::oracle {
namespace {

TEST(Units, ProductIsTheRootSumOfSquaresOfItsPartialSums) {
  const float weights[] = {1, -2, 3, 0, 1, 1};  // two rows
  WeightView w;
  w.data = reinterpret_cast<const std::byte*>(weights), w.n_rows = 2, w.n_columns = 3, w.row_bytes = 12;
  ThreadPool pool(1);
  for (int64_t n : {1, 9}) {  // a tile, and one row more than a tile
    Rows x(n, 3), units;
    for (int64_t i = 0; i < n; i++)
      x.row(i)[0] = 2, x.row(i)[1] = 1, x.row(i)[2] = static_cast<double>(i + 1);
    auto y = Product(x, w, -2, OneHead(2), pool, &units);
    ASSERT_TRUE(y.ok()) << y.error().message;
    for (int64_t i = 0; i < n; i++) {
      const double last = static_cast<double>(i + 1);
      // Partial sums 2, 0, 3 last; and 0, 1, 1 + last.
      EXPECT_EQ(y->row(i)[0], -2 * 3 * last);
      EXPECT_DOUBLE_EQ(units.row(i)[0], 2 * std::sqrt(4 + 9 * last * last));
      EXPECT_EQ(y->row(i)[1], -2 * (1 + last));
      EXPECT_DOUBLE_EQ(units.row(i)[1], 2 * std::sqrt(1 + (1 + last) * (1 + last)));
    }
    auto without = Product(x, w, -2, OneHead(2), pool, nullptr);
    ASSERT_TRUE(without.ok());
    EXPECT_EQ(y->v, without->v);
  }
}

TEST(Units, NormRoundsItsSumOnceAndEachValueOnce) {
  Rows units;
  const float weight[] = {1, 2};
  const Rows y = Norm(RowOf({3, -4}), weight, OneHead(2), &units);
  // Partial sums of squares 9, 25; the root of their mean halves a relative error.
  const double roundings = 1 + std::sqrt(81.0 + 625.0) / 25 / 2;
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
  EXPECT_DOUBLE_EQ(units.v[1], 1 + 1.0 * 2);  // pair (1, 3): angle 100 / sqrt(10000), multiplied up once
  c.rope_dims = 2;
  Rope(RowOf({3, 0, -4, 1}), 100, c, &units);
  EXPECT_DOUBLE_EQ(units.v[2], 4);  // beyond the rotated ones a value is copied
}

TEST(Units, Attention) {
  const OpConfig c = OneHead(2);
  Rows k(2, 2), units;
  k.v = {1, 1, 2, -1};
  const Rows scores = Scores(RowOf({3, 4}), k, 0, c, &units);
  EXPECT_DOUBLE_EQ(units.v[0], std::sqrt(9.0 + 49.0) / std::sqrt(2.0));
  EXPECT_EQ(units.v[1], 0) << "a hidden position";
  EXPECT_TRUE(std::isinf(scores.v[1]));

  const Rows p = Softmax(RowOf({-1, -1}), 2, {}, &units);
  EXPECT_DOUBLE_EQ(units.v[0], 0.5 * (1 + 1 + 1 + std::sqrt(1.0 + 4.0) / 2));
  Rows context_units;
  Context(p, k, c, &context_units);
  EXPECT_DOUBLE_EQ(context_units.v[0], std::sqrt(0.5 * 0.5 + 1.5 * 1.5));
  EXPECT_DOUBLE_EQ(context_units.v[1], 0.5);
}

TEST(Units, OneOperationRoundsItsResult) {
  Rows units;
  Add(RowOf({1, -3}), RowOf({2, 1}), &units);
  EXPECT_EQ(units.v, (std::vector<double>{3, 2}));
  Multiply(RowOf({1, -3}), RowOf({2, 1}), &units);
  EXPECT_EQ(units.v, (std::vector<double>{2, 3}));
  OpConfig c = OneHead(2);
  c.activation = Act::kRelu2;
  Activate(RowOf({-1, 3}), c, &units);
  EXPECT_EQ(units.v, (std::vector<double>{0, 9}));
}

}  // namespace
}  // namespace pb::oracle

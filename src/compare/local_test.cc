// Local errors and their bounds against values derived by hand.
#include "compare/local.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/random.h"

namespace pb::compare {
namespace {

constexpr stages::ModelShape kShape = {
    .d_model = 256, .d_ff = 512, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64, .n_vocab = 0};
const float kInf = std::numeric_limits<float>::infinity();

std::vector<float> Gaussian(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(random.Normal());
  return v;
}

PointRow Compare(const std::vector<float>& a, const std::vector<float>& b, int64_t rows,
                 pb_stage stage = PB_STAGE_Q_PROJ) {
  const int64_t features = static_cast<int64_t>(b.size()) / rows;
  auto row = ComparePoint({a, rows, features}, {b, rows, features}, {0, 0, stage, 3, 0},
                          BoundOf(stage, kShape, rows));
  EXPECT_TRUE(row.ok());
  return *row;
}

TEST(Local, BoundIsTheSummationBoundOfTheClass) {
  const LocalBound b = BoundOf(PB_STAGE_Q_PROJ, kShape, 9);
  EXPECT_DOUBLE_EQ(b.At(0), 12 * 16 / 16777216.0);  // c u sqrt(256)
  EXPECT_DOUBLE_EQ(b.At(500), b.At(0));
  EXPECT_EQ(b.Origin(), "12 x 2^-24 x sqrt(256), op class product");
  const LocalBound rope = BoundOf(PB_STAGE_Q_ROPE, kShape, 9);
  EXPECT_DOUBLE_EQ(rope.At(9), 10 * rope.At(0));  // the angle's rounding grows with the position
}

TEST(Local, EqualTensorsHaveNoError) {
  const auto b = Gaussian(10 * 256, 1);
  const PointRow r = Compare(b, b, 10);
  EXPECT_EQ(r.rel_l2, 0);
  EXPECT_EQ(r.bound_ratio, 0);
  EXPECT_NEAR(r.scale, 1, 1e-12);
  EXPECT_NEAR(r.cosine, 1, 1e-12);
}

TEST(Local, ErrorsByHand) {
  // Rows (3, 4) and (6, 8): norms 5 and 10, RMS^2 12.5 and 50. Candidate differs by 1 at (1, 0).
  const PointRow r = Compare({3, 4, 7, 8}, {3, 4, 6, 8}, 2);
  EXPECT_DOUBLE_EQ(r.rel_l2, 1 / std::sqrt(125));
  EXPECT_DOUBLE_EQ(r.worst_row, 0.1);
  EXPECT_EQ(r.worst_row_position, 1);
  EXPECT_DOUBLE_EQ(r.worst_feature, 1 / std::sqrt(62.5));
  EXPECT_EQ(r.worst_feature_index, 0);
  EXPECT_DOUBLE_EQ(r.max_abs, 1);
  // The column: 1 / sqrt(62.5) = 0.126 beats the row's 0.1; both bounds are c u sqrt(K).
  EXPECT_NEAR(r.bound_ratio, 1 / std::sqrt(62.5) / r.bound, 1e-9 * r.bound_ratio);
}

// A gate of one value that cancels to next to nothing: what its sum rounds by is much of it, and little of the sigmoid that reads it.
TEST(Local, TheErrorOfASingleValueCountsAsItStandsBelowOne) {
  const PointPlace gate{0, 0, PB_STAGE_SHARED_GATE, 0, 0};
  const LocalBound bound = BoundOf(PB_STAGE_SHARED_GATE, kShape, 9);
  auto over = [&](std::vector<float> candidate, std::vector<float> reference) {
    const auto n = static_cast<int64_t>(reference.size());
    const auto row = ComparePoint({candidate, n, 1}, {reference, n, 1}, gate, bound);
    EXPECT_TRUE(row.ok());
    return row.ok() && row->above_bound();
  };
  const auto limit = static_cast<float>(bound.At(0));
  EXPECT_FALSE(over({0.001f + 0.5f * limit, 2}, {0.001f, 2}));
  EXPECT_TRUE(over({0.001f + 1.5f * limit, 2}, {0.001f, 2}));
  EXPECT_FALSE(over({0.001f, 8 + 4 * limit}, {0.001f, 8}));
  EXPECT_TRUE(over({0.001f, 8 + 12 * limit}, {0.001f, 8}));
}

TEST(Local, OneLastBitPerValueIsWithinTheBound) {
  const auto b = Gaussian(64 * 256, 2);
  auto a = b;
  for (float& x : a) x = std::nextafter(x, kInf);
  EXPECT_LT(Compare(a, b, 64).bound_ratio, 1);
  EXPECT_LT(Compare(a, b, 64, PB_STAGE_FFN_GATED).bound_ratio, 1);
}

TEST(Local, OneBadFeatureIsNamedThoughTheTensorHidesIt) {
  const auto b = Gaussian(200 * 512, 3);
  auto a = b;
  for (int i = 0; i < 200; i++) a[static_cast<size_t>(i * 512 + 77)] += 1e-4f;
  const PointRow r = Compare(a, b, 200);
  EXPECT_LT(r.rel_l2, 1e-5);
  EXPECT_EQ(r.worst_feature_index, 77);
  EXPECT_NEAR(r.worst_feature, 1e-4, 1e-5);
  EXPECT_GT(r.bound_ratio, 5);
  EXPECT_TRUE(r.feature_alone);
}

TEST(Local, TwoFeaturesThatChangedPlacesAreNotOne) {
  const auto b = Gaussian(20 * 512, 6);
  auto a = b;
  for (size_t i = 0; i < 20; i++) std::swap(a[i * 512 + 31], a[i * 512 + 160]);
  const PointRow r = Compare(a, b, 20);
  EXPECT_TRUE(r.above_bound());
  EXPECT_TRUE(r.worst_feature_index == 31 || r.worst_feature_index == 160);
  EXPECT_FALSE(r.feature_alone);
}

TEST(Local, TheFirstRowBeyondItsBoundIsNamed) {
  const auto b = Gaussian(20 * 64, 5);
  auto a = b;
  for (size_t i : {7u, 12u}) a[i * 64 + i] += i == 7 ? 0.01f : 1.f;
  const PointRow r = Compare(a, b, 20);
  EXPECT_EQ(r.first_row_above, 7);
  EXPECT_EQ(r.worst_row_position, 12);
  EXPECT_EQ(Compare(b, b, 20).first_row_above, -1);
}

TEST(Local, AFittedScaleIsTold) {
  const auto b = Gaussian(10 * 256, 4);
  auto a = b;
  for (float& x : a) x = 1.05f * x + 0.25f;
  const PointRow r = Compare(a, b, 10);
  EXPECT_NEAR(r.scale, 1.05, 1e-6);
  EXPECT_NEAR(r.offset, 0.25, 1e-6);
  EXPECT_TRUE(r.above_bound());
  EXPECT_FALSE(r.feature_alone);  // every feature is wrong
}

TEST(Local, MasksAreEqualAndOtherNonFiniteValuesNeverPass) {
  const PointRow masked = Compare({1, -kInf, 2, 3}, {1, -kInf, 2, 3}, 2, PB_STAGE_ATTN_SCORES);
  EXPECT_EQ(masked.bound_ratio, 0);
  for (float bad : {kInf, -kInf, std::nanf("")}) {
    const PointRow r = Compare({1, bad, 2, 3}, {1, 1, 2, 3}, 2);
    EXPECT_EQ(r.bound_ratio, std::numeric_limits<double>::infinity());
    EXPECT_EQ(r.n_non_finite[0], 1);
    EXPECT_EQ(r.n_non_finite[1], 0);
  }
  EXPECT_FALSE(Compare({1, -kInf, 2, 3}, {1, -kInf, 2, 3}, 2).bound_ratio < 1);  // no mask here
  // A position that one side alone hides is an infinite error of the op, and no damaged number of
  // either side.
  for (bool in_reference : {false, true}) {
    const std::vector<float> hides{1, -kInf, 2, 3}, sees{1, 4, 2, 3};
    const PointRow r =
        Compare(in_reference ? sees : hides, in_reference ? hides : sees, 2, PB_STAGE_ATTN_SCORES);
    EXPECT_EQ(r.bound_ratio, std::numeric_limits<double>::infinity());
    EXPECT_EQ(r.n_non_finite[0] + r.n_non_finite[1], 0);
    EXPECT_EQ(r.first_row_above, 0);
  }
  EXPECT_EQ(Compare({1, -kInf}, {1, std::nanf("")}, 1, PB_STAGE_ATTN_SCORES).n_non_finite[1], 1);
  // NaN in both is no agreement either.
  EXPECT_EQ(Compare({std::nanf("")}, {std::nanf("")}, 1).bound_ratio,
            std::numeric_limits<double>::infinity());
}

TEST(Local, AMaskThatOneEngineLacksIsADefectAndNoBrokenNumber) {
  for (bool candidate_hides : {true, false}) {
    const std::vector<float> hidden = {1, 2, 3, -kInf}, seen = {1, 2, 3, 4};
    const PointRow r = candidate_hides ? Compare(hidden, seen, 2, PB_STAGE_ATTN_SCORES)
                                       : Compare(seen, hidden, 2, PB_STAGE_ATTN_SCORES);
    EXPECT_TRUE(r.above_bound());
    EXPECT_EQ(r.n_non_finite[0] + r.n_non_finite[1], 0);
    EXPECT_EQ(r.first_row_above, 1);
    EXPECT_EQ(r.worst_feature_index, 1);
    EXPECT_EQ(r.max_abs, std::numeric_limits<double>::infinity());
  }
}

TEST(Local, ARowOfZerosAdmitsNoError) {
  EXPECT_EQ(Compare({0, 0}, {0, 0}, 1).bound_ratio, 0);
  EXPECT_EQ(Compare({1e-30f, 0}, {0, 0}, 1).bound_ratio, std::numeric_limits<double>::infinity());
}

TEST(Local, DifferentShapesAreAnError) {
  const std::vector<float> six(6);
  EXPECT_FALSE(ComparePoint({six, 2, 3}, {six, 3, 2}, {}, {}).ok());
  // fewer values than the shape says
  EXPECT_FALSE(ComparePoint({six, 2, 4}, {six, 2, 4}, {}, {}).ok());
  EXPECT_FALSE(ComparePoint({{}, 0, 3}, {{}, 0, 3}, {}, {}).ok());  // nothing to compare
}

TEST(Local, CodesOnABoundaryExplainADifferenceAndNothingElseDoes) {
  const std::vector<BoundaryCode> codes = {{5, {0.1, -0.2, 0.3}}, {9, {0.4, 0.1, 0}}};
  // One step down of column 5 and one up of column 9, by hand.
  const std::vector<double> both = {0.3 + 1e-9, 0.3, -0.3};
  auto found = ExplainByCodes(both, codes, 1e-6);
  ASSERT_EQ(found.steps.size(), 2u);
  EXPECT_LT(found.remainder_ratio, 1);
  // Half a step, or a difference in another direction, is no rounding of a code.
  EXPECT_GT(ExplainByCodes(std::vector<double>{0.05, -0.1, 0.15}, codes, 1e-6).remainder_ratio, 1);
  EXPECT_GT(ExplainByCodes(std::vector<double>{0, 0, 1e-3}, codes, 1e-6).remainder_ratio, 1);
}

// Of effects that are much alike no single step shortens the difference that both make together.
TEST(Local, CodesExplainWhereNoneAloneComesNearer) {
  const std::vector<BoundaryCode> codes = {{5, {2, 1}}, {9, {1, 2}}};
  const auto found = ExplainByCodes(std::vector<double>{1, -1}, codes, 1e-9);
  EXPECT_EQ(found.steps, (std::vector<std::pair<int64_t, int>>{{5, 1}, {9, -1}}));
  EXPECT_LT(found.remainder_ratio, 1);
  // Equal effects: which of the two it was stays open, but one step is enough.
  const std::vector<BoundaryCode> equal = {{5, {2, 1}}, {9, {2, 1}}};
  EXPECT_EQ(ExplainByCodes(std::vector<double>{-2, -1}, equal, 1e-9).steps.size(), 1u);
}

TEST(Local, NoneOfManyCodesExplainsTwoSteps) {
  std::vector<BoundaryCode> codes;
  for (int64_t k = 0; k < 3; k++)
    codes.push_back({k, {k == 0 ? 1.0 : 0, k == 1 ? 1.0 : 0, k == 2 ? 1.0 : 0}});
  EXPECT_LT(ExplainByCodes(std::vector<double>{1, -1, 0}, codes, 1e-9).remainder_ratio, 1);
  EXPECT_GT(ExplainByCodes(std::vector<double>{2, 0, 0}, codes, 1e-9).remainder_ratio,
            1);  // a code steps once
  EXPECT_GT(ExplainByCodes(std::vector<double>{0, NAN, 0}, codes, 1e-9).remainder_ratio, 1);
}

// Logits have rows of a whole vocabulary.
TEST(Local, SumsGoThroughRowsOfAnyLength) {
  constexpr int64_t kFeatures = 5003;
  for (int64_t broken : {int64_t{-1}, int64_t{2047}, int64_t{2048}, int64_t{4500}}) {
    std::vector<float> a(2 * kFeatures), b(2 * kFeatures);
    double error = 0, norm = 0;
    for (size_t i = 0; i < a.size(); i++) {
      b[i] = static_cast<float>(i % 97) - 48, a[i] = b[i] + (i % 2 ? 0.5f : 0.25f);
      error += i % 2 ? 0.25 : 0.0625, norm += double(b[i]) * double(b[i]);
    }
    if (broken >= 0) a[static_cast<size_t>(kFeatures + broken)] = NAN;
    auto row = ComparePoint({a, 2, kFeatures}, {b, 2, kFeatures}, {}, {});
    ASSERT_TRUE(row.ok());
    EXPECT_EQ(row->n_non_finite[0], broken >= 0);
    EXPECT_EQ(row->largest, 48.5f);
    EXPECT_EQ(row->max_abs, broken >= 0 ? INFINITY : 0.5);
    if (broken < 0)
      EXPECT_DOUBLE_EQ(row->rel_l2, std::sqrt(error / norm));  // all sums are exact
    else
      EXPECT_EQ(row->worst_feature_index, broken);
  }
}

TEST(Local, DependencyOrderPutsOuterStagesAroundTheLayers) {
  auto at = [](pb_stage stage, int32_t layer) {
    PointRow r;
    r.stage = stage, r.layer = layer;
    return r;
  };
  EXPECT_TRUE(ComesBefore(at(PB_STAGE_EMBEDDINGS, -1), at(PB_STAGE_ATTN_NORM, 0)));
  EXPECT_TRUE(ComesBefore(at(PB_STAGE_LAYER_OUT, 0), at(PB_STAGE_ATTN_NORM, 1)));
  EXPECT_TRUE(ComesBefore(at(PB_STAGE_LAYER_OUT, 5), at(PB_STAGE_LOGITS, -1)));
  EXPECT_FALSE(ComesBefore(at(PB_STAGE_Q_PROJ, 0), at(PB_STAGE_K_PROJ, 0)));  // siblings
  EXPECT_FALSE(ComesBefore(at(PB_STAGE_K_PROJ, 0), at(PB_STAGE_Q_PROJ, 0)));
}

}  // namespace
}  // namespace pb::compare

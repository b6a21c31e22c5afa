// Relations between wrong values and those that they should be, made here by their definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "diagnose/transformations.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kRows = 3, kFeatures = 40;

// An elementwise op of random values, of which features 8 to 11 are wrong.
class Op {
 public:
  Op() {
    Random random(3);
    for (int64_t i = 0; i < kRows * kFeatures; i++) declared.push_back(static_cast<float>(random.Normal()));
    output = declared;
    culprit.place = {0, 0, PB_STAGE_FFN_GATED, 0};
    culprit.shape = {kRows, kFeatures};
    part.n_rows = kRows, part.n_features = kFeatures;
    part.rows = {0, 1, 2}, part.features = {8, 9, 10, 11};
    part.region = {Axis::kFeatures, 8, 11, 1, kFeatures};
  }
  template <class Function>
  void Spoil(Function function) {
    for (int64_t i : part.rows)
      for (int64_t j : part.features) {
        const auto at = static_cast<size_t>(i * kFeatures + j);
        output[at] = function(i, j, declared[at]);
      }
  }
  // "what:value" of the guesses whose output is the engine's; each with the wrong part.
  std::vector<std::string> Exact() const {
    std::vector<std::string> exact;
    for (const Guess& g : OtherValues({"engine", &culprit, nullptr, output, declared, {}, {}}, part)) {
      bool equal = true;
      for (size_t i = 0; i < output.size(); i++) equal &= std::fabs(g.output[i] - output[i]) <= 1e-5f;
      EXPECT_EQ(g.meaning.part, part.region) << g.name;
      if (equal) exact.push_back(fmt::format("{}:{:.3g}", WhatName(g.meaning.what), g.meaning.value));
    }
    return exact;
  }

  std::vector<float> declared, output;
  Culprit culprit;
  WrongPart part;
};

using Names = std::vector<std::string>;

TEST(OtherValues, NumbersAreFittedToHalfOfTheValues) {
  Op op;
  op.Spoil([](int64_t, int64_t, float y) { return y + 0.25f; });
  EXPECT_EQ(op.Exact(), Names{"offset:0.25"});
  Op cut;
  for (size_t i = 0; i < cut.declared.size(); i++) cut.output[i] = cut.declared[i] *= 10;
  cut.Spoil([](int64_t, int64_t, float y) { return std::clamp(y, -0.5f, 0.5f); });
  EXPECT_EQ(cut.Exact(), Names{"saturation:0.5"});
}

// Large values round what is added to them; what is small was made of larger ones.
TEST(OtherValues, NumbersAreToldThroughRounding) {
  Op far;
  for (size_t i = 0; i < far.declared.size(); i++) far.output[i] = far.declared[i] *= 1e6f;
  far.Spoil([](int64_t, int64_t, float y) { return y + 1; });
  const auto guesses =
      OtherValues({"engine", &far.culprit, nullptr, far.output, far.declared, {}, {}}, far.part);
  ASSERT_EQ(guesses.size(), 1u);
  EXPECT_EQ(guesses[0].meaning.what, WhatKind::kOffset);
  EXPECT_NEAR(guesses[0].meaning.value, 1, 0.02);
  Op cut;
  cut.Spoil([](int64_t, int64_t, float y) { return std::clamp(y, -0.01f, 0.01f); });
  cut.declared[8] = 1e-4f, cut.output[8] = 1e-4f - 3e-9f;
  EXPECT_EQ(cut.Exact(), Names{"saturation:0.01"});
}

TEST(OtherValues, RoundingTowardsZero) {
  Op op;
  op.Spoil([](int64_t, int64_t, float y) {
    int exponent = 0;
    const float fraction = std::frexp(y, &exponent);  // of 8 bits: bfloat16
    return std::ldexp(std::trunc(fraction * 256) / 256, exponent);
  });
  EXPECT_EQ(op.Exact(), Names{"truncation:0"});
}

TEST(OtherValues, OtherPlaces) {
  Op op;
  op.part.rows = {1, 2};
  const std::vector<float> declared = op.declared;
  op.Spoil(
      [&](int64_t i, int64_t j, float) { return declared[static_cast<size_t>((i - 1) * kFeatures + j)]; });
  EXPECT_EQ(op.Exact(), Names{"stale:0"});
  Op moved;
  moved.Spoil(
      [&](int64_t i, int64_t j, float) { return declared[static_cast<size_t>(i * kFeatures + j + 2)]; });
  EXPECT_EQ(moved.Exact(), Names{"other-part:0"});
}

TEST(OtherValues, UnrelatedValuesAndTooFewOfThemHaveNone) {
  Op op;
  Random random(11);
  op.Spoil([&](int64_t, int64_t, float) { return static_cast<float>(random.Normal()); });
  EXPECT_EQ(op.Exact(), Names{});
  Op one;  // a single value is any factor, offset or plateau
  one.part.rows = {1}, one.part.features = {8}, one.part.region = {Axis::kFeatures, 8, 8, 1, kFeatures};
  one.Spoil([](int64_t, int64_t, float y) { return 0.242f * y; });
  EXPECT_EQ(one.Exact(), Names{});
}

}  // namespace
}  // namespace pb::diagnose

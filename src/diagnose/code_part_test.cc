// Codes, scales and sums made by hand, wrong in places that are known.
#include "diagnose/code_part.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/half.h"
#include "base/random.h"

namespace pb::diagnose {
namespace {

// Three rows of two blocks of four.
host::Codes Right() {
  host::Codes c;
  c.n_rows = 3, c.n_columns = 8, c.block = 4;
  for (int i = 0; i < 24; i++) c.codes.push_back(static_cast<int8_t>(i));
  for (int i = 0; i < 6; i++) c.scales.push_back(static_cast<float>(1 + i)), c.sums.push_back(10.0f);
  return c;
}

std::string Text(const host::Codes& wrong, Where where) {
  const CodePart found = FindCodePart(wrong, Right(), std::vector<float>(24), where);
  Conclusion c;
  c.part = found.part, c.what = found.what, c.value = found.value;
  return ConclusionText(c);
}

TEST(CodePart, TheSamePlaceOfEveryBlock) {
  host::Codes wrong = Right();
  for (size_t k = 1; k < 24; k += 4) wrong.codes[k]--;
  EXPECT_EQ(Text(wrong, Where::kCodes), "part=code:1/4 what=offset:-1");
}

TEST(CodePart, OneColumn) {
  host::Codes wrong = Right();
  for (size_t k = 6; k < 24; k += 8) wrong.codes[k] = 100;
  EXPECT_EQ(Text(wrong, Where::kCodes), "part=columns:6/8");  // three values prove no offset
}

TEST(CodePart, ABlocksScaleTwice) {
  host::Codes wrong = Right();
  for (size_t k = 1; k < 6; k += 2) wrong.scales[k] *= 2;
  EXPECT_EQ(Text(wrong, Where::kScales), "part=columns:4-7/8");
  for (size_t k = 0; k < 6; k++) wrong.scales[k] = 3 * Right().scales[k];
  EXPECT_EQ(Text(wrong, Where::kScales), "part=all what=factor:3");
}

TEST(CodePart, SumsThatAreNotThere) {
  host::Codes wrong = Right();
  for (size_t k = 0; k < 6; k += 2) wrong.sums[k] = 0;
  EXPECT_EQ(Text(wrong, Where::kSums), "part=columns:0-3/8 what=absent");
}

// Two rows of two blocks of Q8_1, made by its definition.
struct Quantised {
  std::vector<float> input;
  host::Codes right;

  Quantised() {
    Random random(3);
    right.scheme = "q8_1", right.n_rows = 2, right.n_columns = 64, right.block = 32;
    for (int b = 0; b < 4; b++) {
      float largest = 0;
      for (int k = 0; k < 32; k++) {
        input.push_back(static_cast<float>(random.Normal()));
        largest = std::max(largest, std::fabs(input.back()));
      }
      const float d = largest / 127;
      for (int k = 0; k < 32; k++)
        right.codes.push_back(
            static_cast<int8_t>(std::nearbyint(input[static_cast<size_t>(b * 32 + k)] / d)));
      right.scales.push_back(RoundF16(d)), right.sums.push_back(SumOf(b, d, 0, 31));
      exact.push_back(d);
    }
  }
  float SumOf(int block, float d, int first, int last) const {
    int sum = 0;
    for (int k = first; k <= last; k++) sum += right.codes[static_cast<size_t>(block * 32 + k)];
    return RoundF16(d * static_cast<float>(sum));
  }
  std::string Text(const host::Codes& wrong, Where where) const {
    const CodePart found = FindCodePart(wrong, right, input, where);
    Conclusion c;
    c.part = found.part, c.what = found.what, c.value = found.value;
    return ConclusionText(c);
  }
  static float RoundF16(float x) { return F16ToF32(F32ToF16(x)); }
  std::vector<float> exact;
};

TEST(CodePart, ScalesByAnotherRule) {
  const Quantised q;
  host::Codes wrong = q.right;
  for (size_t b = 0; b < 4; b++) wrong.scales[b] = q.exact[b];
  EXPECT_EQ(q.Text(wrong, Where::kScales), "part=all");  // not rounded at all
  for (size_t b = 0; b < 4; b++) {
    const float near = Quantised::RoundF16(q.exact[b]);
    wrong.scales[b] = near <= q.exact[b] ? near : F16ToF32(static_cast<uint16_t>(F32ToF16(near) - 1));
  }
  EXPECT_EQ(q.Text(wrong, Where::kScales), "part=all what=truncation");
  for (size_t b = 0; b < 4; b++) wrong.scales[b] = Quantised::RoundF16(q.exact[b] * 127 / 126);
  const CodePart found = FindCodePart(wrong, q.right, q.input, Where::kScales);
  EXPECT_EQ(found.part.axis, Axis::kAll);
  EXPECT_EQ(found.what, WhatKind::kFactor);
  EXPECT_NEAR(found.value, 127.0 / 126, 1e-3);
  // Roundings to f16 move a factor by their share of it. 2^-11 above and below twice the right ones:
  for (size_t b = 0; b < 4; b++)
    wrong.scales[b] = q.right.scales[b] * (b % 2 ? 2 - 0x1.8p-10f : 2 + 0x1.8p-10f);
  EXPECT_EQ(FindCodePart(wrong, q.right, q.input, Where::kScales).what, WhatKind::kFactor);
}

TEST(CodePart, TheLargestOfSomePlacesOfEachBlock) {
  Quantised q;
  host::Codes wrong = q.right;
  // In each block the places from 24 on hold the largest, and those before them are taken.
  for (size_t b = 0; b < 4; b++) {
    q.input[b * 32 + 24 + b * 2] = 10;
    float largest = 0;
    for (size_t k = 0; k < 24; k++) largest = std::max(largest, std::fabs(q.input[b * 32 + k]));
    wrong.scales[b] = Quantised::RoundF16(largest / 127),
    q.right.scales[b] = Quantised::RoundF16(10.0f / 127);
  }
  EXPECT_EQ(q.Text(wrong, Where::kScales), "part=all");  // where they end is not known exactly
  q.input[23] = 9, q.input[32] = 9;                      // the first and the last of them
  wrong.scales[0] = wrong.scales[1] = Quantised::RoundF16(9.0f / 127);
  EXPECT_EQ(q.Text(wrong, Where::kScales), "part=code:0-23/32");
}

TEST(CodePart, CodesThatEndOrAreCutOff) {
  const Quantised q;
  host::Codes wrong = q.right;
  for (int8_t& code : wrong.codes) code = std::clamp<int8_t>(code, -90, 90);
  EXPECT_EQ(q.Text(wrong, Where::kCodes), "part=all what=saturation:90");
  for (double (*cut)(double) :
       {+[](double x) { return std::trunc(x); }, +[](double x) { return std::floor(x); }}) {
    for (size_t k = 0; k < 64; k++)
      wrong.codes[k] = static_cast<int8_t>(cut(double(q.input[k] / q.exact[k / 32])));
    for (size_t k = 64; k < 128; k++) wrong.codes[k] = q.right.codes[k];  // a row that is right
    EXPECT_EQ(q.Text(wrong, Where::kCodes), "part=all what=truncation");
  }
}

// 127 / largest is not 1 over the scale as it is rounded to f16.
TEST(CodePart, CodesByTheStoredScale) {
  Quantised q;
  host::Codes wrong = q.right;
  for (size_t b = 0; b < 4; b++) {
    // A value that lies on a half between the two, and is not the largest.
    const double stored = double(q.right.scales[b]), exact = double(q.exact[b]);
    const size_t at = b * 32 + (std::abs(int{q.right.codes[b * 32]}) == 127 ? 1 : 0);
    q.input[at] = static_cast<float>(100.5 * (stored + exact) / 2);
    q.right.codes[at] = static_cast<int8_t>(std::nearbyint(double(q.input[at]) / exact));
    ASSERT_NE(stored, exact);
  }
  for (size_t k = 0; k < wrong.codes.size(); k++) {
    const double scaled = double(q.input[k]) / double(wrong.scales[k / 32]);
    wrong.codes[k] = static_cast<int8_t>(std::clamp(std::nearbyint(scaled), -127.0, 127.0));
  }
  ASSERT_NE(wrong.codes, q.right.codes);
  EXPECT_EQ(q.Text(wrong, Where::kCodes), "part=all");
}

TEST(CodePart, SumsOfSomethingElse) {
  const Quantised q;
  host::Codes wrong = q.right;
  for (int b = 0; b < 4; b++)
    wrong.sums[static_cast<size_t>(b)] = q.SumOf(b, q.exact[static_cast<size_t>(b)], 0, 23);
  EXPECT_EQ(q.Text(wrong, Where::kSums), "part=code:24-31/32 what=absent");
  wrong.sums = {q.right.sums[1], q.right.sums[0], q.right.sums[3], q.right.sums[2]};
  EXPECT_EQ(q.Text(wrong, Where::kSums), "part=all what=other-part");
  for (size_t b = 0; b < 4; b++) {
    float sum = 0;
    for (size_t k = 0; k < 32; k++) sum += q.input[b * 32 + k];
    wrong.sums[b] = Quantised::RoundF16(sum);
  }
  EXPECT_EQ(q.Text(wrong, Where::kSums), "part=all");
  for (size_t b = 0; b < 4; b++) wrong.sums[b] = 7.0f * static_cast<float>(b + 1);
  EXPECT_EQ(q.Text(wrong, Where::kSums), "unknown");
}

TEST(CodePart, NoRegionHoldsWhatIsScattered) {
  host::Codes wrong = Right();
  wrong.codes[0] += 3, wrong.codes[13] += 5, wrong.codes[23] -= 2;
  EXPECT_EQ(Text(wrong, Where::kCodes), "unknown");
}

}  // namespace
}  // namespace pb::diagnose

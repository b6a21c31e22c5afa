// Codes, scales and sums made by hand, wrong in places that are known.
#include "diagnose/code_part.h"

#include <gtest/gtest.h>

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
  const CodePart found = FindCodePart(wrong, Right(), where);
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

TEST(CodePart, NoRegionHoldsWhatIsScattered) {
  host::Codes wrong = Right();
  wrong.codes[0] += 3, wrong.codes[13] += 5, wrong.codes[23] -= 2;
  EXPECT_EQ(Text(wrong, Where::kCodes), "unknown");
}

}  // namespace
}  // namespace pb::diagnose

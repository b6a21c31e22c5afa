// When an engine's codes are those of a scheme: rows whose codes are plain by hand.
#include "codes/scheme_check.h"

#include <gtest/gtest.h>

#include <vector>

namespace pb::codes {
namespace {

// The largest value is 127, so a code's step is 1.
std::vector<float> Row(size_t n) {
  std::vector<float> x(n, 0);
  x[0] = 127, x[1] = 2.5, x[2] = 2.6f, x[3] = -3.4f;
  return x;
}

host::Codes Codes(const char* scheme, int64_t block, float scale, std::vector<int8_t> first) {
  host::Codes c{scheme, "by hand", 1, block, block, std::move(first), {scale}, {}, {}};
  c.codes.resize(static_cast<size_t>(block));
  return c;
}

TEST(PartsFrom, CodesOfTheSchemeDoNot) {
  const ActScheme q8_0 = ActScheme::kQ8_0;
  EXPECT_EQ(PartsFrom(q8_0, Codes("q8_0", 32, 1, {127, 2, 3, -3}), Row(32)), "");
  // 2.5 may go either way
  EXPECT_EQ(PartsFrom(q8_0, Codes("q8_0", 32, 1, {127, 3, 3, -3}), Row(32)), "");
  const ActScheme q8_k = ActScheme::kQ8_K;
  EXPECT_EQ(PartsFrom(q8_k, Codes("q8_k", 256, -1, {-127, -2, -3, 3}), Row(256)), "");
  const ActScheme q8_1 = ActScheme::kQ8_1;
  host::Codes stored = Codes("q8_1", 32, 1, {127, 2, 3, -3});
  stored.sums = {129};
  EXPECT_EQ(PartsFrom(q8_1, stored, Row(32)), "");
}

TEST(PartsFrom, AnythingElseDoes) {
  const ActScheme q8_0 = ActScheme::kQ8_0;
  EXPECT_NE(PartsFrom(q8_0, Codes("q8_0", 32, 1, {127, 2, 2, -3}), Row(32)), "");  // truncated
  EXPECT_NE(PartsFrom(q8_0, Codes("q8_0", 32, 1, {127, 4, 3, -3}), Row(32)), "");  // two steps
  EXPECT_NE(PartsFrom(q8_0, Codes("q8_0", 32, 1, {63, 2, 3, -3}), Row(32)), "");   // clamped
  EXPECT_NE(PartsFrom(q8_0, Codes("q8_0", 32, 1.01f, {127, 2, 3, -3}), Row(32)), "");
  EXPECT_NE(PartsFrom(q8_0, Codes("q8_0", 16, 1, {127, 2, 3, -3}), Row(16)), "");
  const ActScheme q8_1 = ActScheme::kQ8_1;
  host::Codes stored = Codes("q8_1", 32, 1, {127, 2, 3, -3});
  EXPECT_NE(PartsFrom(q8_1, stored, Row(32)), "");  // none stored
  stored.sums = {128};
  EXPECT_NE(PartsFrom(q8_1, stored, Row(32)), "");
}

}  // namespace
}  // namespace pb::codes

// Metrics of logits against values derived by hand, the C library, and plain definitions in
// fp64.
#include "compare/logits.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "base/random.h"
#include "compare/fast_exp.h"

namespace pb::compare {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(size_t n, uint64_t seed, double spread) {
  Random random(seed);
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(spread * random.Normal());
  return v;
}

std::vector<float> Disturb(std::vector<float> v, uint64_t seed, double amount) {
  Random random(seed);
  for (float& x : v) x += static_cast<float>(amount * random.Normal());
  return v;
}

// The definitions, in long double and the order of a textbook.
long double LogZOf(const std::vector<float>& v) {
  long double max = -std::numeric_limits<long double>::infinity(), sum = 0;
  for (float x : v) max = std::max<long double>(max, x);
  for (float x : v) sum += expl(x - max);
  return max + logl(sum);
}

struct Defined {
  long double kl = 0, max_abs = 0, rel_l2 = 0, cosine = 0, mse = 0;
};

Defined Define(const std::vector<float>& c, const std::vector<float>& r) {
  Defined out;
  long double zc = LogZOf(c), zr = LogZOf(r), mc = 0, mr = 0, dd = 0, rr = 0, cc = 0, cr = 0;
  for (size_t i = 0; i < r.size(); ++i) {
    long double lc = c[i] - zc, lr = r[i] - zr;
    out.kl += expl(lr) * (lr - lc);
    out.max_abs = std::max(out.max_abs, fabsl(lc - lr));
    out.mse += (static_cast<long double>(c[i]) - r[i]) * (static_cast<long double>(c[i]) - r[i]);
    mc += c[i];
    mr += r[i];
  }
  mc /= static_cast<long double>(c.size());
  mr /= static_cast<long double>(r.size());
  for (size_t i = 0; i < r.size(); ++i) {
    long double a = c[i] - mc, b = r[i] - mr;
    dd += (a - b) * (a - b);
    rr += b * b;
    cc += a * a;
    cr += a * b;
  }
  out.mse /= static_cast<long double>(r.size());
  out.rel_l2 = sqrtl(dd / rr);
  out.cosine = cr / sqrtl(cc * rr);
  return out;
}

TEST(FastExp, AgreesWithTheLibrary) {
  double worst = 0;
  for (double x = -700; x <= 700; x += 0.0137)
    worst = std::max(worst, std::abs(FastExp(x) / static_cast<double>(expl(x)) - 1));
  for (double x = -1; x <= 1; x += 1e-5)
    worst = std::max(worst, std::abs(FastExp(x) / static_cast<double>(expl(x)) - 1));
  EXPECT_LT(worst, 1e-15);
  EXPECT_EQ(FastExp(0), 1.0);
  EXPECT_EQ(FastExp(-1e9), FastExp(-700));
}

TEST(CompareLogits, HandDerived) {
  // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = 1/2 ln 2 + 0 + 1/4 ln(1/2) = ln(2) / 4.
  auto ln = [](double p) { return static_cast<float>(std::log(p)); };
  std::vector<float> reference{ln(0.5), ln(0.25), ln(0.25)}, candidate{ln(0.25), ln(0.25), ln(0.5)};
  LogitsRow row = CompareLogits(candidate, reference).value();
  EXPECT_NEAR(row.kl, std::log(2) / 4, 1e-7);
  EXPECT_NEAR(row.max_abs, std::log(2), 1e-7);
  EXPECT_EQ(row.top1[0], 2);
  EXPECT_EQ(row.top1[1], 0);
  EXPECT_TRUE(row.flipped());
  EXPECT_NEAR(row.gap_reference, std::log(2), 1e-7);  // tokens 0 and 1
  EXPECT_NEAR(row.gap_candidate, 0, 1e-7);
  EXPECT_NEAR(row.gap_change, 2 * std::log(2), 1e-7);  // tokens 0 and 2: from ln 2 to -ln 2
  EXPECT_EQ(row.top_k_overlap, 3);
  EXPECT_NEAR(row.top_k_logp[0][0], std::log(0.5), 1e-7);
  EXPECT_NEAR(row.top_k_logp[1][1], std::log(0.25), 1e-7);
}

TEST(CompareLogits, AgreesWithTheDefinition) {
  for (size_t n : {2u, 3u, 7u, 8u, 1000u, 49153u})
    for (double amount : {1e-6, 1e-4, 1e-2, 0.5, 5.0, 60.0}) {
      std::vector<float> r = RandomLogits(n, n, 3), c = Disturb(r, n + 1, amount);
      Defined want = Define(c, r);
      LogitsRow got = CompareLogits(c, r).value();
      SCOPED_TRACE(testing::Message() << n << " values, disturbed by " << amount);
      EXPECT_NEAR(got.kl, static_cast<double>(want.kl), 1e-14 + 1e-11 * static_cast<double>(want.kl));
      EXPECT_NEAR(got.max_abs, static_cast<double>(want.max_abs), 1e-12 * (1 + amount));
      EXPECT_NEAR(got.rel_l2, static_cast<double>(want.rel_l2), 1e-9 * static_cast<double>(want.rel_l2));
      EXPECT_NEAR(got.cosine, static_cast<double>(want.cosine), 1e-12);
      EXPECT_NEAR(got.mse, static_cast<double>(want.mse), 1e-9 * static_cast<double>(want.mse));
    }
}

TEST(CompareLogits, FarApartRowsAreStillFinite) {
  std::vector<float> r(100, 0.f), c(100, 0.f);
  r[3] = 1000;
  c[4] = 2000;  // log q(3) = -2000, p(3) = 1
  LogitsRow row = CompareLogits(c, r).value();
  EXPECT_NEAR(row.kl, 2000, 1e-9);
  EXPECT_TRUE(row.finite);
  r.assign(100, -3e38f);
  c.assign(100, 3e38f);
  EXPECT_EQ(CompareLogits(c, r).value().kl, 0);  // a shift, however large
}

TEST(CompareLogits, EqualBitsGiveZerosAndOne) {
  std::vector<float> r = RandomLogits(5000, 3, 4);
  LogitsRow row = CompareLogits(r, r).value();
  EXPECT_EQ(row.kl, 0);
  EXPECT_EQ(row.rel_l2, 0);
  EXPECT_EQ(row.max_abs, 0);
  EXPECT_EQ(row.mse, 0);
  EXPECT_EQ(row.cosine, 1);
  EXPECT_EQ(row.gap_change, 0);
  EXPECT_EQ(row.top_k_overlap, 10);
  EXPECT_FALSE(row.flipped());
}

TEST(CompareLogits, AShiftChangesNothingButTheSquaredError) {
  std::vector<float> r(4096), c(4096);
  Random random(9);
  for (size_t i = 0; i < r.size(); ++i) {
    r[i] = static_cast<float>(random.Below(4000)) / 256;  // a shift by 64 is exact
    c[i] = r[i] + 64;
  }
  LogitsRow row = CompareLogits(c, r).value();
  EXPECT_EQ(row.kl, 0);
  EXPECT_EQ(row.rel_l2, 0);
  EXPECT_EQ(row.cosine, 1);
  EXPECT_LT(row.max_abs, 1e-13);
  EXPECT_EQ(row.mse, 64 * 64);
}

TEST(CompareLogits, ScaleIsSeenWhereCosineIsBlind) {
  std::vector<float> r = RandomLogits(1000, 5, 3), c = r;
  for (float& v : c) v *= 1.0625f;
  LogitsRow row = CompareLogits(c, r).value();
  EXPECT_NEAR(row.cosine, 1, 1e-12);
  EXPECT_NEAR(row.rel_l2, 0.0625, 1e-6);
  EXPECT_GT(row.kl, 1e-3);
}

TEST(CompareLogits, NonFiniteIsItsOwnClass) {
  std::vector<float> good = RandomLogits(64, 1, 1);
  for (float bad : {kNan, kInf, -kInf})
    for (int side : {0, 1}) {
      std::vector<float> rows[2] = {good, good};
      rows[side][7] = bad;
      rows[side][63] = bad;
      LogitsRow row = CompareLogits(rows[0], rows[1]).value();
      EXPECT_FALSE(row.finite);
      EXPECT_EQ(row.n_non_finite[side], 2);
      EXPECT_EQ(row.n_non_finite[1 - side], 0);
      EXPECT_TRUE(std::isnan(row.kl) && std::isnan(row.cosine) && std::isnan(row.rel_l2) &&
                  std::isnan(row.max_abs) && std::isnan(row.mse));
      EXPECT_TRUE(std::isnan(row.gap_change));
    }
  std::vector<float> all(64, kNan);
  LogitsRow row = CompareLogits(all, all).value();
  EXPECT_FALSE(row.finite);
  EXPECT_EQ(row.top1[0], -1);
}

TEST(CompareLogits, LengthsMustAgree) {
  std::vector<float> a(10), b(11), none;
  EXPECT_FALSE(CompareLogits(a, b).ok());
  EXPECT_FALSE(CompareLogits(none, none).ok());
  EXPECT_FALSE(CompareLogits(a, none).ok());
}

TEST(TopK, TiesTakeTheLowestId) {
  std::vector<float> v{1, 5, 5, 2, 5, kNan, 3};
  EXPECT_EQ(TopK(v, 3), (std::vector<int32_t>{1, 2, 4}));
  EXPECT_EQ(TopK(v, 5), (std::vector<int32_t>{1, 2, 4, 6, 3}));
  EXPECT_EQ(TopK(v, 99).size(), 6u);
  EXPECT_TRUE(TopK({}, 3).empty());
}

// 49152 tokens x 1000 positions x 9 runs must take seconds: 20 ms a row would be 180 s. The limit
// has room for sanitizers.
TEST(CompareLogits, IsFast) {
  std::vector<float> r = RandomLogits(49152, 2, 3), c = Disturb(r, 3, 0.01);
  ReferenceRow reference(r);
  auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(CompareLogits(c, reference).value().finite);
  double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / 100;
  RecordProperty("ms_per_row", std::to_string(ms));
  EXPECT_LT(ms, 20);
}

}  // namespace
}  // namespace pb::compare

// Every SIMD table against the scalar definition, bit by bit, and the scalar definitions against
// fp64 and hand-made values.
#include "kernels/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/half.h"
#include "base/random.h"
#include "kernels/ref.h"

namespace pb {
namespace {

std::vector<float> Normals(int64_t n, uint64_t seed, double scale = 1) {
  Random random(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = static_cast<float>(random.Normal() * scale);
  return v;
}

std::vector<uint16_t> Halves(const std::vector<float>& v) {
  std::vector<uint16_t> h(v.size());
  for (size_t i = 0; i < v.size(); i++) h[i] = F32ToF16(v[i]);
  return h;
}

// Equal bits; NaN equals NaN whatever its payload.
::testing::AssertionResult SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < a.size(); i++) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::memcmp(&a[i], &b[i], 4) != 0) {
      return ::testing::AssertionFailure() << "at " << i << ": " << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

std::vector<Isa> SimdTargets() {
  std::vector<Isa> targets;
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (IsaAvailable(isa)) targets.push_back(isa);
  }
  return targets;
}

const std::vector<int64_t> kLengths = {1,  2,  3,  7,  15, 16,  17,  31,  32,
                                       33, 47, 63, 64, 65, 100, 256, 576, 769};

// Values that lie on the edges of what the kernels do.
std::vector<float> EdgeValues() {
  float inf = std::numeric_limits<float>::infinity();
  std::vector<float> v = {0.0f,          -0.0f,  1.0f,     -1.0f,    0.5f,    1e-40f,  -1e-40f, 1e-10f,
                          3e38f,         -3e38f, 65504.0f, 65520.0f, 88.7f,   88.8f,   89.f,    -87.f,
                          -88.f,         -103.f, -104.f,   -110.f,   1000.0f, -1000.f, inf,     -inf,
                          std::nanf(""), 6e-8f,  3e-8f,    2.98e-8f, 6.1e-5f};
  return v;
}

TEST(Dispatch, ForcedTargetIsTheOneThatRuns) {
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    auto parsed = ParseIsa(IsaName(isa));
    if (!IsaAvailable(isa)) {
      EXPECT_FALSE(parsed.ok());
      continue;
    }
    ASSERT_TRUE(parsed.ok());
    const Kernels& k = GetKernels(*parsed);
    EXPECT_EQ(k.isa, isa);
    EXPECT_EQ(k.packed_product == PackedProductRef, isa == Isa::kScalar);
    EXPECT_EQ(k.rms_norm == RmsNormRef, isa == Isa::kScalar);
  }
  EXPECT_FALSE(ParseIsa("mmx").ok());
  EXPECT_EQ(*ParseIsa("auto"), BestIsa());
}

using Unary = void (*)(const float*, int64_t, float*);

TEST(Simd, ElementwiseEqualsScalar) {
  const Kernels& ref = GetKernels(Isa::kScalar);
  auto members = {&Kernels::softmax, &Kernels::silu, &Kernels::relu2,    &Kernels::relu,
                  &Kernels::gelu,    &Kernels::exp,  &Kernels::round_f16};
  for (Isa isa : SimdTargets()) {
    const Kernels& k = GetKernels(isa);
    for (auto member : members) {
      for (int64_t n : kLengths) {
        std::vector<float> x = Normals(n, static_cast<uint64_t>(n), 10), want(x.size()), got(x.size());
        (ref.*member)(x.data(), n, want.data());
        (k.*member)(x.data(), n, got.data());
        EXPECT_TRUE(SameBits(got, want)) << IsaName(isa) << " n " << n;
      }
      std::vector<float> x = EdgeValues(), want(x.size()), got(x.size());
      (ref.*member)(x.data(), static_cast<int64_t>(x.size()), want.data());
      (k.*member)(x.data(), static_cast<int64_t>(x.size()), got.data());
      EXPECT_TRUE(SameBits(got, want)) << IsaName(isa) << " edges";
    }
  }
}

TEST(Simd, ExpEqualsScalarOverAllExponents) {
  std::vector<float> x, want;
  for (int i = -12000; i <= 12000; i++) x.push_back(static_cast<float>(i) * 0.0097f);
  for (float v : x) want.push_back(ExpRef(v));
  for (Isa isa : SimdTargets()) {
    std::vector<float> got(x.size());
    GetKernels(isa).exp(x.data(), static_cast<int64_t>(x.size()), got.data());
    EXPECT_TRUE(SameBits(got, want)) << IsaName(isa);
  }
}

TEST(Simd, HalvesEqualScalarForAllHalves) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<uint16_t>(i);
  std::vector<float> want(all.size());
  FromF16Ref(all.data(), 65536, want.data());
  for (Isa isa : SimdTargets()) {
    std::vector<float> got(all.size());
    GetKernels(isa).from_f16(all.data(), 65536, got.data());
    EXPECT_TRUE(SameBits(got, want)) << IsaName(isa);
    std::vector<uint16_t> back(all.size()), back_ref(all.size());
    GetKernels(isa).to_f16(want.data(), 65533, back.data());
    ToF16Ref(want.data(), 65533, back_ref.data());
    EXPECT_EQ(back, back_ref) << IsaName(isa);
  }
}

TEST(Simd, RowKernelsEqualScalar) {
  for (Isa isa : SimdTargets()) {
    const Kernels& k = GetKernels(isa);
    for (int64_t n : kLengths) {
      auto x = Normals(n, 1), w = Normals(n, 2);
      std::vector<float> want(x.size()), got(x.size());
      RmsNormRef(x.data(), w.data(), 1e-5f, n, want.data());
      k.rms_norm(x.data(), w.data(), 1e-5f, n, got.data());
      EXPECT_TRUE(SameBits(got, want)) << IsaName(isa) << " rms_norm " << n;
      AddRef(x.data(), w.data(), n, want.data());
      k.add(x.data(), w.data(), n, got.data());
      EXPECT_TRUE(SameBits(got, want)) << IsaName(isa) << " add " << n;
      MultiplyRef(x.data(), w.data(), n, want.data());
      k.multiply(x.data(), w.data(), n, got.data());
      EXPECT_TRUE(SameBits(got, want)) << IsaName(isa) << " multiply " << n;
    }
    for (int64_t dims : {2, 6, 30, 32, 64, 80, 128}) {
      for (int64_t head_dim : {dims, dims + 3}) {
        for (bool halves : {false, true}) {
          auto x = Normals(head_dim, 3), table = Normals(dims, 4);
          std::vector<float> want(x.size()), got(x.size());
          RopeRef(x.data(), table.data(), dims, head_dim, halves, want.data());
          k.rope(x.data(), table.data(), dims, head_dim, halves, got.data());
          EXPECT_TRUE(SameBits(got, want)) << IsaName(isa) << " rope " << dims;
        }
      }
    }
  }
}

TEST(Simd, DotsEqualScalar) {
  for (Isa isa : SimdTargets()) {
    const Kernels& k = GetKernels(isa);
    for (int64_t n : kLengths) {
      for (int64_t n_x : {1, 2, 3, 4, 5, 9, 35}) {
        auto w = Normals(n, 5), x = Normals(n_x * (n + 3), 6);
        auto wh = Halves(w);
        std::vector<float> want(static_cast<size_t>(n_x * 2)), got(want.size());
        DotF32Ref(w.data(), x.data(), n + 3, n_x, n, want.data(), 2);
        k.dot_f32(w.data(), x.data(), n + 3, n_x, n, got.data(), 2);
        EXPECT_TRUE(SameBits(got, want)) << IsaName(isa) << " f32 " << n << " x " << n_x;
        DotF16Ref(wh.data(), x.data(), n + 3, n_x, n, want.data(), 2);
        k.dot_f16(wh.data(), x.data(), n + 3, n_x, n, got.data(), 2);
        EXPECT_TRUE(SameBits(got, want)) << IsaName(isa) << " f16 " << n << " x " << n_x;
      }
    }
  }
}

TEST(Simd, AttentionEqualsScalar) {
  for (Isa isa : SimdTargets()) {
    const Kernels& k = GetKernels(isa);
    for (int64_t head_dim : {8, 40, 64, 100, 128}) {
      for (int64_t n_positions : {1, 2, 7, 8, 9, 31, 100}) {
        auto q = Normals(head_dim, 7), cache = Normals(n_positions * head_dim, 8),
             p = Normals(n_positions, 9);
        auto half = Halves(cache);
        std::vector<float> want(p.size()), got(p.size()), want_c(q.size()), got_c(q.size());
        ScoresF32Ref(q.data(), cache.data(), head_dim, n_positions, head_dim, 0.125f, want.data());
        k.scores_f32(q.data(), cache.data(), head_dim, n_positions, head_dim, 0.125f, got.data());
        EXPECT_TRUE(SameBits(got, want)) << IsaName(isa);
        ScoresF16Ref(q.data(), half.data(), head_dim, n_positions, head_dim, 0.3f, want.data());
        k.scores_f16(q.data(), half.data(), head_dim, n_positions, head_dim, 0.3f, got.data());
        EXPECT_TRUE(SameBits(got, want)) << IsaName(isa);
        ContextF32Ref(p.data(), cache.data(), head_dim, n_positions, head_dim, want_c.data());
        k.context_f32(p.data(), cache.data(), head_dim, n_positions, head_dim, got_c.data());
        EXPECT_TRUE(SameBits(got_c, want_c)) << IsaName(isa);
        ContextF16Ref(p.data(), half.data(), head_dim, n_positions, head_dim, want_c.data());
        k.context_f16(p.data(), half.data(), head_dim, n_positions, head_dim, got_c.data());
        EXPECT_TRUE(SameBits(got_c, want_c)) << IsaName(isa);
      }
    }
  }
}

// fp64 definitions.

TEST(Ref, ExpIsWithinOneUlp) {
  for (int i = -8700; i <= 8860; i++) {
    float x = static_cast<float>(i) * 0.01f;
    double want = std::exp(static_cast<double>(x));
    EXPECT_LE(std::fabs(ExpRef(x) - want) / want, 0x1p-23) << x;
  }
  EXPECT_EQ(ExpRef(0), 1.0f);
  EXPECT_EQ(ExpRef(-200), 0.0f);
  EXPECT_TRUE(std::isinf(ExpRef(89)));
  EXPECT_TRUE(std::isnan(ExpRef(std::nanf(""))));
}

TEST(Ref, RowsAgreeWithFp64) {
  auto x = Normals(300, 11, 3), w = Normals(300, 12);
  std::vector<float> y(300);
  RmsNormRef(x.data(), w.data(), 1e-5f, 300, y.data());
  double squares = 0;
  for (float v : x) squares += static_cast<double>(v) * v;
  for (size_t i = 0; i < 300; i++) {
    double want = x[i] / std::sqrt(squares / 300 + 1e-5) * w[i];
    EXPECT_NEAR(y[i], want, 3e-7 * std::fabs(want) + 1e-12);
  }
  SoftmaxRef(x.data(), 300, y.data());
  double sum = 0, max = *std::max_element(x.begin(), x.end());
  for (float v : x) sum += std::exp(static_cast<double>(v));
  // x - max is rounded once, exp turns that into a relative error
  for (size_t i = 0; i < 300; i++) {
    double want = std::exp(static_cast<double>(x[i])) / sum;
    EXPECT_NEAR(y[i], want, (max - x[i] + 4) * 0x1p-24 * want);
  }
  SiluRef(x.data(), 300, y.data());
  for (size_t i = 0; i < 300; i++) {
    double want = x[i] / (1 + std::exp(-static_cast<double>(x[i])));
    EXPECT_NEAR(y[i], want, 0x1p-22 * std::fabs(want));
  }
  GeluRef(x.data(), 300, y.data());
  for (size_t i = 0; i < 300; i++) {
    double want = 0.5 * x[i] * std::erfc(-x[i] / std::sqrt(2.0));
    EXPECT_NEAR(y[i], want, 1e-6);
  }
}

TEST(Ref, RopeRotatesByTheTablesAngle) {
  // A quarter turn takes (1, 2) to (-2, 1).
  float table[4] = {0, 1, 1, 0};  // cos cos sin sin: a quarter turn and none
  float x[4] = {1, 5, 2, 7}, y[4];
  RopeRef(x, table, 4, 4, true, y);
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{-2, 5, 1, 7}));
  float adjacent[4] = {1, 2, 5, 7};
  RopeRef(adjacent, table, 4, 4, false, y);
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{-2, 1, 5, 7}));
}

TEST(Ref, NanStaysVisible) {
  float nan = std::nanf("");
  std::vector<float> x(64, 1.0f), w(64, 1.0f), y(64);
  x[40] = nan;
  RmsNormRef(x.data(), w.data(), 1e-5f, 64, y.data());
  EXPECT_TRUE(std::isnan(y[0]));
  SoftmaxRef(x.data(), 64, y.data());
  EXPECT_TRUE(std::isnan(y[0]));
  for (auto f : {SiluRef, Relu2Ref, ReluRef, GeluRef}) {
    f(x.data(), 64, y.data());
    EXPECT_TRUE(std::isnan(y[40]));
    EXPECT_FALSE(std::isnan(y[39]));
  }
}

}  // namespace
}  // namespace pb

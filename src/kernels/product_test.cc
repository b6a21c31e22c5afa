// Quantisers and packed products: SIMD against scalar bit by bit, scalar against hand definitions
// and against decoded weights.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "base/random.h"
#include "kernels/kernels.h"
#include "kernels/ref.h"

namespace pb {
namespace {

std::vector<float> Normals(int64_t n, uint64_t seed, double scale = 1) {
  Random random(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = static_cast<float>(random.Normal() * scale);
  return v;
}

// A matrix of random bytes with sane f16 scales: every code, also those no encoder writes.
struct RandomMatrix {
  std::vector<std::byte> bytes;
  WeightView view;

  RandomMatrix(BlockType type, int64_t rows, int64_t columns, uint64_t seed) {
    Random random(seed);
    auto fill = [&](int64_t n) {
      for (int64_t i = 0; i < n; i++) bytes.push_back(static_cast<std::byte>(random.Below(256)));
    };
    auto half = [&] {
      uint16_t h = F32ToF16(static_cast<float>(random.Normal() * 0.1));
      bytes.push_back(static_cast<std::byte>(h & 255)), bytes.push_back(static_cast<std::byte>(h >> 8));
    };
    for (int64_t r = 0; r < rows; r++) {
      switch (type) {
        case BlockType::kQ4_0:
        case BlockType::kIQ4_NL:
          for (int64_t b = 0; b < columns / 32; b++) half(), fill(16);
          break;
        case BlockType::kQ4_1:
          for (int64_t b = 0; b < columns / 32; b++) half(), half(), fill(16);
          break;
        case BlockType::kQ5_0:
          for (int64_t b = 0; b < columns / 32; b++) half(), fill(20);
          break;
        case BlockType::kQ5_1:
          for (int64_t b = 0; b < columns / 32; b++) half(), half(), fill(20);
          break;
        case BlockType::kQ2_K:
          for (int64_t b = 0; b < columns / 256; b++) fill(80), half(), half();
          break;
        case BlockType::kQ3_K:
          for (int64_t b = 0; b < columns / 256; b++) fill(108), half();
          break;
        case BlockType::kQ4_K:
          for (int64_t b = 0; b < columns / 256; b++) half(), half(), fill(140);
          break;
        case BlockType::kQ5_K:
          for (int64_t b = 0; b < columns / 256; b++) half(), half(), fill(172);
          break;
        case BlockType::kQ6_K:
          for (int64_t b = 0; b < columns / 256; b++) fill(208), half();
          break;
        case BlockType::kIQ4_XS:
          for (int64_t b = 0; b < columns / 256; b++) half(), fill(134);
          break;
        case BlockType::kQ1_0:
          for (int64_t b = 0; b < columns / 128; b++) half(), fill(16);
          break;
        case BlockType::kQ2_0:
          for (int64_t b = 0; b < columns / 64; b++) half(), fill(16);
          break;
        case BlockType::kQ8_0:
          for (int64_t b = 0; b < columns / 32; b++) half(), fill(32);
          break;
        case BlockType::kTQ1_0:
          for (int64_t b = 0; b < columns / 256; b++) fill(52), half();
          break;
        case BlockType::kTQ2_0:
          for (int64_t b = 0; b < columns / 256; b++) fill(64), half();
          break;
        default:
          fill(columns / 4);
      }
    }
    float scale = type == BlockType::kI2_S ? 0.37f : 1.0f;
    view = {type, bytes.data(), rows, columns, bytes.size() / static_cast<uint64_t>(rows), scale};
  }
};

PackedMatrix Pack(const WeightView& w) {
  PackedMatrix p = MakePacked(w);
  PackGroups(w, p, 0, p.n_groups());
  return p;
}

const BlockType kTypes[] = {BlockType::kQ4_0,  BlockType::kQ4_1,  BlockType::kQ5_0,   BlockType::kQ5_1,
                            BlockType::kQ8_0,  BlockType::kQ2_K,  BlockType::kQ3_K,   BlockType::kQ4_K,
                            BlockType::kQ5_K,  BlockType::kQ6_K,  BlockType::kIQ4_NL, BlockType::kIQ4_XS,
                            BlockType::kTQ1_0, BlockType::kTQ2_0, BlockType::kI2_S,   BlockType::kQ1_0,
                            BlockType::kQ2_0};
// Q8_1 is not for fine scales (kernels.h).
bool Meet(const PackedMatrix& w, ActScheme scheme) { return !w.fine || scheme != ActScheme::kQ8_1; }
const ActScheme kSchemes[] = {ActScheme::kQ8_0, ActScheme::kQ8_1, ActScheme::kQ8_K, ActScheme::kBitnet};

int64_t BlockColumns(BlockType type) { return GetBlockFormat(type).block_values; }

QuantRows QuantizeAll(const Kernels& k, ActScheme scheme, const std::vector<float>& x, int64_t n_rows) {
  int64_t n = static_cast<int64_t>(x.size()) / n_rows;
  QuantRows q(scheme, n_rows, n);
  for (int64_t r = 0; r < n_rows; r++) k.quantize(x.data() + r * n, q, r);
  return q;
}

TEST(Packed, CodesTimesScalesAreTheDecodedWeights) {
  for (BlockType type : kTypes) {
    RandomMatrix m(type, 3, 512, 1);
    int64_t block = type == BlockType::kI2_S ? 512 : BlockColumns(type);
    std::vector<float> want(512);
    PackedMatrix p = Pack(m.view);
    for (int64_t row = 0; row < 3; row++) {
      const PackedRow packed = RowCodes(m.view, row);
      DecodeRow(m.view, row, want.data());
      for (size_t i = 0; i < 512; i++) {
        const size_t b = i / static_cast<size_t>(block);
        const size_t fine = p.fine ? i / static_cast<size_t>(p.fine) : 0;
        int code = p.bits == 8 ? static_cast<int8_t>(packed.codes[i]) : packed.codes[i];
        float step = F16ToF32(packed.d[b]), minimum = p.has_min ? F16ToF32(packed.m[b]) : 0.0f;
        if (p.fine) step *= packed.fine_scales[fine];
        if (p.fine && p.has_min) minimum *= -float(packed.fine_minima[fine]);
        float value = static_cast<float>(code - p.offset) * step * p.scale;
        if (p.has_min) value += minimum;
        ASSERT_EQ(value, want[i]) << GetBlockFormat(type).name << " row " << row << " column " << i;
        ASSERT_LE(std::abs(code), p.wide || !p.fine ? 128 : 32);
      }
    }
  }
}

TEST(Simd, QuantisersEqualScalar) {
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (!IsaAvailable(isa)) continue;
    for (ActScheme scheme : kSchemes) {
      for (int64_t n : {32, 64, 96, 256, 576, 768, 1536}) {
        if (scheme == ActScheme::kQ8_K && n % 256 != 0) continue;
        auto x = Normals(4 * n, static_cast<uint64_t>(n), 20);
        for (int64_t i = 0; i < n; i++) x[static_cast<size_t>(n + i)] = 0;  // a row of zeros
        x[static_cast<size_t>(2 * n + 5)] = std::nanf("");                  // NaN
        x[static_cast<size_t>(3 * n)] = 100000,
                                  x[static_cast<size_t>(3 * n + 1)] = -100000;  // a tie of magnitudes
        QuantRows want = QuantizeAll(GetKernels(Isa::kScalar), scheme, x, 4);
        QuantRows got = QuantizeAll(GetKernels(isa), scheme, x, 4);
        EXPECT_EQ(std::memcmp(got.codes.get(), want.codes.get(), static_cast<size_t>(4 * n)), 0);
        EXPECT_EQ(std::memcmp(got.prefix.get(), want.prefix.get(), static_cast<size_t>(4 * (n / 32 + 1)) * 4),
                  0);
        auto same = [](const float* a, const float* b, int64_t count) {
          for (int64_t i = 0; i < count; i++) {
            if (!(std::isnan(a[i]) && std::isnan(b[i])) && std::memcmp(a + i, b + i, 4) != 0) return false;
          }
          return true;
        };
        EXPECT_TRUE(same(got.scales.get(), want.scales.get(), 4 * want.n_blocks)) << IsaName(isa) << " " << n;
        EXPECT_TRUE(same(got.sums.get(), want.sums.get(), 4 * n / 32)) << IsaName(isa) << " " << n;
      }
    }
  }
}

TEST(Simd, PackedProductsEqualScalar) {
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (!IsaAvailable(isa)) continue;
    const Kernels& k = GetKernels(isa);
    for (BlockType type : kTypes) {
      for (ActScheme scheme : kSchemes) {
        for (int64_t rows : {1, 15, 16, 37}) {
          for (int64_t tokens : {1, 2, 3, 13}) {
            int64_t n = 768;
            RandomMatrix m(type, rows, n, static_cast<uint64_t>(rows));
            PackedMatrix w = Pack(m.view);
            if (!Meet(w, scheme)) continue;
            auto x = Normals(tokens * n, 3);
            if (tokens > 1) x[static_cast<size_t>(n + 300)] = std::nanf("");
            QuantRows q = QuantizeAll(k, scheme, x, tokens);
            std::vector<float> want(static_cast<size_t>(rows * tokens), 7), got(want);
            PackedProductRef({&w, &q, 1.25f, want.data(), rows}, 0, w.n_groups());
            k.packed_product({&w, &q, 1.25f, got.data(), rows}, 0, w.n_groups());
            for (size_t i = 0; i < want.size(); i++) {
              if (std::isnan(want[i]) && std::isnan(got[i])) continue;
              ASSERT_EQ(std::memcmp(&want[i], &got[i], 4), 0)
                  << IsaName(isa) << " " << GetBlockFormat(type).name << " scheme "
                  << static_cast<int>(scheme) << " at " << i << ": " << got[i] << " for " << want[i];
            }
            EXPECT_EQ(std::isnan(got[static_cast<size_t>(tokens > 1 ? rows : 0)]), tokens > 1);
            EXPECT_FALSE(std::isnan(got[0]));
          }
        }
      }
    }
  }
}

// The product of decoded weights with de-quantised activations in fp64.
TEST(Ref, PackedProductIsTheFp64Product) {
  for (BlockType type : kTypes) {
    for (ActScheme scheme : kSchemes) {
      int64_t rows = 19, n = 768, tokens = 2;
      RandomMatrix m(type, rows, n, 5);
      PackedMatrix w = Pack(m.view);
      if (!Meet(w, scheme)) continue;
      auto x = Normals(tokens * n, 6);
      QuantRows q = QuantizeAll(GetKernels(Isa::kScalar), scheme, x, tokens);
      std::vector<float> got(static_cast<size_t>(rows * tokens)), row(static_cast<size_t>(n));
      PackedProductRef({&w, &q, 1.0f, got.data(), rows}, 0, w.n_groups());
      for (int64_t r = 0; r < rows; r++) {
        DecodeRow(m.view, r, row.data());
        for (int64_t t = 0; t < tokens; t++) {
          double want = 0, magnitude = 0;
          for (int64_t c = 0; c < n; c++) {
            double s = q.scales[t * q.n_blocks + (c / 32 >> SchemeShift(scheme))];
            double value = q.codes[t * n + c] * (scheme == ActScheme::kBitnet ? 1 / s : s);
            want += row[static_cast<size_t>(c)] * value;
            magnitude += std::fabs(row[static_cast<size_t>(c)] * value);
          }
          // Q8_1's own sum is rounded to f16 by definition; else only the accumulator rounds.
          double slack = w.has_min && scheme == ActScheme::kQ8_1 ? 0x1p-11 : 0x1p-22;
          EXPECT_NEAR(got[static_cast<size_t>(t * rows + r)], want, slack * magnitude)
              << GetBlockFormat(type).name << " scheme " << static_cast<int>(scheme);
        }
      }
    }
  }
}

// Hand-made: max |x| = 127, so every scheme's multiplier is +-1 and codes are the values rounded
// half to even.
TEST(Ref, QuantisersByHand) {
  std::vector<float> x(256, 0.0f);
  x[0] = 127, x[1] = 0.5f, x[2] = 1.5f, x[3] = -2.5f, x[4] = 2.4f;
  for (ActScheme scheme : kSchemes) {
    QuantRows q = QuantizeAll(GetKernels(Isa::kScalar), scheme, x, 1);
    int sign = scheme == ActScheme::kQ8_K ? -1 : 1;  // its largest value becomes -127
    EXPECT_EQ(q.codes[0], 127 * sign);
    EXPECT_EQ(q.codes[1], 0);
    EXPECT_EQ(q.codes[2], 2 * sign);
    EXPECT_EQ(q.codes[3], -2 * sign);
    EXPECT_EQ(q.codes[4], 2 * sign);
    EXPECT_EQ(q.scales[0], static_cast<float>(sign));
    EXPECT_EQ(q.sums[0], 129.0f);
    EXPECT_EQ(q.prefix[1], 129 * sign);
    EXPECT_EQ(q.prefix[8], 129 * sign);
  }
  // The scale of Q8_0 is rounded to f16: 1/3 of 127/127.
  std::vector<float> third(32, 1.0f / 3.0f);
  QuantRows q = QuantizeAll(GetKernels(Isa::kScalar), ActScheme::kQ8_0, third, 1);
  EXPECT_EQ(q.codes[0], 127);
  EXPECT_EQ(q.scales[0], F16ToF32(F32ToF16((1.0f / 3.0f) / 127.0f)));
  // bitnet never divides by less than 1e-5.
  std::vector<float> tiny(32, 1e-6f);
  q = QuantizeAll(GetKernels(Isa::kScalar), ActScheme::kBitnet, tiny, 1);
  EXPECT_EQ(q.scales[0], 127.0f / 1e-5f);
  EXPECT_EQ(q.codes[0], 13);
}

}  // namespace
}  // namespace pb

// Tables looked up by code, and the nearest code of a value.
#include "formats/small_floats.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/bytes.h"
#include "base/half.h"
#include "formats/block.h"
#include "formats/encode.h"

namespace pb {
namespace {

// 2^(e - 128), half of what the exponent E8M0 stands for; below float32's normal numbers too, and
// 2^127 for 255, as ggml reads it where the format says NaN.
float HalfE8M0(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23);
}

// The code whose value lies nearest; of two as near the first.
template <typename Value>
uint8_t Nearest(const Value (&values)[16], float x) {
  uint8_t best = 0;
  for (uint8_t code = 1; code < 16; ++code)
    if (std::fabs(static_cast<float>(values[code]) - x) < std::fabs(static_cast<float>(values[best]) - x))
      best = code;
  return best;
}

// Scale of block b of IQ4_XS, 0 to 63.
int ScaleOf(const BlockIQ4_XS& block, int b) {
  return (block.scales_l[b / 2] >> (b % 2 * 4) & 15) | (block.scales_h >> (2 * b) & 3) << 4;
}

}  // namespace

void DecodeIQ4_NL(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 32; ++b, out += 32) {
    auto block = LoadLe<BlockIQ4_NL>(in + b * static_cast<int64_t>(sizeof(BlockIQ4_NL)));
    const float d = F16ToF32(block.d);
    for (int j = 0; j < 32; ++j)
      out[j] = d * static_cast<float>(kIq4Values[block.qs[j % 16] >> (j < 16 ? 0 : 4) & 15]);
  }
}

KSuperBlock UnpackIQ4_XS(const std::byte* in) {
  const auto block = LoadLe<BlockIQ4_XS>(in);
  KSuperBlock s{block.d, 0, 32, {}, {}, {}};
  for (int b = 0; b < 8; ++b) s.scales[b] = static_cast<int8_t>(ScaleOf(block, b) - 32);
  for (int i = 0; i < 256; ++i)
    s.codes[i] = kIq4Values[block.qs[i / 32 * 16 + i % 16] >> (i % 32 < 16 ? 0 : 4) & 15];
  return s;
}

void DecodeIQ4_XS(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t s = 0; s < n / 256; ++s)
    DecodeSuperBlock(UnpackIQ4_XS(in + s * static_cast<int64_t>(sizeof(BlockIQ4_XS))), out + s * 256);
}

void DecodeMXFP4(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 32; ++b, out += 32) {
    auto block = LoadLe<BlockMXFP4>(in + b * static_cast<int64_t>(sizeof(BlockMXFP4)));
    const float half = HalfE8M0(block.e);
    for (int j = 0; j < 32; ++j) {
      // The whole numbers twice the table's; -0 is 0 among them.
      const int twice = static_cast<int>(2 * kE2M1Values[block.qs[j % 16] >> (j < 16 ? 0 : 4) & 15]);
      out[j] = static_cast<float>(twice) * half;
    }
  }
}

void EncodeIQ4_NL(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 32; ++b, in += 32) {
    BlockIQ4_NL block = {};
    block.d = F32ToF16(MaxAbs(in, 32) / 127.0f);
    const float inverse = Inverse(F16ToF32(block.d));
    for (int j = 0; j < 32; ++j)
      block.qs[j % 16] |= static_cast<uint8_t>(Nearest(kIq4Values, in[j] * inverse) << (j < 16 ? 0 : 4));
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeIQ4_XS(const float* in, std::byte* out, int64_t n) {
  for (int64_t s = 0; s < n / 256; ++s, in += 256) {
    BlockIQ4_XS block = {};
    // Scales of 0 to 31 steps: 32 to 63 as they are stored.
    block.d = F32ToF16(MaxAbs(in, 256) / 127.0f / 31.0f);
    const float d = F16ToF32(block.d);
    for (int b = 0; b < 8; ++b) {
      const float wanted = MaxAbs(in + b * 32, 32) / 127.0f * Inverse(d);
      const int scale = static_cast<int>(std::clamp(std::nearbyint(wanted), 0.0f, 31.0f));
      block.scales_l[b / 2] |= static_cast<uint8_t>(((scale + 32) & 15) << (b % 2 * 4));
      block.scales_h = static_cast<uint16_t>(block.scales_h | (scale + 32) >> 4 << (2 * b));
      const float inverse = Inverse(d * static_cast<float>(scale));
      for (int j = 0; j < 32; ++j)
        block.qs[b * 16 + j % 16] |=
            static_cast<uint8_t>(Nearest(kIq4Values, in[b * 32 + j] * inverse) << (j < 16 ? 0 : 4));
    }
    StoreLe(out + s * static_cast<int64_t>(sizeof block), block);
  }
}

// The exponent that brings the largest value to 4 or more (OCP Microscaling Formats 1.0, 6.3).
void EncodeMXFP4(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 32; ++b, in += 32) {
    BlockMXFP4 block = {};
    const float most = MaxAbs(in, 32);
    block.e = most > 0 ? static_cast<uint8_t>(std::floor(std::log2(most)) - 2 + 127) : 0;
    const float inverse = Inverse(2 * HalfE8M0(block.e));
    for (int j = 0; j < 32; ++j)
      block.qs[j % 16] |= static_cast<uint8_t>(Nearest(kE2M1Values, in[j] * inverse) << (j < 16 ? 0 : 4));
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

}  // namespace pb

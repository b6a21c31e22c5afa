// Decoders of the K formats, bit by bit as ggml's, and plain encoders.
#include "formats/k_quants.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/bytes.h"
#include "base/half.h"
#include "formats/encode.h"

namespace pb {
namespace {

constexpr int kSuper = 256;

// Scale and minimum of block j of Q4_K and Q5_K: the first four stand in six bits each, of the
// others four bits stand together and two are what the first ones leave free.
struct ScaleMin {
  uint8_t scale, minimum;
};
ScaleMin Unpack(const uint8_t (&s)[12], int j) {
  if (j < 4) return {static_cast<uint8_t>(s[j] & 63), static_cast<uint8_t>(s[j + 4] & 63)};
  return {static_cast<uint8_t>((s[j + 4] & 15) | (s[j - 4] >> 6 << 4)),
          static_cast<uint8_t>((s[j + 4] >> 4) | (s[j] >> 6 << 4))};
}
void UnpackScales(const uint8_t (&packed)[12], KSuperBlock& s) {
  for (int b = 0; b < 8; b++) {
    const ScaleMin v = Unpack(packed, b);
    s.scales[b] = static_cast<int8_t>(v.scale), s.minima[b] = v.minimum;
  }
}
void Pack(int j, ScaleMin v, uint8_t (&s)[12]) {
  if (j < 4) {
    s[j] = static_cast<uint8_t>(s[j] | v.scale), s[j + 4] = static_cast<uint8_t>(s[j + 4] | v.minimum);
    return;
  }
  s[j + 4] = static_cast<uint8_t>((v.scale & 15) | (v.minimum & 15) << 4);
  s[j - 4] = static_cast<uint8_t>(s[j - 4] | v.scale >> 4 << 6);
  s[j] = static_cast<uint8_t>(s[j] | v.minimum >> 4 << 6);
}

// Scale of block j of Q3_K, 0 to 63: the low four bits of blocks 0 to 7 and 8 to 15 in the halves
// of eight bytes, the high two of blocks j, j + 4, j + 8 and j + 12 in one byte.
int UnpackQ3(const uint8_t (&s)[12], int j) {
  const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
  return low | (s[8 + j % 4] >> (j / 4 * 2) & 3) << 4;
}
void PackQ3(int j, int scale, uint8_t (&s)[12]) {
  s[j % 8] = static_cast<uint8_t>(s[j % 8] | (scale & 15) << (j < 8 ? 0 : 4));
  s[8 + j % 4] = static_cast<uint8_t>(s[8 + j % 4] | scale >> 4 << (j / 4 * 2));
}

int Nearest(float v, float inverse, int low, int high) {
  return static_cast<int>(std::clamp(std::nearbyint(v * inverse), float(low), float(high)));
}

// Blocks of one super-block as scale * code - minimum, scales and minima in units of d and dmin.
struct Ranges {
  uint16_t d = 0, dmin = 0;  // f16
  int scale[16] = {}, minimum[16] = {};
  float step[16] = {}, offset[16] = {};  // as they decode
};
Ranges RangesOf(const float* in, int block, int most_code, int most_scale) {
  const int n = kSuper / block;
  float span[16], below[16], most_span = 0, most_below = 0;
  for (int b = 0; b < n; b++) {
    const auto [low, high] = std::minmax_element(in + b * block, in + (b + 1) * block);
    below[b] = std::max(0.0f, -*low);
    span[b] = std::max(0.0f, *high + below[b]) / static_cast<float>(most_code);
    most_span = std::max(most_span, span[b]), most_below = std::max(most_below, below[b]);
  }
  Ranges r;
  r.d = F32ToF16(most_span / static_cast<float>(most_scale));
  r.dmin = F32ToF16(most_below / static_cast<float>(most_scale));
  const float d = F16ToF32(r.d), dmin = F16ToF32(r.dmin);
  for (int b = 0; b < n; b++) {
    r.scale[b] = Nearest(span[b], Inverse(d), 0, most_scale);
    r.minimum[b] = Nearest(below[b], Inverse(dmin), 0, most_scale);
    r.step[b] = d * static_cast<float>(r.scale[b]), r.offset[b] = dmin * static_cast<float>(r.minimum[b]);
  }
  return r;
}

// The same around 0: scale * code, codes down to -most_code.
struct Steps {
  uint16_t d = 0;
  int scale[16] = {};
  float step[16] = {};
};
Steps StepsOf(const float* in, int most_code, int most_scale) {
  float steps[16], most = 0;
  for (int b = 0; b < 16; b++) {
    float largest = 0;
    for (int i = 0; i < 16; i++) largest = std::max(largest, std::fabs(in[b * 16 + i]));
    steps[b] = largest / static_cast<float>(most_code), most = std::max(most, steps[b]);
  }
  Steps s;
  s.d = F32ToF16(most / static_cast<float>(most_scale));
  const float d = F16ToF32(s.d);
  for (int b = 0; b < 16; b++) {
    s.scale[b] = Nearest(steps[b], Inverse(d), 0, most_scale);
    s.step[b] = d * static_cast<float>(s.scale[b]);
  }
  return s;
}

}  // namespace

// Of 128 values, byte l holds those at l, l + 32, l + 64 and l + 96.
KSuperBlock UnpackQ2_K(const std::byte* in) {
  const auto block = LoadLe<BlockQ2_K>(in);
  KSuperBlock s{block.d, block.dmin, 16, {}, {}, {}};
  for (int b = 0; b < 16; b++) {
    s.scales[b] = static_cast<int8_t>(block.scales[b] & 15);
    s.minima[b] = static_cast<uint8_t>(block.scales[b] >> 4);
  }
  for (int i = 0; i < kSuper; i++) s.codes[i] = block.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
  return s;
}

KSuperBlock UnpackQ3_K(const std::byte* in) {
  const auto block = LoadLe<BlockQ3_K>(in);
  KSuperBlock s{block.d, 0, 16, {}, {}, {}};
  for (int b = 0; b < 16; b++) s.scales[b] = static_cast<int8_t>(UnpackQ3(block.scales, b) - 32);
  for (int i = 0; i < kSuper; i++) {
    const int low = block.qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    const int high = block.hmask[i % 32] >> (i / 32) & 1;
    s.codes[i] = static_cast<int8_t>(low - (high ? 0 : 4));
  }
  return s;
}

// Of 64 values, byte l holds those at l and l + 32.
KSuperBlock UnpackQ4_K(const std::byte* in) {
  const auto block = LoadLe<BlockQ4_K>(in);
  KSuperBlock s{block.d, block.dmin, 32, {}, {}, {}};
  UnpackScales(block.scales, s);
  for (int i = 0; i < kSuper; i++) s.codes[i] = block.qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
  return s;
}

KSuperBlock UnpackQ5_K(const std::byte* in) {
  const auto block = LoadLe<BlockQ5_K>(in);
  KSuperBlock s{block.d, block.dmin, 32, {}, {}, {}};
  UnpackScales(block.scales, s);
  for (int i = 0; i < kSuper; i++) {
    s.codes[i] = static_cast<int8_t>((block.qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15) |
                                     (block.qh[i % 32] >> (i / 32) & 1) << 4);
  }
  return s;
}

// Of 128 values, the low halves of 64 bytes are those at 0 to 63, the high halves those at 64 to
// 127; byte l of qh has two bits of each of l, l + 32, l + 64 and l + 96.
KSuperBlock UnpackQ6_K(const std::byte* in) {
  const auto block = LoadLe<BlockQ6_K>(in);
  KSuperBlock s{block.d, 0, 16, {}, {}, {}};
  std::copy(std::begin(block.scales), std::end(block.scales), s.scales);
  for (int i = 0; i < kSuper; i++) {
    const int half = i / 128, at = i % 128;
    const int code = (block.ql[half * 64 + at % 64] >> (at / 64 * 4) & 15) |
                     (block.qh[half * 32 + at % 32] >> (at / 32 * 2) & 3) << 4;
    s.codes[i] = static_cast<int8_t>(code - 32);
  }
  return s;
}

void DecodeSuperBlock(const KSuperBlock& s, float* out) {
  const float d = F16ToF32(s.d), dmin = F16ToF32(s.dmin);
  for (int i = 0; i < kSuper; i++) {
    const int b = i / s.block;
    const float step = d * static_cast<float>(s.scales[b]), minimum = dmin * static_cast<float>(s.minima[b]);
    out[i] = step * static_cast<float>(s.codes[i]) - minimum;
  }
}

namespace {
template <typename Block>
void Decode(const std::byte* in, float* out, int64_t n, KSuperBlock (*unpack)(const std::byte*)) {
  for (int64_t s = 0; s < n / kSuper; s++)
    DecodeSuperBlock(unpack(in + s * static_cast<int64_t>(sizeof(Block))), out + s * kSuper);
}
}  // namespace

void DecodeQ2_K(const std::byte* in, float* out, int64_t n, float) {
  Decode<BlockQ2_K>(in, out, n, UnpackQ2_K);
}
void DecodeQ3_K(const std::byte* in, float* out, int64_t n, float) {
  Decode<BlockQ3_K>(in, out, n, UnpackQ3_K);
}
void DecodeQ4_K(const std::byte* in, float* out, int64_t n, float) {
  Decode<BlockQ4_K>(in, out, n, UnpackQ4_K);
}
void DecodeQ5_K(const std::byte* in, float* out, int64_t n, float) {
  Decode<BlockQ5_K>(in, out, n, UnpackQ5_K);
}
void DecodeQ6_K(const std::byte* in, float* out, int64_t n, float) {
  Decode<BlockQ6_K>(in, out, n, UnpackQ6_K);
}

void EncodeQ2_K(const float* in, std::byte* out, int64_t n) {
  for (int64_t s = 0; s < n / kSuper; s++, in += kSuper) {
    const Ranges r = RangesOf(in, 16, 3, 15);
    BlockQ2_K block = {};
    block.d = r.d, block.dmin = r.dmin;
    for (int i = 0; i < kSuper; i++) {
      const int b = i / 16;
      block.scales[b] = static_cast<uint8_t>(r.scale[b] | r.minimum[b] << 4);
      const int code = Nearest(in[i] + r.offset[b], Inverse(r.step[b]), 0, 3);
      block.qs[i / 128 * 32 + i % 32] |= static_cast<uint8_t>(code << (i % 128 / 32 * 2));
    }
    StoreLe(out + s * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeQ3_K(const float* in, std::byte* out, int64_t n) {
  for (int64_t s = 0; s < n / kSuper; s++, in += kSuper) {
    const Steps r = StepsOf(in, 4, 31);
    BlockQ3_K block = {};
    block.d = r.d;
    for (int b = 0; b < 16; b++) PackQ3(b, r.scale[b] + 32, block.scales);
    for (int i = 0; i < kSuper; i++) {
      const int code = Nearest(in[i], Inverse(r.step[i / 16]), -4, 3) + 4;
      block.qs[i / 128 * 32 + i % 32] |= static_cast<uint8_t>((code & 3) << (i % 128 / 32 * 2));
      block.hmask[i % 32] |= static_cast<uint8_t>(code >> 2 << (i / 32));
    }
    StoreLe(out + s * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeQ4_K(const float* in, std::byte* out, int64_t n) {
  for (int64_t s = 0; s < n / kSuper; s++, in += kSuper) {
    const Ranges r = RangesOf(in, 32, 15, 63);
    BlockQ4_K block = {};
    block.d = r.d, block.dmin = r.dmin;
    for (int b = 0; b < 8; b++)
      Pack(b, {static_cast<uint8_t>(r.scale[b]), static_cast<uint8_t>(r.minimum[b])}, block.scales);
    for (int i = 0; i < kSuper; i++) {
      const int code = Nearest(in[i] + r.offset[i / 32], Inverse(r.step[i / 32]), 0, 15);
      block.qs[i / 64 * 32 + i % 32] |= static_cast<uint8_t>(code << (i % 64 / 32 * 4));
    }
    StoreLe(out + s * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeQ5_K(const float* in, std::byte* out, int64_t n) {
  for (int64_t s = 0; s < n / kSuper; s++, in += kSuper) {
    const Ranges r = RangesOf(in, 32, 31, 63);
    BlockQ5_K block = {};
    block.d = r.d, block.dmin = r.dmin;
    for (int b = 0; b < 8; b++)
      Pack(b, {static_cast<uint8_t>(r.scale[b]), static_cast<uint8_t>(r.minimum[b])}, block.scales);
    for (int i = 0; i < kSuper; i++) {
      const int code = Nearest(in[i] + r.offset[i / 32], Inverse(r.step[i / 32]), 0, 31);
      block.qs[i / 64 * 32 + i % 32] |= static_cast<uint8_t>((code & 15) << (i % 64 / 32 * 4));
      block.qh[i % 32] |= static_cast<uint8_t>(code >> 4 << (i / 32));
    }
    StoreLe(out + s * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeQ6_K(const float* in, std::byte* out, int64_t n) {
  for (int64_t s = 0; s < n / kSuper; s++, in += kSuper) {
    const Steps r = StepsOf(in, 32, 127);
    BlockQ6_K block = {};
    block.d = r.d;
    for (int i = 0; i < kSuper; i++) {
      const int half = i / 128, at = i % 128;
      block.scales[i / 16] = static_cast<int8_t>(r.scale[i / 16]);
      const int code = Nearest(in[i], Inverse(r.step[i / 16]), -32, 31) + 32;
      block.ql[half * 64 + at % 64] |= static_cast<uint8_t>((code & 15) << (at / 64 * 4));
      block.qh[half * 32 + at % 32] |= static_cast<uint8_t>(code >> 4 << (at / 32 * 2));
    }
    StoreLe(out + s * static_cast<int64_t>(sizeof block), block);
  }
}

}  // namespace pb

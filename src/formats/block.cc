// The table of block formats: layout, decoder and encoder of each, and what a tensor's bytes
// must be.
#include "formats/block.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/bytes.h"
#include "base/half.h"
#include "formats/encode.h"
#include "formats/k_quants.h"
#include "formats/small_floats.h"

namespace pb {
namespace {

// ---- decode ----

void DecodeF32(const std::byte* in, float* out, int64_t n, float) {
  std::memcpy(out, in, static_cast<size_t>(n) * sizeof(float));
}

void DecodeF16(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t i = 0; i < n; ++i) out[i] = F16ToF32(LoadLe<uint16_t>(in + 2 * i));
}

void DecodeBf16(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t i = 0; i < n; ++i) out[i] = Bf16ToF32(LoadLe<uint16_t>(in + 2 * i));
}

// Blocks are copied out: the map is aligned for the tensor, not for every block.
void DecodeQ8_0(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 32; ++b, out += 32) {
    auto block = LoadLe<BlockQ8_0>(in + b * static_cast<int64_t>(sizeof(BlockQ8_0)));
    float d = F16ToF32(block.d);
    for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(block.qs[j]) * d;
  }
}

void DecodeQ4_0(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 32; ++b, out += 32) {
    auto block = LoadLe<BlockQ4_0>(in + b * static_cast<int64_t>(sizeof(BlockQ4_0)));
    float d = F16ToF32(block.d);
    for (int j = 0; j < 16; ++j) {
      out[j] = static_cast<float>((block.qs[j] & 15) - 8) * d;
      out[j + 16] = static_cast<float>((block.qs[j] >> 4) - 8) * d;
    }
  }
}

// Code j of a block of Q5_0 or Q5_1: four bits in qs, the fifth in qh.
template <typename Block>
int CodeOfQ5(const Block& block, int j) {
  return (block.qs[j % 16] >> (j < 16 ? 0 : 4) & 15) | (block.qh[j / 8] >> (j % 8) & 1) << 4;
}

void DecodeQ5_0(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 32; ++b, out += 32) {
    auto block = LoadLe<BlockQ5_0>(in + b * static_cast<int64_t>(sizeof(BlockQ5_0)));
    float d = F16ToF32(block.d);
    for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(CodeOfQ5(block, j) - 16) * d;
  }
}

void DecodeQ5_1(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 32; ++b, out += 32) {
    auto block = LoadLe<BlockQ5_1>(in + b * static_cast<int64_t>(sizeof(BlockQ5_1)));
    float d = F16ToF32(block.d), m = F16ToF32(block.m);
    for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(CodeOfQ5(block, j)) * d + m;
  }
}

void DecodeQ1_0(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 128; ++b, out += 128) {
    auto block = LoadLe<BlockQ1_0>(in + b * static_cast<int64_t>(sizeof(BlockQ1_0)));
    float d = F16ToF32(block.d);
    for (int j = 0; j < 128; ++j) out[j] = block.qs[j / 8] >> (j % 8) & 1 ? d : -d;
  }
}

void DecodeQ2_0(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 64; ++b, out += 64) {
    auto block = LoadLe<BlockQ2_0>(in + b * static_cast<int64_t>(sizeof(BlockQ2_0)));
    float d = F16ToF32(block.d);
    for (int j = 0; j < 64; ++j) out[j] = static_cast<float>((block.qs[j / 4] >> (j % 4 * 2) & 3) - 1) * d;
  }
}

void DecodeQ4_1(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 32; ++b, out += 32) {
    auto block = LoadLe<BlockQ4_1>(in + b * static_cast<int64_t>(sizeof(BlockQ4_1)));
    float d = F16ToF32(block.d), m = F16ToF32(block.m);
    for (int j = 0; j < 16; ++j) {
      out[j] = static_cast<float>(block.qs[j] & 15) * d + m;
      out[j + 16] = static_cast<float>(block.qs[j] >> 4) * d + m;
    }
  }
}

// A byte holds base-3 digits as a fraction of 243 scaled to 256 and rounded up, so multiplying by 3
// pushes the leading digit out at the top; digit n is what leaves after n digits were shifted away.
float Trit(uint8_t packed, uint8_t pow3) {
  uint8_t rest = static_cast<uint8_t>(packed * pow3);
  return static_cast<float>((rest * 3) >> 8) - 1.0f;
}

constexpr uint8_t kPow3[5] = {1, 3, 9, 27, 81};

// `width` bytes side by side hold `digits` runs of `width` values.
float* DecodeTrits(const uint8_t* bytes, int width, int digits, float d, float* out) {
  for (int n = 0; n < digits; ++n) {
    for (int m = 0; m < width; ++m) *out++ = Trit(bytes[m], kPow3[n]) * d;
  }
  return out;
}

void DecodeTQ1_0(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 256; ++b) {
    auto block = LoadLe<BlockTQ1_0>(in + b * static_cast<int64_t>(sizeof(BlockTQ1_0)));
    float d = F16ToF32(block.d);
    out = DecodeTrits(block.qs, 32, 5, d, out);
    out = DecodeTrits(block.qs + 32, 16, 5, d, out);
    out = DecodeTrits(block.qh, 4, 4, d, out);
  }
}

void DecodeTQ2_0(const std::byte* in, float* out, int64_t n, float) {
  for (int64_t b = 0; b < n / 256; ++b) {
    auto block = LoadLe<BlockTQ2_0>(in + b * static_cast<int64_t>(sizeof(BlockTQ2_0)));
    float d = F16ToF32(block.d);
    for (int half = 0; half < 64; half += 32) {
      for (int shift = 0; shift < 8; shift += 2) {
        for (int m = 0; m < 32; ++m) {
          *out++ = static_cast<float>((block.qs[half + m] >> shift & 3) - 1) * d;
        }
      }
    }
  }
}

void DecodeI2S(const std::byte* in, float* out, int64_t n, float scale) {
  for (int64_t b = 0; b < n / 128; ++b, in += kI2SBlockBytes) {
    for (int shift = 6; shift >= 0; shift -= 2) {
      for (int p = 0; p < 32; ++p) {
        *out++ = static_cast<float>((static_cast<int>(in[p]) >> shift & 3) - 1) * scale;
      }
    }
  }
}

// ---- encode ----

void EncodeF32(const float* in, std::byte* out, int64_t n) {
  std::memcpy(out, in, static_cast<size_t>(n) * sizeof(float));
}

void EncodeF16(const float* in, std::byte* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) StoreLe(out + 2 * i, F32ToF16(in[i]));
}

void EncodeBf16(const float* in, std::byte* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) StoreLe(out + 2 * i, F32ToBf16(in[i]));
}

void EncodeQ8_0(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 32; ++b, in += 32) {
    float d = MaxAbs(in, 32) / 127.0f, inverse = Inverse(d);
    BlockQ8_0 block;
    block.d = F32ToF16(d);
    for (int j = 0; j < 32; ++j) block.qs[j] = static_cast<int8_t>(std::round(in[j] * inverse));
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeQ4_1(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 32; ++b, in += 32) {
    auto [low, high] = std::minmax_element(in, in + 32);
    float m = *low, d = (*high - m) / 15.0f, inverse = Inverse(d);
    auto code = [&](float v) { return std::min(15, static_cast<int>((v - m) * inverse + 0.5f)); };
    BlockQ4_1 block;
    block.d = F32ToF16(d);
    block.m = F32ToF16(m);
    for (int j = 0; j < 16; ++j) block.qs[j] = static_cast<uint8_t>(code(in[j]) | code(in[j + 16]) << 4);
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

// The value of largest magnitude with its sign; of equal ones the first.
float Largest(const float* in, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i)
    if (std::fabs(in[i]) > std::fabs(largest)) largest = in[i];
  return largest;
}

// Around -most: the largest value becomes that code, so that the side it stands on has one more.
void EncodeQ4_0(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 32; ++b, in += 32) {
    float d = Largest(in, 32) / -8.0f, inverse = Inverse(d);
    auto code = [&](float v) { return std::min(15, static_cast<int>(v * inverse + 8.5f)); };
    BlockQ4_0 block;
    block.d = F32ToF16(d);
    for (int j = 0; j < 16; ++j) block.qs[j] = static_cast<uint8_t>(code(in[j]) | code(in[j + 16]) << 4);
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

template <typename Block>
void PutQ5(int j, int code, Block* block) {
  block->qs[j % 16] |= static_cast<uint8_t>((code & 15) << (j < 16 ? 0 : 4));
  block->qh[j / 8] |= static_cast<uint8_t>(code >> 4 << (j % 8));
}

void EncodeQ5_0(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 32; ++b, in += 32) {
    float d = Largest(in, 32) / -16.0f, inverse = Inverse(d);
    BlockQ5_0 block = {};
    block.d = F32ToF16(d);
    for (int j = 0; j < 32; ++j) PutQ5(j, std::min(31, static_cast<int>(in[j] * inverse + 16.5f)), &block);
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeQ5_1(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 32; ++b, in += 32) {
    auto [low, high] = std::minmax_element(in, in + 32);
    float m = *low, d = (*high - m) / 31.0f, inverse = Inverse(d);
    BlockQ5_1 block = {};
    block.d = F32ToF16(d), block.m = F32ToF16(m);
    for (int j = 0; j < 32; ++j) PutQ5(j, static_cast<int>((in[j] - m) * inverse + 0.5f) & 31, &block);
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

// The mean magnitude as scale, which is least squares for signs.
void EncodeQ1_0(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 128; ++b, in += 128) {
    float sum = 0;
    for (int j = 0; j < 128; ++j) sum += std::fabs(in[j]);
    BlockQ1_0 block = {};
    block.d = F32ToF16(sum / 128.0f);
    for (int j = 0; j < 128; ++j) block.qs[j / 8] |= static_cast<uint8_t>((in[j] >= 0) << (j % 8));
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

// 0, 1, 2 for the nearest of -1, 0, +1 times the largest magnitude.
int TernaryCode(float v, float inverse) {
  return std::clamp(static_cast<int>(std::lround(v * inverse)), -1, 1) + 1;
}

void EncodeTrits(const float* in, int width, int digits, float inverse, uint8_t* out) {
  for (int m = 0; m < width; ++m) {
    int value = 0;
    for (int n = 0; n < 5; ++n)
      value = value * 3 + (n < digits ? TernaryCode(in[m + n * width], inverse) : 0);
    out[m] = static_cast<uint8_t>((value * 256 + 242) / 243);
  }
}

void EncodeTQ1_0(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 256; ++b, in += 256) {
    float d = MaxAbs(in, 256), inverse = Inverse(d);
    BlockTQ1_0 block;
    block.d = F32ToF16(d);
    EncodeTrits(in, 32, 5, inverse, block.qs);
    EncodeTrits(in + 160, 16, 5, inverse, block.qs + 32);
    EncodeTrits(in + 240, 4, 4, inverse, block.qh);
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeTQ2_0(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 256; ++b, in += 256) {
    float d = MaxAbs(in, 256), inverse = Inverse(d);
    BlockTQ2_0 block = {};
    block.d = F32ToF16(d);
    for (int i = 0; i < 256; ++i) {
      block.qs[i / 128 * 32 + i % 32] |=
          static_cast<uint8_t>(TernaryCode(in[i], inverse) << (i % 128 / 32 * 2));
    }
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeQ2_0(const float* in, std::byte* out, int64_t n) {
  for (int64_t b = 0; b < n / 64; ++b, in += 64) {
    float d = MaxAbs(in, 64), inverse = Inverse(d);
    BlockQ2_0 block = {};
    block.d = F32ToF16(d);
    for (int j = 0; j < 64; ++j)
      block.qs[j / 4] |= static_cast<uint8_t>(TernaryCode(in[j], inverse) << (j % 4 * 2));
    StoreLe(out + b * static_cast<int64_t>(sizeof block), block);
  }
}

void EncodeI2S(const float* in, std::byte* out, int64_t n) {
  float scale = MaxAbs(in, n), inverse = Inverse(scale);
  std::memset(out, 0, static_cast<size_t>(n / 4));
  for (int64_t i = 0; i < n; ++i) {
    out[i / 128 * 32 + i % 32] |=
        static_cast<std::byte>(TernaryCode(in[i], inverse) << (6 - i % 128 / 32 * 2));
  }
  for (int k = 0; k < 8; ++k) StoreLe(out + n / 4 + 4 * k, scale);
}

// ---- tables ----

constexpr BlockFormat kFormats[] = {
    {BlockType::kF32, "F32", 1, 4, DecodeF32, EncodeF32},
    {BlockType::kF16, "F16", 1, 2, DecodeF16, EncodeF16},
    {BlockType::kQ4_0, "Q4_0", 32, 18, DecodeQ4_0, EncodeQ4_0},
    {BlockType::kQ4_1, "Q4_1", 32, 20, DecodeQ4_1, EncodeQ4_1},
    {BlockType::kQ5_0, "Q5_0", 32, 22, DecodeQ5_0, EncodeQ5_0},
    {BlockType::kQ5_1, "Q5_1", 32, 24, DecodeQ5_1, EncodeQ5_1},
    {BlockType::kQ8_0, "Q8_0", 32, 34, DecodeQ8_0, EncodeQ8_0},
    {BlockType::kQ2_K, "Q2_K", 256, 84, DecodeQ2_K, EncodeQ2_K},
    {BlockType::kQ3_K, "Q3_K", 256, 110, DecodeQ3_K, EncodeQ3_K},
    {BlockType::kQ4_K, "Q4_K", 256, 144, DecodeQ4_K, EncodeQ4_K},
    {BlockType::kQ5_K, "Q5_K", 256, 176, DecodeQ5_K, EncodeQ5_K},
    {BlockType::kQ6_K, "Q6_K", 256, 210, DecodeQ6_K, EncodeQ6_K},
    {BlockType::kIQ4_NL, "IQ4_NL", 32, 18, DecodeIQ4_NL, EncodeIQ4_NL},
    {BlockType::kIQ4_XS, "IQ4_XS", 256, 136, DecodeIQ4_XS, EncodeIQ4_XS},
    {BlockType::kBF16, "BF16", 1, 2, DecodeBf16, EncodeBf16},
    {BlockType::kTQ1_0, "TQ1_0", 256, 54, DecodeTQ1_0, EncodeTQ1_0},
    {BlockType::kTQ2_0, "TQ2_0", 256, 66, DecodeTQ2_0, EncodeTQ2_0},
    {BlockType::kMXFP4, "MXFP4", 32, 17, DecodeMXFP4, EncodeMXFP4},
    {BlockType::kQ1_0, "Q1_0", 128, 18, DecodeQ1_0, EncodeQ1_0},
    {BlockType::kQ2_0, "Q2_0", 64, 18, DecodeQ2_0, EncodeQ2_0},
    {BlockType::kI2_S, "I2_S", kI2SBlock, kI2SBlockBytes, DecodeI2S, EncodeI2S},
};

// Types whose size is known, so that a file with them can be checked, and that nothing here
// decodes. block_bytes 0: the layout is not known here (bitnet.cpp's and ik_llama.cpp's own types).
struct OtherType {
  uint32_t id;
  std::string_view name;
  uint32_t block_values, block_bytes;
};
constexpr OtherType kOthers[] = {
    {9, "Q8_1", 32, 36},      {15, "Q8_K", 256, 292}, {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50}, {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {24, "I8", 1, 1},         {25, "I16", 1, 2},      {26, "I32", 1, 4},        {27, "I64", 1, 8},
    {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56}, {37, "I8_S", 1, 0},       {38, "TL1", 1, 0},
    {40, "NVFP4", 64, 36},    {134, "IQ1_BN", 64, 0}, {135, "IQ2_BN", 64, 0},   {335, "IQ2_BN_R4", 64, 0},
};

const OtherType* FindOther(uint32_t id) {
  auto it =
      std::find_if(std::begin(kOthers), std::end(kOthers), [&](const OtherType& t) { return t.id == id; });
  return it == std::end(kOthers) ? nullptr : it;
}

Result<uint64_t> CheckedMultiply(uint64_t a, uint64_t b) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product) || product > (1ull << 62)) {
    return MakeError(Code::kMalformed, "the product of the dimensions overflows");
  }
  return product;
}

}  // namespace

const BlockFormat* FindBlockFormat(uint32_t type_id) {
  for (const BlockFormat& f : kFormats) {
    if (static_cast<uint32_t>(f.type) == type_id) return &f;
  }
  return nullptr;
}

const BlockFormat& GetBlockFormat(BlockType type) {
  const BlockFormat* format = FindBlockFormat(static_cast<uint32_t>(type));
  PB_CHECK(format != nullptr);
  return *format;
}

std::optional<BlockLayout> FindBlockLayout(uint32_t type_id) {
  if (const BlockFormat* f = FindBlockFormat(type_id)) return BlockLayout{f->block_values, f->block_bytes};
  const OtherType* t = FindOther(type_id);
  if (!t || t->block_bytes == 0) return std::nullopt;
  return BlockLayout{t->block_values, t->block_bytes};
}

std::string BlockTypeName(uint32_t type_id) {
  if (const BlockFormat* f = FindBlockFormat(type_id)) return std::string(f->name);
  if (const OtherType* t = FindOther(type_id)) return std::string(t->name);
  return fmt::format("type {}", type_id);
}

Result<uint64_t> TensorBytes(uint32_t type_id, std::span<const uint64_t> shape) {
  const BlockFormat* format = FindBlockFormat(type_id);
  const OtherType* other = FindOther(type_id);
  if (!format && !other) return MakeError(Code::kMalformed, "unknown tensor type {}", type_id);
  const std::optional<BlockLayout> layout = FindBlockLayout(type_id);
  if (!layout)
    return MakeError(Code::kUnsupported, "tensor type {} (number {}) is not supported", other->name, type_id);
  const uint64_t values = layout->block_values, bytes = layout->block_bytes;
  uint64_t columns = shape.empty() ? 1 : shape[0];
  if (columns % values != 0) {
    return MakeError(Code::kMalformed, "rows of {} values are no multiple of the {} values of a {} block",
                     columns, values, BlockTypeName(type_id));
  }
  PB_ASSIGN(uint64_t total, CheckedMultiply(columns / values, bytes));
  for (size_t i = 1; i < shape.size(); ++i) {
    PB_ASSIGN(total, CheckedMultiply(total, shape[i]));
  }
  return type_id == static_cast<uint32_t>(BlockType::kI2_S) ? total + kI2STail : total;
}

I2SScan ScanI2S(std::span<const std::byte> data) {
  I2SScan scan;
  if (data.size() < kI2STail) return scan;
  std::span<const std::byte> codes = data.first(data.size() - kI2STail);
  for (size_t i = 0; i + 8 <= codes.size(); i += 8) {
    auto word = LoadLe<uint64_t>(codes.data() + i);
    uint64_t threes =
        word & word >> 1 & 0x5555555555555555u;  // the low bit of each code whose bits are both set
    if (threes == 0) continue;
    if (scan.code3_count == 0) scan.first_code3_byte = i + static_cast<size_t>(std::countr_zero(threes)) / 8;
    scan.code3_count += static_cast<uint64_t>(std::popcount(threes));
  }
  const std::byte* tail = data.data() + codes.size();
  scan.scale = LoadLe<float>(tail);
  scan.scale_finite = std::isfinite(scan.scale);
  for (int k = 1; k < 8; ++k) {
    auto copy = LoadLe<uint32_t>(tail + 4 * k);
    scan.tail_repeats = scan.tail_repeats && copy == LoadLe<uint32_t>(tail);
    scan.tail_zero = scan.tail_zero && copy == 0;
  }
  return scan;
}

void DecodeRow(const WeightView& w, int64_t row, float* out) {
  PB_CHECK(row >= 0 && row < w.n_rows);
  const std::byte* data = w.data + static_cast<uint64_t>(row) * w.row_bytes;
  if (w.decoder) {
    const std::span<float> values(out, static_cast<size_t>(w.n_columns));
    if (!w.decoder->Decode(static_cast<uint32_t>(w.type), {data, w.row_bytes}, values).ok())
      std::ranges::fill(values, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  GetBlockFormat(w.type).decode(data, out, w.n_columns, w.scale);
}

namespace {
void AddMinima(const KSuperBlock& s, std::vector<double>* minima) {
  for (int b = 0; b < 256 / s.block; ++b)
    minima->push_back(-double(F16ToF32(s.dmin) * static_cast<float>(s.minima[b])));
}
}  // namespace

std::vector<double> BlockMinima(const WeightView& w, int64_t row) {
  std::vector<double> minima;
  if (w.decoder) return minima;
  const std::byte* block = w.data + static_cast<uint64_t>(row) * w.row_bytes;
  const BlockFormat& format = GetBlockFormat(w.type);
  for (int64_t k = 0; k < w.n_columns; k += format.block_values, block += format.block_bytes) {
    switch (w.type) {
      case BlockType::kQ4_1:
      case BlockType::kQ5_1:
        minima.push_back(F16ToF32(LoadLe<uint16_t>(block + offsetof(BlockQ4_1, m))));
        break;
      case BlockType::kQ2_K:
        AddMinima(UnpackQ2_K(block), &minima);
        break;
      case BlockType::kQ4_K:
        AddMinima(UnpackQ4_K(block), &minima);
        break;
      case BlockType::kQ5_K:
        AddMinima(UnpackQ5_K(block), &minima);
        break;
      default:
        return minima;
    }
  }
  return minima;
}

namespace {
void AddOffsets(const KSuperBlock& s, int offset, std::vector<double>* offsets) {
  for (int b = 0; b < 256 / s.block; ++b)
    offsets->push_back(-double(F16ToF32(s.d) * static_cast<float>(s.scales[b])) * offset);
}
}  // namespace

std::vector<double> BlockOffsets(const WeightView& w, int64_t row) {
  std::vector<double> offsets;
  if (w.decoder) return offsets;
  if (w.type == BlockType::kI2_S) return {-double(w.scale)};
  const std::byte* block = w.data + static_cast<uint64_t>(row) * w.row_bytes;
  const BlockFormat& format = GetBlockFormat(w.type);
  const auto add = [&](size_t scale_at, int offset) {
    offsets.push_back(-double(F16ToF32(LoadLe<uint16_t>(block + scale_at))) * offset);
  };
  for (int64_t k = 0; k < w.n_columns; k += format.block_values, block += format.block_bytes) {
    switch (w.type) {
      case BlockType::kQ4_0:
        add(offsetof(BlockQ4_0, d), 8);
        break;
      case BlockType::kQ5_0:
        add(offsetof(BlockQ5_0, d), 16);
        break;
      case BlockType::kQ3_K:
        AddOffsets(UnpackQ3_K(block), 4, &offsets);
        break;
      case BlockType::kQ6_K:
        AddOffsets(UnpackQ6_K(block), 32, &offsets);
        break;
      case BlockType::kTQ1_0:
        add(offsetof(BlockTQ1_0, d), 1);
        break;
      case BlockType::kTQ2_0:
        add(offsetof(BlockTQ2_0, d), 1);
        break;
      case BlockType::kQ1_0:
        add(offsetof(BlockQ1_0, d), 1);
        break;
      case BlockType::kQ2_0:
        add(offsetof(BlockQ2_0, d), 1);
        break;
      default:
        return offsets;
    }
  }
  return offsets;
}

}  // namespace pb

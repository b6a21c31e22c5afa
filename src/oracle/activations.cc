#include "oracle/activations.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"

namespace pb::oracle {
namespace {

struct SchemeRow {
  ActQuant scheme;
  const char* name;
  int block;  // values a block; 0: no blocks
};
constexpr SchemeRow kSchemes[] = {{ActQuant::kGgml, "ggml", 0},   {ActQuant::kNone, "none", 0},
                                  {ActQuant::kF16, "f16", 0},     {ActQuant::kBF16, "bf16", 0},
                                  {ActQuant::kQ8_0, "q8_0", 32},  {ActQuant::kQ8_1, "q8_1", 32},
                                  {ActQuant::kQ8_K, "q8_k", 256}, {ActQuant::kBitnet, "bitnet", -1}};

float Round(float v, QuantiserVariation::Rounding rounding) {
  switch (rounding) {
    case QuantiserVariation::Rounding::kHalfEven:
      return std::nearbyint(v);
    case QuantiserVariation::Rounding::kHalfAway:
      return std::round(v);
    case QuantiserVariation::Rounding::kTruncate:
      return std::trunc(v);
  }
  return v;
}

// The factor that turns values into codes and the scale that turns codes back, in float32.
struct Scales {
  float to_code, from_code;
  int lowest, highest;
};

Scales ScalesOf(std::span<const float> block, ActQuant scheme) {
  float largest = 0, largest_magnitude = 0;
  for (float v : block) {
    if (std::fabs(v) > largest_magnitude) largest_magnitude = std::fabs(v), largest = v;
  }
  if (scheme == ActQuant::kBitnet) {  // BitNet b1.58, "Quantization Function": absmax per token
    float s = 127.0f / std::max(largest_magnitude, 1e-5f);
    return {s, 0, -128, 127};  // the product is divided by s: the caller divides, exactly
  }
  if (largest_magnitude == 0) return {0, 0, -127, 127};
  if (scheme == ActQuant::kQ8_K) {  // the value of largest magnitude becomes -127
    float inverse = -127.0f / largest;
    return {inverse, 1.0f / inverse, -128, 127};
  }
  float d = largest_magnitude / 127.0f;  // Q8_0, Q8_1: the scale is stored as f16
  return {127.0f / largest_magnitude, F16ToF32(F32ToF16(d)), -127, 127};
}

// Block `b` of the row, whose values are given.
void QuantiseBlock(std::span<const float> block, size_t b, const QuantiserVariation& variation,
                   Activations* a) {
  const ActQuant scheme = a->scheme;
  const size_t begin = b * static_cast<size_t>(a->block);
  Scales s = ScalesOf(block, scheme);
  int highest = variation.clamp ? variation.clamp : s.highest,
      lowest = variation.clamp ? -variation.clamp : s.lowest;
  int sum = 0;
  for (size_t i = 0; i < block.size(); i++) {
    float code = std::clamp(Round(block[i] * s.to_code, variation.rounding), float(lowest), float(highest));
    sum += static_cast<int>(code);
    a->codes[begin + i] = static_cast<int8_t>(code);
    a->values[begin + i] =
        scheme == ActQuant::kBitnet ? double(code) / double(s.to_code) : double(code) * double(s.from_code);
  }
  a->scales[b] = scheme == ActQuant::kBitnet ? 1 / s.to_code : s.from_code;
  if (scheme != ActQuant::kQ8_1) return;
  // Q8_1 stores d x sum as f16, d in float32 before its own rounding to f16.
  float d = s.to_code == 0 ? 0 : [&] {
    float largest = 0;
    for (float v : block) largest = std::max(largest, std::fabs(v));
    return largest / 127.0f;
  }();
  a->sums[b] = F16ToF32(F32ToF16(d * float(sum)));
  a->sum_error[b] = double(a->sums[b]) - double(sum) * double(s.from_code);
}

}  // namespace

Result<ActQuant> ParseActQuant(std::string_view name) {
  for (const auto& row : kSchemes) {
    if (row.name == name) return row.scheme;
  }
  return MakeError(Code::kUsage, "act.quant={}: not one of ggml none f16 bf16 q8_0 q8_1 q8_k bitnet", name);
}

const char* ActQuantName(ActQuant q) {
  for (const auto& row : kSchemes) {
    if (row.scheme == q) return row.name;
  }
  return "";
}

ActQuant SchemeFor(ActQuant setting, BlockType weight) {
  if (setting != ActQuant::kGgml) return setting;
  switch (weight) {
    case BlockType::kF16:
      return ActQuant::kF16;
    case BlockType::kBF16:
      return ActQuant::kBF16;
    case BlockType::kQ8_0:
      return ActQuant::kQ8_0;
    case BlockType::kQ4_1:
      return ActQuant::kQ8_1;
    case BlockType::kTQ1_0:
    case BlockType::kTQ2_0:
      return ActQuant::kQ8_K;
    case BlockType::kI2_S:
      return ActQuant::kBitnet;
    default:
      return ActQuant::kNone;
  }
}

Result<Activations> Quantise(std::span<const double> x, ActQuant scheme,
                             const QuantiserVariation& variation) {
  Activations a;
  if (scheme == ActQuant::kNone) {
    a.values.assign(x.begin(), x.end());
    return a;
  }
  std::vector<float> held(x.begin(), x.end());
  a.values.resize(x.size());
  if (scheme == ActQuant::kF16) {
    for (size_t i = 0; i < held.size(); i++) a.values[i] = F16ToF32(F32ToF16(held[i]));
    return a;
  }
  if (scheme == ActQuant::kBF16) {
    for (size_t i = 0; i < held.size(); i++) a.values[i] = Bf16ToF32(F32ToBf16(held[i]));
    return a;
  }
  auto row = std::find_if(std::begin(kSchemes), std::end(kSchemes),
                          [&](const SchemeRow& r) { return r.scheme == scheme; });
  int64_t block = variation.block_values ? variation.block_values : row->block;
  if (block < 0) block = static_cast<int64_t>(x.size());
  if (block == 0 || static_cast<int64_t>(x.size()) % block != 0) {
    return MakeError(Code::kUnsupported, "act.quant={}: rows of {} values are no multiple of its block of {}",
                     row->name, x.size(), block);
  }
  const size_t n_blocks = x.size() / static_cast<size_t>(block);
  a.scheme = scheme, a.block = block;
  a.codes.resize(x.size()), a.scales.resize(n_blocks);
  if (scheme == ActQuant::kQ8_1) a.sum_error.resize(n_blocks), a.sums.resize(n_blocks);
  for (size_t b = 0; b < n_blocks; b++)
    QuantiseBlock({held.data() + b * static_cast<size_t>(block), static_cast<size_t>(block)}, b, variation,
                  &a);
  return a;
}

}  // namespace pb::oracle

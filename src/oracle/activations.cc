// The codes of each scheme, written from its definition.
#include "oracle/activations.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"

namespace pb::oracle {
namespace {

float Round(float v, QuantiserVariation::Rounding rounding) {
  switch (rounding) {
    case QuantiserVariation::Rounding::kHalfEven:
      return std::nearbyint(v);
    case QuantiserVariation::Rounding::kHalfAway:
      return std::round(v);
    case QuantiserVariation::Rounding::kTruncate:
      return std::trunc(v);
    case QuantiserVariation::Rounding::kFloor:
      return std::floor(v);
  }
  return v;
}

// The factor that turns values into codes and the scale that turns codes back, in float32.
struct Scales {
  float to_code, from_code;
  int lowest, highest;
};

// The values that the largest is looked for among.
std::span<const float> LookedAt(std::span<const float> block, const QuantiserVariation& variation) {
  const auto n = static_cast<size_t>(std::abs(variation.amax_values));
  if (n == 0 || n >= block.size()) return block;
  return variation.amax_values > 0 ? block.first(n) : block.last(n);
}

Scales ScalesOf(std::span<const float> whole, ActScheme scheme, const QuantiserVariation& variation) {
  const std::span<const float> block = LookedAt(whole, variation);
  const float range = variation.range ? static_cast<float>(variation.range) : 127.0f;
  float largest = 0, largest_magnitude = 0;
  for (float v : block) {
    if (std::fabs(v) > largest_magnitude) largest_magnitude = std::fabs(v), largest = v;
  }
  if (scheme == ActScheme::kBitnet) {  // BitNet b1.58, "Quantization Function": absmax per token
    float s = range / std::max(largest_magnitude, 1e-5f);
    return {s, 0, -128, 127};  // the product is divided by s: the caller divides, exactly
  }
  if (largest_magnitude == 0) return {0, 0, -127, 127};
  if (scheme == ActScheme::kQ8_K) {  // the value of largest magnitude becomes -127
    float inverse = -range / largest;
    return {inverse, 1.0f / inverse, -128, 127};
  }
  float d = largest_magnitude / range;  // Q8_0, Q8_1: the scale is stored as f16
  const bool wide = variation.range > 127 || variation.amax_values != 0;
  float kept = F16ToF32(F32ToF16(d));
  if (variation.cut_scales && kept > d) kept = F16ToF32(static_cast<uint16_t>(F32ToF16(d) - 1));
  return {range / largest_magnitude, kept, wide ? -128 : -127, 127};
}

// Block `b` of the row, whose values are given.
void QuantiseBlock(std::span<const float> block, size_t b, const QuantiserVariation& variation,
                   Activations* a) {
  const ActScheme scheme = a->scheme;
  const size_t begin = b * static_cast<size_t>(a->block);
  Scales s = ScalesOf(block, scheme, variation);
  int highest = variation.clamp ? variation.clamp : s.highest,
      lowest = variation.clamp ? -variation.clamp : s.lowest;
  int sum = 0;
  for (size_t i = 0; i < block.size(); i++) {
    float code = std::clamp(Round(block[i] * s.to_code, variation.rounding), float(lowest), float(highest));
    sum += static_cast<int>(code);
    a->codes[begin + i] = static_cast<int8_t>(code);
    a->values[begin + i] =
        scheme == ActScheme::kBitnet ? double(code) / double(s.to_code) : double(code) * double(s.from_code);
  }
  a->scales[b] = scheme == ActScheme::kBitnet ? 1 / s.to_code : s.from_code;
  if (scheme != ActScheme::kQ8_1) return;
  // Q8_1 stores d x sum as f16, d in float32 before its own rounding to f16.
  float d = s.to_code == 0 ? 0 : [&] {
    float largest = 0;
    for (float v : LookedAt(block, variation)) largest = std::max(largest, std::fabs(v));
    return largest / (variation.range ? static_cast<float>(variation.range) : 127.0f);
  }();
  a->sums[b] = F16ToF32(F32ToF16(d * float(sum)));
  a->sum_error[b] = double(a->sums[b]) - double(sum) * double(s.from_code);
}

}  // namespace

Result<Activations> Quantise(std::span<const double> x, ActScheme scheme,
                             const QuantiserVariation& variation) {
  Activations a;
  if (scheme == ActScheme::kNone) {
    a.values.assign(x.begin(), x.end());
    return a;
  }
  std::vector<float> held(x.begin(), x.end());
  a.values.resize(x.size());
  if (scheme == ActScheme::kF16 || scheme == ActScheme::kF16Sums) {
    for (size_t i = 0; i < held.size(); i++) a.values[i] = F16ToF32(F32ToF16(held[i]));
    return a;
  }
  if (scheme == ActScheme::kBF16) {
    for (size_t i = 0; i < held.size(); i++) a.values[i] = Bf16ToF32(F32ToBf16(held[i]));
    return a;
  }
  int64_t block = variation.block_values ? variation.block_values
                                         : ActBlockValues(scheme, static_cast<int64_t>(x.size()));
  if (block < 0) block = static_cast<int64_t>(x.size());
  if (block == 0 || static_cast<int64_t>(x.size()) % block != 0) {
    return MakeError(Code::kUnsupported, "act.quant={}: rows of {} values are no multiple of its block of {}",
                     ActSchemeName(scheme), x.size(), block);
  }
  const size_t n_blocks = x.size() / static_cast<size_t>(block);
  a.scheme = scheme, a.block = block;
  a.codes.resize(x.size()), a.scales.resize(n_blocks);
  if (scheme == ActScheme::kQ8_1) a.sum_error.resize(n_blocks), a.sums.resize(n_blocks);
  for (size_t b = 0; b < n_blocks; b++)
    QuantiseBlock({held.data() + b * static_cast<size_t>(block), static_cast<size_t>(block)}, b, variation,
                  &a);
  return a;
}

}  // namespace pb::oracle

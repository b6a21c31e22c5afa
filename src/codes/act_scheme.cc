// The arithmetic of each scheme's block: its scale, its codes' boundaries, what it stores of
// their sum.
#include "codes/act_scheme.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"

namespace pb::codes {

ActBlock ActBlockOf(std::span<const float> x, ActScheme scheme) {
  float largest = 0, magnitude = 0;
  for (float v : x) {
    if (std::fabs(v) > magnitude) magnitude = std::fabs(v), largest = v;
  }
  ActBlock b;
  if (scheme == ActScheme::kBitnet) {
    b.to_code = 127.0f / std::max(magnitude, 1e-5f);
    b.from_code = 1.0 / b.to_code;
  } else if (magnitude == 0) {
    return b;
  } else if (scheme == ActScheme::kQ8_K) {
    b.to_code = -127.0f / largest;
    b.from_code = 1.0f / b.to_code;
  } else {
    const float d = magnitude / 127.0f;
    b.to_code = 127.0f / magnitude;
    b.from_code = F16ToF32(F32ToF16(d));
    b.sum_scale = d;
  }
  for (float v : x) b.sum += static_cast<int>(std::nearbyint(v * b.to_code));
  return b;
}

RoundedRow RoundRow(std::span<const float> x, ActScheme scheme) {
  RoundedRow row;
  row.values.assign(x.begin(), x.end());
  if (scheme == ActScheme::kF16 || scheme == ActScheme::kF16Sums)
    for (double& v : row.values) v = F16ToF32(F32ToF16(static_cast<float>(v)));
  if (scheme == ActScheme::kBF16)
    for (double& v : row.values) v = Bf16ToF32(F32ToBf16(static_cast<float>(v)));
  if (!IsIntegerScheme(scheme)) return row;
  const auto block = static_cast<size_t>(ActBlockValues(scheme, static_cast<int64_t>(x.size())));
  for (size_t start = 0; start < x.size(); start += block) {
    const ActBlock b = ActBlockOf(x.subspan(start, block), scheme);
    for (size_t k = start; k < start + block; k++)
      row.values[k] = std::nearbyint(x[k] * b.to_code) * b.from_code;
    if (scheme == ActScheme::kQ8_1) row.sum_error.push_back(StoredSum(b, b.sum) - b.sum * b.from_code);
  }
  return row;
}

bool OnBoundary(float x, float to_code) {
  const double code = std::fabs(double(x) * double(to_code));
  return std::fabs(code - std::floor(code) - 0.5) <= 8 * 0x1p-24 * std::max(code, 1.0);
}

double StoredSum(const ActBlock& b, int sum) {
  return F16ToF32(F32ToF16(static_cast<float>(b.sum_scale * sum)));
}

}  // namespace pb::codes

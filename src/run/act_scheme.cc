#include "run/act_scheme.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"

namespace pb::run {

std::optional<ActScheme> ActSchemeOf(const std::string& act_quant, BlockType weight, bool output,
                                     int64_t n_columns) {
  std::string name = act_quant;
  if (name == "ggml" || output) {
    switch (weight) {
      case BlockType::kQ8_0:
        name = "q8_0";
        break;
      case BlockType::kQ4_1:
        name = "q8_1";
        break;
      case BlockType::kTQ1_0:
      case BlockType::kTQ2_0:
        name = "q8_k";
        break;
      case BlockType::kI2_S:
        name = "bitnet";
        break;
      default:
        return std::nullopt;
    }
  }
  ActScheme scheme;
  scheme.name = name, scheme.block = name == "q8_k" ? 256 : name == "bitnet" ? n_columns : 32;
  scheme.q8_1 = name == "q8_1", scheme.q8_k = name == "q8_k", scheme.bitnet = name == "bitnet";
  const bool known = name == "q8_0" || scheme.q8_1 || scheme.q8_k || scheme.bitnet;
  if (!known || n_columns % scheme.block != 0) return std::nullopt;
  return scheme;
}

ActBlock ActBlockOf(std::span<const float> x, const ActScheme& scheme) {
  float largest = 0, magnitude = 0;
  for (float v : x) {
    if (std::fabs(v) > magnitude) magnitude = std::fabs(v), largest = v;
  }
  ActBlock b;
  if (scheme.bitnet) {
    b.to_code = 127.0f / std::max(magnitude, 1e-5f);
    b.from_code = 1.0 / b.to_code;
  } else if (magnitude == 0) {
    return b;
  } else if (scheme.q8_k) {
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

bool OnBoundary(float x, float to_code) {
  const double code = std::fabs(double(x) * double(to_code));
  return std::fabs(code - std::floor(code) - 0.5) <= 8 * 0x1p-24 * std::max(code, 1.0);
}

double StoredSum(const ActBlock& b, int sum) {
  return F16ToF32(F32ToF16(static_cast<float>(b.sum_scale * sum)));
}

}  // namespace pb::run

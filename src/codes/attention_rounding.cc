// Sums what the rounding of each probability takes from, or adds to, the values that it weighs.
#include "codes/attention_rounding.h"

#include <algorithm>

#include "base/half.h"

namespace pb::codes {
namespace {

float RoundF16(float x) { return F16ToF32(F32ToF16(x)); }

}  // namespace

void AttentionRounding::OnPoint(const host::PointRef& point, std::span<const float> values,
                                const std::shared_ptr<const void>& lasting) {
  if (point.stage == PB_STAGE_ATTN_SCORES_SOFTMAX) {
    layer_ = point.layer;
    probabilities_.Hold(values, lasting);
  }
  if (point.stage != PB_STAGE_V_PROJ) return;
  std::vector<float>& held = values_[point.layer];
  const auto before = static_cast<size_t>(point.first_position * shape_.n_kv_heads * shape_.head_dim);
  if (held.size() < before) return held.clear();  // positions were left out
  held.resize(before);
  for (const float value : values) held.push_back(RoundF16(value));
}

std::vector<float> AttentionRounding::OfContext(int32_t layer, int32_t first_position, int64_t n_rows) const {
  const auto held = values_.find(layer);
  const std::span<const float> probabilities = probabilities_.values();
  const int64_t n_positions = first_position + n_rows, width = shape_.n_kv_heads * shape_.head_dim;
  if (layer != layer_ || held == values_.end() || shape_.n_kv_heads <= 0 ||
      static_cast<int64_t>(held->second.size()) != n_positions * width ||
      static_cast<int64_t>(probabilities.size()) != n_rows * shape_.n_heads * n_positions)
    return {};
  const int64_t of_one = shape_.n_heads / shape_.n_kv_heads;  // query heads of a head of values
  std::vector<float> difference(static_cast<size_t>(n_rows * shape_.n_heads * shape_.head_dim));
  std::vector<double> sums(static_cast<size_t>(shape_.head_dim));
  for (int64_t part = 0; part < n_rows * shape_.n_heads; part++) {
    const float* p = probabilities.data() + part * n_positions;
    const float* v = held->second.data() + part % shape_.n_heads / of_one * shape_.head_dim;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t j = 0; j < n_positions; j++) {
      const double step = double(RoundF16(p[j])) - double(p[j]);
      for (size_t d = 0; step != 0 && d < sums.size(); d++)
        sums[d] += step * double(v[static_cast<size_t>(j * width) + d]);
    }
    for (size_t d = 0; d < sums.size(); d++)
      difference[static_cast<size_t>(part * shape_.head_dim) + d] = static_cast<float>(sums[d]);
  }
  return difference;
}

}  // namespace pb::codes

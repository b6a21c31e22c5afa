// Sums what the rounding of each query's value takes from, or adds to, its scores, and that of each
// probability the values that it weighs.
#include "codes/attention_rounding.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"

namespace pb::codes {
namespace {

float RoundF16(float x) { return F16ToF32(F32ToF16(x)); }

}  // namespace

void AttentionRounding::Hold(Cache* cache, const host::PointRef& point, std::span<const float> values) {
  std::vector<float>& held = (*cache)[point.layer];
  const auto before = static_cast<size_t>(point.first_position * shape_.n_kv_heads * shape_.head_dim);
  if (held.size() < before) return held.clear();  // positions were left out
  held.resize(before);
  for (const float value : values) held.push_back(RoundF16(value));
}

const float* AttentionRounding::Held(const Cache& cache, int32_t layer, int64_t n_positions) const {
  const auto held = cache.find(layer);
  const int64_t n = n_positions * shape_.n_kv_heads * shape_.head_dim;
  return held != cache.end() && n > 0 && static_cast<int64_t>(held->second.size()) == n ? held->second.data()
                                                                                        : nullptr;
}

void AttentionRounding::OnPoint(const host::PointRef& point, std::span<const float> values,
                                const std::shared_ptr<const void>& lasting) {
  if (point.stage == PB_STAGE_ATTN_SCORES_SOFTMAX) {
    layer_ = point.layer;
    probabilities_.Hold(values, lasting);
  } else if (point.stage == PB_STAGE_Q_ROPE && scale_ != 0) {
    layer_of_queries_ = point.layer;
    queries_.Hold(values, lasting);
  } else if (point.stage == PB_STAGE_K_ROPE && scale_ != 0) {
    Hold(&keys_, point, values);
  } else if (point.stage == PB_STAGE_V_PROJ) {
    Hold(&values_, point, values);
  }
}

std::vector<float> AttentionRounding::OfScores(int32_t layer, int32_t first_position, int64_t n_rows) const {
  const int64_t n_positions = first_position + n_rows, width = shape_.n_kv_heads * shape_.head_dim;
  const float* keys = Held(keys_, layer, n_positions);
  const std::span<const float> queries = queries_.values();
  if (!keys || layer != layer_of_queries_ ||
      static_cast<int64_t>(queries.size()) != n_rows * shape_.n_heads * shape_.head_dim)
    return {};
  const double scale = of_queries_ ? 1 : scale_;
  const int64_t of_one = shape_.n_heads / shape_.n_kv_heads;  // query heads of a head of keys
  std::vector<float> difference(static_cast<size_t>(n_rows * shape_.n_heads * n_positions));
  std::vector<double> steps(static_cast<size_t>(shape_.head_dim));
  for (int64_t part = 0; part < n_rows * shape_.n_heads; part++) {
    for (size_t d = 0; d < steps.size(); d++) {
      float q = queries[static_cast<size_t>(part * shape_.head_dim) + d];
      if (of_queries_) q *= static_cast<float>(scale_);
      steps[d] = double(RoundF16(q)) - double(q);
    }
    for (int64_t j = 0; j < n_positions; j++) {
      const float* k = keys + j * width + part % shape_.n_heads / of_one * shape_.head_dim;
      double sum = 0;
      for (size_t d = 0; d < steps.size(); d++) sum += steps[d] * double(k[d]);
      difference[static_cast<size_t>(part * n_positions + j)] = static_cast<float>(sum * scale);
    }
  }
  return difference;
}

std::vector<float> AttentionRounding::OfContext(int32_t layer, int32_t first_position, int64_t n_rows) const {
  const int64_t n_positions = first_position + n_rows, width = shape_.n_kv_heads * shape_.head_dim;
  const float* values = Held(values_, layer, n_positions);
  const std::span<const float> probabilities = probabilities_.values();
  if (!values || layer != layer_ ||
      static_cast<int64_t>(probabilities.size()) != n_rows * shape_.n_heads * n_positions)
    return {};
  const int64_t of_one = shape_.n_heads / shape_.n_kv_heads;  // query heads of a head of values
  std::vector<float> difference(static_cast<size_t>(n_rows * shape_.n_heads * shape_.head_dim));
  std::vector<double> sums(static_cast<size_t>(shape_.head_dim));
  for (int64_t part = 0; part < n_rows * shape_.n_heads; part++) {
    const float* p = probabilities.data() + part * n_positions;
    const float* v = values + part % shape_.n_heads / of_one * shape_.head_dim;
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

AttentionRounding RoundingOf(const HyperParameters& p) {
  const double declared = double(p.attention_scale), usual = 1 / std::sqrt(static_cast<double>(p.head_dim));
  return {p.shape(), p.score_cap > 0 ? 0 : declared != 0 ? declared : usual, p.scale_queries};
}

}  // namespace pb::codes

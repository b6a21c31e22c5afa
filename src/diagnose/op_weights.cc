// The tensor of an op, and what its values say of it.
#include "diagnose/op_weights.h"

#include <algorithm>
#include <cmath>

namespace pb::diagnose {

OpWeights WeightsOf(const Model& model, int32_t stage, int32_t layer) {
  const StageWeights& w = model.weights(stage, layer);
  return {w.name, w.matrix.data ? &w.matrix : nullptr, w.scale, w.vector.empty() ? nullptr : &w.vector,
          w.bias.empty() ? nullptr : &w.bias};
}

float TernaryStep(const OpWeights& weights) {
  if (!weights.matrix) return 0;
  const BlockType type = weights.matrix->type;
  if (type != BlockType::kTQ1_0 && type != BlockType::kTQ2_0 && type != BlockType::kI2_S) return 0;
  std::vector<float> row(static_cast<size_t>(weights.matrix->n_columns));
  DecodeRow(*weights.matrix, 0, row.data());
  float largest = 0;
  for (float x : row) largest = std::max(largest, std::fabs(x));
  return largest;
}

}  // namespace pb::diagnose

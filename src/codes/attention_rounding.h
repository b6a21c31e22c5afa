// What rounding makes of the attention context: whether an engine rounds its probabilities to f16
// where they meet the values of an f16 cache, or multiplies them as they are (docs/numerics.md,
// "Precision of products").
#ifndef PARITYBIT_CODES_ATTENTION_ROUNDING_H_
#define PARITYBIT_CODES_ATTENTION_ROUNDING_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "drive/held_values.h"
#include "host/engine.h"
#include "stages/stages.h"

namespace pb::codes {

// Keeps an engine's values of all positions, and the probabilities of the layer at hand.
class AttentionRounding {
 public:
  explicit AttentionRounding(const stages::ModelShape& shape) : shape_(shape) {}
  // All rows of an evaluation's point, in order of execution; `lasting`: see host::TensorRef.
  void OnPoint(const host::PointRef& point, std::span<const float> values,
               const std::shared_ptr<const void>& lasting = nullptr);
  // By how much a layer's context exceeds, where probabilities are rounded, what it is where they
  // are not: (n_rows, n_heads x head_dim). Empty: what it is made of was not seen.
  std::vector<float> OfContext(int32_t layer, int32_t first_position, int64_t n_rows) const;

 private:
  stages::ModelShape shape_;
  std::map<int32_t, std::vector<float>>
      values_;                       // by layer, rounded to f16: (positions, kv heads x head_dim)
  int32_t layer_ = -1;               // of the probabilities
  drive::HeldValues probabilities_;  // (n_rows, n_heads, positions)
};

}  // namespace pb::codes

#endif  // PARITYBIT_CODES_ATTENTION_ROUNDING_H_

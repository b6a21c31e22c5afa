// What rounding makes of attention: whether an engine rounds its queries and its probabilities to f16
// where they meet the keys and values of an f16 cache, or multiplies them as they are
// (docs/numerics.md, "Precision of products").
#ifndef PARITYBIT_CODES_ATTENTION_ROUNDING_H_
#define PARITYBIT_CODES_ATTENTION_ROUNDING_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "drive/held_values.h"
#include "host/engine.h"
#include "model/model.h"
#include "stages/stages.h"

namespace pb::codes {

// Keeps an engine's keys and values of all positions, and the queries and probabilities of the layer at
// hand.
class AttentionRounding {
 public:
  // `scale`: of scores; `of_queries`: it is theirs, before they meet the keys. 0: scores are something
  // else than products times a number, and nothing is known of them.
  AttentionRounding(const stages::ModelShape& shape, double scale, bool of_queries)
      : shape_(shape), scale_(scale), of_queries_(of_queries) {}
  // All rows of an evaluation's point, in order of execution; `lasting`: see host::TensorRef.
  void OnPoint(const host::PointRef& point, std::span<const float> values,
               const std::shared_ptr<const void>& lasting = nullptr);
  // By how much a layer's context exceeds, where probabilities are rounded, what it is where they
  // are not: (n_rows, n_heads x head_dim). Empty: what it is made of was not seen.
  std::vector<float> OfContext(int32_t layer, int32_t first_position, int64_t n_rows) const;
  // The same of scores and queries: (n_rows, n_heads x positions).
  std::vector<float> OfScores(int32_t layer, int32_t first_position, int64_t n_rows) const;

 private:
  using Cache = std::map<int32_t, std::vector<float>>;  // by layer, in f16: (positions, kv heads x head_dim)
  // Of one layer's positions; null: not all were seen.
  const float* Held(const Cache& cache, int32_t layer, int64_t n_positions) const;
  void Hold(Cache* cache, const host::PointRef& point, std::span<const float> values);

  stages::ModelShape shape_;
  double scale_;
  bool of_queries_;
  Cache keys_, values_;
  int32_t layer_of_queries_ = -1, layer_ = -1;
  drive::HeldValues queries_;        // (n_rows, n_heads x head_dim)
  drive::HeldValues probabilities_;  // (n_rows, n_heads, positions)
};

// Of a model whose scores are not capped all is known.
AttentionRounding RoundingOf(const HyperParameters& p);

}  // namespace pb::codes

#endif  // PARITYBIT_CODES_ATTENTION_ROUNDING_H_

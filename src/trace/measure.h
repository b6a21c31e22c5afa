// What a trace tells of one tensor: its digest, sizes, non-finite values and sketch.
#ifndef PARITYBIT_TRACE_MEASURE_H_
#define PARITYBIT_TRACE_MEASURE_H_

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trace/sketch.h"

namespace pb::trace {

// Sizes are over the finite values alone; hidden attention scores are -infinity by rule.
struct Measures {
  // 64 hexadecimal digits: the row-major values as f32 little-endian, nothing else
  std::string blake3;
  double rms = 0;  // root mean square in fp64, over finite values
  int64_t n_nan = 0, n_positive_inf = 0, n_negative_inf = 0;
  std::vector<float> row_rms;  // by token row
};

// The likeliest tokens of one row of logits, and what all others weigh: from two of these the
// distributions are compared without their rows.
inline constexpr size_t kTopTokens = 10;
struct TopTokens {
  // sum of exp(logit - largest logit) over all other tokens; NaN: a logit is not finite
  float rest = 0;
  // id, logit: the largest first, of equals the lowest id
  std::vector<std::pair<int32_t, float>> tokens;

  bool operator==(const TopTokens&) const = default;
};
TopTokens TopTokensOf(std::span<const float> logits);

// `values` has n_rows rows of equal length (PB_CHECK). Sums run in fp64 over eight fixed lanes, so
// the figures are the same on every machine.
Measures Measure(std::span<const float> values, int64_t n_rows);

// The sketch of a tensor of n_rows rows from first_position on. Rows are cut into n_heads equal
// runs first.
Sketch SketchOf(Sketcher& sketcher, std::span<const float> values, int64_t n_rows, int64_t n_heads,
                int64_t first_position);
// Heads that a sketch of this stage is cut by: those of (n, heads, p) tensors, whose p depends on
// how rows were batched; else 1.
int64_t SketchHeads(int32_t stage, std::span<const int64_t> shape);

}  // namespace pb::trace

#endif  // PARITYBIT_TRACE_MEASURE_H_

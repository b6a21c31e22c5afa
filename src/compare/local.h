// Local errors: one op's output in two engines on identical inputs, per token row and per output
// feature, against a bound that follows from float32 summation. Pure: tensors in, PointRow out.
// Definitions and the choice of the constants: docs/numerics.md.
#ifndef PARITYBIT_COMPARE_LOCAL_H_
#define PARITYBIT_COMPARE_LOCAL_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "compare/types.h"
#include "stages/stages.h"

namespace pb::compare {

inline constexpr double kF32Roundoff = 0x1p-24, kF16Roundoff = 0x1p-11;

// What errors may reach, u = 2^-24. With units: c u sqrt(sum of squared units) over the values of a
// row or column. Without: c u sqrt(K) of the row's norm, the estimate where nobody computed the op
// exactly.
struct LocalBound {
  std::string op_class;    // "product"
  double c = 0;            // of the class
  int64_t sum_length = 0;  // K, the terms of one output value
  // rotary embedding: the angle's own rounding grows with the position
  bool by_position = false;
  std::span<const float> units;    // of each value (host::TensorRef::units); must outlive this
  double roundoff = kF32Roundoff;  // u; larger where sums are kept in fewer bits than float32 has

  double At(int64_t position) const;  // without units, as a fraction of a row's norm
  std::string Origin() const;         // "12 x 2^-24 x sqrt(576), op class product"
  // The norm that the error of a row may have: row `index` of n_features values, at this position,
  // whose norm is given.
  double OfRow(int64_t index, int64_t n_features, int64_t position, double norm) const;
};

// The bound of a stage between two engines. `n_positions`: positions that attention may see (sums
// of softmax and context).
LocalBound BoundOf(pb_stage stage, const stages::ModelShape& shape, int64_t n_positions);
// Of the context where an engine computes scores, softmax and weighted sum in one op: its running
// sums are kept in f16.
LocalBound FusedAttentionBound(int64_t n_positions);
// Of a product where either engine keeps its sums in f16 (the scheme f16_sums).
LocalBound F16SumsBound(int64_t sum_length);
// The same against the exact result, from units of float32 sums.
LocalBound F16SumsFromUnits(std::span<const float> units);
// The bound of an engine against the exact result, from the true partial sums that came with it.
LocalBound BoundFromUnits(pb_stage stage, std::span<const float> units);

// "9.5e-07"; in words where nothing but underflow is allowed, because the exact result is 0.
std::string BoundText(double bound);

// One tensor, rows of tokens: n_rows x n_features in row-major order (inner axes flattened).
struct PointTensor {
  std::span<const float> values;
  int64_t n_rows = 0, n_features = 0;
};

// Where a point stands.
struct PointPlace {
  int32_t prompt = 0, step = 0, stage = PB_STAGE_UNMAPPED, layer = -1, first_position = 0;
};

// Compares candidate and reference. -inf in both is equal among scores (masked), -inf in one beside
// a number an infinite error; any other non-finite value makes every error infinite and is counted.
// Values beyond a mask are left out of RMS and errors alike. Different sizes, and none, are kUsage.
//   rel_l2         ||a - b|| / ||b|| over the tensor
//   worst_row      largest ||a_i - b_i|| / ||b_i|| over token rows
//   worst_feature  largest over columns j of sqrt(sum_i e_ij^2 / max(sum_i RMS(b_i)^2, sum_i b_ij^2)): a column's error in units
//                  of a typical value, or of its own where it is a large one
//   bound_ratio    largest of: a row's error over its bound; a column's error over its own bound where there are units, else over
//                  the rows' mean bound (weighted by RMS^2)
//   bound          that of the place where bound_ratio is reached
Result<PointRow> ComparePoint(const PointTensor& candidate, const PointTensor& reference,
                              const PointPlace& place, const LocalBound& bound);

// Of each token row: its error over its bound, and relative to its norm, as ComparePoint takes them.
// Both tensors have the same shape, which is not empty.
struct RowErrors {
  std::vector<double> over_bound, rel_l2;
};
RowErrors ErrorsOfRows(const PointTensor& candidate, const PointTensor& reference, const PointPlace& place,
                       const LocalBound& bound);

// Rounding of an activation's code, scale or stored sum that may have gone the other way: the two
// engines may differ by one step in it, which moves output j by effect[j] one way or the other.
struct BoundaryCode {
  int64_t id = 0;              // which one, as the caller counts
  std::vector<double> effect;  // (n_features): what the step does to each output
};
// What steps on rounding boundaries explain of one row's difference: the whole steps
// nearest to least squares, then, until the remainder meets the bound or none helps, the change of
// a step that shortens it most. Each steps once at most.
struct CodeExplanation {
  std::vector<std::pair<int64_t, int>> steps;  // (id, -1 or +1)
  double remainder_ratio = 0;                  // of the row, over its bound; above 1: not explained
};
CodeExplanation ExplainByCodes(std::span<const double> difference, std::span<const BoundaryCode> codes,
                               double bound_norm);

// Dependency order: by step, layers in their order with the embeddings first and the outer stages
// last, then level.
bool ComesBefore(const PointRow& a, const PointRow& b);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_LOCAL_H_

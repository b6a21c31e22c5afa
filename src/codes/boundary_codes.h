// The codes of one row of a product's input that lie on a rounding boundary, so that two correct
// quantisers may choose neighbouring ones, and what that does to the outputs, which is known
// exactly (docs/numerics.md, "Codes").
#ifndef PARITYBIT_CODES_BOUNDARY_CODES_H_
#define PARITYBIT_CODES_BOUNDARY_CODES_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "codes/act_scheme.h"
#include "compare/local.h"
#include "formats/block.h"

namespace pb::codes {

class BoundaryCodes {
 public:
  // `x` (K), by a scheme that makes codes; `w` (n_out, K) with the factor `scale`. Both outlive
  // this.
  BoundaryCodes(std::span<const float> x, ActScheme scheme, const WeightView& w, double scale);

  // Steps of codes that explain the difference of a row's outputs to within the bound, as far as
  // there are any. `features`: which outputs they are; empty: all.
  compare::CodeExplanation Explain(std::span<const double> difference, double bound_norm,
                                   std::span<const int64_t> features = {});
  // Takes what these steps do together from a row of all outputs.
  void Subtract(const std::vector<std::pair<int64_t, int>>& steps, float* outputs);

 private:
  void ReadRow(int64_t j);
  double Effect(std::span<const std::pair<int64_t, int>> steps) const;

  std::span<const float> x_;
  ActScheme scheme_;
  int64_t block_;
  const WeightView& w_;
  double scale_;
  std::vector<ActBlock> blocks_;
  std::vector<compare::BoundaryCode> codes_;
  std::vector<float> row_;      // the weight row at hand
  std::vector<double> minima_;  // of its blocks, where the stored sums meet them
};

}  // namespace pb::codes

#endif  // PARITYBIT_CODES_BOUNDARY_CODES_H_

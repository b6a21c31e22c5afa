// What of one row of a product's input lies on a rounding boundary: codes, scales and stored sums that
// two correct quantisers may round to neighbours; and what that does to the outputs, which is known
// exactly (docs/numerics.md, "Codes").
#ifndef PARITYBIT_CODES_BOUNDARY_STEPS_H_
#define PARITYBIT_CODES_BOUNDARY_STEPS_H_

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "codes/act_scheme.h"
#include "compare/local.h"
#include "formats/block.h"

namespace pb::codes {

// How many codes, scales and stored sums stepped.
struct StepCounts {
  int64_t codes = 0, scales = 0, sums = 0;
  int64_t all() const { return codes + scales + sums; }
  void Add(const StepCounts& other) { codes += other.codes, scales += other.scales, sums += other.sums; }
  // Of an input of so many codes and blocks: "6 of 576 activation codes and 1 of 18 of their scales".
  std::string Text(int64_t n_codes, int64_t n_blocks) const;
};

class BoundarySteps {
 public:
  // (index of what steps, +1: in the candidate, -1: in the reference)
  using Steps = std::vector<std::pair<int64_t, int>>;

  // `x` (K), by a scheme that makes codes; `w` (n_out, K) with the factor `scale`. Both outlive
  // this.
  BoundarySteps(std::span<const float> x, ActScheme scheme, const WeightView& w, double scale);

  // Steps that explain the difference of a row's outputs to within the bound, as far as there are
  // any. `features`: which outputs they are; empty: all.
  compare::CodeExplanation Explain(std::span<const double> difference, double bound_norm,
                                   std::span<const int64_t> features = {});
  // Takes what these steps do together from a row of all outputs.
  void Subtract(const Steps& steps, float* outputs);
  StepCounts Count(const Steps& steps) const;

 private:
  enum class Kind { kCode, kScale, kSum };
  struct Step {
    Kind kind;
    int64_t at;  // column of a code; else block
  };
  // What steps in one engine make of a block.
  struct Stepped {
    double weighted = 0;  // change of its codes times the weights they meet
    int sum = 0;          // change of the sum of its codes
    bool scale = false, stored = false;
  };

  void ReadRow(int64_t j);
  int64_t BlockOf(const Step& step) const { return step.kind == Kind::kCode ? step.at / block_ : step.at; }
  std::span<const float> ValuesOf(int64_t block) const {
    return x_.subspan(static_cast<size_t>(block * block_), static_cast<size_t>(block_));
  }
  double MinimumOf(int64_t block) const { return minima_.empty() ? 0 : minima_[static_cast<size_t>(block)]; }
  double Effect(std::span<const std::pair<int64_t, int>> steps) const;
  void ExplainJointly(std::span<const double> difference, double bound_norm,
                      std::span<const int64_t> features, compare::CodeExplanation* found);
  double CodesTimesWeights(int64_t block) const;
  double Product(int64_t block, const Stepped& stepped, double codes_times_weights) const;

  std::span<const float> x_;
  ActScheme scheme_;
  int64_t block_;
  const WeightView& w_;
  double scale_;
  std::vector<ActBlock> blocks_;
  std::vector<Step> steps_;
  std::vector<compare::BoundaryCode> effects_;  // of the steps
  std::vector<float> row_;                      // the weight row at hand
  std::vector<double> minima_;                  // of its blocks, where the stored sums meet them
};

}  // namespace pb::codes

#endif  // PARITYBIT_CODES_BOUNDARY_STEPS_H_

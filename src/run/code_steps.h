// Explains differences of quantised products by their activation codes: where an input lies on a rounding boundary, two
// quantisers may choose neighbouring codes, and what that does to every output is known exactly (docs/numerics.md).
#ifndef PARITYBIT_RUN_CODE_STEPS_H_
#define PARITYBIT_RUN_CODE_STEPS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compare/local.h"
#include "model/model.h"
#include "run/lock_step.h"
#include "run/scheme_check.h"

namespace pb::run {

// Sees the pairs of a lock-step in order, keeps the inputs of products, and marks a product whose error is explained:
// PointRow::explained_by_codes, with the count of codes in `explanation`, its errors those of the unexplained remainder.
class CodeExplainer {
 public:
  // `check`: of the session fact act.quant of both engines; must outlive this. A product whose scheme is not known here, or that an
  // engine was seen to quantise otherwise, is never explained.
  CodeExplainer(std::shared_ptr<const Model> model, const SchemeCheck* check)
      : model_(std::move(model)), check_(check) {}

  void OnPair(const PointPair& pair);

 private:
  std::vector<float> Explained(const PointPair& pair, const ProductWeights& product,
                               std::span<const float> input, const compare::LocalBound& bound,
                               int64_t* n_steps) const;

  std::shared_ptr<const Model> model_;
  const SchemeCheck* check_;
  struct Held {
    int32_t first_position;
    std::vector<float> values;
  };
  std::map<int32_t, Held> inputs_;  // reference's values by stage, of the layer at hand
};

}  // namespace pb::run

#endif  // PARITYBIT_RUN_CODE_STEPS_H_

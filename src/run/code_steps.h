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

namespace pb::run {

// Sees the pairs of a lock-step in order, keeps the inputs of products, and marks a product whose error is explained:
// PointRow::explained_by_codes, with the count of codes in `explanation`, its errors those of the unexplained remainder.
class CodeExplainer {
 public:
  // `act_quant`: the session fact of both engines. A scheme that is not known here explains nothing.
  CodeExplainer(std::shared_ptr<const Model> model, std::string act_quant)
      : model_(std::move(model)), act_quant_(std::move(act_quant)) {}

  void OnPair(const PointPair& pair);

 private:
  struct Product {
    const WeightView* weights;
    double scale;
    pb_stage inputs[2];  // the first that was seen
  };
  bool FindProduct(int32_t stage, int32_t layer, Product* product) const;
  std::vector<float> Explained(const PointPair& pair, const Product& product, std::span<const float> input,
                               const compare::LocalBound& bound, int64_t* n_steps) const;

  std::shared_ptr<const Model> model_;
  std::string act_quant_;
  struct Held {
    int32_t first_position;
    std::vector<float> values;
  };
  std::map<int32_t, Held> inputs_;  // reference's values by stage, of the layer at hand
};

}  // namespace pb::run

#endif  // PARITYBIT_RUN_CODE_STEPS_H_

// Explains differences of products by how their inputs are rounded: by the schemes that the engines
// were observed to follow, where those differ, or by codes, scales and stored sums
// on a rounding boundary (docs/numerics.md, "Codes"); and those of tanh-GELU by the table of f16
// that takes its place.
#ifndef PARITYBIT_CODES_CODE_STEPS_H_
#define PARITYBIT_CODES_CODE_STEPS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "codes/attention_rounding.h"
#include "codes/precision.h"
#include "codes/scheme_check.h"
#include "compare/local.h"
#include "drive/held_values.h"
#include "drive/lock_step.h"
#include "model/model.h"

namespace pb::codes {

// Sees the pairs of a lock-step in order, keeps the inputs of products, and marks a product whose
// error is explained (PointRow::explained_by_codes, explained_by_precision) by what it would be
// otherwise.
class CodeExplainer {
 public:
  // `check`: how both engines say that they quantise; null: codes explain nothing. A product whose
  // scheme is not known here, or that an engine was seen to quantise otherwise, is never explained
  // by codes. `differences`: where the engines were observed to follow different schemes; counts
  // its products; may be null. `attention`: the caches of both hold f16, so that one engine may
  // round its probabilities where the other does not. All outlive this.
  CodeExplainer(std::shared_ptr<const Model> model, const SchemeCheck* check,
                std::vector<PrecisionDifference>* differences = nullptr, bool attention = false)
      : model_(std::move(model)), check_(check), differences_(differences), inputs_(*model_) {
    if (attention) attention_.emplace(RoundingOf(model_->params()));
  }

  void OnPair(const drive::PointPair& pair);

 private:
  // An activation, or a gated product, whose entry of ggml's table of tanh-GELU may be either of two.
  void ByTable(const drive::PointPair& pair) const;
  void ByPrecision(const drive::PointPair& pair, const ProductWeights& product,
                   PrecisionDifference* difference, std::span<const float> input);
  // How the engines were observed to compute this product otherwise; null: not at all.
  PrecisionDifference* DifferenceAt(const drive::PointPair& pair) const;
  // `candidate`: without what the schemes make of it; take_steps takes out steps of one of them, too.
  void TakePrecision(const drive::PointPair& pair, PrecisionDifference* difference, int64_t n_columns,
                     const std::vector<float>* candidate, const std::function<void(ActScheme)>& take_steps);
  void ByCodes(const drive::PointPair& pair, const ProductWeights& product,
               std::span<const float> input) const;
  // Scores or context, where one engine rounds its queries or probabilities to f16 and the other does
  // not.
  void ByAttention(const drive::PointPair& pair) const;
  // The chosen experts, where other ids' logits lie within rounding of each other.
  void ByTie(const drive::PointPair& pair) const;
  // A product of one value a row, whose size says nothing of what it was summed from: held against
  // the bound of its own terms.
  void ByTerms(const drive::PointPair& pair, const ProductWeights& product,
               std::span<const float> input) const;
  // A product of experts: each token's part of each of its experts by itself.
  void ByExperts(const drive::PointPair& pair);
  // What is left of the error, if it is within the bound.
  std::optional<compare::PointRow> Rest(const drive::PointPair& pair, std::span<const float> candidate,
                                        const compare::LocalBound& bound) const;

  std::shared_ptr<const Model> model_;
  const SchemeCheck* check_;
  std::vector<PrecisionDifference>* differences_;
  ProductInputs inputs_;  // the reference's
  std::optional<AttentionRounding> attention_;
  drive::HeldValues gate_, up_;  // the reference's, of the layer at hand
};

}  // namespace pb::codes

#endif  // PARITYBIT_CODES_CODE_STEPS_H_

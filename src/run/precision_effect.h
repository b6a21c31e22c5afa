// How far two precisions of products, or of the sums in fused attention, move the logits: the
// arbiter's under the one against its own under the other.
#ifndef PARITYBIT_RUN_PRECISION_EFFECT_H_
#define PARITYBIT_RUN_PRECISION_EFFECT_H_

#include <string>

#include "compare/verdict.h"
#include "model/model.h"
#include "run/record.h"
#include "run/request.h"

namespace pb::run {

// Evaluates the prompts with their decode steps under act_quant[0] and act_quant[1] (candidate,
// reference), as many positions as a budget of multiply-adds allows; `f16_attention`: and the one with
// its attention's context disturbed as sums in f16 do; `unrounded_attention`: and the one without rounding
// queries and probabilities to f16, as the other does. What goes wrong is the result's why_none.
compare::PrecisionEffect PredictEffect(const Request& request, const Comparison& comparison,
                                       const Model& model, const std::string (&act_quant)[2],
                                       bool f16_attention, bool unrounded_attention);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_PRECISION_EFFECT_H_

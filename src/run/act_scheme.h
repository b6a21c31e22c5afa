// How the schemes of act.quant make codes, as their definitions say (docs/numerics.md, "What rounds where").
#ifndef PARITYBIT_RUN_ACT_SCHEME_H_
#define PARITYBIT_RUN_ACT_SCHEME_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "model/model.h"

namespace pb::run {

// A quantiser's block: how values become codes and codes values again, in float32 as the schemes define them.
struct ActScheme {
  std::string name;     // "q8_1"
  int64_t block = 0;    // values
  bool q8_1 = false;    // stores d x sum of codes as f16
  bool q8_k = false;    // the value of largest magnitude becomes -127, d stays float32
  bool bitnet = false;  // a row is a block; 127 / max(|x|, 1e-5)
};
// The scheme of a product's input of n_columns values; `output`: of the logits. Nothing: no codes are made, or the scheme is not known
// here.
std::optional<ActScheme> ActSchemeOf(const std::string& act_quant, BlockType weight, bool output,
                                     int64_t n_columns);

struct ActBlock {
  float to_code = 0;     // x -> code
  double from_code = 0;  // code -> value
  double sum_scale = 0;  // d before its rounding to f16 (Q8_0, Q8_1)
  int sum = 0;           // of the codes
};
ActBlock ActBlockOf(std::span<const float> x, const ActScheme& scheme);

// Whether x's code may go either way: x * to_code lies within its own float32 rounding of a half. The sign of to_code does not matter.
bool OnBoundary(float x, float to_code);
// What Q8_1 stores of a block whose codes sum to `sum`.
double StoredSum(const ActBlock& b, int sum);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_ACT_SCHEME_H_

// How the schemes of act.quant make codes, as their definitions say (docs/numerics.md, "What rounds
// where").
#ifndef PARITYBIT_CODES_ACT_SCHEME_H_
#define PARITYBIT_CODES_ACT_SCHEME_H_

#include <cstdint>
#include <span>
#include <vector>

#include "formats/act_scheme.h"

namespace pb::codes {

// A row of a product's input as a scheme lets it through.
struct RoundedRow {
  std::vector<double> values;  // (K)
  // q8_1 alone: of each block of 32, what it stores as its sum less the exact sum of its values;
  // weights with a minimum m add m times this to the product. Else empty.
  std::vector<double> sum_error;
};
// x.size() is a multiple of ActBlockValues.
RoundedRow RoundRow(std::span<const float> x, ActScheme scheme);

struct ActBlock {
  float to_code = 0;     // x -> code
  double from_code = 0;  // code -> value
  double sum_scale = 0;  // d before its rounding to f16 (Q8_0, Q8_1)
  int sum = 0;           // of the codes
};
ActBlock ActBlockOf(std::span<const float> x, ActScheme scheme);

// Whether x's code may go either way: x * to_code lies within its own float32 rounding of a half.
// The sign of to_code does not matter.
bool OnBoundary(float x, float to_code);
// What Q8_1 stores of a block whose codes sum to `sum`.
double StoredSum(const ActBlock& b, int sum);

}  // namespace pb::codes

#endif  // PARITYBIT_CODES_ACT_SCHEME_H_

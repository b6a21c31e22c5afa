// What a quantised matrix product sees of its activations: the codes a declared scheme makes of a
// row, as exact numbers.
#ifndef PARITYBIT_ORACLE_ACTIVATIONS_H_
#define PARITYBIT_ORACLE_ACTIVATIONS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "formats/act_scheme.h"

namespace pb::oracle {

// How a quantiser may be varied (hypotheses of diagnosis); the defaults are the schemes as their
// engines run them.
struct QuantiserVariation {
  enum class Rounding { kHalfEven, kHalfAway, kTruncate, kFloor };
  Rounding rounding = Rounding::kHalfEven;
  bool cut_scales = false;  // of Q8_0, Q8_1: to f16 towards zero, in place of the nearest
  int clamp = 0;            // largest magnitude of a code; 0: the scheme's own
  int block_values = 0;     // 0: the scheme's own; -1: one block a row
  int range = 0;            // the code of the largest magnitude; 0: the scheme's own, 127
  int amax_values =
      0;  // of a block, that the largest is looked for among: the first, the last where negative; 0: all
};

// One row as a product sees it. Scales and codes are made in float32, as the schemes define them;
// the values are exact.
struct Activations {
  std::vector<double> values;  // (K): code x scale, or the value itself where nothing is quantised
  // Q8_1 alone: sum over a block as the format stores it (f16) less the exact sum of its values;
  // empty elsewhere. A weight format with a minimum m multiplies the stored sum by m, so m x this
  // enters the product.
  std::vector<double> sum_error;  // (K / 32)
  // The same as codes; no blocks where none are made. value = code x scale, which for bitnet is
  // rounded to float32 here alone.
  ActScheme scheme = ActScheme::kNone;  // that made them
  int64_t block = 0;
  std::vector<int8_t> codes;  // (K)
  std::vector<float> scales;  // (K / block)
  std::vector<float> sums;    // (K / block) as Q8_1 stores them; empty elsewhere
};

// `x` is what the engine holds, rounded to float32. A row that is no multiple of the scheme's block
// is an error.
Result<Activations> Quantise(std::span<const double> x, ActScheme scheme,
                             const QuantiserVariation& variation = {});

}  // namespace pb::oracle

#endif  // PARITYBIT_ORACLE_ACTIVATIONS_H_

// Which scales and stored sums of a block lie on a rounding boundary of f16, so that two correct
// quantisers may store neighbouring ones (docs/numerics.md, "Codes").
#ifndef PARITYBIT_CODES_BLOCK_STEPS_H_
#define PARITYBIT_CODES_BLOCK_STEPS_H_

#include <optional>
#include <span>

#include "codes/act_scheme.h"

namespace pb::codes {

// Of a scale, or of the stored sum of codes that sum to `sum`, which lies within its own float32
// rounding of the middle of two f16: the one that is not taken here. Nothing: it lies on no boundary,
// or is not rounded to f16. `x`: the block's values.
std::optional<double> OtherScale(const ActBlock& b);
std::optional<double> OtherSum(const ActBlock& b, std::span<const float> x, int sum);
// Whether a correct quantiser may store this scale, or this sum.
bool MayBeScale(const ActBlock& b, float scale);
bool MayBeSum(const ActBlock& b, std::span<const float> x, int sum, float stored);

}  // namespace pb::codes

#endif  // PARITYBIT_CODES_BLOCK_STEPS_H_

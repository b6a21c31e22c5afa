// Products whose input the engines round by different schemes: which of that is accepted, and
// whether the logits lie within what the schemes make of them (docs/numerics.md, "Precision of
// products").
#ifndef PARITYBIT_COMPARE_JUDGE_PRECISION_H_
#define PARITYBIT_COMPARE_JUDGE_PRECISION_H_

#include "compare/verdict.h"

namespace pb::compare {

// Whether a product of this weight type may be rounded so, usually or by the user's word.
bool IsAccepted(BlockType weight, ActScheme scheme, const PrecisionPolicy& policy);
// Adds what is to be said of each class that differs; `second`: what the other side is called,
// "reference".
void CheckPrecision(const Evidence& evidence, const char* second, Verdict* verdict);
// Whether a class differs in a product that was compared, or seen where ops are not compared.
bool PrecisionDiffers(const Evidence& evidence);
// Holds all rows against the noise's limits and the effect of the schemes together. Puts the
// limits; a reason where a row lies beyond them, or where the effect is not known.
void CheckPrecisionEffect(const Evidence& evidence, Verdict* verdict);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_JUDGE_PRECISION_H_

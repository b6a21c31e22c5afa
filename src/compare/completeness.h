// Was everything compared that was asked for? Every way to compare less, or nothing, is a reason of
// its own.
#ifndef PARITYBIT_COMPARE_COMPLETENESS_H_
#define PARITYBIT_COMPARE_COMPLETENESS_H_

#include "compare/verdict.h"

namespace pb::compare {

// Counts prompts, tokens and rows against what was asked; fills coverage and adds reasons.
void CheckCompleteness(const Evidence& evidence, Verdict* verdict);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_COMPLETENESS_H_

// One candidate against two references, and these against each other: which of the three stands
// alone?
#ifndef PARITYBIT_PARITY_THREE_WAY_H_
#define PARITYBIT_PARITY_THREE_WAY_H_

#include "compare/types.h"

namespace pb::parity {

enum class Alone {
  kNobody,      // all three agree
  kCandidate,   // both references agree, and not with the candidate
  kReference,   // the candidate and the second reference agree
  kReferenceB,  // the candidate and the first reference agree
  kAllDiffer,   // no two agree
  kUndecided,   // a comparison could not be made, or agreement does not carry over
};
const char* AloneName(
    Alone alone);  // "nobody" "candidate" "reference" "reference-b" "all differ" "undecided"

// Of the outcomes of the three comparisons.
Alone WhoStandsAlone(compare::Outcome candidate_and_a, compare::Outcome candidate_and_b,
                     compare::Outcome a_and_b);

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_THREE_WAY_H_

// What all evidence at an op comes to: the members of a conclusion, and the sentence that says them.
#ifndef PARITYBIT_DIAGNOSE_CONCLUDE_H_
#define PARITYBIT_DIAGNOSE_CONCLUDE_H_

#include <span>
#include <string>
#include <vector>

#include "diagnose/code_evidence.h"
#include "diagnose/conclusion.h"
#include "diagnose/hypotheses.h"
#include "diagnose/when.h"
#include "diagnose/wrong_part.h"

namespace pb::diagnose {

// Everything that is known of the side that is wrong.
struct Evidence {
  Subject subject;
  std::span<const Trial> trials;        // all; those of the subject's side count
  const CodeEvidence* codes = nullptr;  // may be null
  std::span<const SeenPass> passes;     // of the op
};

// Where, which part, when and what, in this order of evidence: a variation that restores agreement;
// what codes tell; which part of the output is beyond its bound.
// `part`: FindWrongPart of the subject.
Conclusion Conclude(const Evidence& evidence, const WrongPart& part);

// Whether `when` may be a position: rows that are right before it are not known to be right whatever
// the mistake is.
bool MayBeByPosition(const Conclusion& conclusion);

// `when`, from passes of the op, and what follows from it for where and part. `n_features`: of the op.
void ConcludeWhen(std::span<const SeenPass> passes, int64_t n_features, Conclusion* conclusion);

// Half a sentence behind the engine's name: "leaves out the last 3 of 256 columns of K in the
// product"; "does not compute what the model declares: its quantiser's codes are right, its scales
// are not".
std::string CauseWords(const Evidence& evidence, const WrongPart& part, const Conclusion& conclusion);
// "; nearest of 31 variations: blocks of 64 (12 times its bound)"; empty: there is none.
std::string NearestWords(const Evidence& evidence, const Conclusion& conclusion);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_CONCLUDE_H_

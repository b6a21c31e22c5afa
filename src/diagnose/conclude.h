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

// A conclusion but for `when`, and for what follows of it.
struct Grounds {
  Conclusion conclusion;  // its part is of columns
  Region rows;            // token rows that are wrong; unknown: all, or in no order
  // Of a variation that explains some token rows, in no order.
  bool rows_without_order = false;
  // Whether rows that are right are so by what they are, and not because the mistake does not show.
  bool rows_tell = false;
  int64_t n_features = 0;  // of the op
};

// Where, which part and what, in this order of evidence: a variation that restores agreement; what
// codes tell; which part of the output is beyond its bound.
// `part`: FindWrongPart of the subject.
Grounds FindGrounds(const Evidence& evidence, const WrongPart& part);

// With `when`, from passes of the op.
Conclusion Conclude(const Grounds& grounds, std::span<const SeenPass> passes);

// Half a sentence behind the engine's name: "leaves out the last 3 of 256 columns of K in the
// product"; "does not compute what the model declares: its quantiser's codes are right, its scales
// are not".
std::string CauseWords(const Evidence& evidence, const WrongPart& part, const Conclusion& conclusion);
// "; nearest of 31 variations: blocks of 64 (12 times its bound)"; empty: there is none.
std::string NearestWords(const Evidence& evidence, const Conclusion& conclusion);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_CONCLUDE_H_

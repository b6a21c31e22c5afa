// Are the ops within their bounds? Each tracepoint by its own error, on inputs that were made
// equal.
#ifndef PARITYBIT_COMPARE_OPS_JUDGE_H_
#define PARITYBIT_COMPARE_OPS_JUDGE_H_

#include "compare/verdict.h"

namespace pb::compare {

struct OpsJudged {
  Verdict verdict;  // of the points alone: reasons, coverage, first divergence, blame
  // Every op that the candidate has was compared and is within its bound: what the logits show
  // beyond noise is drift.
  bool all_seen_and_right = false;
  // The same but for stages that an engine does not show (LocalEvidence::unobservable).
  bool all_shown_are_right = false;
};

// `comparable`: tokens, settings and model allow a comparison; else no bound is enforced.
OpsJudged CheckOps(const Evidence& evidence, const LocalEvidence& local, bool comparable);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_OPS_JUDGE_H_

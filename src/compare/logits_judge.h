// Are the logits within the limits in force? Position by position, and by the mean of each prompt's
// prefill and decode.
#ifndef PARITYBIT_COMPARE_LOGITS_JUDGE_H_
#define PARITYBIT_COMPARE_LOGITS_JUDGE_H_

#include "compare/verdict.h"

namespace pb::compare {

// NaN or infinite logits: invalid, whatever else holds. Marks the rows and the first of them.
void CheckFinite(Evidence* evidence, Verdict* verdict);
// Sets the limits up, marks rows beyond one, adds reasons and the first divergence. Coverage must
// be filled. `beyond_noise`: what it comes to when a limit that noise decides is exceeded, diverged
// or drift; a limit of the user's own stays enforced.
void CheckLogits(Evidence* evidence, Outcome beyond_noise, Verdict* verdict);
// Whether with this floor nothing is beyond a limit, as far as noise decides: then it is so with any
// floor that this one is a part of. Of the evidence count rows, settings and the user's limits.
bool IsWithin(const NoiseFloor& floor, Evidence evidence);
// Ranks the candidate among the reference's own runs. Information, unless the user asked for a
// confidence: then a candidate that can be told apart is a reason to diverge, and one of which that
// cannot be said is one to be incomplete.
void CheckRank(const Evidence& evidence, Outcome beyond_noise, Verdict* verdict);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_LOGITS_JUDGE_H_

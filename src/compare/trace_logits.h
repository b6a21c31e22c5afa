// The logits of two traces, position by position: by their values where both traces hold them, else
// by what records tell of the likeliest tokens of each row.
#ifndef PARITYBIT_COMPARE_TRACE_LOGITS_H_
#define PARITYBIT_COMPARE_TRACE_LOGITS_H_

#include <vector>

#include "compare/trace_pairing.h"
#include "compare/types.h"
#include "trace/measure.h"
#include "trace/reader.h"

namespace pb::compare {

// KL, choices and gaps of two rows, of which each side tells its likeliest tokens and the weight of
// all others. The KL is that of the tokens which both name, all others taken together: never above
// the KL of the whole rows. A token that a side does not name has at most the logit of the last one
// that it does; a gap that needs it is the least that it may be. Distances other than the KL stay
// 0.
LogitsRow CompareTops(const trace::TopTokens& candidate, const trace::TopTokens& reference);

// The likeliest tokens of a row; none where a trace does not tell them.
Result<std::optional<trace::TopTokens>> TopsAt(const trace::Trace& trace, int64_t position);

// The rows of a span of logits, in order of position. Empty: the records do not tell enough.
// `exact` is set to whether they come from values.
Result<std::vector<LogitsRow>> CompareTraceLogits(const trace::Trace& candidate,
                                                  const trace::Trace& reference, const TraceSpan& span,
                                                  bool* exact);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_TRACE_LOGITS_H_

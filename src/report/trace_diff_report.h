// What a comparison of two traces tells, as text and JSON. Strings out; no printing, no file.
#ifndef PARITYBIT_REPORT_TRACE_DIFF_REPORT_H_
#define PARITYBIT_REPORT_TRACE_DIFF_REPORT_H_

#include <string>
#include <vector>

#include "compare/trace_diff.h"
#include "report/crossval_report.h"
#include "report/headline.h"
#include "run/record.h"

namespace pb::report {

struct TraceDiffContext {
  std::string folders[2];              // candidate, reference
  trace::Manifest manifests[2];        // likewise
  std::string records_blake3[2];       // of their records.jsonl, which hold the digests of all tensors
  std::vector<run::NextCommand> next;  // the most useful first
  bool same_folder = false;            // a trace is compared with itself
};

// The verdict in words.
Headline HeadlineOf(const compare::TraceDiff& diff, const TraceDiffContext& context);
// For people; ends with the verdict in plain words, the place, and one command to go on with.
// options.details: every stage of every layer.
std::string RenderText(const compare::TraceDiff& diff, const TraceDiffContext& context,
                       const TextOptions& options);
// One JSON object, schema paritybit.trace-diff/0 (docs/format_trace.md).
std::string RenderJson(const compare::TraceDiff& diff, const TraceDiffContext& context);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_TRACE_DIFF_REPORT_H_

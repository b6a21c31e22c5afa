// What every file that --report writes tells of a run, whichever command made it: the verdict in
// words, what was held against what, and the command's own JSON report.
#ifndef PARITYBIT_REPORT_SUMMARY_H_
#define PARITYBIT_REPORT_SUMMARY_H_

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "audit/audit.h"
#include "report/crossval_report.h"
#include "report/headline.h"
#include "report/trace_diff_report.h"

namespace pb::report {

// Views into what it was made of, which outlives it.
struct Summary {
  std::string command, tool_version;
  std::string created;  // RFC 3339, UTC; the caller's
  std::string again;    // the command, as it can be pasted; the caller's
  int exit_code = 0;
  Headline headline;
  const compare::Verdict* verdict = nullptr;
  // "model", "candidate", "reference", "tokens": one line each.
  std::vector<std::pair<std::string, std::string>> facts;
  std::vector<std::string> differing;  // facts that engines do not agree on
  std::vector<std::string> evidence;   // what blame rests on, then what was tried
  std::string model;                   // path of the file
  std::vector<compare::PointRow> points;
  const std::vector<compare::LogitsRow>* rows = nullptr;  // null: no logits were compared
  std::vector<run::NextCommand> next;
  std::vector<std::string> notes;
  // What the page has beside the JSON report.
  const std::map<int32_t, std::string>* token_text = nullptr;
  const compare::TokenErrors* token_errors = nullptr;
  std::string json;  // the report of --format json
  double wall_seconds = 0;

  bool passed() const { return exit_code == 0; }
};

Summary SummaryOf(const run::Comparison& comparison, const Context& context);
Summary SummaryOf(const audit::Audit& audit, const Context& context);
Summary SummaryOf(const compare::TraceDiff& diff, const TraceDiffContext& traces, const Context& context);

// "layer 3, ffn_gated"; "logits" outside the layers.
std::string PointName(const compare::PointRow& point);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_SUMMARY_H_

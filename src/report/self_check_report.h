// The matrix of a self-check as text, Markdown, JSON and as a page. Strings out, no printing.
#ifndef PARITYBIT_REPORT_SELF_CHECK_REPORT_H_
#define PARITYBIT_REPORT_SELF_CHECK_REPORT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "report/crossval_report.h"
#include "report/table_page.h"
#include "selfcheck/self_check.h"

namespace pb::report {

struct SelfCheckReport {
  std::vector<selfcheck::SelfResult> results;
  selfcheck::SelfMatrix matrix;
  std::string what;       // "all cases", "a share of 0.05, seed 1"
  std::string reference;  // the foreign engine of harmless changes; empty: none
  bool whole = false;     // nothing was left out
  double wall_seconds = 0;
  // 0: all goals hold; 1: one does not; 3: cases could not be run, or there were none
  int exit_code = 0;
};

std::string RenderSelfCheckText(const SelfCheckReport& report, const TextOptions& options);
// The page docs/self_check.md.
std::string RenderSelfCheckMarkdown(const SelfCheckReport& report, const Context& context);
// Schema paritybit.self-check/0.
std::string RenderSelfCheckJson(const SelfCheckReport& report, const Context& context);
// A case of it; receipts hold the same.
nlohmann::ordered_json CaseJson(const selfcheck::SelfResult& result);
// When and by which command is the caller's to say.
TablePage SelfCheckPage(const SelfCheckReport& report, const Context& context);

// Of the pages of self-checks, listed and generated: what harmless changes did, and a case that was
// missed, with `how` in a word or two where it was found.
PageTable HarmlessTable(int64_t n_changed, int64_t n_alarms, int64_t n_unchanged, int64_t n_failed);
PagePart MissedCase(const selfcheck::SelfResult& result, size_t i, const std::string& how, std::string text);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_SELF_CHECK_REPORT_H_

// What a self-check of generated defects found, as text, Markdown, JSON and a page; and the page that keeps
// the first measurement of each generator beside later ones. Strings out, no printing.
#ifndef PARITYBIT_REPORT_GENERATED_REPORT_H_
#define PARITYBIT_REPORT_GENERATED_REPORT_H_

#include <string>
#include <vector>

#include "report/crossval_report.h"
#include "report/table_page.h"
#include "selfcheck/generated.h"

namespace pb::report {

struct GeneratedReport {
  std::vector<selfcheck::SelfResult> results;
  selfcheck::GeneratedTable table;
  std::string what;                               // "300 defects, seed 1"
  int64_t version = 0;                            // of the generator
  std::string variations_commit, defects_commit;  // what is looked for, and what is drawn; empty: not known
  std::string date;                               // "2026-11-30"
  double wall_seconds = 0;
  int exit_code = 0;  // as of SelfCheckReport
};

std::string RenderGeneratedText(const GeneratedReport& report, const TextOptions& options);
std::string RenderGeneratedMarkdown(const GeneratedReport& report);
// Schema paritybit.self-check-generated/0.
std::string RenderGeneratedJson(const GeneratedReport& report);

// As a page of its own; when and by which command is the caller's to say.
TablePage GeneratedPage(const GeneratedReport& report, const Context& context);

// The page with this measurement: of a version of the generator that it does not have the whole
// table, as the one that is held out; of one that it has a line beside it. What stands there stays.
std::string AddMeasurement(const std::string& page, const GeneratedReport& report);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_GENERATED_REPORT_H_

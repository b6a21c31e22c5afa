// --report: what a run tells, written to files for people, for CI systems and for other tools.
#ifndef PARITYBIT_CLI_REPORT_FILES_H_
#define PARITYBIT_CLI_REPORT_FILES_H_

#include <string>
#include <string_view>
#include <vector>

#include "cli/flags.h"
#include "cli/output.h"
#include "report/summary.h"
#include "report/table_page.h"

namespace pb::cli {

// --report [KIND=]FILE, which may be given again.
void AddReportArgument(Flags& flags, std::vector<std::string>& reports);
// Whether all can be written, of a kind that is known: before anything runs.
Status CheckReports(const std::vector<std::string>& reports, const OutputArguments& output);
// Whether one is a page, which takes the errors of single tokens.
bool WantsTokenErrors(const std::vector<std::string>& reports);

// Writes them all; `again`: the command, as it can be pasted. The exit code of a command that ended
// with `exit_code`: 5 in place of a success where one could not be written, which is said on stderr.
int WriteReports(const std::vector<std::string>& reports, report::Summary summary, std::string again,
                 int exit_code);

// The same of commands whose result is many verdicts: a page of tables, Markdown and JSON.
void AddTableReportArgument(Flags& flags, std::vector<std::string>& reports);
Status CheckTableReports(const std::vector<std::string>& reports, std::string_view command,
                         const OutputArguments& output);
int WriteTableReports(const std::vector<std::string>& reports, report::TablePage page,
                      const std::string& markdown, int exit_code);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_REPORT_FILES_H_

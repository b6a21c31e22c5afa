// A sweep as a page.
#ifndef PARITYBIT_CLI_SWEEP_PAGE_H_
#define PARITYBIT_CLI_SWEEP_PAGE_H_

#include "cli/sweep_output.h"
#include "report/table_page.h"

namespace pb::cli {

report::TablePage SweepPage(const SweepRun& run);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_SWEEP_PAGE_H_

// A sweep as text and as JSON.
#ifndef PARITYBIT_CLI_SWEEP_OUTPUT_H_
#define PARITYBIT_CLI_SWEEP_OUTPUT_H_

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "cli/output.h"
#include "sweep/plan.h"
#include "sweep/result.h"

namespace pb::cli {

// All cells of a plan with their results, in one order.
struct SweepRun {
  std::vector<sweep::Cell> cells;
  std::vector<sweep::CellResult> results;
  std::set<std::string> kept;  // names of those that were there already
  sweep::Folder folder;
  std::string executor, again;  // again: the command line

  int exit_code() const;
};

// The verdict that stands for the state of a cell.
std::string VerdictOf(const std::string& state);
// A number among the figures of a cell as it is shown; empty: there is none.
std::string Figure(const nlohmann::json& figures, const char* key);
// The report of --format json.
std::string SweepJson(const SweepRun& run);

void PrintSweep(const SweepRun& run, const OutputArguments& output);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_SWEEP_OUTPUT_H_

// summary.md: every cell in a table, and what to do next of each that did not pass.
#ifndef PARITYBIT_SWEEP_SUMMARY_H_
#define PARITYBIT_SWEEP_SUMMARY_H_

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sweep/plan.h"
#include "sweep/result.h"

namespace pb::sweep {

inline constexpr const char* kSummaryFile = "summary.md";

// A command line, and what it is for.
using Next = std::pair<std::string, std::string>;

// What goes on from a cell that did not pass; `again`: the sweep's own command line.
std::vector<Next> NextOf(const Folder& folder, const Cell& cell, const CellResult& result,
                         const std::string& again);
// "3 of 9 cells diverged, 1 was not run"; "all 9 cells match".
std::string Sentence(std::span<const CellResult> results);

std::string RenderSummary(const Folder& folder, std::span<const Cell> cells,
                          std::span<const CellResult> results, const std::string& again);

}  // namespace pb::sweep

#endif  // PARITYBIT_SWEEP_SUMMARY_H_

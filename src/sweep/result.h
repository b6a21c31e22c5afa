// What became of a cell, as the one file that is its result.
#ifndef PARITYBIT_SWEEP_RESULT_H_
#define PARITYBIT_SWEEP_RESULT_H_

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "sweep/plan.h"

namespace pb::sweep {

// States beside the verdicts of crossval. None of them is a pass.
inline constexpr const char* kTimedOut = "timeout";  // the time of a cell was up
inline constexpr const char* kStalled = "stalled";   // nothing moved for too long
inline constexpr const char* kError = "error";       // no verdict: a usage error, a missing file
inline constexpr const char* kNotRun = "not-run";    // there is no result

struct CellResult {
  std::string name, key, state, why;
  int exit_code = 0;                 // of the cell by itself
  std::vector<std::string> command;  // as it was called
  std::string started, host;         // "2026-11-30T09:01:08Z"
  double wall_seconds = 0;
  double peak_mib = 0;                       // of the largest of its processes; 0: not known
  double timeout = 0, stall = 0;             // the limits that it ran under
  nlohmann::json figures;                    // of its receipt (FiguresOf); null: there is none
  std::map<std::string, std::string> files;  // SHA-256 of what stands in its folder
};

// How bad a state is: the cell of the largest decides what a sweep comes to.
int Badness(const std::string& state);
// Of a state that is no verdict, by ARCHITECTURE.md's table; `code`: of an error.
int ExitCodeOfState(const std::string& state, int code);
// The worst, of which the first; nullptr: there are none.
const CellResult* Worst(std::span<const CellResult> results);
// Of a cell whose result is not there.
CellResult NotRun(const Cell& cell, std::string why);

// What a table of cells shows of a receipt of crossval that its schema accepts.
nlohmann::json FiguresOf(const nlohmann::json& receipt);

// Where things stand in the folder of a sweep.
struct Folder {
  std::filesystem::path root;
  std::filesystem::path cell(const std::string& name) const { return root / name; }
  std::filesystem::path result(const std::string& name) const { return root / "cells" / (name + ".json"); }
  std::filesystem::path slurm() const { return root / "slurm"; }
  std::filesystem::path lock() const { return root / "cells" / ".lock"; }
};

inline constexpr const char* kReceiptFile = "logits-comparison.json";
inline constexpr const char* kReportFile = "report.txt";
inline constexpr const char* kLogFile = "log.txt";

// Written whole, sealed.
Status WriteResult(const Folder& folder, const CellResult& result);
// The result of exactly this cell, while what stands in its folder is what it was made of. None:
// there is none, or one of other inputs, or a damaged one; or it ran into a limit that is larger
// now.
std::optional<CellResult> ReadResult(const Folder& folder, const Cell& cell, double timeout, double stall);

}  // namespace pb::sweep

#endif  // PARITYBIT_SWEEP_RESULT_H_

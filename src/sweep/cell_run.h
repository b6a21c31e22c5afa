// Runs one cell as a program of its own, exactly as a user would, and makes its folder and its
// result of what that leaves.
#ifndef PARITYBIT_SWEEP_CELL_RUN_H_
#define PARITYBIT_SWEEP_CELL_RUN_H_

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "sweep/child.h"
#include "sweep/plan.h"
#include "sweep/result.h"

namespace pb::sweep {

struct CellLimits {
  double timeout = 180;  // seconds of a whole cell
  double stall = 120;    // seconds without progress: of an engine, which crossval ends by itself
};

struct Runner {
  std::filesystem::path program;  // paritybit
  std::string host;
  CellLimits limits;
  Folder folder;
};

class RunningCell {
 public:
  // Makes its folder anew; what stood there, and the result of that, is gone.
  static Result<RunningCell> Start(const Runner& runner, const Cell& cell);
  // Its result, written, when it has ended. kIo: it cannot be written.
  Result<std::optional<CellResult>> Poll();
  const Child& child() const { return child_; }
  const Cell& cell() const { return cell_; }

 private:
  RunningCell(const Runner& runner, const Cell& cell, Child child)
      : runner_(&runner), cell_(cell), child_(std::move(child)) {}

  const Runner* runner_;
  Cell cell_;
  Child child_;
  std::vector<std::string> command_;
  std::string started_;
};

// Waits for the end.
Result<CellResult> RunCell(const Runner& runner, const Cell& cell);

}  // namespace pb::sweep

#endif  // PARITYBIT_SWEEP_CELL_RUN_H_

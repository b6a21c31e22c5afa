// Cells side by side on this machine, within a budget of threads and memory.
#ifndef PARITYBIT_SWEEP_LOCAL_H_
#define PARITYBIT_SWEEP_LOCAL_H_

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "sweep/cell_run.h"

namespace pb::sweep {

struct Budget {
  int64_t jobs = 0;  // 0: as many as the rest holds
  int64_t threads = 0;
  double memory_mib = 0;
};

// Threads that a cell keeps busy: its two engines compute side by side.
int64_t ThreadsOf(const Cell& cell);
// kUsage: a cell is too large by itself for what the budget says (0: nothing); which, and what it
// needs.
Status CheckBudget(std::span<const Cell> cells, const Budget& budget);

// `done`: each cell as it ends, with how many are running then.
using CellDone = std::function<void(const CellResult& result)>;
// Runs all of them. A cell that is larger than the budget runs alone. kIo: a folder cannot be
// written; what runs is ended.
Status RunLocally(const Runner& runner, std::span<const Cell> cells, const Budget& budget,
                  const CellDone& done);

}  // namespace pb::sweep

#endif  // PARITYBIT_SWEEP_LOCAL_H_

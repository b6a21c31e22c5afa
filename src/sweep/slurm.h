// Cells as a job array of Slurm, over a folder that its nodes share. What is submitted stands in that
// folder, so that any later call finds what still runs and submits none of it again.
#ifndef PARITYBIT_SWEEP_SLURM_H_
#define PARITYBIT_SWEEP_SLURM_H_

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "sweep/cell_run.h"
#include "sweep/local.h"

namespace pb::sweep {

struct SlurmOptions {
  std::vector<std::string> sbatch;  // further words for sbatch, as "--partition=short"
  int64_t jobs = 0;                 // tasks at a time; 0: as many as Slurm lets
  bool wait = true;                 // until all have ended; else return when they are submitted
};

// How the tasks stand: "job 17: 2 running, 3 pending".
using SlurmStatus = std::function<void(const std::string& line)>;

// Submits the cells that no task of this folder is at, and waits for all. A cell whose task ended
// without a result is handed to `done` as not run. kNotFound: there is no sbatch; kIo: Slurm refuses
// or does not answer; kUsage: a task still runs a cell of this folder with other inputs.
Status RunBySlurm(const Runner& runner, std::span<const Cell> cells, const SlurmOptions& options,
                  const CellDone& done, const SlurmStatus& status);

// What a task does: the cell of this index of a plan that RunBySlurm wrote, unless its result is
// there already. Returns that result.
Result<CellResult> RunPlannedCell(const std::filesystem::path& plan, int64_t index, const std::string& host);

}  // namespace pb::sweep

#endif  // PARITYBIT_SWEEP_SLURM_H_

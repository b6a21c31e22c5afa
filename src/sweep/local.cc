// Starts the next cell that fits beside those that run.
#include "sweep/local.h"

#include <algorithm>
#include <deque>
#include <list>

namespace pb::sweep {
namespace {

struct Taken {
  int64_t jobs = 0, threads = 0;
  double memory_mib = 0;
};

bool Fits(const Cell& cell, const Taken& taken, const Budget& budget) {
  if (taken.jobs == 0) return true;
  return (budget.jobs == 0 || taken.jobs < budget.jobs) &&
         taken.threads + ThreadsOf(cell) <= budget.threads &&
         taken.memory_mib + cell.memory_mib <= budget.memory_mib;
}

Taken Sum(const std::list<RunningCell>& running) {
  Taken taken;
  for (const RunningCell& run : running) {
    ++taken.jobs;
    taken.threads += ThreadsOf(run.cell());
    taken.memory_mib += run.cell().memory_mib;
  }
  return taken;
}

void WaitForAny(const std::list<RunningCell>& running) {
  std::vector<const Child*> children;
  for (const RunningCell& run : running) children.push_back(&run.child());
  Child::Wait(children);
}

}  // namespace

int64_t ThreadsOf(const Cell& cell) { return 2 * cell.threads; }

Status CheckBudget(std::span<const Cell> cells, const Budget& budget) {
  for (const Cell& cell : cells) {
    if (budget.threads > 0 && ThreadsOf(cell) > budget.threads)
      return MakeError(Code::kUsage, "--threads {}: {} takes {}, {} for each of its engines", budget.threads,
                       cell.name, ThreadsOf(cell), cell.threads);
    if (budget.memory_mib > 0 && cell.memory_mib > budget.memory_mib)
      return MakeError(Code::kUsage,
                       "--memory {:.0f}: {} takes about {:.0f} MiB; memory_mib in the plan says it exactly",
                       budget.memory_mib, cell.name, cell.memory_mib);
  }
  return {};
}

Status RunLocally(const Runner& runner, std::span<const Cell> cells, const Budget& budget,
                  const CellDone& done) {
  std::deque<const Cell*> waiting;
  for (const Cell& cell : cells) waiting.push_back(&cell);
  std::list<RunningCell> running;
  while (!waiting.empty() || !running.empty()) {
    for (auto next = waiting.begin(); next != waiting.end();) {
      if (!Fits(**next, Sum(running), budget)) {
        ++next;
        continue;
      }
      PB_ASSIGN(RunningCell started, RunningCell::Start(runner, **next));
      running.push_back(std::move(started));
      next = waiting.erase(next);
    }
    WaitForAny(running);
    for (auto run = running.begin(); run != running.end();) {
      PB_ASSIGN(const std::optional<CellResult> result, run->Poll());
      if (result) done(*result);
      run = result ? running.erase(run) : std::next(run);
    }
  }
  return {};
}

}  // namespace pb::sweep

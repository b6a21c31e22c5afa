// Evaluates an engine in passes of other sizes and at other positions than a run had, and judges one
// op in each of them: so that it can be said when the op is wrong.
#ifndef PARITYBIT_DIAGNOSE_PROBE_H_
#define PARITYBIT_DIAGNOSE_PROBE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "diagnose/file_arbiter.h"
#include "diagnose/hypotheses.h"
#include "diagnose/when.h"

namespace pb::diagnose {

struct Probe {
  const drive::EngineRecord* engine = nullptr;  // as it ran: plugin, settings, file
  FileArbiter* arbiter = nullptr;
  const Culprit* culprit = nullptr;
  std::span<const int32_t> tokens;   // of its prompt and its decode steps; at least one
  std::span<const SeenPass> passes;  // of the run, that are wrong
  // What explains the op, the best first; a mistake shows in a pass where the first would.
  std::vector<const Trial*> rivals;
  host::Limits limits;
};

struct Probed {
  // In which the op was judged; those in which the mistake would not show are not among them.
  std::vector<SeenPass> passes;
  std::vector<bool> explains;  // of each rival: every pass that is wrong
  // Of a product, whose rows stand apart: the rows of passes that are wrong, one after the other, with
  // what the engine gave as `reference`.
  std::optional<Culprit> rows;
};

// Tokens of the longest pass that is made whatever the run had.
inline constexpr int64_t kProbedTokens = 34;

// Whether that takes no more than a second or two.
bool IsCheap(const Probe& probe);

// No passes where the engine fails, or does not show what the op is made of.
Probed ProbePasses(const Probe& probe);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_PROBE_H_

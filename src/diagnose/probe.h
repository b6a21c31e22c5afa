// Evaluates an engine in passes of other sizes and at other positions than a run had, and judges one
// op in each of them: so that it can be said when the op is wrong.
#ifndef PARITYBIT_DIAGNOSE_PROBE_H_
#define PARITYBIT_DIAGNOSE_PROBE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "diagnose/file_arbiter.h"
#include "diagnose/when.h"

namespace pb::diagnose {

struct Probe {
  const drive::EngineRecord* engine = nullptr;  // as it ran: plugin, settings, file
  FileArbiter* arbiter = nullptr;
  const Culprit* culprit = nullptr;
  std::span<const int32_t> tokens;  // some of its prompt's; at least one
  std::string variation;            // that explains the op; empty: none
  host::Limits limits;
};

// Whether that takes no more than a second or two.
bool IsCheap(const Probe& probe);

// Passes in which the op was judged; those in which the variation would not show are not among them.
// None where the engine fails, or does not show what the op is made of.
std::vector<SeenPass> ProbePasses(const Probe& probe);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_PROBE_H_

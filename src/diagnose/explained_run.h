// A comparison, and who is wrong where it parted: what crossval, diagnose, repro and self-check do
// alike.
#ifndef PARITYBIT_DIAGNOSE_EXPLAINED_RUN_H_
#define PARITYBIT_DIAGNOSE_EXPLAINED_RUN_H_

#include <optional>
#include <string>

#include "diagnose/diagnose.h"
#include "run/crossval.h"

namespace pb::diagnose {

struct ExplainedRun {
  run::Comparison comparison;          // its verdict's blame is the diagnosis's, where there is one
  std::optional<Diagnosis> diagnosis;  // of a divergence, or of the place asked for
  std::optional<Culprit> culprit;      // the op that it explains
  std::string why_none;                // why there is no diagnosis of a divergence
};

// Compares (run::Crossval; the request's observer is replaced) and explains the first op beyond its
// bound, the token ids where they differ, or `place`. `arbiter`: the engine that judges, or why
// there is none. Errors are Crossval's.
Result<ExplainedRun> CompareAndExplain(run::Request request, const Result<drive::EngineSpec>& arbiter,
                                       std::optional<Place> place);

// Whether there is something that a diagnosis can say more of: an op, or tokens.
bool IsDivergence(const compare::Verdict& verdict);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_EXPLAINED_RUN_H_

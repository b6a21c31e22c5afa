// Names of scopes, phases and blame as reports have them.
#include "compare/types.h"

namespace pb::compare {

const char* ScopeName(Scope s) { return s == Scope::kLocal ? "local" : "logits-only"; }

const char* PhaseName(Phase p) { return p == Phase::kPrefill ? "prefill" : "decode"; }

const char* BlameName(Blame b) {
  switch (b) {
    case Blame::kNone:
      return "none";
    case Blame::kCandidate:
      return "candidate";
    case Blame::kReference:
      return "reference";
    case Blame::kBoth:
      return "both";
    case Blame::kEngine:
      return "engine";
    case Blame::kModelFile:
      return "model-file";
    case Blame::kUndetermined:
      return "undetermined";
  }
  return "undetermined";
}

}  // namespace pb::compare

#include "compare/types.h"

namespace pb::compare {

const char* OutcomeName(Outcome o) {
  switch (o) {
    case Outcome::kMatch:
      return "match";
    case Outcome::kNearTie:
      return "near-tie";
    case Outcome::kDrift:
      return "drift";
    case Outcome::kIncomplete:
      return "incomplete";
    case Outcome::kDiverged:
      return "diverged";
    case Outcome::kEngineFailed:
      return "engine-failed";
    case Outcome::kInvalid:
      return "invalid";
  }
  return "invalid";
}

int ExitCode(Outcome o) {
  switch (o) {
    case Outcome::kMatch:
    case Outcome::kNearTie:
    case Outcome::kDrift:
      return 0;
    case Outcome::kDiverged:
      return 1;
    case Outcome::kEngineFailed:
      return 4;
    case Outcome::kIncomplete:
    case Outcome::kInvalid:
      return 3;
  }
  return 3;
}

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

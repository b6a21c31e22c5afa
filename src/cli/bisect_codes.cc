// Maps exit codes and verdicts to those of `git bisect run`.
#include <algorithm>
#include <string_view>

#include "cli/bisect.h"
#include "cli/output.h"

namespace pb::cli {

void AddBisectArgument(Flags& flags, bool& git_bisect) {
  flags
      .Switch(
          "--git-bisect", git_bisect,
          "exit codes for `git bisect run`: 0 good, 1 bad, 125 where nothing could be compared (an engine "
          "that is missing or fails), 128 for a usage error")
      .Group("Output");
}

bool AsksForBisect(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--") return false;
    if (std::string_view(argv[i]) == "--git-bisect") return true;
  }
  return false;
}

int BisectCode(int exit_code) {
  if (exit_code == kBisectGood || exit_code == kBisectBad) return exit_code;
  if (exit_code == kExitUsage) return kBisectAbort;
  return exit_code >= kBisectAbort ? exit_code : kBisectSkip;
}

int BisectVerdict(const compare::Verdict& verdict, int exit_code) {
  using compare::ReasonCode;
  if (verdict.outcome != compare::Outcome::kInvalid) return exit_code;
  const bool finds = verdict.Has(ReasonCode::kTokensDiffer) || verdict.Has(ReasonCode::kNonFinite) ||
                     verdict.Has(ReasonCode::kNonFinitePoint) || verdict.Has(ReasonCode::kConstantLogits);
  return finds && verdict.blame != compare::Blame::kModelFile ? kBisectBad : exit_code;
}

}  // namespace pb::cli

// --git-bisect: exit codes as `git bisect run` takes them.
#ifndef PARITYBIT_CLI_BISECT_H_
#define PARITYBIT_CLI_BISECT_H_

#include "cli/flags.h"
#include "compare/types.h"

namespace pb::cli {

inline constexpr int kBisectGood = 0, kBisectBad = 1, kBisectSkip = 125, kBisectAbort = 128;

void AddBisectArgument(Flags& flags, bool& git_bisect);
// Whether the command line asks for it, even where it cannot be parsed.
bool AsksForBisect(int argc, char** argv);
// Of a command that ended with this code: good where it passed, bad where it diverged. A usage
// error ends the bisection, as no commit mends it, and so does a signal; whatever else kept the
// engines from being compared says nothing of the commit, which is skipped.
int BisectCode(int exit_code);
// The exit code of a verdict: one that says what an engine computes wrongly without comparing any
// further (values that are not finite, other tokens) is bad too.
int BisectVerdict(const compare::Verdict& verdict, int exit_code);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_BISECT_H_

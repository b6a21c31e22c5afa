// The comparisons of `crossval --paths all`: the same engines and model over the code paths that the
// one that was asked for did not go through.
#ifndef PARITYBIT_CLI_PATHS_H_
#define PARITYBIT_CLI_PATHS_H_

#include <string>
#include <vector>

#include "cli/crossval_common.h"
#include "run/paths.h"

namespace pb::cli {

// One of them, as if it had been typed.
struct PathAsked {
  std::string name;  // "two threads"
  std::string prompt;
  CrossvalArguments args;
};

// Those that may go through a path that is left, the cheapest first. `text`: what long prompts are cut
// from.
std::vector<PathAsked> PathsToRun(const CrossvalArguments& args, const run::Comparison& plain,
                                  const std::string& text);

// A comparison with the arguments that it stands for.
struct JudgedPaths {
  CrossvalArguments args;
  diagnose::ExplainedRun judged;
};
// Runs them beside a comparison that found nothing. The first that finds something takes its place,
// with a note that says so; else what each gave is in its record.
Status RunPaths(JudgedPaths* run);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_PATHS_H_

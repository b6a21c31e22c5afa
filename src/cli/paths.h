// The comparisons of `crossval --paths all`: the same engines and model over the code paths that the
// one that was asked for did not go through.
#ifndef PARITYBIT_CLI_PATHS_H_
#define PARITYBIT_CLI_PATHS_H_

#include "cli/crossval_common.h"

namespace pb::cli {

// A comparison with the arguments that it stands for.
struct JudgedPaths {
  CrossvalArguments args;
  diagnose::ExplainedRun judged;
  bool asked_for = true;  // the comparison that was typed, and not one of the others
};
// Runs them beside a comparison that found nothing. The first that finds something takes its place,
// with a note that says so; else what each gave is in its record.
Status RunPaths(JudgedPaths* run);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_PATHS_H_

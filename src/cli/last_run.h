// The last comparison that diverged, remembered in the user's cache so that `paritybit diagnose`
// needs no arguments.
#ifndef PARITYBIT_CLI_LAST_RUN_H_
#define PARITYBIT_CLI_LAST_RUN_H_

#include "cli/crossval_common.h"

namespace pb::cli {

// Keeps what was compared: model and engine paths made absolute, prompts as texts. A cache that
// cannot be written is no error.
void RememberRun(const CrossvalArguments& args, const run::Comparison& comparison);
// kNotFound: nothing was remembered. kMalformed: the file is not what RememberRun writes.
Result<CrossvalArguments> LastRun();
// Where `args` do not say what to compare, the last run takes their place (their output stays), and
// a note says which it is.
Status UseLastRunIfNoneIsSaid(CrossvalArguments* args, std::vector<std::string>* notes);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_LAST_RUN_H_

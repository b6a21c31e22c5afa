// The last comparisons, remembered in the user's cache so that `paritybit diagnose` and `paritybit
// repro` need no arguments.
#ifndef PARITYBIT_CLI_LAST_RUN_H_
#define PARITYBIT_CLI_LAST_RUN_H_

#include "cli/crossval_common.h"

namespace pb::cli {

// Keeps what was compared and how it ended, or why it came to no end: model and engine paths made
// absolute, prompts as texts. A cache that cannot be written is no error.
void RememberRun(const CrossvalArguments& args, const PlaceArguments& place, const std::string& command,
                 const compare::Verdict& verdict);
void RememberFailure(const CrossvalArguments& args, const PlaceArguments& place, const std::string& command,
                     const Error& error);

// What was typed as words that do the same from any folder and at any time: paths absolute, prompts
// as texts of any length.
std::vector<std::string> LastingWords(const CrossvalArguments& args, const std::string& command);

// Where `args` do not say what to compare, the last run that diverged takes their place (their output
// and limits of time and memory stay); what is returned says which it is, how old it is, how it
// ended, and whether a later run ended otherwise. Empty: they do. kNotFound: nothing was
// remembered. kMalformed: the entry is not what was written.
Result<std::string> UseLastRunIfNoneIsSaid(CrossvalArguments* args, PlaceArguments* place);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_LAST_RUN_H_

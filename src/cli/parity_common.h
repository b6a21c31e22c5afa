// What the -parity commands share: flags of two engines, values from flags or variables, and what to
// go on with.
#ifndef PARITYBIT_CLI_PARITY_COMMON_H_
#define PARITYBIT_CLI_PARITY_COMMON_H_

#include <optional>
#include <string>
#include <vector>

#include "cli/crossval_common.h"

namespace pb::cli {

// Model and engines of a command that judges no op: what AddComparisonArguments has, less limits,
// precision and prompts.
void AddPairArguments(Flags& flags, CrossvalArguments& args);

// A value that a flag gives, else a variable of the documented system, else the default; who set it
// is appended to choices. kUsage: the variable holds something else than a number.
Result<double> ChooseNumber(const std::optional<double>& flag, const char* flag_name, const char* variable,
                            double otherwise, std::vector<run::Choice>* choices);
Result<int> ChooseWhole(const std::optional<int>& flag, const char* flag_name, const char* variable,
                        int otherwise, std::vector<run::Choice>* choices);

// Commands that mend a verdict or go on from it. `more`: words that `command` was given besides,
// quoted; `prompt`: a text on which the engines part, so many decode steps behind it, for crossval,
// which names the op.
std::vector<run::NextCommand> NextAfterParity(const CrossvalArguments& args, const std::string& command,
                                              const std::string& more, const run::Comparison& run,
                                              const std::optional<std::string>& prompt, int steps = 0);

// A word for NextAfterParity: " --topk 5".
std::string MoreWords(const std::vector<std::string>& words);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_PARITY_COMMON_H_

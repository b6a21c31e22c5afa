// The commands that the program suggests: whole command lines that show the same thing when they
// are pasted into the shell that this one was typed into.
#ifndef PARITYBIT_CLI_NEXT_H_
#define PARITYBIT_CLI_NEXT_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/crossval_common.h"

namespace pb::cli {

// "build/release/bin/paritybit preflight": the program as it was called, and words as they are.
std::string Call(std::string_view words);
// The same of single words, quoted for the shell where they need it.
std::string Call(std::span<const std::string> words);

// What was asked for as words for `command`, which is the first of them: model, engines, settings,
// threads, limits, prompts, steps, as far as the command takes them; of commands with one engine
// the candidate is that engine. What was read from stdin is named by its kept copy.
std::vector<std::string> CommandWords(const CrossvalArguments& args, std::string_view command);
// The same as a command line; `more`: further words, quoted by the caller.
std::string CommandLine(const CrossvalArguments& args, std::string_view command, std::string_view more = {});

// What was asked for with one setting more, in place of one of that key; `flag`: "--set", of the
// candidate or of both, or "--set-reference".
CrossvalArguments With(CrossvalArguments args, std::string_view flag, const std::string& setting);

// The op that is asked for, as typed; none where none is.
std::vector<std::string> PlaceWords(const PlaceArguments& place);

// The `repro` command that writes what a diagnosis found at the place asked for.
run::NextCommand ReproCommand(const CrossvalArguments& args, const diagnose::Diagnosis& diagnosis,
                              const PlaceArguments& place);
run::NextCommand SetUpReference();
// The view position by position.
run::NextCommand EveryPosition(const CrossvalArguments& args);

// What mends a verdict or goes on from it, the most useful first; `command`: which was typed.
std::vector<run::NextCommand> NextCommands(const CrossvalArguments& args, const std::string& command,
                                           const diagnose::ExplainedRun& judged);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_NEXT_H_

// What is left to do where an engine refuses a model or a setting by name: commands that work.
#ifndef PARITYBIT_CLI_REFUSAL_H_
#define PARITYBIT_CLI_REFUSAL_H_

#include <string>
#include <vector>

#include "cli/crossval_common.h"

namespace pb::cli {

// What was asked of which engines, and which of them refused.
struct Refusal {
  std::string command;  // "crossval", "infer"
  // model, prompts, settings; of commands with one engine that one is the candidate
  CrossvalArguments args;
  std::string reason;  // what was refused, as it is told
  std::string more;    // words of the command besides, quoted: "--out DIR"
  bool one_engine = false;
  bool by_candidate = false, by_reference = false, by_arbiter = false;
};

// The same question where all that is needed is there: without a setting that is not offered, with
// the file converted to a type that the refusing engine reads, with two CPU libraries of the
// reference in place of an engine that refuses, or with the reference alone.
std::vector<run::NextCommand> NextAfterRefusal(const Refusal& refusal);

// Where settings differ so that results are not comparable: the command that makes the candidate
// run as the reference does.
std::vector<run::NextCommand> NextToEqualSettings(const CrossvalArguments& args, const std::string& command,
                                                  const compare::Verdict& verdict);

// Ends a command with one engine, whose record it is: its refusal with what is left to do, any
// other error as Fail does.
int FailOfEngine(const OutputArguments& output, const Error& error, const drive::EngineRecord& record,
                 const Refusal& refusal);
// The refusal of a command with one engine, as typed.
Refusal OneEngineRefusal(const std::string& command, const ModelArguments& model,
                         const EngineArguments& engines, const std::string& engine,
                         const PromptArguments& prompts, int max_tokens);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_REFUSAL_H_

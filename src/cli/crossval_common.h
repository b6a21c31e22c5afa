// What crossval and crossval-per-token share: from flags to a request, from a comparison to output and files.
#ifndef PARITYBIT_CLI_CROSSVAL_COMMON_H_
#define PARITYBIT_CLI_CROSSVAL_COMMON_H_

#include <CLI/App.hpp>
#include <string>

#include "cli/arguments.h"
#include "cli/output.h"
#include "report/crossval_report.h"
#include "run/crossval.h"

namespace pb::cli {

struct CrossvalArguments {
  ModelArguments model;
  EngineArguments engines;
  PromptArguments prompts;
  OutputArguments output;
  std::string reference_model, receipt;
  int max_tokens = 0;
  std::string scope = "local";
  compare::UserLimits user;
  bool all = false, quiet = false;
};

// Flags of both commands.
void AddCrossvalArguments(CLI::App& app, CrossvalArguments& args);
// Runs, prints, writes the receipt; returns the exit code. `command` is the name typed.
int RunCrossval(const CrossvalArguments& args, const std::string& command);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_CROSSVAL_COMMON_H_

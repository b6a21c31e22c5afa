// The table of commands. Each command is one file that declares its flags and returns what runs after they
// are parsed.
#ifndef PARITYBIT_CLI_COMMAND_H_
#define PARITYBIT_CLI_COMMAND_H_

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <functional>
#include <span>
#include <string_view>

namespace pb::cli {

// Runs after parsing; returns the exit code.
using Action = std::function<int()>;

struct Command {
  const char* name;
  const char* summary;  // one line of `paritybit --help`
  const char* example;  // stands at the end of the command's own help
  Action (*declare)(CLI::App& app);
  const char* kept = "";  // what an interrupted run leaves, for the message
};

// What this version can do, in the order of `paritybit --help`.
std::span<const Command> Commands();
// A command of the documented set that this version does not have.
bool IsUnsupportedCommand(std::string_view name);

// One per file.
Action DeclareCrossval(CLI::App& app);
Action DeclareCrossvalPerToken(CLI::App& app);
Action DeclareTrace(CLI::App& app);
Action DeclareTraceDiff(CLI::App& app);
Action DeclareDiagnose(CLI::App& app);
Action DeclareRepro(CLI::App& app);
Action DeclareAudit(CLI::App& app);
Action DeclareNoise(CLI::App& app);
Action DeclareSelfCheck(CLI::App& app);
Action DeclareInfer(CLI::App& app);
Action DeclareSetupCppAuto(CLI::App& app);
Action DeclareSetupCrossval(CLI::App& app);
Action DeclarePreflight(CLI::App& app);
Action DeclareGenFixtures(CLI::App& app);
Action DeclareCheckFeatures(CLI::App& app);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_COMMAND_H_

// The table of commands. Each command is one file that declares its flags and returns what runs
// after they are parsed.
#ifndef PARITYBIT_CLI_COMMAND_H_
#define PARITYBIT_CLI_COMMAND_H_

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "cli/flags.h"

namespace pb::cli {

// Runs after parsing; returns the exit code.
using Action = std::function<int()>;

struct Command {
  const char* name;
  const char* summary;  // one line of `paritybit --help`
  const char* example;  // stands at the end of the command's own help
  Action (*declare)(Flags& flags);
  const char* kept = "";  // what an interrupted run leaves, for the message
};

// What this version can do, in the order of `paritybit --help`.
std::span<const Command> Commands();
// Why a command of the documented set is not here, and which of ours does its work; empty: it is no
// such command.
std::string WhyUnsupported(std::string_view name);

// One per file.
Action DeclareCrossval(Flags& flags);
Action DeclareCrossvalPerToken(Flags& flags);
Action DeclareTrace(Flags& flags);
Action DeclareTraceDiff(Flags& flags);
Action DeclareDiagnose(Flags& flags);
Action DeclareRepro(Flags& flags);
Action DeclareAudit(Flags& flags);
Action DeclareNoise(Flags& flags);
Action DeclareSweep(Flags& flags);
Action DeclareSelfCheck(Flags& flags);
Action DeclareVerify(Flags& flags);
Action DeclareInspect(Flags& flags);
Action DeclareConvert(Flags& flags);
Action DeclareLogitParity(Flags& flags);
Action DeclareNllParity(Flags& flags);
Action DeclareGreedyParity(Flags& flags);
Action DeclareTokenizerParity(Flags& flags);
Action DeclareParityBoth(Flags& flags);
Action DeclareFullCrossval(Flags& flags);
Action DeclareInfer(Flags& flags);
Action DeclareDownloadModel(Flags& flags);
Action DeclareTokenizer(Flags& flags);
Action DeclareSetupCppAuto(Flags& flags);
Action DeclareSetupCrossval(Flags& flags);
Action DeclareFetchCpp(Flags& flags);
Action DeclarePreflight(Flags& flags);
Action DeclareGenFixtures(Flags& flags);
Action DeclareGenMiniGguf(Flags& flags);
Action DeclareCheckFeatures(Flags& flags);
Action DeclareGpuPreflight(Flags& flags);
Action DeclareCleanCache(Flags& flags);
Action DeclareCompletion(Flags& flags);
Action DeclareVerifyReceipt(Flags& flags);
Action DeclareGate(Flags& flags);
Action DeclareBisect(Flags& flags);
Action DeclareHistory(Flags& flags);
Action DeclareBenchmark(Flags& flags);
Action DeclareBenchCompare(Flags& flags);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_COMMAND_H_

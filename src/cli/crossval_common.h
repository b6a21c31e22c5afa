// What crossval and crossval-per-token share: from flags to a request, from a comparison to output
// and files.
#ifndef PARITYBIT_CLI_CROSSVAL_COMMON_H_
#define PARITYBIT_CLI_CROSSVAL_COMMON_H_

#include <string>

#include "cli/arguments.h"
#include "cli/output.h"
#include "diagnose/explained_run.h"
#include "report/crossval_report.h"
#include "run/crossval.h"

namespace pb::cli {

struct CrossvalArguments {
  ModelArguments model;
  EngineArguments engines;
  PrecisionArguments precision;
  PromptArguments prompts;
  OutputArguments output;
  std::string reference_model, receipt, keep_traces, trace_level;
  std::vector<std::string> reports;
  int max_tokens = 0;
  std::string scope = "local";
  std::string reuse = "auto";
  std::string noise = "auto", watch = "auto";
  compare::UserLimits user;
  std::string paths = "asked";
  bool all = false, git_bisect = false;
  bool dump_ids[2] = {false, false};  // of candidate and reference, to stderr
};

// Flags of both commands.
void AddCrossvalArguments(Flags& flags, CrossvalArguments& args);
// Those that say what is compared and by which limits: model, engines, prompts, steps; and the
// output's.
void AddComparisonArguments(Flags& flags, CrossvalArguments& args);

// From flags to a request.
Result<run::Request> MakeRequest(const CrossvalArguments& args);
// The same without prompts: of commands that need none.
Result<run::Request> MakePairRequest(const CrossvalArguments& args);
// The text whose tokens join the noise floor; it comes with paritybit.
Result<std::string> ReadCalibration();
report::Context MakeContext(const std::string& command);

// The op that diagnose or repro is asked about; no stage: the first that diverges.
struct PlaceArguments {
  std::string stage;
  int layer = -1, prompt_index = 0, step = 0;
};
void AddPlaceArguments(Flags& flags, PlaceArguments& args);
// kUsage: no such op, or one of every layer and no layer.
Result<std::optional<diagnose::Place>> PlaceAsked(const PlaceArguments& args);

// Runs with a progress bar; `place`: diagnose this op instead of the first that diverges.
Result<diagnose::ExplainedRun> CompareAndDiagnose(const CrossvalArguments& args, run::Request request,
                                                  std::optional<diagnose::Place> place);
// A comparison that a command asks about afterwards.
struct AskedRun {
  run::Request request;
  diagnose::ExplainedRun judged;
};
// What diagnose and repro are asked about. Arguments that say nothing become those of the last run
// that diverged: `explains` says which it is, and it is printed before anything runs (as text).
Result<AskedRun> RunAsked(CrossvalArguments* args, PlaceArguments* place, const std::string& command,
                          std::string* explains);
// Why a run has no diagnosis; where the comparison itself failed, for what reasons.
std::string WhyNone(const diagnose::ExplainedRun& judged);
// The token ids that were asked for, to stderr.
void DumpIds(const CrossvalArguments& args, const run::Comparison& comparison);
// Runs, prints, writes the receipt; returns the exit code. `command` is the name typed.
int RunCrossval(const CrossvalArguments& args, const std::string& command);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_CROSSVAL_COMMON_H_

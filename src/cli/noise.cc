// paritybit noise: one engine measured against itself.
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/last_run.h"
#include "cli/progress.h"
#include "cli/receipts.h"
#include "cli/refusal.h"
#include "drive/participant.h"
#include "report/noise_report.h"
#include "run/self_noise.h"

namespace pb::cli {
namespace {

struct NoiseArguments {
  ModelArguments model;
  EngineArguments engines;
  PromptArguments prompts;
  OutputArguments output;
  std::string engine = "native";
  int max_tokens = 0;
  std::string receipt;
};

Result<run::SelfNoiseRequest> MakeNoiseRequest(const NoiseArguments& args) {
  run::SelfNoiseRequest request;
  if (!args.prompts.empty()) {
    PB_ASSIGN(request.prompts, ReadPrompts(args.prompts));
    if (request.prompts.empty())
      return MakeError(Code::kUsage,
                       "the list of prompts is empty; give none to measure the calibration text alone");
  } else if (args.max_tokens > 0) {
    return MakeError(Code::kUsage, "--max-tokens: decode steps follow a prompt; give one with --prompt");
  }
  PB_ASSIGN(OneEngine one, ChooseOneEngine(args.model, args.engines, args.engine, request.choices));
  request.model = one.model, request.engine = std::move(one.spec), request.limits = one.limits;
  if (NamedThreads(args.engines)) drive::PutSetting(request.engine.settings, "threads", one.threads);
  request.max_tokens = args.max_tokens;
  PB_ASSIGN(request.calibration, ReadCalibration());
  return request;
}

// The command again, from any folder.
std::vector<std::string> WordsAgain(const NoiseArguments& args) {
  CrossvalArguments alone;
  alone.model = args.model, alone.engines = args.engines, alone.prompts = args.prompts;
  alone.engines.candidate = args.engine, alone.max_tokens = args.max_tokens;
  return LastingWords(alone, "noise");
}

int Run(const NoiseArguments& args) {
  if (const Status writable = CheckReceiptPath(args.receipt); !writable.ok())
    return Fail(args.output, writable.error());
  auto request = MakeNoiseRequest(args);
  if (!request) return Fail(args.output, request.error());
  Progress progress(args.output);
  request->progress = progress.Callback();
  auto noise = run::MeasureSelfNoise(*request);
  progress.End();
  if (!noise) return Fail(args.output, noise.error());
  report::Context context = MakeContext("noise");
  size_t n_positions = 0;
  for (const run::PromptRecord& prompt : noise->run.prompts)
    n_positions = std::max(n_positions, prompt.tokens.size() + prompt.decoded.size());
  context.notes = drive::FindingsOf(noise->run.reference, static_cast<int64_t>(n_positions));
  context.notes.insert(context.notes.end(), noise->run.notes.begin(), noise->run.notes.end());
  if (noise->run.verdict.Has(compare::ReasonCode::kUnsupported)) {
    Refusal refusal =
        OneEngineRefusal("noise", args.model, args.engines, args.engine, args.prompts, args.max_tokens);
    refusal.reason = noise->run.verdict.reasons[0].text;
    noise->run.next = NextAfterRefusal(refusal);
  }
  report::TextOptions options{UseColour(STDOUT_FILENO), false, false, TerminalWidth(STDOUT_FILENO)};
  options.details = args.output.verbose;
  PrintOut(args.output.json() ? report::RenderNoiseJson(*noise, context)
                              : report::RenderNoiseText(*noise, context, options));
  const int exit_code = compare::ExitCode(noise->run.verdict.outcome);
  if (args.receipt.empty()) return exit_code;
  return WriteReceipt(args.receipt, report::RenderReceipt(*noise, context, HeadOf(WordsAgain(args))),
                      exit_code);
}

}  // namespace

Action DeclareNoise(Flags& flags) {
  auto args = std::make_shared<NoiseArguments>();
  AddModelArguments(flags, args->model);
  flags.Option("-e,--engine", args->engine, "engine to measure: NAME|PATH[,key=value...]")
      .ShowDefault()
      .Group("Engines");
  AddSettingArguments(flags, args->engines);
  AddPromptArguments(flags, args->prompts);
  flags.Option("-n,--max-tokens", args->max_tokens, "greedy decode steps after each prompt")
      .Range(0, 1 << 20)
      .ShowDefault()
      .Group("Prompts");
  AddReceiptArgument(flags, args->receipt);
  AddOutputArguments(flags, args->output, "all that is known, and logs to stderr");
  return [args] { return Run(*args); };
}

}  // namespace pb::cli

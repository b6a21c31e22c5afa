// paritybit audit: one engine, or a stored trace, judged op by op against what its model declares.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/program.h"
#include "base/text.h"
#include "cli/arguments.h"
#include "cli/bisect.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/history_log.h"
#include "cli/last_run.h"
#include "cli/next.h"
#include "cli/progress.h"
#include "cli/receipts.h"
#include "cli/refusal.h"
#include "cli/report_files.h"
#include "drive/participant.h"
#include "report/audit_report.h"
#include "run/doubts.h"
#include "trace/reader.h"

namespace pb::cli {
namespace {

using run::NextCommand;

struct AuditArguments {
  ModelArguments model;
  EngineArguments engines;
  PrecisionArguments precision;
  PromptArguments prompts;
  OutputArguments output;
  std::string engine = "native", good_model, trace, receipt;
  std::vector<std::string> reports;
  int max_tokens = 0;
  bool all = false, git_bisect = false;
};

// Records without a manifest do not say what was computed, so they are no trace here.
Result<trace::Trace> OpenTrace(const std::string& folder) {
  auto trace = trace::Trace::Open(folder);
  if (trace.ok() && !trace->documented()) return trace;
  if (!trace.ok() && trace.error().code != Code::kNotFound) return trace;
  const std::string why = !trace.ok()                ? trace.error().message
                          : trace->records().empty() ? folder + ": holds no trace"
                                                     : folder + ": holds records and no manifest";
  return MakeError(Code::kNotFound,
                   "{}; record one: {} trace --model MODEL --engine ENGINE --prompt TEXT --level full "
                   "--out {}",
                   why, ProgramName(), ShellQuote(folder));
}

// A stored trace stands for its engine: model, tokens and steps are those that were recorded.
Status TakeTrace(AuditArguments& args, audit::AuditRequest* request) {
  PB_ASSIGN(trace::Trace trace, OpenTrace(args.trace));
  const trace::Manifest& manifest = trace.manifest();
  if (args.model.model.empty()) args.model.model = manifest.model_path;
  request->tokens = manifest.tokens;
  request->n_prefill = manifest.n_prompt;
  request->prompts.push_back({manifest.prompt, args.trace});
  args.engine = "replay";
  args.engines.set.insert(args.engines.set.begin(), "trace=" + args.trace);
  return {};
}

Result<audit::AuditRequest> MakeAuditRequest(AuditArguments& args) {
  audit::AuditRequest request;
  const bool of_trace = !args.trace.empty();
  if (of_trace) {
    if (!args.prompts.empty() || args.engine != "native" || args.max_tokens > 0)
      return MakeError(Code::kUsage,
                       "--trace: brings its own engine, prompt and decode steps; give no --engine, --prompt "
                       "or --max-tokens besides");
    PB_TRY(TakeTrace(args, &request));
  } else {
    PB_ASSIGN(request.prompts, ReadPrompts(args.prompts));
  }
  const std::string config = args.model.hf_config;
  ModelArguments of_engine = args.model;
  // The arbiter reads it. Of the engines the native one does; a recording or llama.cpp cannot be
  // told.
  if (!args.engine.starts_with("native")) of_engine.hf_config.clear();
  PB_ASSIGN(OneEngine one, ChooseOneEngine(of_engine, args.engines, args.engine, request.choices));
  request.model = one.model, request.engine = std::move(one.spec), request.limits = one.limits;
  if (NamedThreads(args.engines)) drive::PutSetting(request.engine.settings, "threads", one.threads);
  PB_ASSIGN(request.good_model, FindModelFile(args.good_model));
  PB_ASSIGN(request.precision, PolicyOf(args.precision));
  request.max_tokens = args.max_tokens;
  host::Settings declared;
  if (!config.empty()) declared.emplace_back("hf.config", config);
  PB_ASSIGN(request.arbiter, ResolveEngine("oracle", declared));
  return request;
}

// What was typed as a comparison without a reference, whose words are those of the command.
CrossvalArguments Alone(const AuditArguments& args) {
  CrossvalArguments alone;
  alone.model = args.model, alone.reference_model = args.good_model;
  alone.prompts = args.prompts, alone.max_tokens = args.max_tokens, alone.precision = args.precision;
  alone.engines = args.engines;
  alone.engines.candidate = args.trace.empty() ? args.engine : "native";
  std::erase_if(alone.engines.set, [](const std::string& setting) { return setting.starts_with("trace="); });
  return alone;
}

std::vector<std::string> WordsAgain(const AuditArguments& args) {
  std::vector<std::string> words = LastingWords(Alone(args), "audit");
  std::error_code ignored;
  if (!args.trace.empty())
    words.insert(words.end(), {"--trace", std::filesystem::absolute(args.trace, ignored).string()});
  return words;
}

// The command line again, with more words.
std::string AuditCommand(const AuditArguments& args, const std::string& more) {
  const CrossvalArguments alone = Alone(args);
  const std::string of = args.trace.empty() ? "" : "--trace " + ShellQuote(args.trace) + " ";
  return CommandLine(alone, "audit", of + more);
}

// The engine as the reference of the native one, to be judged on the same inputs.
NextCommand DiagnoseCommand(const AuditArguments& args) {
  CrossvalArguments compared;
  compared.model = args.model, compared.prompts = args.prompts, compared.max_tokens = args.max_tokens;
  compared.precision = args.precision, compared.engines = args.engines;
  compared.engines.set.clear(), compared.engines.set_reference = args.engines.set;
  compared.engines.reference = args.engine;
  return {CommandLine(compared, "diagnose"), "why, against the native engine"};
}

std::vector<NextCommand> NextCommands(const AuditArguments& args, const audit::Audit& audit) {
  const compare::Verdict& verdict = audit.run.verdict;
  std::vector<NextCommand> next;
  // Another engine may not let itself be told.
  if (verdict.Has(compare::ReasonCode::kUndeclared) && args.engine.starts_with("native")) {
    for (const char* activation : {"relu2", "silu"})
      next.push_back({AuditCommand(args, fmt::format("--set ffn.activation={}", activation)),
                      fmt::format("if the model runs {}", activation)});
    return next;
  }
  if (verdict.Has(compare::ReasonCode::kUnsupported) && args.trace.empty()) {
    Refusal refusal =
        OneEngineRefusal("audit", args.model, args.engines, args.engine, args.prompts, args.max_tokens);
    refusal.reason = verdict.reasons[0].text;
    refusal.by_candidate = !audit.run.candidate.error.empty(), refusal.by_arbiter = !refusal.by_candidate;
    return NextAfterRefusal(refusal);
  }
  if (verdict.outcome == compare::Outcome::kIncomplete && args.trace.empty()) {
    for (const std::string& choice : run::WaysToDecide(audit.run.doubts))
      next.push_back({AuditCommand(args, choice), "decides what the files leave open"});
    return next;
  }
  if (verdict.outcome != compare::Outcome::kDiverged) return {};
  if (args.trace.empty() && args.good_model.empty() && args.engine != "native")
    next.push_back(DiagnoseCommand(args));
  if (!args.all) next.push_back({AuditCommand(args, "--all"), "the worst place of every stage"});
  return next;
}

int Run(AuditArguments args) {
  for (const Status& writable : {CheckReceiptPath(args.receipt), CheckReports(args.reports, args.output)})
    if (!writable.ok()) return Fail(args.output, writable.error());
  auto request = MakeAuditRequest(args);
  if (!request) return Fail(args.output, request.error());
  request->token_errors = WantsTokenErrors(args.reports);
  Progress progress(args.output);
  request->progress = progress.Callback();
  auto audit = audit::RunAudit(*request);
  progress.End();
  if (!audit) return Fail(args.output, audit.error());
  report::Context context = MakeContext("audit");
  size_t n_positions = 0;
  for (const run::PromptRecord& prompt : audit->run.prompts)
    n_positions = std::max(n_positions, prompt.tokens.size() + prompt.decoded.size());
  context.notes = drive::FindingsOf(audit->run.candidate, static_cast<int64_t>(n_positions));
  context.notes.insert(context.notes.end(), audit->run.notes.begin(), audit->run.notes.end());
  if (args.good_model.empty())
    context.notes.push_back(
        "the arbiter reads the same model file as the engine: what is wrong in the file itself is not seen "
        "(--reference-model names a good one)");
  audit->run.next = NextCommands(args, *audit);
  AppendHistory(EntryOf(audit->run, "audit", AuditCommand(args, "")));
  report::TextOptions options{UseColour(STDOUT_FILENO), args.all, args.output.quiet,
                              TerminalWidth(STDOUT_FILENO)};
  options.details = args.all || args.output.verbose;
  PrintOut(args.output.json() ? report::RenderAuditJson(*audit, context)
                              : report::RenderAuditText(*audit, context, options));
  int exit_code = compare::ExitCode(audit->run.verdict.outcome);
  if (args.git_bisect) exit_code = BisectVerdict(audit->run.verdict, exit_code);
  if (!args.reports.empty())
    exit_code =
        WriteReports(args.reports, report::SummaryOf(*audit, context), AuditCommand(args, ""), exit_code);
  if (args.receipt.empty()) return exit_code;
  return WriteReceipt(args.receipt, report::RenderReceipt(*audit, context, HeadOf(WordsAgain(args))),
                      exit_code);
}

}  // namespace

Action DeclareAudit(Flags& flags) {
  auto args = std::make_shared<AuditArguments>();
  AddModelArguments(flags, args->model);
  flags
      .Option("--reference-model", args->good_model,
              "the file that declares what is right (default: the one that the engine reads)")
      .Group("Model");
  flags.Option("-e,--engine", args->engine, "engine to judge: NAME|PATH[,key=value...]")
      .ShowDefault()
      .Group("Engines");
  AddSettingArguments(flags, args->engines);
  AddPrecisionArguments(flags, args->precision);
  flags
      .Option("--trace", args->trace,
              "judge a stored full trace instead of an engine: its model, tokens and steps")
      .Group("Engines");
  AddPromptArguments(flags, args->prompts);
  flags.Option("-n,--max-tokens", args->max_tokens, "greedy decode steps after each prompt")
      .Range(0, 1 << 20)
      .ShowDefault()
      .Group("Prompts");
  AddReceiptArgument(flags, args->receipt);
  AddReportArgument(flags, args->reports);
  AddBisectArgument(flags, args->git_bisect);
  flags.Switch("--all", args->all, "show the worst place of every stage").Group("Output");
  AddQuietArgument(flags, args->output);
  AddOutputArguments(flags, args->output,
                     "all settings of the engine and all next commands; log each step to stderr");
  return [args] { return Run(*args); };
}

}  // namespace pb::cli

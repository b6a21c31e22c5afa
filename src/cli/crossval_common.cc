// Makes a request of the flags, runs the comparison with its diagnosis, and writes what was
// asked for.
#include "cli/crossval_common.h"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>

#include "base/file.h"
#include "base/kept.h"
#include "base/processors.h"
#include "base/system_error.h"
#include "base/text.h"
#include "cli/bisect.h"
#include "cli/history_log.h"
#include "cli/last_run.h"
#include "cli/next.h"
#include "cli/parity_common.h"
#include "cli/paths.h"
#include "cli/progress.h"
#include "cli/receipts.h"
#include "cli/report_files.h"
#include "cli/tokenizer_file.h"
#include "cli/variables.h"
#include "drive/participant.h"
#include "formats/gguf.h"
#include "report/text_blocks.h"
#include "setup/setup.h"

namespace pb::cli {
namespace {

using compare::ReasonCode;
using diagnose::IsDivergence;

// "model name" of the first processor.
std::string CpuName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(std::min(line.find(':') + 2, line.size()));
  return "unknown";
}

// The reference, or why there is none.
Status ResolveReference(const CrossvalArguments& args, const host::Settings& settings,
                        run::Request* request) {
  std::string name =
      args.engines.reference.empty() ? setup::KnownReferences().front() : args.engines.reference;
  auto reference = ResolveEngine(name, settings);
  if (reference.ok()) {
    request->reference = std::move(reference).value();
    return {};
  }
  if (reference.error().code != Code::kNotFound) return std::move(reference).error();
  request->reference.text = name;
  // What mends it stands among the next commands.
  const std::string& why = reference.error().message;
  request->no_reference = why.substr(0, why.find('\n'));
  return {};
}

Result<run::KeepRequest> ReadKeep(const CrossvalArguments& args) {
  run::KeepRequest keep;
  keep.folder = args.keep_traces;
  if (!args.trace_level.empty()) {
    if (args.keep_traces.empty())
      return MakeError(Code::kUsage,
                       "--trace-level is of traces that are kept: name their folder with --keep-traces");
    PB_ASSIGN(keep.level, trace::ParseLevel(args.trace_level));
  }
  if (!args.keep_traces.empty() && args.scope != "local")
    return MakeError(Code::kUsage, "--keep-traces keeps tracepoints, and --scope {} asks for none",
                     args.scope);
  return keep;
}

}  // namespace

Result<std::string> ReadCalibration() {
  return ReadFile(ExecutableDir().parent_path() / "share" / "paritybit" / "calibration.txt", 1 << 20);
}

report::Context MakeContext(const std::string& command) {
  report::Context context;
  context.command = command;
  context.tool_version = PB_VERSION;
  utsname os{};
  if (uname(&os) == 0) context.os = fmt::format("{} {} {}", os.sysname, os.release, os.machine);
  context.cpu = CpuName();
  context.n_cpus = ProcessorCount();
  if (const char* allow = VariableValue("CROSSVAL_ALLOW_CPP_FAIL"))
    context.notes.push_back(fmt::format(
        "CROSSVAL_ALLOW_CPP_FAIL={} is set and changes nothing: a reference that fails is never a pass",
        allow));
  return context;
}

Result<run::Request> MakeRequest(const CrossvalArguments& args) {
  PB_ASSIGN(std::vector<run::PromptSpec> prompts, ReadPrompts(args.prompts));
  PB_ASSIGN(run::Request request, MakePairRequest(args));
  request.prompts = std::move(prompts);
  return request;
}

Result<run::Request> MakePairRequest(const CrossvalArguments& args) {
  run::Request request;
  PB_ASSIGN(run::Choice model, ChooseModel(args.model));
  request.model = model.value;
  request.choices.push_back(model);
  PB_ASSIGN(request.reference_model, FindModelFile(args.reference_model));
  request.max_tokens = args.max_tokens;
  PB_ASSIGN(request.limits, ChooseLimits(args.engines, request.choices));
  std::string threads = std::to_string(ChooseThreads(args.engines, request.choices));
  PB_ASSIGN(host::Settings candidate, ParseSettings(args.engines.set, "--set"));
  PB_ASSIGN(host::Settings reference, ParseSettings(args.engines.set_reference, "--set-reference"));
  for (const auto& [key, value] : candidate) request.choices.push_back({key, value, "flag --set"});
  for (const auto& [key, value] : reference) request.choices.push_back({key, value, "flag --set-reference"});
  for (host::Settings* settings : {&candidate, &reference})
    if (NamedThreads(args.engines) && !drive::FindSetting(*settings, "threads"))
      settings->emplace_back("threads", threads);
  if (!args.model.hf_config.empty()) drive::PutSetting(candidate, "hf.config", args.model.hf_config);
  PB_ASSIGN(request.candidate, ResolveEngine(args.engines.candidate, candidate));
  PB_TRY(ResolveReference(args, reference, &request));
  PB_TRY(CheckThreads(request.candidate, threads));
  PB_TRY(CheckThreads(request.reference, threads));
  PB_ASSIGN(request.calibration, ReadCalibration());
  request.user = args.user;
  // A tolerance is how far below 1 the cosine may lie; nobody means a cosine of less than a half.
  if (args.user.min_cosine && *args.user.min_cosine < 0.5)
    request.user.min_cosine = 1 - *args.user.min_cosine;
  PB_ASSIGN(request.user.precision, PolicyOf(args.precision));
  request.scope = args.scope == "local" ? compare::Scope::kLocal : compare::Scope::kLogitsOnly;
  request.reuse = args.reuse == "auto"     ? run::Reuse::kAuto
                  : args.reuse == "always" ? run::Reuse::kAlways
                                           : run::Reuse::kNever;
  request.noise = args.noise == "auto" ? run::NoiseRuns::kAuto : run::NoiseRuns::kWhole;
  request.repeat = !args.receipt.empty();
  // A page shows accumulated errors of all tokens.
  request.token_errors = WantsTokenErrors(args.reports);
  const bool part = args.watch == "auto" && !request.token_errors;
  request.watch = part ? run::Watch::kAuto : run::Watch::kWhole;
  PB_ASSIGN(request.keep, ReadKeep(args));
  PB_ASSIGN(ChosenTokenizer tokenizer, ChooseTokenizer(args.model, request.model.string()));
  if (tokenizer.file) {
    request.choices.push_back({"tokenizer", args.model.tokenizer, "flag --tokenizer"});
    request.tokenize = [file = tokenizer.file](std::string_view text) { return file->Encode(text, {}); };
  }
  request.notes = std::move(tokenizer.notes);
  return request;
}

void AddPlaceArguments(Flags& flags, PlaceArguments& args) {
  flags.Option("--stage", args.stage, "the op, as ffn_gated (default: the first beyond its bound)")
      .Group("Place");
  flags.Option("--layer", args.layer, "its layer").Group("Place");
  flags.Option("--prompt-index", args.prompt_index, "of the prompts, from 0").Group("Place");
  flags.Option("--step", args.step, "0: the prefill; else a decode step").Group("Place");
}

Result<std::optional<diagnose::Place>> PlaceAsked(const PlaceArguments& args) {
  if (args.stage.empty()) return std::optional<diagnose::Place>();
  for (const pb_stage_info& info : pb_vocabulary) {
    if (args.stage != info.name) continue;
    if (info.per_layer && args.layer < 0)
      return MakeError(Code::kUsage, "--stage {}: is in every layer; say which with --layer", args.stage);
    return std::optional(
        diagnose::Place{args.prompt_index, args.step, info.stage, info.per_layer ? args.layer : -1});
  }
  return MakeError(Code::kUsage, "--stage {}: no such op; one of the names in a report, as ffn_gated",
                   args.stage);
}

namespace {

void AddLimitArguments(Flags& flags, compare::UserLimits& user) {
  flags
      .Option("--cos-tolerance,--cos-tol", user.min_cosine,
              "least cosine that a position may have; below 0.5 how far it may lie below 1 "
              "(default: no such limit)")
      .Range(0.0, 1.0)
      .Group("Limits");
  flags.Option("--kl-mean", user.kl_mean, "largest mean KL in nats, instead of the noise floor's")
      .NonNegative()
      .Group("Limits");
  flags.Option("--kl-worst", user.kl_worst, "largest KL of a position in nats, instead of the noise floor's")
      .NonNegative()
      .Group("Limits");
  flags.Option("--rel-l2", user.rel_l2, "largest rel-L2 of a position (default: no such limit)")
      .NonNegative()
      .Group("Limits");
  flags.Option("--max-abs", user.max_abs, "largest difference of two logits (default: no such limit)")
      .NonNegative()
      .Group("Limits");
  flags
      .Option(
          "--confidence", user.confidence,
          "also fail where the candidate can be told from the reference's own noise at this confidence; as "
          "many "
          "runs of noise as that takes, 19 for 0.95, 99 for 0.99 (default: told of 8 runs, decides nothing)")
      .Range(0.5, 0.999)
      .Group("Limits");
}

}  // namespace

void AddComparisonArguments(Flags& flags, CrossvalArguments& args) {
  AddPairArguments(flags, args);
  AddPrecisionArguments(flags, args.precision);
  AddLimitArguments(flags, args.user);
  AddPromptArguments(flags, args.prompts);
  flags
      .Option("-n,--max-tokens", args.max_tokens,
              "decode steps after each prompt, forced by the reference's greedy choice")
      .Range(0, 1 << 20)
      .ShowDefault()
      .Group("Prompts");
  AddOutputArguments(flags, args.output, "all that is known, and logs to stderr");
}

void AddCrossvalArguments(Flags& flags, CrossvalArguments& args) {
  AddComparisonArguments(flags, args);
  flags
      .Option("--reuse", args.reuse,
              "what the reference computed over a prompt is kept in the cache (at most 4 GiB), sealed, and "
              "used again while engine, settings, model, tokens and processor are the same: auto: where "
              "model and prompt are large; always; never")
      .OneOf({"auto", "always", "never"})
      .ShowDefault()
      .Group("Engines");
  flags
      .Option("--noise", args.noise,
              "how much of the reference's noise is measured: auto: of a large model no more than shows that "
              "all is within its limits; whole: all of it")
      .OneOf({"auto", "whole"})
      .ShowDefault()
      .Group("Limits");
  flags
      .Option(
          "--watch", args.watch,
          fmt::format("over how much of a prompt the candidate also runs freely with its tensors watched, "
                      "beside lock-step, which is always whole: auto: where the reference's part is kept, "
                      "the first {} positions, and all where anything is in doubt; whole: all",
                      run::kWatchedPositions))
      .OneOf({"auto", "whole"})
      .ShowDefault()
      .Group("Engines");
  flags
      .Option("--scope", args.scope,
              "local: every tracepoint is judged by its own error, then the logits; logits-only: the logits "
              "alone")
      .OneOf({"local", "logits-only"})
      .ShowDefault()
      .Group("Limits");
  flags
      .Option("--keep-traces", args.keep_traces,
              "keep both engines' traces in this folder: FOLDER/candidate, FOLDER/reference (default: none, "
              "tensors are compared in memory)")
      .Group("Output");
  flags
      .Option("--trace-level", args.trace_level,
              "what kept traces hold: digest, sketch, or full, which can be replayed (default full)")
      .OneOf({"digest", "sketch", "full"})
      .Group("Output");
  flags
      .Option("--paths", args.paths,
              "asked: what the prompts and settings go through, and the code paths left are listed; all: "
              "where that finds nothing, comparisons over those that model and engines can take (few tokens "
              "at once, two threads, flash attention, a long prompt, text of all kinds)")
      .OneOf({"asked", "all"})
      .ShowDefault()
      .Group("Prompts");
  AddReceiptArgument(flags, args.receipt);
  AddReportArgument(flags, args.reports);
  AddBisectArgument(flags, args.git_bisect);
  flags.Switch("--all", args.all, "show every position, and all that is known (as -v does)").Group("Output");
  AddQuietArgument(flags, args.output);
}

Result<diagnose::ExplainedRun> CompareAndDiagnose(const CrossvalArguments& args, run::Request request,
                                                  std::optional<diagnose::Place> place) {
  Progress progress(args.output);
  request.progress = progress.Callback();
  return diagnose::CompareAndExplain(std::move(request), ResolveEngine("oracle", {}), place);
}

namespace {

// Whether what is compared has such a place, as far as the model file says.
Status CheckPlace(const diagnose::Place& place, const run::Request& request) {
  if (place.prompt < 0 || static_cast<size_t>(place.prompt) >= request.prompts.size())
    return MakeError(Code::kUsage, "--prompt-index {}: there {} {} prompt{}, counted from 0", place.prompt,
                     request.prompts.size() == 1 ? "is" : "are", request.prompts.size(),
                     request.prompts.size() == 1 ? "" : "s");
  if (place.step < 0 || place.step > request.max_tokens)
    return MakeError(Code::kUsage, "--step {}: there are {} decode steps (--max-tokens); 0 is the prefill",
                     place.step, request.max_tokens);
  auto file = GgufFile::Open(request.model);
  if (!file.ok()) return {};  // which the run will say
  auto architecture = file->String("general.architecture");
  if (!architecture.ok()) return {};
  auto layers = file->Uint(*architecture + ".block_count");
  if (layers.ok() && place.layer >= 0 && static_cast<uint64_t>(place.layer) >= *layers)
    return MakeError(Code::kUsage, "--layer {}: the model has {} layers, counted from 0", place.layer,
                     *layers);
  return {};
}

// For `diagnose` without arguments, and for `history`.
void Keep(const CrossvalArguments& args, const PlaceArguments& place, const std::string& command,
          const run::Comparison& comparison) {
  RememberRun(args, place, command, comparison.verdict);
  AppendHistory(EntryOf(comparison, command, CommandLine(args, command)));
}

Result<AskedRun> RunSaid(const CrossvalArguments& args, const std::optional<diagnose::Place>& place) {
  AskedRun run;
  PB_ASSIGN(run.request, MakeRequest(args));
  if (place) PB_TRY(CheckPlace(*place, run.request));
  run.request.default_row = false;
  PB_ASSIGN(run.judged, CompareAndDiagnose(args, run.request, place));
  return run;
}

}  // namespace

Result<AskedRun> RunAsked(CrossvalArguments* args, PlaceArguments* place, const std::string& command,
                          std::string* explains) {
  PB_ASSIGN(*explains, UseLastRunIfNoneIsSaid(args, place));
  if (!explains->empty() && args->output.quiet)
    PrintError(fmt::format("{:<{}}{}\n", "explains", report::kLabel, *explains));
  else if (!explains->empty() && !args->output.json())
    PrintText(fmt::format("{:<{}}{}\n\n", "explains", report::kLabel, *explains));
  PB_ASSIGN(const std::optional<diagnose::Place> asked, PlaceAsked(*place));
  auto run = RunSaid(*args, asked);
  if (!run.ok())
    RememberFailure(*args, *place, command, run.error());
  else
    Keep(*args, *place, command, run->judged.comparison);
  return run;
}

std::string WhyNone(const diagnose::ExplainedRun& judged) {
  const compare::Verdict& verdict = judged.comparison.verdict;
  std::vector<std::string> why;
  if (!judged.why_none.empty()) why.push_back(judged.why_none);
  if (!judged.comparison.why_logits_only.empty()) why.push_back(judged.comparison.why_logits_only);
  // Of a divergence that no op explains, what is beyond its limit.
  const bool told = verdict.outcome == compare::Outcome::kDiverged && judged.why_none.empty();
  if (!told && compare::ExitCode(verdict.outcome) != kExitOk)
    for (const compare::Reason& reason : verdict.reasons)
      if (compare::ExitCode(reason.outcome) != kExitOk) why.push_back(reason.text);
  if (why.empty()) why.emplace_back("the engines do not part at any op");
  return fmt::format("{}", fmt::join(why, "; "));
}

void DumpIds(const CrossvalArguments& args, const run::Comparison& comparison) {
  for (int side : {0, 1})
    for (const run::PromptRecord& prompt : comparison.prompts)
      if (args.dump_ids[side])
        PrintError(fmt::format("{} ids of {}: [{}]\n", side == 0 ? "candidate" : "reference",
                               EscapeUnsafe(prompt.origin), fmt::join(prompt.tokens_of[side], ", ")));
}

int RunCrossval(const CrossvalArguments& typed, const std::string& command) {
  for (const Status& writable : {CheckReceiptPath(typed.receipt), CheckReports(typed.reports, typed.output)})
    if (!writable.ok()) return Fail(typed.output, writable.error());
  auto fail = [&](const Error& error) {
    RememberFailure(typed, {}, command, error);
    return Fail(typed.output, error);
  };
  auto request = MakeRequest(typed);
  if (!request) return fail(request.error());
  auto plain = CompareAndDiagnose(typed, std::move(request).value(), std::nullopt);
  if (!plain) return fail(plain.error());
  JudgedPaths result{typed, std::move(plain).value()};
  if (typed.paths == "all" && compare::ExitCode(result.judged.comparison.verdict.outcome) == kExitOk)
    if (Status status = RunPaths(&result); !status.ok()) return fail(status.error());
  const CrossvalArguments& args = result.args;
  diagnose::ExplainedRun* judged = &result.judged;
  run::Comparison* comparison = &judged->comparison;
  DumpIds(args, *comparison);
  report::Context context = MakeContext(command);
  comparison->next = NextCommands(args, command, *judged);
  if (judged->diagnosis) context.diagnosis = &*judged->diagnosis;
  if (!judged->why_none.empty()) context.notes.push_back(judged->why_none);
  if (!comparison->why_logits_only.empty()) {
    context.notes.push_back("judged by the logits alone: " + comparison->why_logits_only);
    if (!args.keep_traces.empty())
      context.notes.push_back("no traces were kept: " + comparison->why_logits_only);
  }
  Keep(args, {}, command, *comparison);
  // Without arguments it is of this run, if that could be kept.
  if (!comparison->next.empty() && comparison->next[0].command.starts_with(Call("diagnose") + " ") &&
      CacheTrouble().empty())
    context.next_in_short = Call("diagnose");
  size_t n_positions = 0;
  for (const run::PromptRecord& prompt : comparison->prompts)
    n_positions = std::max(n_positions, prompt.tokens.size() + prompt.decoded.size());
  const auto evaluated = static_cast<int64_t>(n_positions);
  std::vector<std::string> findings = drive::FindingsOf(comparison->candidate, evaluated);
  for (std::string& finding : drive::FindingsOf(comparison->reference, evaluated))
    if (std::find(findings.begin(), findings.end(), finding) == findings.end())
      findings.push_back(std::move(finding));
  context.notes.insert(context.notes.end(), findings.begin(), findings.end());
  context.notes.insert(context.notes.end(), comparison->notes.begin(), comparison->notes.end());
  if (!args.receipt.empty()) {
    // What one of the other paths found is that comparison's alone.
    std::vector<std::string> words = LastingWords(args, command);
    if (result.asked_for && args.paths == "all") words.insert(words.end(), {"--paths", "all"});
    Status written =
        WriteFileAtomic(args.receipt, report::RenderReceipt(*comparison, context, HeadOf(std::move(words))));
    if (!written.ok()) context.not_written = "the receipt: " + written.error().message;
  }
  report::TextOptions options{UseColour(STDOUT_FILENO), args.all, args.output.quiet,
                              TerminalWidth(STDOUT_FILENO)};
  // The view by position has all of them anyway.
  options.details = args.output.verbose || (args.all && command == "crossval");
  PrintOut(args.output.json() ? report::RenderJson(*comparison, context)
                              : report::RenderText(*comparison, context, options));
  if (!context.not_written.empty() && !args.output.json())
    PrintError(fmt::format("error: {}\n", EscapeUnsafe(context.not_written)));
  int exit_code = report::ExitCodeOf(*comparison, context);
  if (args.git_bisect) exit_code = BisectVerdict(comparison->verdict, exit_code);
  if (args.reports.empty()) return exit_code;
  return WriteReports(args.reports, report::SummaryOf(*comparison, context), CommandLine(args, command),
                      exit_code);
}

}  // namespace pb::cli

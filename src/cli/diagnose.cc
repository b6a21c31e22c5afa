// paritybit diagnose: why two engines differ at an op, and whose fault it is.
#include <fmt/core.h>
#include <unistd.h>

#include <memory>

#include "base/file.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/last_run.h"
#include "cli/next.h"
#include "cli/progress.h"
#include "diagnose/file_arbiter.h"
#include "drive/perplexity.h"
#include "report/diagnosis_report.h"
#include "repro/repro.h"

namespace pb::cli {
namespace {

// tokens of a perplexity window, or the model's context where it is shorter
constexpr int32_t kWindow = 256;
constexpr size_t kHeldoutTokens = 4096;
// An injection search of so much takes seconds, and is made without being asked for.
constexpr size_t kCheapTokens = 64;
constexpr uint64_t kCheapModelBytes = 64 << 20;

struct DiagnoseArguments {
  CrossvalArguments compared;
  PlaceArguments place;
  bool no_perplexity = false;
  bool inject = false, no_inject = false;
};

// The setting that a hypothesis would make of the whole model; empty: it concerns one op.
std::string GlobalSetting(const diagnose::Diagnosis& d) {
  const diagnose::Trial* named = d.Named();
  return named && named->name.starts_with("ffn.activation=") ? named->name : "";
}

// Perplexity of the held-out text under one engine.
Result<drive::Perplexity> Measure(const drive::EngineSpec& spec, const std::filesystem::path& model,
                                  const run::Request& request, std::string_view text) {
  drive::EngineRecord record;
  record.role = spec.text;
  drive::Participant engine(record, request.limits);
  PB_TRY(engine.Start(spec));
  PB_TRY(engine.OpenModel(model));
  PB_ASSIGN(std::vector<int32_t> ids, engine.Tokenize(text));
  ids.resize(std::min(ids.size(), kHeldoutTokens));
  int32_t window = kWindow;
  if (const int64_t trained = record.model_facts().n_ctx_train; trained > 1)
    window = static_cast<int32_t>(std::min<int64_t>(window, trained));
  PB_TRY(engine.OpenSessionWishing({{"threads", "1"}, {"n_ctx", std::to_string(window)}}));
  return drive::MeasurePerplexity(engine, ids, window, request.progress);
}

// Both settings in the native engine, and the reference as it is.
Status MeasurePerplexities(const run::Request& request, const std::string& setting,
                           report::DiagnosisReport* report) {
  PB_ASSIGN(std::string text,
            ReadFile(ExecutableDir().parent_path() / "share" / "paritybit" / "heldout.txt", 1 << 22));
  text.resize(std::min<size_t>(text.size(), 8 * kHeldoutTokens));
  auto add = [&](const std::string& what, const drive::EngineSpec& spec,
                 const std::filesystem::path& model) -> Status {
    PB_ASSIGN(drive::Perplexity p, Measure(spec, model, request, text));
    report->perplexities.push_back({what, p.value()});
    report->perplexity_text =
        fmt::format("{} predicted tokens of heldout.txt in {} windows", p.n_predicted, p.n_windows);
    return {};
  };
  host::Settings declared;
  if (const std::string* config = drive::FindSetting(request.candidate.settings, "hf.config"))
    declared.emplace_back("hf.config", *config);
  PB_ASSIGN(drive::EngineSpec native, ResolveEngine("native", declared));
  PB_TRY(add("native, as the model declares", native, request.model));
  const size_t equals = setting.find('=');
  drive::PutSetting(native.settings, setting.substr(0, equals), setting.substr(equals + 1));
  PB_TRY(add("native with " + setting, native, request.model));
  return add("reference " + request.reference.text, request.reference,
             request.reference_model.empty() ? request.model : request.reference_model);
}

// Where the reference is a stored trace the candidate receives: if it is wrong, the arbiter's ops
// in place of its own; else the trace's tensors, as a trace computes nothing.
Status SearchBesideTrace(const drive::EngineRecord& candidate, const std::string& trace, compare::Blame blame,
                         inject::InjectionRequest* search) {
  search->trace = trace;
  search->into_reference = false;
  search->kind = inject::InjectionKind::kTensor;
  if (blame != compare::Blame::kCandidate) return {};
  search->kind = inject::InjectionKind::kOp;
  PB_ASSIGN(search->oracle, ResolveEngine("oracle", diagnose::SettingsOf(candidate)));
  return {};
}

// Which ops have to be exchanged for the engines to agree again: into the side that is wrong, else
// into the candidate.
Result<inject::InjectionResult> SearchInjection(const run::Request& request,
                                                const diagnose::ExplainedRun& judged) {
  const diagnose::Place& place = judged.diagnosis->place;
  const run::PromptRecord& prompt = judged.comparison.prompts[static_cast<size_t>(place.prompt)];
  inject::InjectionRequest search;
  search.candidate = request.candidate, search.reference = request.reference;
  search.model = request.model, search.reference_model = request.reference_model;
  search.tokens = prompt.tokens;
  if (place.step > 0) search.tokens.insert(search.tokens.end(), prompt.decoded.begin(), prompt.decoded.end());
  search.into_reference = judged.diagnosis->blame == compare::Blame::kReference;
  if (const std::string* trace = drive::FindSetting(request.reference.settings, "trace"))
    PB_TRY(SearchBesideTrace(judged.comparison.candidate, *trace, judged.diagnosis->blame, &search));
  for (const compare::PointRow& row : judged.comparison.points)
    if (row.is_defect()) search.suspects.push_back({row.stage, row.layer});
  search.user = request.user, search.calibration = request.calibration;
  search.limits = request.limits, search.progress = request.progress;
  return inject::SearchInjection(search);
}

// Whether a search is asked for, or so cheap that it needs no asking.
bool WantsInjection(const DiagnoseArguments& args, const run::Request& request,
                    const diagnose::ExplainedRun& judged) {
  if (!judged.diagnosis || judged.diagnosis->place.stage < 0 ||
      judged.comparison.verdict.outcome != compare::Outcome::kDiverged)
    return false;
  if (args.inject || args.no_inject) return args.inject;
  std::error_code error;
  const run::PromptRecord& prompt =
      judged.comparison.prompts[static_cast<size_t>(judged.diagnosis->place.prompt)];
  return prompt.tokens.size() <= kCheapTokens &&
         std::filesystem::file_size(request.model, error) <= kCheapModelBytes && !error;
}

int Run(DiagnoseArguments args) {
  const OutputArguments output = args.compared.output;
  report::Context context = MakeContext("diagnose");
  auto asked = RunAsked(&args.compared, &args.place, "diagnose", &context.explains);
  if (!asked) return Fail(output, asked.error());
  auto& [request, judged] = *asked;
  context.notes.insert(context.notes.end(), judged.comparison.notes.begin(), judged.comparison.notes.end());
  report::DiagnosisReport report;
  report.diagnosis = judged.diagnosis;
  if (!report.diagnosis) report.why_none = "there is nothing to diagnose: " + WhyNone(judged);
  if (WantsInjection(args, request, judged)) {
    Progress progress(args.compared.output);
    request.progress = progress.Callback();
    auto found = SearchInjection(request, judged);
    if (found)
      report.injection = std::move(found).value();
    else
      context.notes.push_back("no injection search: " + found.error().message);
  }
  const std::string setting = report.diagnosis && !args.no_perplexity ? GlobalSetting(*report.diagnosis) : "";
  if (!setting.empty()) {
    Progress progress(args.compared.output);
    request.progress = progress.Callback();
    Status measured = MeasurePerplexities(request, setting, &report);
    if (!measured.ok()) context.notes.push_back("no perplexity: " + measured.error().message);
  }
  std::vector<run::NextCommand>& next = judged.comparison.next;
  if (report.diagnosis && repro::HasRepro(*report.diagnosis))
    next.push_back(ReproCommand(args.compared, *report.diagnosis, args.place));
  if (judged.comparison.verdict.outcome == compare::Outcome::kDiverged)
    next.push_back(EveryPosition(args.compared));
  else if (!diagnose::IsDivergence(judged.comparison.verdict))
    next = NextCommands(args.compared, "diagnose", judged);
  report::TextOptions options{UseColour(STDOUT_FILENO), false, output.quiet, TerminalWidth(STDOUT_FILENO)};
  options.details = output.verbose;
  PrintOut(output.json() ? report::RenderDiagnosisJson(judged.comparison, report, context)
                         : report::RenderDiagnosisText(judged.comparison, report, context, options));
  return compare::ExitCode(judged.comparison.verdict.outcome);
}

}  // namespace

Action DeclareDiagnose(Flags& flags) {
  auto args = std::make_shared<DiagnoseArguments>();
  AddComparisonArguments(flags, args->compared);
  AddPlaceArguments(flags, args->place);
  flags.Switch("--no-perplexity", args->no_perplexity, "leave out the perplexities of an activation")
      .Group("Output");
  Flag inject = flags
                    .Switch("--inject", args->inject,
                            "search the smallest set of ops whose exchange restores the logits (of "
                            "itself where it is cheap)")
                    .Group("Output");
  flags.Switch("--no-inject", args->no_inject, "leave that search out").Excludes(inject).Group("Output");
  AddQuietArgument(flags, args->compared.output);
  return [args] { return Run(*args); };
}

}  // namespace pb::cli

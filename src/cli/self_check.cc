// paritybit self-check: which injected defects are found, placed, blamed and named, and whether
// anything harmless raises an alarm.
#include <fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <set>

#include "base/file.h"
#include "base/processors.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commit.h"
#include "cli/crossval_common.h"
#include "cli/next.h"
#include "cli/progress.h"
#include "cli/receipts.h"
#include "cli/report_files.h"
#include "drive/participant.h"
#include "model/generate.h"
#include "model/hyper.h"
#include "report/generated_report.h"
#include "report/self_check_receipt.h"
#include "report/self_check_report.h"
#include "setup/setup.h"

namespace pb::cli {
namespace {

struct SelfCheckArguments {
  OutputArguments output;
  double share = 1;
  uint64_t seed = 1;
  std::string filter, results, record;
  bool resume = false, no_reference = false, generated = false;
  int cases = 300;
  int jobs = 0;
  std::vector<std::string> reports;
  std::string receipt;
};

// The command again.
std::vector<std::string> WordsAgain(const SelfCheckArguments& args) {
  std::vector<std::string> words{"self-check"};
  if (args.share < 1) words.insert(words.end(), {"--share", fmt::format("{}", args.share)});
  if (args.generated) words.insert(words.end(), {"--generated", "--cases", std::to_string(args.cases)});
  if (args.share < 1 || args.generated) words.insert(words.end(), {"--seed", std::to_string(args.seed)});
  if (!args.filter.empty()) words.insert(words.end(), {"--filter", args.filter});
  if (args.no_reference) words.emplace_back("--no-reference");
  if (args.jobs > 0) words.insert(words.end(), {"--jobs", std::to_string(args.jobs)});
  return words;
}

// What a receipt holds beside the results: the engines, the models, and a few cases run again: the first
// and the last defect that counts, and a harmless change.
Result<report::SelfCheckEvidence> GatherEvidence(selfcheck::SelfCheckRequest request,
                                                 const std::vector<selfcheck::SelfCase>& cases,
                                                 const std::vector<selfcheck::SelfResult>& results) {
  report::SelfCheckEvidence evidence;
  std::vector<std::pair<const char*, const drive::EngineSpec*>> engines = {
      {"mutant", &request.mutant}, {"native", &request.native}, {"arbiter", &request.arbiter}};
  if (request.reference) engines.emplace_back("reference", &*request.reference);
  for (const auto& [role, spec] : engines) {
    drive::EngineRecord& record = evidence.engines.emplace_back();
    record.role = role;
    PB_TRY(drive::Participant(record, request.limits).Start(*spec));
  }
  drive::EngineRecord reader;
  drive::Participant native(reader, request.limits);
  PB_TRY(native.Start(request.native));
  for (const selfcheck::SelfModel& model : request.models) {
    PB_TRY(native.OpenModel(model.path));
    PB_ASSIGN(std::vector<int32_t> tokens, native.Tokenize(selfcheck::SelfCheckPrompt()));
    PB_ASSIGN(std::string sha256, drive::CachedFileSha256(model.path));
    evidence.models.push_back({model.path.string(), std::move(sha256), std::move(tokens)});
  }
  const auto counts = [](bool benign) {
    return [benign](const selfcheck::SelfResult& r) {
      return r.benign == benign && r.error.empty() && r.skipped.empty();
    };
  };
  std::set<size_t> again;
  for (const bool benign : {false, true})
    if (const auto first = std::find_if(results.begin(), results.end(), counts(benign));
        first != results.end())
      again.insert(static_cast<size_t>(first - results.begin()));
  if (const auto last = std::find_if(results.rbegin(), results.rend(), counts(false)); last != results.rend())
    again.insert(static_cast<size_t>(results.rend() - last - 1));
  std::vector<selfcheck::SelfCase> chosen;
  for (const size_t i : again) chosen.push_back(cases[i]);
  request.results.clear(), request.resume = false;
  PB_ASSIGN(evidence.repeated, selfcheck::RunSelfCheck(request, chosen));
  return evidence;
}

// Writes the receipt where one is asked for; the exit code of a command that ended with this one.
template <typename Report>
int Receipt(const SelfCheckArguments& args, const selfcheck::SelfCheckRequest& request,
            const std::vector<selfcheck::SelfCase>& cases, const Report& report) {
  if (args.receipt.empty()) return report.exit_code;
  auto evidence = GatherEvidence(request, cases, report.results);
  if (!evidence) {
    PrintError(fmt::format("error: the receipt: {}\n", EscapeUnsafe(evidence.error().message)));
    return report.exit_code == kExitOk ? kExitEnvironment : report.exit_code;
  }
  report::Context context = MakeContext("self-check");
  if (args.resume)
    context.notes.emplace_back("--resume: cases that the same build had kept were not run again");
  return WriteReceipt(args.receipt,
                      report::RenderReceipt(report, *evidence, context, HeadOf(WordsAgain(args))),
                      report.exit_code);
}

// A shape that is no multiple of anything convenient: three query heads to a key head, an odd
// vocabulary.
Result<std::filesystem::path> AwkwardModel() {
  GenerateSpec spec;
  spec.architecture = "bitnet";
  spec.n_layers = 2, spec.d_model = 768, spec.d_ff = 1280, spec.n_heads = 12, spec.n_kv_heads = 4;
  spec.n_vocab = 777, spec.weights = BlockType::kTQ2_0;
  const std::filesystem::path path = CacheDir() / "self-check" / "awkward" / "awkward-768.gguf";
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  PB_TRY(GenerateFile(spec, path));
  return path;
}

// Experts beside a shared one; sinks, windows, YaRN and biases everywhere; local and global layers
// with norms on both sides: what other architectures have and may lose.
Result<std::filesystem::path> ModelOf(const char* architecture, int64_t n_layers) {
  GenerateSpec spec;
  spec.architecture = architecture;
  spec.n_layers = n_layers, spec.d_model = 192, spec.d_ff = 192, spec.n_heads = 6, spec.n_kv_heads = 2;
  spec.head_dim = 32, spec.n_vocab = 777, spec.weights = BlockType::kQ8_0;
  spec.distribution = Distribution::kGaussian;
  if (FindArchitecture(architecture)->attention_sinks) spec.rope_scaling = "yarn";
  const std::string name = fmt::format("{}-192", architecture);
  const std::filesystem::path path = CacheDir() / "self-check" / name / (name + ".gguf");
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  PB_TRY(GenerateFile(spec, path));
  return path;
}

// Shapes of small LLaMAs: three query heads to a key head and eight-bit blocks as SmolLM2 has them;
// blocks with a minimum; K-quants.
Result<std::filesystem::path> SmallLlama(const char* name, GenerateSpec spec) {
  spec.n_vocab = 777, spec.n_ctx = 1024, spec.distribution = Distribution::kGaussian;
  const std::filesystem::path path = CacheDir() / "self-check" / name / fmt::format("{}.gguf", name);
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  PB_TRY(GenerateFile(spec, path));
  return path;
}

std::filesystem::path Share() { return ExecutableDir().parent_path() / "share" / "paritybit"; }

Result<std::vector<selfcheck::SelfModel>> ListedModels() {
  const std::filesystem::path share = Share();
  std::vector<selfcheck::SelfModel> models = {
      {share / "models" / "tiny-bitnet-silu" / "tiny-bitnet-silu-tq2_0.gguf", true},
      // llama.cpp runs SiLU where this model declares squared ReLU: nothing against it is harmless.
      {share / "models" / "tiny-bitnet-relu2" / "tiny-bitnet-relu2-tq2_0.gguf", false}};
  PB_ASSIGN(std::filesystem::path awkward, AwkwardModel());
  models.push_back({awkward, true});
  for (auto [architecture, n_layers] : {std::pair{"qwen2moe", 2}, {"gpt-oss", 2}, {"gemma3", 7}}) {
    PB_ASSIGN(std::filesystem::path other, ModelOf(architecture, n_layers));
    models.push_back({other, false, true});
  }
  return models;
}

Result<std::vector<selfcheck::SelfModel>> GeneratedModels() {
  const std::filesystem::path share = Share();
  std::vector<selfcheck::SelfModel> models = {
      {share / "models" / "tiny-bitnet-silu" / "tiny-bitnet-silu-tq2_0.gguf"},
      {share / "models" / "tiny-bitnet-relu2" / "tiny-bitnet-relu2-tq2_0.gguf"}};
  GenerateSpec eight, minimum, k;
  eight.weights = BlockType::kQ8_0, minimum.weights = BlockType::kQ4_1, k.weights = BlockType::kQ4_K;
  eight.n_layers = 3, eight.d_model = 288, eight.d_ff = 768, eight.n_heads = 9, eight.n_kv_heads = 3;
  minimum.n_layers = 2, minimum.d_model = 192, minimum.d_ff = 512, minimum.n_heads = 6;
  k.n_layers = 2, k.d_model = 512, k.d_ff = 1024, k.n_heads = 8, k.n_kv_heads = 4;
  for (const auto& [name, spec] :
       {std::pair{"llama-288-q8_0", &eight}, {"llama-192-q4_1", &minimum}, {"llama-512-q4_k", &k}}) {
    PB_ASSIGN(std::filesystem::path path, SmallLlama(name, *spec));
    models.push_back({path});
  }
  return models;
}

Status CheckArguments(const SelfCheckArguments& args) {
  if (!args.generated && !args.record.empty())
    return MakeError(Code::kUsage, "--record keeps what generated defects come to: it goes with --generated");
  if (args.generated && args.share < 1)
    return MakeError(Code::kUsage,
                     "--share is of the listed defects: of generated ones say how many, with --cases");
  constexpr uint64_t kMostSeed = 10000000;
  if (args.generated && args.seed > kMostSeed)
    return MakeError(Code::kUsage, "--seed {}: of the generator it is at most {}", args.seed, kMostSeed);
  if (!args.record.empty() && !args.filter.empty())
    return MakeError(Code::kUsage, "--record keeps whole measurements, and --filter leaves cases out");
  return {};
}

Result<selfcheck::SelfCheckRequest> MakeSelfCheck(const SelfCheckArguments& args) {
  PB_TRY(CheckArguments(args));
  selfcheck::SelfCheckRequest request;
  PB_ASSIGN(request.models, args.generated ? GeneratedModels() : ListedModels());
  PB_ASSIGN(request.mutant, ResolveEngine("mutant", {}));
  PB_ASSIGN(request.native, ResolveEngine("native", {}));
  PB_ASSIGN(request.arbiter, ResolveEngine("oracle", {}));
  if (!args.no_reference && !args.generated) {
    PB_ASSIGN(request.reference, ResolveEngine(setup::KnownReferences().front(), {}));
  }
  PB_ASSIGN(request.calibration, ReadFile(Share() / "calibration.txt", 1 << 20));
  request.share = args.share, request.seed = args.seed, request.filter = args.filter;
  if (args.generated) request.generated = {args.cases, args.seed};
  const char* kept = args.generated ? "generated.jsonl" : "results.jsonl";
  request.results =
      args.results.empty() ? CacheDir() / "self-check" / kept : std::filesystem::path(args.results);
  request.resume = args.resume;
  request.n_jobs = args.jobs > 0 ? args.jobs : ProcessorCount();
  return request;
}

std::string Today() {
  return fmt::format("{:%Y-%m-%d}", fmt::gmtime(static_cast<std::time_t>(std::time(nullptr))));
}

// Adds what was measured to the page of held-out measurements.
Status Record(const std::filesystem::path& path, const report::GeneratedReport& report) {
  std::string page;
  std::error_code error;
  if (std::filesystem::exists(path, error)) {
    PB_ASSIGN(page, ReadFile(path, 16 << 20));
  }
  return WriteFileAtomic(path, report::AddMeasurement(page, report));
}

int TellGenerated(const SelfCheckArguments& args, const selfcheck::SelfCheckRequest& request,
                  const std::vector<selfcheck::SelfCase>& cases, int64_t version,
                  report::GeneratedReport report) {
  report.table = selfcheck::CountGenerated(report.results);
  report.version = version, report.date = Today();
  report.variations_commit = CommitOfVariations(), report.defects_commit = CommitOfDefects();
  report.what = fmt::format("{} defects, seed {}", args.cases, args.seed);
  if (!args.filter.empty()) report.what += fmt::format(", those that hold \"{}\"", args.filter);
  const bool holds = std::ranges::all_of(report.table.goals, &selfcheck::Goal::holds);
  report.exit_code = !report.table.complete() ? kExitIncomplete : holds ? kExitOk : 1;
  if (!args.record.empty()) {
    const Status kept =
        report.table.complete()
            ? Record(args.record, report)
            : Status(MakeError(Code::kUsage,
                               "--record {}: cases could not be run, so nothing is kept; go on with --resume",
                               args.record));
    if (!kept.ok()) PrintError(fmt::format("error: {}\n", kept.error().message));
    if (!kept.ok()) report.exit_code = kExitIncomplete;
  }
  report::TextOptions options;
  options.width = TerminalWidth(STDOUT_FILENO);
  PrintOut(args.output.format == "markdown" ? report::RenderGeneratedMarkdown(report)
           : args.output.json()             ? report::RenderGeneratedJson(report)
                                            : report::RenderGeneratedText(report, options));
  const int exit_code = Receipt(args, request, cases, report);
  if (args.reports.empty()) return exit_code;
  report::TablePage page = report::GeneratedPage(report, MakeContext("self-check"));
  page.again = Call(WordsAgain(args));
  return WriteTableReports(args.reports, std::move(page), report::RenderGeneratedMarkdown(report), exit_code);
}

int Run(const SelfCheckArguments& args) {
  if (const Status writable = CheckTableReports(args.reports, "self-check", args.output); !writable.ok())
    return Fail(args.output, writable.error());
  if (const Status writable = CheckReceiptPath(args.receipt); !writable.ok())
    return Fail(args.output, writable.error());
  auto request = MakeSelfCheck(args);
  if (!request && request.error().code == Code::kNotFound)
    return FailWith(args.output, kExitIncomplete, "incomplete", "not-found", request.error().message,
                    {SetUpReference(), {Call("self-check --no-reference"), "without what needs it"}});
  if (!request) return Fail(args.output, request.error());
  const auto start = std::chrono::steady_clock::now();
  auto version = args.generated ? selfcheck::GeneratorVersion(*request) : Result<int64_t>(0);
  if (!version) return Fail(args.output, version.error());
  auto cases = selfcheck::PlanSelfCheck(*request);
  if (!cases) return Fail(args.output, cases.error());
  Progress progress(args.output);
  request->progress = progress.Callback();
  auto results = selfcheck::RunSelfCheck(*request, *cases);
  progress.End();
  if (!results) return Fail(args.output, results.error());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (args.generated) {
    report::GeneratedReport report;
    report.results = std::move(results).value(), report.wall_seconds = seconds;
    return TellGenerated(args, *request, *cases, *version, std::move(report));
  }
  report::SelfCheckReport report;
  report.results = std::move(results).value();
  report.whole = args.share >= 1 && args.filter.empty();
  report.matrix = selfcheck::CountSelfCheck(report.results, report.whole);
  report.what = args.share < 1 ? fmt::format("a share of {:g}, seed {}", args.share, args.seed) : "all cases";
  if (!args.filter.empty()) report.what += fmt::format(" that hold \"{}\"", args.filter);
  if (request->reference) report.reference = request->reference->text;
  report.wall_seconds = seconds;
  const selfcheck::SelfMatrix& m = report.matrix;
  const bool incomplete = report.results.empty() || m.total.failed + m.n_benign_failed > 0;
  report.exit_code = m.broken_goals.empty() ? kExitOk : incomplete ? kExitIncomplete : 1;
  report::Context context = MakeContext("self-check");
  report::TextOptions options;
  options.width = TerminalWidth(STDOUT_FILENO);
  PrintOut(args.output.format == "markdown" ? report::RenderSelfCheckMarkdown(report, context)
           : args.output.json()             ? report::RenderSelfCheckJson(report, context)
                                            : report::RenderSelfCheckText(report, options));
  const int exit_code = Receipt(args, *request, *cases, report);
  if (args.reports.empty()) return exit_code;
  report::TablePage page = report::SelfCheckPage(report, context);
  page.again = Call(WordsAgain(args));
  return WriteTableReports(args.reports, std::move(page), report::RenderSelfCheckMarkdown(report, context),
                           exit_code);
}

}  // namespace

Action DeclareSelfCheck(Flags& flags) {
  auto args = std::make_shared<SelfCheckArguments>();
  flags.Option("--share", args->share, "run this share of the cases of each kind")
      .Range(1e-6, 1.0)
      .ShowDefault()
      .Group("Cases");
  flags
      .Switch("--generated", args->generated,
              "defects that a generator draws, in the place of the listed ones: over stage, part, time and "
              "amount, with what is true of each written beforehand; plain first, then as --paths all")
      .Group("Cases");
  flags.Option("--cases", args->cases, "how many defects are generated")
      .Range(1, 100000)
      .ShowDefault()
      .Group("Cases");
  flags.Option("--seed", args->seed, "which ones a share takes; which are generated")
      .ShowDefault()
      .Group("Cases");
  flags.Option("--filter", args->filter, "only cases whose name holds this text, as down_proj or \"layer 2\"")
      .Group("Cases");
  flags.Switch("--no-reference", args->no_reference, "leave out the harmless changes that need llama.cpp")
      .Group("Cases");
  flags.Option("--jobs", args->jobs, "cases at a time (default: one a core)").Range(1, 256).Group("Cases");
  AddReceiptArgument(flags, args->receipt);
  AddTableReportArgument(flags, args->reports);
  flags.Option("--results", args->results, "keep a line for each case here (default: in the cache)")
      .Group("Output");
  flags
      .Switch("--resume", args->resume,
              "go on after an interruption: cases kept by the same build are not run again")
      .Group("Output");
  flags
      .Option("--record", args->record,
              "with --generated: add the figures to this page (docs/held_out.md), on which the first "
              "measurement of a generator stays")
      .Group("Output");
  AddOutputArguments(flags, args->output, "logs to stderr", {"text", "json", "markdown"});
  return [args] { return Run(*args); };
}

}  // namespace pb::cli

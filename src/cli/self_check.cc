// paritybit self-check: which injected defects are found, placed, blamed and named, and whether
// anything harmless raises an alarm.
#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <memory>

#include "base/file.h"
#include "base/processors.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/next.h"
#include "cli/progress.h"
#include "model/generate.h"
#include "model/hyper.h"
#include "report/self_check_report.h"
#include "setup/setup.h"

namespace pb::cli {
namespace {

struct SelfCheckArguments {
  OutputArguments output;
  double share = 1;
  uint64_t seed = 1;
  std::string filter, results;
  bool resume = false, no_reference = false;
  int jobs = 0;
};

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

Result<selfcheck::SelfCheckRequest> MakeSelfCheck(const SelfCheckArguments& args) {
  selfcheck::SelfCheckRequest request;
  const std::filesystem::path share = ExecutableDir().parent_path() / "share" / "paritybit";
  request.models = {
      {share / "models" / "tiny-bitnet-silu" / "tiny-bitnet-silu-tq2_0.gguf", true},
      // llama.cpp runs SiLU where this model declares squared ReLU: nothing against it is harmless.
      {share / "models" / "tiny-bitnet-relu2" / "tiny-bitnet-relu2-tq2_0.gguf", false}};
  PB_ASSIGN(std::filesystem::path awkward, AwkwardModel());
  request.models.push_back({awkward, true});
  for (auto [architecture, n_layers] : {std::pair{"qwen2moe", 2}, {"gpt-oss", 2}, {"gemma3", 7}}) {
    PB_ASSIGN(std::filesystem::path other, ModelOf(architecture, n_layers));
    request.models.push_back({other, false, true});
  }
  PB_ASSIGN(request.mutant, ResolveEngine("mutant", {}));
  PB_ASSIGN(request.native, ResolveEngine("native", {}));
  PB_ASSIGN(request.arbiter, ResolveEngine("oracle", {}));
  if (!args.no_reference) {
    PB_ASSIGN(request.reference, ResolveEngine(setup::KnownReferences().front(), {}));
  }
  PB_ASSIGN(request.calibration, ReadFile(share / "calibration.txt", 1 << 20));
  request.share = args.share, request.seed = args.seed, request.filter = args.filter;
  request.results = args.results.empty() ? CacheDir() / "self-check" / "results.jsonl"
                                         : std::filesystem::path(args.results);
  request.resume = args.resume;
  request.n_jobs = args.jobs > 0 ? args.jobs : ProcessorCount();
  return request;
}

int Run(const SelfCheckArguments& args) {
  auto request = MakeSelfCheck(args);
  if (!request && request.error().code == Code::kNotFound)
    return FailWith(args.output, kExitIncomplete, "incomplete", "not-found", request.error().message,
                    {SetUpReference(), {Call("self-check --no-reference"), "without what needs it"}});
  if (!request) return Fail(args.output, request.error());
  const auto start = std::chrono::steady_clock::now();
  auto cases = selfcheck::PlanSelfCheck(*request);
  if (!cases) return Fail(args.output, cases.error());
  Progress progress(args.output);
  request->progress = progress.Callback();
  auto results = selfcheck::RunSelfCheck(*request, *cases);
  progress.End();
  if (!results) return Fail(args.output, results.error());
  report::SelfCheckReport report;
  report.results = std::move(results).value();
  const bool whole = args.share >= 1 && args.filter.empty();
  report.matrix = selfcheck::CountSelfCheck(report.results, whole);
  report.what = args.share < 1 ? fmt::format("a share of {:g}, seed {}", args.share, args.seed) : "all cases";
  if (!args.filter.empty()) report.what += fmt::format(" that hold \"{}\"", args.filter);
  if (request->reference) report.reference = request->reference->text;
  report.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const selfcheck::SelfMatrix& m = report.matrix;
  const bool incomplete = report.results.empty() || m.total.failed + m.n_benign_failed > 0;
  report.exit_code = m.broken_goals.empty() ? kExitOk : incomplete ? kExitIncomplete : 1;
  report::Context context = MakeContext("self-check");
  report::TextOptions options;
  options.width = TerminalWidth(STDOUT_FILENO);
  PrintOut(args.output.format == "markdown" ? report::RenderSelfCheckMarkdown(report, context)
           : args.output.json()             ? report::RenderSelfCheckJson(report, context)
                                            : report::RenderSelfCheckText(report, options));
  return report.exit_code;
}

}  // namespace

Action DeclareSelfCheck(Flags& flags) {
  auto args = std::make_shared<SelfCheckArguments>();
  flags.Option("--share", args->share, "run this share of the cases of each kind")
      .Range(1e-6, 1.0)
      .ShowDefault()
      .Group("Cases");
  flags.Option("--seed", args->seed, "which ones a share takes").ShowDefault().Group("Cases");
  flags.Option("--filter", args->filter, "only cases whose name holds this text, as down_proj or \"layer 2\"")
      .Group("Cases");
  flags.Switch("--no-reference", args->no_reference, "leave out the harmless changes that need llama.cpp")
      .Group("Cases");
  flags.Option("--jobs", args->jobs, "cases at a time (default: one a core)").Range(1, 256).Group("Cases");
  flags.Option("--results", args->results, "keep a line for each case here (default: in the cache)")
      .Group("Output");
  flags
      .Switch("--resume", args->resume,
              "go on after an interruption: cases kept by the same build are not run again")
      .Group("Output");
  AddOutputArguments(flags, args->output, "logs to stderr", {"text", "json", "markdown"});
  return [args] { return Run(*args); };
}

}  // namespace pb::cli

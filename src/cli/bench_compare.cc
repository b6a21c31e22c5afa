// paritybit bench-compare: two measurements of speed, judged by the spread of their repeats.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/toml_text.h"
#include "cli/baselines.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/receipts.h"
#include "receipt/schema.h"
#include "report/benchmark_report.h"

namespace pb::cli {
namespace {

struct CompareArguments {
  std::string current = "ci/inference.json", baseline = "auto", thresholds, out, device = "auto",
              category = "all";
  bool ci = false, fail_on_regression = true;
  OutputArguments output;
};

constexpr const char *kBaselines = "baselines", *kBaselineName = "benchmark";

// A receipt of a benchmark that passes as what was written.
Result<nlohmann::json> ReadBenchmark(const std::string& path) {
  PB_ASSIGN(const std::string text, ReadFile(path, kMaxReceiptBytes));
  receipt::Opened opened = receipt::Open(text);
  receipt::Here here;
  here.now = NowSeconds(), here.as_recorded = true;
  for (const receipt::Gate& gate : receipt::CheckGates(opened, here))
    if (!gate.passed) return MakeError(Code::kMalformed, "{}: {}: {}", path, gate.name, gate.saw);
  if (opened.object["command"] != "benchmark")
    return MakeError(Code::kMalformed, "{}: a receipt of {}, not of a benchmark", path,
                     opened.object["command"].get<std::string>());
  return std::move(opened.object);
}

// A table of percentages: prompt, decode, improvement; inference stands for the first two.
Result<receipt::SpeedThresholds> ReadThresholds(const std::string& path) {
  receipt::SpeedThresholds thresholds;
  if (path.empty()) return thresholds;
  PB_ASSIGN(const std::string text, ReadFile(path, 1 << 20));
  auto toml = ParseToml(text);
  if (!toml.ok()) return std::move(toml).error().In(path);
  for (const auto& [key, value] : toml->items()) {
    const double percent = value.is_number() ? value.get<double>() : -1;
    if (percent < 0 || percent > 100)
      return MakeError(Code::kMalformed, "{}: {} is no number of percent", path, key);
    if (key == "inference") thresholds.prompt = thresholds.decode = percent;
  }
  for (const auto& [key, value] : toml->items()) {
    if (key == "inference") continue;
    double* target = key == "prompt"        ? &thresholds.prompt
                     : key == "decode"      ? &thresholds.decode
                     : key == "improvement" ? &thresholds.improvement
                                            : nullptr;
    if (!target)
      return MakeError(Code::kMalformed, "{}: `{}` is not known; inference, prompt, decode, improvement are",
                       path, key);
    *target = value.get<double>();
  }
  return thresholds;
}

Result<int> Compare(const CompareArguments& args) {
  if (args.device == "gpu")
    return MakeError(Code::kUnsupported,
                     "--device gpu: refused: each receipt tells where its engine computed");
  if (args.category != "all" && args.category != "inference")
    return MakeError(
        Code::kUnsupported,
        "--category {}: refused: a receipt measures an engine as a whole, so the category is inference",
        args.category);
  PB_TRY(CheckReceiptPath(args.out));
  report::BenchComparison comparison;
  comparison.current = args.current, comparison.baseline = args.baseline;
  PB_ASSIGN(const receipt::SpeedThresholds thresholds, ReadThresholds(args.thresholds));
  PB_ASSIGN(const nlohmann::json current, ReadBenchmark(args.current));
  if (args.baseline == "auto") {
    PB_ASSIGN(const std::optional<Baseline> newest, NewestBaseline(kBaselines, kBaselineName));
    if (!newest)
      return MakeError(Code::kNotFound, "there is no baseline in {}/DATE/{}.json: name one with --baseline",
                       kBaselines, kBaselineName);
    comparison.baseline = newest->path;
  }
  PB_ASSIGN(const nlohmann::json baseline, ReadBenchmark(comparison.baseline));
  comparison.speeds = receipt::CompareSpeeds(current, baseline, thresholds);
  const bool regressed = std::any_of(comparison.speeds.changes.begin(), comparison.speeds.changes.end(),
                                     [](const receipt::SpeedChange& change) { return change.regression; });
  if (regressed && args.fail_on_regression)
    comparison.outcome = compare::Outcome::kDiverged;
  else if (!regressed && !comparison.speeds.why_not.empty())
    comparison.outcome = compare::Outcome::kIncomplete;
  if (regressed && !args.fail_on_regression)
    comparison.speeds.notes.push_back("--fail-on-regression=false: the regression was not to count");
  report::TextOptions options;
  options.colour = UseColour(STDOUT_FILENO) && !args.ci, options.width = TerminalWidth(STDOUT_FILENO);
  const std::string& format = args.output.format;
  const std::string text = format == "json"       ? report::RenderJson(comparison)
                           : format == "junit"    ? report::RenderJunit(comparison)
                           : format == "markdown" ? report::RenderMarkdown(comparison)
                                                  : report::RenderText(comparison, options);
  if (args.out.empty())
    PrintOut(text);
  else
    PB_TRY(WriteFileAtomic(args.out, text));
  return compare::ExitCode(comparison.outcome);
}

}  // namespace

Action DeclareBenchCompare(Flags& flags) {
  auto args = std::make_shared<CompareArguments>();
  flags.Option("--current", args->current, "receipt of the benchmark under test")
      .ShowDefault()
      .Group("Receipts");
  flags
      .Option("--baseline", args->baseline,
              fmt::format("receipt to hold it against; auto: the newest {}/DATE/{}.json", kBaselines,
                          kBaselineName))
      .ShowDefault()
      .Group("Receipts");
  flags
      .Option("--thresholds", args->thresholds,
              "TOML file with percentages: inference (or prompt, decode), how far the median may fall; "
              "improvement (default: 20, and 5)")
      .Group("Judgement");
  flags
      .Switch("--fail-on-regression", args->fail_on_regression,
              "exit 1 on a regression: as it is; --fail-on-regression=false only tells it")
      .Group("Judgement");
  flags.Option("--device", args->device, "auto or cpu")
      .OneOf({"auto", "cpu", "gpu"})
      .ShowDefault()
      .Group("Receipts");
  flags.Option("--category", args->category, "all or inference")
      .OneOf({"all", "inference", "quantization", "kernels", "fallback"})
      .ShowDefault()
      .Group("Receipts");
  flags.Switch("--ci", args->ci, "no colour").Group("Output");
  flags.Option("-o,--output", args->out, "write to this file instead of stdout").Group("Output");
  AddOutputArguments(flags, args->output, "logs to stderr", {"text", "human", "json", "junit", "markdown"});
  return [args] {
    auto exit_code = Compare(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli

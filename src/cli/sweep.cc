// paritybit sweep: scenarios, models, engines and settings against each other; what is done stays
// done.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/processors.h"
#include "base/toml_text.h"
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/next.h"
#include "cli/progress.h"
#include "cli/report_files.h"
#include "cli/sweep_keys.h"
#include "cli/sweep_output.h"
#include "cli/sweep_page.h"
#include "cli/tokenizer_file.h"
#include "cli/variables.h"
#include "setup/work_dir.h"
#include "sweep/database.h"
#include "sweep/local.h"
#include "sweep/slurm.h"
#include "sweep/summary.h"

namespace pb::cli {
namespace {

namespace fs = std::filesystem;
using sweep::Cell;
using sweep::CellResult;

struct SweepArguments {
  std::string what, second, third;  // by place
  std::string out, trace_level, candidate;
  EngineArguments engines;  // of the documented form; threads and memory are the budget's
  std::string executor = "local", plan;
  std::vector<std::string> sbatch;
  std::optional<int> jobs, run_cell;
  std::optional<double> stall;
  std::vector<std::string> reports;
  bool retry = false, collect = false, no_wait = false;
  OutputArguments output;
};

constexpr const char* kDefaultFolder = "./crossval-results";

bool IsPlanFile(const std::string& name) { return name.ends_with(".toml"); }

std::string FolderOf(const SweepArguments& args) {
  if (!args.out.empty()) return args.out;
  const std::string& by_place = IsPlanFile(args.what) ? args.second : args.third;
  return by_place.empty() ? kDefaultFolder : by_place;
}

std::string HostName() {
  char name[256] = "";
  return gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

double AvailableMiB() {
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("MemAvailable:")) return std::strtod(line.c_str() + 13, nullptr) / 1024;
  return 1e9;
}

// The documented scenarios on one model.
Result<sweep::Plan> DocumentedPlan(const SweepArguments& args) {
  sweep::Plan plan;
  std::string model = args.what, tokenizer = args.second;
  const auto model_variable = FirstVariable("model", kModelVariables);
  const auto tokenizer_variable = FirstVariable("tokenizer", kTokenizerVariables);
  if (model.empty() && model_variable) model = model_variable->value;
  if (tokenizer.empty() && tokenizer_variable) tokenizer = tokenizer_variable->value;
  if (model.empty())
    return MakeError(Code::kUsage,
                     "no plan and no model: `sweep PLAN.toml [OUT]` or `sweep MODEL TOKENIZER [OUT]`");
  sweep::Setting setting;
  if (!tokenizer.empty()) {
    PB_ASSIGN(const std::string file, FindModelFile(model));
    ModelArguments named;
    named.model = model, named.tokenizer = tokenizer;
    if (auto usable = ChooseTokenizer(named, file); !usable.ok()) return std::move(usable).error();
    setting.arguments = {"--tokenizer", tokenizer};
  }
  sweep::EnginePair engines;
  if (!args.candidate.empty()) engines.candidate = args.candidate;
  if (!args.engines.reference.empty()) engines.reference = args.engines.reference;
  engines.set = args.engines.set, engines.set_reference = args.engines.set_reference;
  plan.scenarios = sweep::DocumentedScenarios();
  plan.models = {{"", model, "", std::nullopt}};
  plan.engines = {engines};
  plan.settings = {std::move(setting)};
  return plan;
}

Result<sweep::Plan> PlanOf(const SweepArguments& args) {
  if (!IsPlanFile(args.what)) return DocumentedPlan(args);
  if (!args.third.empty() || (!args.out.empty() && !args.second.empty()))
    return MakeError(Code::kUsage, "`{}` is one word too much: sweep PLAN.toml [OUT]",
                     args.third.empty() ? args.second : args.third);
  if (!args.candidate.empty() || !args.engines.reference.empty() || !args.engines.set.empty() ||
      !args.engines.set_reference.empty())
    return MakeError(Code::kUsage,
                     "the plan names its engines, in [[engines]]; flags name those of `sweep MODEL`");
  constexpr uint64_t kMaxPlanBytes = 4 << 20;
  PB_ASSIGN(const std::string text, ReadFile(args.what, kMaxPlanBytes));
  auto toml = ParseToml(text);
  if (!toml.ok()) return std::move(toml).error().In(args.what);
  auto plan = sweep::ReadPlan(*toml);
  if (!plan.ok()) return std::move(plan).error().In(args.what);
  return plan;
}

Result<std::vector<Cell>> MakeCells(const SweepArguments& args, sweep::Plan* plan) {
  if (!args.trace_level.empty()) plan->trace_level = args.trace_level;
  const std::optional<run::Choice> threads = ThreadsVariable();
  std::vector<Cell> cells = sweep::CellsOf(*plan, threads ? std::atoi(threads->value.c_str()) : 1);
  CellInputs inputs;
  for (Cell& cell : cells) PB_TRY(inputs.Complete(&cell));
  return cells;
}

// A flag, else the variable, else the plan, else the documented 180 s.
Result<sweep::CellLimits> LimitsOf(const SweepArguments& args, const sweep::Plan& plan) {
  sweep::CellLimits limits;
  if (plan.timeout) limits.timeout = *plan.timeout;
  if (plan.stall) limits.stall = *plan.stall;
  EngineArguments said;
  said.timeout_seconds = args.engines.timeout_seconds;
  if (said.timeout_seconds || VariableValue("CROSSVAL_TIMEOUT_SECS")) {
    std::vector<run::Choice> choices;
    PB_ASSIGN(const host::Limits chosen, ChooseLimits(said, choices));
    limits.timeout = chosen.progress_seconds;
  }
  if (args.stall) limits.stall = *args.stall;
  limits.stall = std::min(limits.stall, limits.timeout);
  return limits;
}

// The command line again.
std::string Again(const SweepArguments& args, const fs::path& folder) {
  std::vector<std::string> words{"sweep"};
  const auto add = [&](const char* flag, const std::string& value) {
    if (!value.empty()) words.insert(words.end(), {flag, value});
  };
  if (!args.what.empty()) words.push_back(args.what);
  if (!IsPlanFile(args.what) && !args.second.empty()) words.push_back(args.second);
  add("--candidate", args.candidate);
  add("--reference", args.engines.reference);
  for (const std::string& setting : args.engines.set) add("--set", setting);
  for (const std::string& setting : args.engines.set_reference) add("--set-reference", setting);
  if (args.executor != "local") add("--executor", args.executor);
  for (const std::string& word : args.sbatch) words.push_back("--sbatch=" + word);
  if (args.jobs) add("--jobs", std::to_string(*args.jobs));
  add("--trace-level", args.trace_level);
  add("--out", folder.string());
  return Call(words);
}

class Sweep {
 public:
  Sweep(const SweepArguments& args, SweepRun run, sweep::CellLimits limits)
      : args_(args), run_(std::move(run)), limits_(limits) {}

  Result<int> Run() {
    for (size_t i = 0; i < run_.cells.size(); ++i) {
      const Cell& cell = run_.cells[i];
      index_[cell.name] = i;
      auto result = sweep::ReadResult(run_.folder, cell, limits_.timeout, limits_.stall);
      const bool kept = result && (args_.collect || IsToBeKept(*result));
      if (kept) run_.kept.insert(cell.name);
      if (!kept) missing_.push_back(cell);
      run_.results.push_back(kept ? *std::move(result) : sweep::NotRun(cell, "it has no result"));
    }
    if (!args_.collect && !missing_.empty()) PB_TRY(RunMissing());
    PB_TRY(sweep::WriteDatabase(run_.folder, run_.cells, run_.results));
    const std::string summary = sweep::RenderSummary(run_.folder, run_.cells, run_.results, run_.again);
    PB_TRY(WriteFileAtomic(run_.folder.root / sweep::kSummaryFile, summary));
    PrintSweep(run_, args_.output);
    if (args_.reports.empty()) return run_.exit_code();
    return WriteTableReports(args_.reports, SweepPage(run_), summary, run_.exit_code());
  }

 private:
  // What says nothing of the inputs but of the moment is run again.
  bool IsToBeKept(const CellResult& result) const {
    if (result.state == sweep::kError) return false;
    return !args_.retry || (result.state != sweep::kTimedOut && result.state != sweep::kStalled &&
                            result.state != "engine-failed" && result.state != "incomplete");
  }

  Status RunMissing() {
    Progress progress(args_.output, "sweep");
    const auto n = static_cast<int64_t>(run_.cells.size());
    int64_t n_done = static_cast<int64_t>(run_.kept.size());
    std::string what = "cells";
    progress.Update(what, n_done, n);
    const auto done = [&](const CellResult& result) {
      run_.results[index_.at(result.name)] = result;
      Log(args_.output, fmt::format("{}: {}{}", result.name, result.state,
                                    result.exit_code == kExitOk ? "" : ": " + result.why));
      progress.Update(what, ++n_done, n);
    };
    const sweep::Runner runner{ExecutableDir() / "paritybit", HostName(), limits_, run_.folder};
    if (args_.executor == "local") return RunHere(runner, done);
    sweep::SlurmOptions options{args_.sbatch, args_.jobs.value_or(0), !args_.no_wait};
    return sweep::RunBySlurm(runner, missing_, options, done, [&](const std::string& line) {
      what = line;
      progress.Update(what, n_done, n);
    });
  }

  Status RunHere(const sweep::Runner& runner, const sweep::CellDone& done) {
    sweep::Budget budget{args_.jobs.value_or(0), args_.engines.threads.value_or(0),
                         static_cast<double>(args_.engines.memory_mib.value_or(0))};
    PB_TRY(sweep::CheckBudget(missing_, budget));
    if (budget.threads == 0) budget.threads = ProcessorCount();
    if (budget.memory_mib == 0) budget.memory_mib = AvailableMiB();
    return sweep::RunLocally(runner, missing_, budget, done);
  }

  const SweepArguments& args_;
  SweepRun run_;
  sweep::CellLimits limits_;
  std::vector<Cell> missing_;
  std::map<std::string, size_t> index_;
};

Result<int> RunSweep(const SweepArguments& args) {
  if (args.run_cell) {
    if (args.plan.empty()) return MakeError(Code::kUsage, "--run-cell is of a plan: name it with --plan");
    if (!args.reports.empty())
      return MakeError(Code::kUsage, "--report is of a whole sweep, not of --run-cell");
    PB_ASSIGN(const CellResult result, sweep::RunPlannedCell(args.plan, *args.run_cell, HostName()));
    PrintText(fmt::format("{}: {}\n", result.name, result.state));
    return kExitOk;  // the work of a task is to have a result, whichever
  }
  PB_TRY(CheckTableReports(args.reports, "sweep", args.output));
  PB_ASSIGN(sweep::Plan plan, PlanOf(args));
  PB_ASSIGN(const sweep::CellLimits limits, LimitsOf(args, plan));
  SweepRun run;
  PB_ASSIGN(run.cells, MakeCells(args, &plan));
  std::error_code error;
  run.folder.root = fs::absolute(FolderOf(args), error).lexically_normal();
  if (!run.folder.root.has_filename()) run.folder.root = run.folder.root.parent_path();
  run.executor = args.executor;
  run.again = Again(args, FolderOf(args));
  fs::create_directories(run.folder.root, error);
  if (error) return MakeError(Code::kIo, "{}: {}", run.folder.root.string(), error.message());
  PB_ASSIGN(const setup::Lock lock, setup::Lock::Take(run.folder.lock(), [](std::string_view) {
              PrintError("another sweep works in this folder; waiting for it\n");
            }));
  return Sweep(args, std::move(run), limits).Run();
}

void DeclareExecution(Flags& flags, SweepArguments& args) {
  flags
      .Option("--timeout", args.engines.timeout_seconds,
              "seconds that a cell may take; else $CROSSVAL_TIMEOUT_SECS, else the plan's, else 180")
      .Positive()
      .Group("Limits of a cell");
  flags
      .Option("--stall", args.stall,
              "seconds that a cell may go without progress (default: the plan's, else 120)")
      .Positive()
      .Group("Limits of a cell");
  flags.Option("-j,--jobs", args.jobs, "cells side by side (default: as many as the budget holds)")
      .Range(1, 1 << 16)
      .Group("Budget");
  flags
      .Option("-t,--threads", args.engines.threads,
              "threads of all cells together; a cell takes those of its two engines (default: one for each "
              "processor)")
      .Range(1, 1 << 16)
      .Group("Budget");
  flags
      .Option("--memory", args.engines.memory_mib,
              "MiB of all cells together; a cell is estimated by its model, or takes the plan's memory_mib "
              "(default: what is available)")
      .Positive()
      .Group("Budget");
}

void DeclareSlurm(Flags& flags, SweepArguments& args) {
  flags
      .Option("--executor", args.executor,
              "local: here; slurm: as a job array, OUT being a folder that its nodes share")
      .OneOf({"local", "slurm"})
      .ShowDefault()
      .Group("Slurm");
  flags.Option("--sbatch", args.sbatch, "a further word for sbatch, as --sbatch=--partition=short")
      .OneValue()
      .Group("Slurm");
  flags.Switch("--no-wait", args.no_wait, "return when all is submitted; the same command collects")
      .Group("Slurm");
  flags.Option("--run-cell", args.run_cell, "what a task does: this cell of --plan, from 0")
      .NonNegative()
      .Group("Slurm");
  flags.Option("--plan", args.plan, "the plan that --executor slurm wrote to OUT/slurm").Group("Slurm");
}

}  // namespace

Action DeclareSweep(Flags& flags) {
  auto args = std::make_shared<SweepArguments>();
  flags
      .Option("plan", args->what,
              "the plan (TOML, docs/sweep.md); or a model file, for the documented three scenarios")
      .Group("Cells");
  flags
      .Option("tokenizer", args->second,
              "of a model: its tokeniser, as in crossval-per-token; of a plan: OUT")
      .Group("Cells");
  flags.Option("out", args->third, "folder of the results (default ./crossval-results)").Group("Cells");
  flags.Option("--out", args->out, "the same as a flag").Group("Cells");
  flags.Option("-c,--candidate", args->candidate, "of a model: the engine under test (default native)")
      .Group("Cells");
  flags
      .Option("-r,--reference", args->engines.reference,
              "of a model: the engine to agree with (default llama.cpp)")
      .Group("Cells");
  flags.Option("--set", args->engines.set, "of a model: a setting of the candidate")
      .OneValue()
      .Group("Cells");
  flags.Option("--set-reference", args->engines.set_reference, "of a model: a setting of the reference")
      .OneValue()
      .Group("Cells");
  DeclareExecution(flags, *args);
  DeclareSlurm(flags, *args);
  flags.Switch("--retry", args->retry, "run cells again that timed out, stalled, failed or stayed incomplete")
      .Group("Results");
  flags.Switch("--collect", args->collect, "run nothing: summary and database of the cells that are there")
      .Group("Results");
  flags
      .Option("--trace-level", args->trace_level,
              "what kept traces hold: none, digest, sketch, or full, which can be replayed (default: the "
              "plan's, else sketch)")
      .OneOf({"none", "digest", "sketch", "full"})
      .Group("Results");
  AddTableReportArgument(flags, args->reports);
  AddOutputArguments(flags, args->output, "each cell as it ends, to stderr");
  return [args] {
    auto exit_code = RunSweep(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli

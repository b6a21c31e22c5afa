// Runs the comparisons that go through the code paths that are left, as if each had been typed.
#include "cli/paths.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "compare/types.h"
#include "report/crossval_report.h"
#include "run/path_trials.h"

namespace pb::cli {
namespace {

// Sets an engine's setting in both, over what was typed.
void SetBoth(CrossvalArguments* args, const std::string& key, const std::string& value) {
  for (std::vector<std::string>* settings : {&args->engines.set, &args->engines.set_reference}) {
    std::erase_if(*settings, [&](const std::string& s) { return s.starts_with(key + "="); });
    settings->push_back(key + "=" + value);
  }
}

// A prompt as a file in the cache, so that it can be typed again; as it is where that cannot be kept.
PromptArguments OnePrompt(const std::string& text) {
  PromptArguments prompts;
  const std::string copy = KeepPromptText(text);
  (copy.empty() ? prompts.prompts : prompts.prompt_files).push_back(copy.empty() ? text : copy);
  return prompts;
}

// A trial as if it had been typed.
CrossvalArguments ArgumentsOf(const run::PathTrial& trial, CrossvalArguments args) {
  args.prompts = OnePrompt(trial.prompt);
  args.max_tokens = trial.steps;
  args.keep_traces.clear(), args.trace_level.clear();
  args.all = false;
  if (!trial.key.empty()) SetBoth(&args, trial.key, trial.value);
  return args;
}

// The verdict in a sentence.
std::string Sentence(const run::Comparison& c) {
  return c.verdict.reasons.empty() ? "nothing was compared" : c.verdict.reasons.front().text;
}

using Clock = std::chrono::steady_clock;

// `until`: when it is given up. `noise_threads`: run::Request.
Result<diagnose::ExplainedRun> Run(const CrossvalArguments& args, std::optional<Clock::time_point> until,
                                   const std::string& noise_threads) {
  PB_ASSIGN(run::Request request, MakeRequest(args));
  request.default_row = false;
  request.limits.until = until;
  request.noise_threads = noise_threads;
  return CompareAndDiagnose(args, std::move(request), std::nullopt);
}

bool IsFlash(const run::Comparison& c) {
  return c.candidate.session_facts().flash.value == "on" || c.reference.session_facts().flash.value == "on";
}

}  // namespace

Status RunPaths(JudgedPaths* result) {
  PB_ASSIGN(const std::string text, ReadCalibration());
  const run::Comparison& plain = result->judged.comparison;
  const std::string asked_for =
      fmt::format("{}: {}", compare::OutcomeName(plain.verdict.outcome), Sentence(plain));
  std::vector<run::PathRun> runs;
  std::set<run::Path> taken = run::PathsTaken(plain);
  std::vector<diagnose::SeenPass> right = diagnose::RightPasses(plain);
  for (const run::PathTrial& trial : run::PathTrials(plain, text)) {
    CrossvalArguments args = ArgumentsOf(trial, result->args);
    std::optional<Clock::time_point> until;
    if (trial.seconds > 0)
      until = Clock::now() +
              std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(trial.seconds));
    // The floor was measured with the threads of the comparison that was asked for.
    const std::string noise_threads = trial.key == "threads" ? plain.reference.session_facts().threads : "";
    auto judged = Run(args, until, noise_threads);
    const auto shorter = run::Shorter(trial);
    if (!judged.ok() && judged.error().code == Code::kUsage && shorter) {
      args = ArgumentsOf(*shorter, result->args);
      judged = Run(args, until, noise_threads);
    }
    if (!judged.ok() && judged.error().code == Code::kIo && until && Clock::now() >= *until) {
      runs.push_back(
          {trial.name, "",
           fmt::format("given up after {:.0f} s, as the machine is busy or an engine slow with two "
                       "threads",
                       trial.seconds),
           trial.seconds});
      continue;
    }
    if (!judged.ok()) {
      // A setting or a length that these engines do not take.
      if (judged.error().code != Code::kUsage) return std::move(judged).error();
      runs.push_back({trial.name, "", judged.error().message, 0});
      continue;
    }
    const run::Comparison& c = judged->comparison;
    runs.push_back(
        {trial.name, std::string(compare::OutcomeName(c.verdict.outcome)), Sentence(c), c.wall_seconds});
    if (run::FindsInEngines(c.verdict)) {
      // Where it finds nothing is known besides; but what flash attention does was not tried before.
      if (judged->diagnosis && !IsFlash(c)) diagnose::AddPasses(right, &*judged->diagnosis);
      *result = {std::move(args), std::move(judged).value(), false};
      result->judged.comparison.notes.push_back(
          fmt::format("this is the run '{}' of --paths all; the comparison that was asked for is {}",
                      trial.name, asked_for));
      break;
    }
    if (compare::ExitCode(c.verdict.outcome) != kExitOk) continue;
    taken.merge(run::PathsTaken(c));
    if (IsFlash(c)) continue;
    const std::vector<diagnose::SeenPass> more = diagnose::RightPasses(c);
    right.insert(right.end(), more.begin(), more.end());
  }
  result->judged.comparison.path_runs = std::move(runs);
  result->judged.comparison.paths_beside = std::move(taken);
  return {};
}

}  // namespace pb::cli

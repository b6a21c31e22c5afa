// Which comparisons go through the code paths that are left, and what they find.
#include "cli/paths.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "compare/types.h"
#include "drive/passes.h"
#include "report/crossval_report.h"

namespace pb::cli {
namespace {

using run::Path;

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

// The beginning of a text that comes to about so many tokens, cut between characters.
std::string Beginning(const std::string& text, double n_tokens, double bytes_per_token) {
  size_t n = std::min(text.size(), static_cast<size_t>(n_tokens * bytes_per_token));
  while (n < text.size() && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) ++n;
  return text.substr(0, n);
}

double BytesPerToken(const run::Comparison& c) {
  size_t n_bytes = 0, n_tokens = 0;
  for (const run::PromptRecord& p : c.prompts) n_bytes += p.text.size(), n_tokens += p.tokens.size();
  constexpr size_t kEnough = 20;  // tokens that tell a ratio
  return n_tokens < kEnough ? 4.0 : static_cast<double>(n_bytes) / static_cast<double>(n_tokens);
}

// The verdict in a sentence.
std::string Sentence(const run::Comparison& c) {
  return c.verdict.reasons.empty() ? "nothing was compared" : c.verdict.reasons.front().text;
}

Result<diagnose::ExplainedRun> Run(const PathAsked& path) {
  PB_ASSIGN(run::Request request, MakeRequest(path.args));
  request.default_row = false;
  return CompareAndDiagnose(path.args, std::move(request), std::nullopt);
}

// Bytes of a prompt that fits any model.
constexpr size_t kShort = 400;

// Whether what a comparison says is about the engines, and not that it could not be made.
bool Finds(const compare::Verdict& verdict) {
  return verdict.outcome == compare::Outcome::kDiverged || verdict.outcome == compare::Outcome::kEngineFailed;
}

// The passes of a comparison that found nothing.
void AddRightPasses(const run::Comparison& c, std::vector<diagnose::SeenPass>* passes) {
  const auto threads = [](const drive::EngineRecord& engine) {
    return static_cast<int64_t>(std::strtoll(engine.session_facts().threads.c_str(), nullptr, 10));
  };
  const int64_t n_threads = std::max<int64_t>(std::min(threads(c.candidate), threads(c.reference)), 1);
  const int64_t most = drive::PassRows({&c.candidate, &c.reference});
  for (const run::PromptRecord& prompt : c.prompts) {
    const auto n = static_cast<int64_t>(prompt.tokens.size());
    const auto n_all = n + static_cast<int64_t>(prompt.decoded.size());
    for (int64_t at = 0; at < n; at += most)
      passes->push_back({std::min(most, n - at), at, false, -1, n_threads});
    for (int64_t at = n; at < n_all; at++) passes->push_back({1, at, false, -1, n_threads});
  }
}

bool IsFlash(const run::Comparison& c) {
  return c.candidate.session_facts().flash.value == "on" || c.reference.session_facts().flash.value == "on";
}

}  // namespace

std::vector<PathAsked> PathsToRun(const CrossvalArguments& args, const run::Comparison& plain,
                                  const std::string& text) {
  const std::vector<Path> left = run::PathsNotTaken(plain);
  auto any = [&](std::initializer_list<Path> paths) {
    return std::ranges::any_of(paths, [&](Path p) { return std::ranges::find(left, p) != left.end(); });
  };
  const double bytes = BytesPerToken(plain);
  std::vector<PathAsked> asked;
  auto add = [&](const char* name, const std::string& prompt, int steps) -> CrossvalArguments& {
    PathAsked path{name, prompt, args};
    path.args.prompts = OnePrompt(prompt);
    path.args.max_tokens = steps;
    path.args.receipt.clear(), path.args.keep_traces.clear(), path.args.trace_level.clear();
    path.args.all = false;
    asked.push_back(std::move(path));
    return asked.back().args;
  };
  const std::string mixed(run::TextOfAllPaths());
  if (any({Path::kFewRows}))
    SetBoth(&add("2 to 3 tokens at once", Beginning(text, 24, bytes), 0), "ubatch", "3");
  if (any({Path::kDigits, Path::kContractions, Path::kBlankLines, Path::kCode, Path::kScripts,
           Path::kDecode}))
    add("text of all kinds", mixed, 4);
  if (any({Path::kThreads})) SetBoth(&add("two threads", Beginning(text, 37, bytes), 2), "threads", "2");
  if (any({Path::kFlash}))
    SetBoth(&add("flash attention", Beginning(text, 70, bytes), 2), "attn.flash", "on");
  if (any({Path::kPast512, Path::kManyRows, Path::kPast32, Path::kOddRows})) {
    const int64_t trained = plain.reference.model_facts().n_ctx_train;
    // Rather more than 512, as the ratio is only about right.
    const double most = trained > 0 ? 0.8 * static_cast<double>(trained) : 1e9;
    add("a long prompt", Beginning(text, std::min(590.0, most), bytes), 4);
  }
  return asked;
}

Status RunPaths(JudgedPaths* result) {
  PB_ASSIGN(const std::string text, ReadCalibration());
  const run::Comparison& plain = result->judged.comparison;
  const std::string asked_for =
      fmt::format("{}: {}", compare::OutcomeName(plain.verdict.outcome), Sentence(plain));
  std::vector<run::PathRun> runs;
  std::set<Path> taken = run::PathsTaken(plain);
  std::vector<diagnose::SeenPass> right;
  AddRightPasses(plain, &right);
  for (PathAsked& path : PathsToRun(result->args, plain, text)) {
    auto judged = Run(path);
    // How many tokens a text has is known only once it was tokenised.
    if (!judged.ok() && judged.error().code == Code::kUsage && path.prompt.size() > kShort) {
      path.args.prompts = OnePrompt(Beginning(path.prompt, 1, static_cast<double>(path.prompt.size()) * 0.6));
      judged = Run(path);
    }
    if (!judged.ok()) {
      // A setting or a length that these engines do not take.
      if (judged.error().code != Code::kUsage) return std::move(judged).error();
      runs.push_back({path.name, "", judged.error().message, 0});
      continue;
    }
    const run::Comparison& c = judged->comparison;
    runs.push_back(
        {path.name, std::string(compare::OutcomeName(c.verdict.outcome)), Sentence(c), c.wall_seconds});
    if (Finds(c.verdict)) {
      // Where it finds nothing is known besides; but what flash attention does was not tried before.
      if (judged->diagnosis && !IsFlash(c)) diagnose::AddPasses(right, &*judged->diagnosis);
      *result = {std::move(path.args), std::move(judged).value()};
      result->judged.comparison.notes.push_back(
          fmt::format("this is the run '{}' of --paths all; the comparison that was asked for is {}",
                      path.name, asked_for));
      break;
    }
    if (compare::ExitCode(c.verdict.outcome) != kExitOk) continue;
    taken.merge(run::PathsTaken(c));
    if (!IsFlash(c)) AddRightPasses(c, &right);
  }
  result->judged.comparison.path_runs = std::move(runs);
  result->judged.comparison.paths_beside = std::move(taken);
  return {};
}

}  // namespace pb::cli

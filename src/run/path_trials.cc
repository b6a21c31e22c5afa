// Which prompts and settings go through the code paths that are left.
#include "run/path_trials.h"

#include <algorithm>

#include "compare/types.h"
#include "drive/engine_record.h"

namespace pb::run {
namespace {

// Bytes of a prompt that fits any model.
constexpr size_t kShort = 400;

// Engines whose threads wait for each other by spinning take minutes where others have the processors.
constexpr double kThreadsSeconds = 60;

// The beginning of a text that comes to about so many tokens, cut between characters.
std::string Beginning(const std::string& text, double n_tokens, double bytes_per_token) {
  size_t n = std::min(text.size(), static_cast<size_t>(n_tokens * bytes_per_token));
  while (n < text.size() && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) ++n;
  return text.substr(0, n);
}

double BytesPerToken(const Comparison& c) {
  size_t n_bytes = 0, n_tokens = 0;
  for (const PromptRecord& p : c.prompts) n_bytes += p.text.size(), n_tokens += p.tokens.size();
  constexpr size_t kEnough = 20;  // tokens that tell a ratio
  return n_tokens < kEnough ? 4.0 : static_cast<double>(n_bytes) / static_cast<double>(n_tokens);
}

}  // namespace

std::vector<PathTrial> PathTrials(const Comparison& plain, const std::string& text) {
  const std::vector<Path> left = PathsNotTaken(plain);
  auto any = [&](std::initializer_list<Path> paths) {
    return std::ranges::any_of(paths, [&](Path p) { return std::ranges::find(left, p) != left.end(); });
  };
  const double bytes = BytesPerToken(plain);
  std::vector<PathTrial> trials;
  const std::string mixed(TextOfAllPaths());
  if (any({Path::kFewRows}))
    trials.push_back({"2 to 3 tokens at once", Beginning(text, 24, bytes), 0, "ubatch", "3", 0});
  if (any({Path::kDigits, Path::kContractions, Path::kBlankLines, Path::kCode, Path::kScripts,
           Path::kDecode}))
    trials.push_back({"text of all kinds", mixed, 4, "", "", 0});
  if (any({Path::kThreads}))
    trials.push_back({"two threads", Beginning(text, 37, bytes), 2, "threads", "2", kThreadsSeconds});
  if (any({Path::kFlash}))
    trials.push_back({"flash attention", Beginning(text, 70, bytes), 2, "attn.flash", "on", 0});
  if (any({Path::kPast512, Path::kManyRows, Path::kPast32, Path::kOddRows})) {
    const int64_t trained = plain.reference.model_facts().n_ctx_train;
    // Rather more than 512, as the ratio is only about right.
    const double most = trained > 0 ? 0.8 * static_cast<double>(trained) : 1e9;
    trials.push_back({"a long prompt", Beginning(text, std::min(590.0, most), bytes), 4, "", "", 0});
  }
  return trials;
}

std::optional<PathTrial> Shorter(const PathTrial& trial) {
  if (trial.prompt.size() <= kShort) return std::nullopt;
  PathTrial shorter = trial;
  shorter.prompt = Beginning(trial.prompt, 1, static_cast<double>(trial.prompt.size()) * 0.6);
  return shorter;
}

bool FindsInEngines(const compare::Verdict& verdict) {
  return verdict.outcome >= compare::Outcome::kDiverged;  // engine-failed, invalid
}

}  // namespace pb::run

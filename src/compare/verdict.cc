#include "compare/verdict.h"

#include <algorithm>

#include "compare/completeness.h"
#include "compare/logits_judge.h"

namespace pb::compare {
namespace {

void BlameFailedEngine(Verdict* verdict) {
  bool candidate = HasReason(*verdict, "candidate-failed"), reference = HasReason(*verdict, "reference-failed");
  if (candidate || reference)
    verdict->blame = candidate && reference ? Blame::kBoth
                     : candidate            ? Blame::kCandidate
                                            : Blame::kReference;
}

}  // namespace

bool HasReason(const Verdict& verdict, std::string_view code) {
  return std::any_of(verdict.reasons.begin(), verdict.reasons.end(),
                     [&](const Reason& r) { return r.code == code; });
}

Obstacle NoReference(const std::string& text) { return {Outcome::kIncomplete, "no-reference", text}; }

Obstacle EngineFailed(bool candidate, const std::string& text) {
  return {Outcome::kEngineFailed, candidate ? "candidate-failed" : "reference-failed",
          fmt::format("the {} failed: {}", candidate ? "candidate" : "reference", text)};
}

Obstacle Undeclared(const std::string& text) { return {Outcome::kIncomplete, "undeclared", text}; }

Obstacle UndeclaredActivation(const std::string& architecture, const char* flag) {
  return Undeclared(fmt::format(
      "the model does not declare its FFN activation (architecture {} allows several); put its config.json "
      "beside it, name one with --hf-config, or say {} ffn.activation=relu2|silu",
      architecture, flag));
}

Obstacle Unsupported(bool candidate, const std::string& text) {
  return {Outcome::kIncomplete, "unsupported",
          fmt::format("the {} cannot do what was asked: {}", candidate ? "candidate" : "reference", text)};
}

Obstacle Interrupted(const std::string& text) { return {Outcome::kIncomplete, "interrupted", text}; }

void Settle(Verdict* verdict) {
  auto worse = [](const Reason& a, const Reason& b) { return a.outcome > b.outcome; };
  std::stable_sort(verdict->reasons.begin(), verdict->reasons.end(), worse);
  if (verdict->reasons.empty())
    verdict->reasons.push_back({Outcome::kInvalid, "nothing-compared", "nothing was compared"});
  verdict->outcome = verdict->reasons[0].outcome;
}

Verdict JudgeLogits(Evidence* evidence, bool precision_is_observed) {
  Verdict verdict;
  verdict.scope = Scope::kLogitsOnly;
  verdict.reasons = evidence->obstacles;
  CheckCompleteness(*evidence, &verdict);
  std::vector<Reason> differing = DifferingSettings(
      evidence->settings[0], evidence->settings[1], precision_is_observed);
  verdict.reasons.insert(verdict.reasons.end(), differing.begin(), differing.end());
  CheckFinite(evidence, &verdict);
  // Rows of other tokens, of other settings, or of a model that leaves open what it computes say nothing
  // about a defect.
  bool comparable =
      differing.empty() && !HasReason(verdict, "undeclared") && !HasReason(verdict, "tokens-differ");
  if (!comparable && verdict.blame != Blame::kNone) verdict.blame = Blame::kUndetermined;
  if (comparable && verdict.coverage.compared > 0) {
    CheckLogits(evidence, &verdict);
    CheckRank(*evidence, &verdict);
  }
  BlameFailedEngine(&verdict);
  Settle(&verdict);
  return verdict;
}

}  // namespace pb::compare

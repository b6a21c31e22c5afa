// Captures an op while the comparison runs, and explains it where the verdict names it.
#include "diagnose/explained_run.h"

#include <algorithm>

#include "run/doubts.h"

namespace pb::diagnose {

using compare::ReasonCode;

namespace {

// Whether the verdict names the op that was captured.
bool IsFirstDivergence(const compare::Verdict& verdict, const Place& place) {
  const auto& first = verdict.first_divergence;
  return first && first->stage == place.stage && first->layer == place.layer && first->prompt == place.prompt;
}

// Where two engines are compared that read the file in ways of their own, a key that nothing here
// hears is a note; what the arbiter says of them rests on it.
void TellWhatTheArbiterLeavesUnheard(run::Comparison* comparison) {
  std::vector<compare::Obstacle> obstacles;
  std::vector<std::string> ignored;
  std::vector<Doubt> unheard = comparison->doubts;
  std::erase_if(unheard, [](const Doubt& doubt) { return doubt.kind != Doubt::Kind::kUnheard; });
  if (unheard.empty()) return;
  run::TellDoubts(unheard, 0, true, &obstacles, &ignored);
  for (compare::Obstacle& obstacle : obstacles) {
    auto& reasons = comparison->verdict.reasons;
    const auto same = [&](const compare::Reason& reason) { return reason.text == obstacle.text; };
    if (std::ranges::none_of(reasons, same)) reasons.push_back(std::move(obstacle));
  }
  compare::Settle(&comparison->verdict);
}

}  // namespace

bool IsDivergence(const compare::Verdict& verdict) {
  return verdict.outcome == compare::Outcome::kDiverged || verdict.Has(ReasonCode::kNonFinitePoint) ||
         verdict.Has(ReasonCode::kLocalErrorAboveBound) || verdict.Has(ReasonCode::kTokensDiffer);
}

Result<ExplainedRun> CompareAndExplain(run::Request request, const Result<drive::EngineSpec>& arbiter,
                                       std::optional<Place> place) {
  ExplainedRun out;
  PointCapture capture(place);
  request.observe = [&](const drive::PointPair& pair) { capture.OnPair(pair); };
  if (arbiter.ok()) request.arbiter = *arbiter;
  PB_ASSIGN(out.comparison, run::Crossval(request));
  request.limits.until.reset();  // what was found is explained, however long it took
  compare::Verdict& verdict = out.comparison.verdict;
  const bool tokens_differ = verdict.Has(ReasonCode::kTokensDiffer);
  const Culprit* culprit = capture.culprit();
  if (!IsDivergence(verdict) && !place) return out;
  if (!culprit && !tokens_differ) {
    out.why_none = place ? "the lock-step showed no such op" : "the divergence was not placed at an op";
    return out;
  }
  if (culprit && !place && !tokens_differ && !IsFirstDivergence(verdict, culprit->place)) {
    out.why_none = "the op at which the engines part was not captured";
    return out;
  }
  if (request.progress) request.progress("diagnosis", 0, 1);
  if (culprit && !tokens_differ) {
    out.culprit = *culprit;
    out.culprit->passes = capture.PassesOf(culprit->place.stage, culprit->place.layer);
  }
  auto diagnosis = !arbiter        ? Result<Diagnosis>(arbiter.error())
                   : tokens_differ ? ExplainTokens(out.comparison, *arbiter, request.limits)
                                   : Explain(*out.culprit, out.comparison, *arbiter, request.limits);
  if (!diagnosis) {
    out.why_none = "who is wrong stays open: " + diagnosis.error().message;
    out.culprit.reset();
    return out;
  }
  out.diagnosis = std::move(diagnosis).value();
  verdict.blame = out.diagnosis->blame;
  // The op that is wrong may be one before that at which it shows.
  if (!place && out.culprit && verdict.first_divergence && out.diagnosis->place.stage >= 0)
    verdict.first_divergence->stage = out.diagnosis->place.stage;
  TellWhatTheArbiterLeavesUnheard(&out.comparison);
  return out;
}

}  // namespace pb::diagnose

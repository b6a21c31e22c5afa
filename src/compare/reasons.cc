// The table of reasons: code, stable name, outcome.
#include "compare/reasons.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace pb::compare {
namespace {

struct Row {
  ReasonCode code;
  const char* name;
  std::optional<Outcome> outcome;
};

// Several outcomes: tokens that differ are a finding of an audit and no comparison at all between
// two engines; a limit that noise decides is exceeded by drift where every op is right; a floor of
// zeros is told of an engine by itself.
constexpr std::nullopt_t kSeveral = std::nullopt;
constexpr Row kReasons[] = {
    {ReasonCode::kBeyondOwnFloor, "beyond-own-floor", Outcome::kDiverged},
    {ReasonCode::kBeyondPrecisionEffect, "beyond-precision-effect", Outcome::kDiverged},
    {ReasonCode::kCandidateFailed, "candidate-failed", Outcome::kEngineFailed},
    {ReasonCode::kCodesNotExplained, "codes-not-explained", Outcome::kIncomplete},
    {ReasonCode::kConfidenceUndecided, "confidence-undecided", Outcome::kIncomplete},
    {ReasonCode::kConstantLogits, "constant-logits", Outcome::kInvalid},
    {ReasonCode::kContradicted, "contradicted", Outcome::kIncomplete},
    {ReasonCode::kCosineBelowLimit, "cosine-below-limit", Outcome::kDiverged},
    {ReasonCode::kDecodeDiffers, "decode-differs", Outcome::kDiverged},
    {ReasonCode::kDifferencesArrived, "differences-arrived", Outcome::kMatch},
    {ReasonCode::kDistinguishable, "distinguishable", kSeveral},
    {ReasonCode::kDtypesDiffer, "dtypes-differ", Outcome::kIncomplete},
    {ReasonCode::kEmptyPrompt, "empty-prompt", Outcome::kInvalid},
    {ReasonCode::kEngineFailed, "engine-failed", Outcome::kEngineFailed},
    {ReasonCode::kEqual, "equal", Outcome::kMatch},
    {ReasonCode::kEqualBits, "equal-bits", Outcome::kMatch},
    {ReasonCode::kExplainedByCodes, "explained-by-codes", Outcome::kMatch},
    {ReasonCode::kExtraOutput, "extra-output", Outcome::kInvalid},
    {ReasonCode::kExtraPoints, "extra-points", Outcome::kInvalid},
    {ReasonCode::kExtraPrompts, "extra-prompts", Outcome::kInvalid},
    {ReasonCode::kFusedAttention, "fused-attention", Outcome::kDrift},
    {ReasonCode::kGoalMissed, "goal-missed", kSeveral},
    {ReasonCode::kGreedyFlip, "greedy-flip", Outcome::kNearTie},
    {ReasonCode::kInterrupted, "interrupted", Outcome::kIncomplete},
    {ReasonCode::kKlMeanAboveLimit, "kl-mean-above-limit", kSeveral},
    {ReasonCode::kKlWorstAboveLimit, "kl-worst-above-limit", kSeveral},
    {ReasonCode::kKvCacheOverflow, "kv-cache-overflow", Outcome::kInvalid},
    {ReasonCode::kLimitNotTold, "limit-not-told", Outcome::kIncomplete},
    {ReasonCode::kLimitWithinNoise, "limit-within-noise", Outcome::kIncomplete},
    {ReasonCode::kLocalErrorAboveBound, "local-error-above-bound", Outcome::kDiverged},
    {ReasonCode::kMaxAbsAboveLimit, "max-abs-above-limit", Outcome::kDiverged},
    {ReasonCode::kMissingOutput, "missing-output", Outcome::kInvalid},
    {ReasonCode::kModelsDiffer, "models-differ", Outcome::kIncomplete},
    {ReasonCode::kNearTie, "near-tie", Outcome::kNearTie},
    {ReasonCode::kNllBeyondLimit, "nll-beyond-limit", Outcome::kDiverged},
    {ReasonCode::kNllUndecided, "nll-undecided", Outcome::kIncomplete},
    {ReasonCode::kNoBundle, "no-bundle", Outcome::kIncomplete},
    {ReasonCode::kNoNoiseFloor, "no-noise-floor", Outcome::kIncomplete},
    {ReasonCode::kNoPoints, "no-points", Outcome::kInvalid},
    {ReasonCode::kNoPointsExpected, "no-points-expected", Outcome::kInvalid},
    {ReasonCode::kNoPrompts, "no-prompts", Outcome::kInvalid},
    {ReasonCode::kNoRecords, "no-records", Outcome::kInvalid},
    {ReasonCode::kNoReference, "no-reference", Outcome::kIncomplete},
    {ReasonCode::kNoTokens, "no-tokens", Outcome::kInvalid},
    {ReasonCode::kNoTracepoints, "no-tracepoints", Outcome::kIncomplete},
    {ReasonCode::kNoiseFloorUnusable, "noise-floor-unusable", Outcome::kIncomplete},
    {ReasonCode::kNoiseFloorZero, "noise-floor-zero", kSeveral},
    {ReasonCode::kNonFinite, "non-finite", Outcome::kInvalid},
    {ReasonCode::kNonFinitePoint, "non-finite-point", Outcome::kInvalid},
    {ReasonCode::kNotJudged, "not-judged", Outcome::kIncomplete},
    {ReasonCode::kNotRepeatable, "not-repeatable", kSeveral},
    {ReasonCode::kNothingCompared, "nothing-compared", Outcome::kInvalid},
    {ReasonCode::kNothingPromised, "nothing-promised", Outcome::kMatch},
    {ReasonCode::kObserverEffect, "observer-effect", Outcome::kIncomplete},
    {ReasonCode::kOneTokenVocabulary, "one-token-vocabulary", Outcome::kInvalid},
    {ReasonCode::kOpsWithinBounds, "ops-within-bounds", Outcome::kMatch},
    {ReasonCode::kOrderBeyondNoise, "order-beyond-noise", Outcome::kDiverged},
    {ReasonCode::kOrderDrift, "order-drift", Outcome::kDrift},
    {ReasonCode::kOverwriteIgnored, "overwrite-ignored", Outcome::kIncomplete},
    {ReasonCode::kOwnErrorAboveBound, "own-error-above-bound", Outcome::kDiverged},
    {ReasonCode::kPointsMissing, "points-missing", Outcome::kIncomplete},
    {ReasonCode::kPointsRepeated, "points-repeated", Outcome::kInvalid},
    {ReasonCode::kPointsUnmapped, "points-unmapped", Outcome::kIncomplete},
    {ReasonCode::kPositionsMissing, "positions-missing", Outcome::kIncomplete},
    {ReasonCode::kPositionsNotCompared, "positions-not-compared", Outcome::kIncomplete},
    {ReasonCode::kPositionsWrong, "positions-wrong", Outcome::kInvalid},
    {ReasonCode::kPrecisionDiffers, "precision-differs", kSeveral},
    {ReasonCode::kPrecisionEffectUnknown, "precision-effect-unknown", Outcome::kIncomplete},
    {ReasonCode::kPromiseBroken, "promise-broken", Outcome::kDiverged},
    {ReasonCode::kPromiseKept, "promise-kept", Outcome::kMatch},
    {ReasonCode::kPromiseUnchecked, "promise-unchecked", Outcome::kIncomplete},
    {ReasonCode::kPromptsMissing, "prompts-missing", Outcome::kIncomplete},
    {ReasonCode::kRecorded, "recorded", Outcome::kMatch},
    {ReasonCode::kReferenceFailed, "reference-failed", Outcome::kEngineFailed},
    {ReasonCode::kRelL2AboveLimit, "rel-l2-above-limit", Outcome::kDiverged},
    {ReasonCode::kRowsOutOfOrder, "rows-out-of-order", Outcome::kInvalid},
    {ReasonCode::kSettingsDiffer, "settings-differ", Outcome::kIncomplete},
    {ReasonCode::kShapeMismatch, "shape-mismatch", Outcome::kInvalid},
    {ReasonCode::kShapesDiffer, "shapes-differ", Outcome::kInvalid},
    {ReasonCode::kShownNotUsed, "shown-not-used", Outcome::kIncomplete},
    {ReasonCode::kTauBelowLimit, "tau-below-limit", Outcome::kDiverged},
    {ReasonCode::kTokensDiffer, "tokens-differ", kSeveral},
    {ReasonCode::kTooFewSteps, "too-few-steps", Outcome::kIncomplete},
    {ReasonCode::kTooFewTokens, "too-few-tokens", Outcome::kIncomplete},
    {ReasonCode::kTop1Flip, "top1-flip", kSeveral},
    {ReasonCode::kTraceIncomplete, "trace-incomplete", Outcome::kIncomplete},
    {ReasonCode::kUndeclared, "undeclared", Outcome::kIncomplete},
    {ReasonCode::kUnequalSteps, "unequal-steps", Outcome::kInvalid},
    {ReasonCode::kUnheard, "unheard", Outcome::kIncomplete},
    {ReasonCode::kUnsupported, "unsupported", Outcome::kIncomplete},
    {ReasonCode::kWeakerFloor, "weaker-floor", Outcome::kMatch},
    {ReasonCode::kWithinLimit, "within-limit", Outcome::kMatch},
    {ReasonCode::kWithinLimits, "within-limits", Outcome::kMatch},
};

constexpr bool InOrder() {
  for (size_t i = 0; i < std::size(kReasons); ++i)
    if (kReasons[i].code != static_cast<ReasonCode>(i)) return false;
  return true;
}
static_assert(InOrder(), "a row for every code, in their order");
static_assert(std::size(kReasons) == static_cast<size_t>(ReasonCode::kWithinLimits) + 1);

const Row& RowOf(ReasonCode code) {
  PB_CHECK(static_cast<size_t>(code) < std::size(kReasons));
  return kReasons[static_cast<size_t>(code)];
}

}  // namespace

const char* OutcomeName(Outcome o) {
  switch (o) {
    case Outcome::kMatch:
      return "match";
    case Outcome::kNearTie:
      return "near-tie";
    case Outcome::kDrift:
      return "drift";
    case Outcome::kIncomplete:
      return "incomplete";
    case Outcome::kDiverged:
      return "diverged";
    case Outcome::kEngineFailed:
      return "engine-failed";
    case Outcome::kInvalid:
      return "invalid";
  }
  return "invalid";
}

std::optional<Outcome> FindOutcome(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(Outcome::kInvalid); ++i)
    if (OutcomeName(static_cast<Outcome>(i)) == name) return static_cast<Outcome>(i);
  return std::nullopt;
}

int ExitCode(Outcome o) {
  switch (o) {
    case Outcome::kMatch:
    case Outcome::kNearTie:
    case Outcome::kDrift:
      return 0;
    case Outcome::kDiverged:
      return 1;
    case Outcome::kEngineFailed:
      return 4;
    case Outcome::kIncomplete:
    case Outcome::kInvalid:
      return 3;
  }
  return 3;
}

const char* ReasonName(ReasonCode code) { return RowOf(code).name; }

std::optional<ReasonCode> FindReason(std::string_view name) {
  for (const Row& row : kReasons)
    if (row.name == name) return row.code;
  return std::nullopt;
}

std::optional<Outcome> FixedOutcome(ReasonCode code) { return RowOf(code).outcome; }

Reason::Reason(ReasonCode reason_code, std::string sentence)
    : outcome(FixedOutcome(reason_code).value_or(Outcome::kInvalid)),
      code(reason_code),
      text(std::move(sentence)) {
  PB_CHECK(FixedOutcome(code));
}

Reason::Reason(Outcome of_this, ReasonCode reason_code, std::string sentence)
    : outcome(of_this), code(reason_code), text(std::move(sentence)) {
  PB_CHECK(FixedOutcome(code).value_or(outcome) == outcome);
}

bool HasReason(const std::vector<Reason>& reasons, ReasonCode code) {
  return std::any_of(reasons.begin(), reasons.end(), [&](const Reason& r) { return r.code == code; });
}

}  // namespace pb::compare

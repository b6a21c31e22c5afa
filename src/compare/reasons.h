// Why a verdict is what it is: every reason that paritybit gives, in one table, with its stable
// code and the outcome that it has.
#ifndef PARITYBIT_COMPARE_REASONS_H_
#define PARITYBIT_COMPARE_REASONS_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pb::compare {

// Verdicts in rising order of badness: the worst reason wins (ARCHITECTURE.md, "Verdicts").
enum class Outcome { kMatch, kNearTie, kDrift, kIncomplete, kDiverged, kEngineFailed, kInvalid };
const char* OutcomeName(
    Outcome o);  // "match" "near-tie" "drift" "incomplete" "diverged" "engine-failed" "invalid"
std::optional<Outcome> FindOutcome(std::string_view name);
int ExitCode(Outcome o);  // 0 0 0 3 1 4 3

// In the order of their codes: kNoNoiseFloor is "no-noise-floor".
enum class ReasonCode {
  kBeyondOwnFloor,
  kBeyondPrecisionEffect,
  kCandidateFailed,
  kCodesNotExplained,
  kConfidenceUndecided,
  kConstantLogits,
  kContradicted,
  kCosineBelowLimit,
  kDecodeDiffers,
  kDifferencesArrived,
  kDistinguishable,
  kDtypesDiffer,
  kEmptyPrompt,
  kEngineFailed,
  kEqual,
  kEqualBits,
  kExplainedByCodes,
  kExtraOutput,
  kExtraPoints,
  kExtraPrompts,
  kFusedAttention,
  kGoalMissed,
  kGreedyFlip,
  kInterrupted,
  kKlMeanAboveLimit,
  kKlWorstAboveLimit,
  kKvCacheOverflow,
  kLimitNotTold,
  kLimitWithinNoise,
  kLocalErrorAboveBound,
  kMaxAbsAboveLimit,
  kMissingOutput,
  kModelsDiffer,
  kNearTie,
  kNllBeyondLimit,
  kNllUndecided,
  kNoBundle,
  kNoNoiseFloor,
  kNoPoints,
  kNoPointsExpected,
  kNoPrompts,
  kNoRecords,
  kNoReference,
  kNoTokens,
  kNoTracepoints,
  kNoiseFloorUnusable,
  kNoiseFloorZero,
  kNonFinite,
  kNonFinitePoint,
  kNotJudged,
  kNotRepeatable,
  kNothingCompared,
  kNothingPromised,
  kObserverEffect,
  kOneTokenVocabulary,
  kOpsWithinBounds,
  kOrderBeyondNoise,
  kOrderDrift,
  kOverwriteIgnored,
  kOwnErrorAboveBound,
  kPointsMissing,
  kPointsRepeated,
  kPointsUnmapped,
  kPositionsMissing,
  kPositionsNotCompared,
  kPositionsWrong,
  kPrecisionDiffers,
  kPrecisionEffectUnknown,
  kPromiseBroken,
  kPromiseKept,
  kPromiseUnchecked,
  kPromptsMissing,
  kRecorded,
  kReferenceFailed,
  kRelL2AboveLimit,
  kRowsOutOfOrder,
  kSettingsDiffer,
  kShapeMismatch,
  kShapesDiffer,
  kShownNotUsed,
  kTauBelowLimit,
  kTokensDiffer,
  kTooFewSteps,
  kTooFewTokens,
  kTop1Flip,
  kTraceIncomplete,
  kUndeclared,
  kUnequalSteps,
  kUnheard,
  kUnsupported,
  kWeakerFloor,
  kWithinLimit,
  kWithinLimits,
};
// The code as JSON and receipts have it.
const char* ReasonName(ReasonCode code);
// The code of that name; none: there is none.
std::optional<ReasonCode> FindReason(std::string_view name);
// The outcome of every reason with this code; none: it depends on what the reason is given for.
std::optional<Outcome> FixedOutcome(ReasonCode code);

struct Reason {
  // Of a code whose outcome is fixed.
  Reason(ReasonCode code, std::string text);
  // Of any code; a fixed outcome must be this one.
  Reason(Outcome outcome, ReasonCode code, std::string text);

  Outcome outcome;
  ReasonCode code;
  std::string text;  // one sentence for a person
};

bool HasReason(const std::vector<Reason>& reasons, ReasonCode code);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_REASONS_H_

// From evidence to verdict: completeness, settings, the ops, then the logits; each is judged once,
// in this order.
#include "compare/verdict.h"

#include <algorithm>

#include "compare/completeness.h"
#include "compare/judge_precision.h"
#include "compare/local.h"
#include "compare/logits_judge.h"
#include "compare/ops_judge.h"

namespace pb::compare {
namespace {

void BlameFailedEngine(Verdict* verdict) {
  const bool candidate = verdict->Has(ReasonCode::kCandidateFailed),
             reference = verdict->Has(ReasonCode::kReferenceFailed);
  if (candidate || reference)
    verdict->blame = candidate && reference ? Blame::kBoth
                     : candidate            ? Blame::kCandidate
                                            : Blame::kReference;
}

}  // namespace

Obstacle NoReference(const std::string& text) { return {ReasonCode::kNoReference, text}; }

Obstacle EngineFailed(const std::string& role, const std::string& text) {
  const ReasonCode code = role == "candidate"   ? ReasonCode::kCandidateFailed
                          : role == "reference" ? ReasonCode::kReferenceFailed
                                                : ReasonCode::kEngineFailed;
  return {code, fmt::format("the {} failed: {}", role, text)};
}

Obstacle Undeclared(const std::string& text) { return {ReasonCode::kUndeclared, text}; }

Obstacle UndeclaredActivation(const std::string& architecture, const char* flag) {
  return Undeclared(fmt::format(
      "the model does not declare its FFN activation (architecture {} allows several); put its config.json "
      "beside it, name one with --hf-config, or say {} ffn.activation=relu2|silu",
      architecture, flag));
}

Obstacle Unsupported(const std::string& text) { return {ReasonCode::kUnsupported, text}; }

Obstacle Contradicted(const std::string& text) { return {ReasonCode::kContradicted, text}; }

Obstacle Unheard(const std::string& text) { return {ReasonCode::kUnheard, text}; }

Obstacle Interrupted(const std::string& text) { return {ReasonCode::kInterrupted, text}; }

void Settle(Verdict* verdict) {
  auto worse = [](const Reason& a, const Reason& b) { return a.outcome > b.outcome; };
  std::stable_sort(verdict->reasons.begin(), verdict->reasons.end(), worse);
  if (verdict->reasons.empty())
    verdict->reasons.push_back({ReasonCode::kNothingCompared, "nothing was compared"});
  verdict->outcome = verdict->reasons[0].outcome;
}

namespace {

// Rows of other tokens, of other settings, or of a model that leaves open what it computes say
// nothing about a defect.
bool IsComparable(const Verdict& verdict) {
  return !verdict.Has(ReasonCode::kSettingsDiffer) && !verdict.Has(ReasonCode::kUndeclared) &&
         !verdict.Has(ReasonCode::kTokensDiffer);
}

// Among reasons of one outcome the ops come first: they name a place.
void PutOpsFirst(Verdict ops, Verdict* verdict) {
  verdict->coverage = std::move(ops.coverage);
  if (ops.first_divergence) verdict->first_divergence = ops.first_divergence;
  const bool names_it = ops.Has(ReasonCode::kNonFinitePoint) || ops.Has(ReasonCode::kKvCacheOverflow);
  if (names_it || verdict->blame == Blame::kNone) verdict->blame = ops.blame;
  ops.reasons.insert(ops.reasons.end(), verdict->reasons.begin(), verdict->reasons.end());
  verdict->reasons = std::move(ops.reasons);
}

// Whether the logits are beyond a limit that noise decides.
bool IsBeyondNoise(const Verdict& verdict) {
  return std::any_of(verdict.reasons.begin(), verdict.reasons.end(), [](const Reason& r) {
    return r.outcome == Outcome::kDrift &&
           (r.code == ReasonCode::kKlWorstAboveLimit || r.code == ReasonCode::kKlMeanAboveLimit ||
            r.code == ReasonCode::kTop1Flip || r.code == ReasonCode::kDistinguishable);
  });
}

// Whether both engines compute attention as one op, and one of them was seen to round in it by more
// than float32 does: it keeps its sums in f16.
bool FusedSumsRound(const Evidence& evidence, const LocalEvidence& local) {
  for (const std::vector<Setting>& settings : evidence.settings)
    if (std::none_of(settings.begin(), settings.end(),
                     [](const Setting& s) { return s.key == "attn.flash" && s.value == "on"; }))
      return false;
  const double of_float32 = BoundOf(PB_STAGE_ATTN_CONTEXT, {}, 1).At(0) / FusedAttentionBound(1).At(0);
  return std::any_of(local.points.begin(), local.points.end(), [&](const PointRow& p) {
    return p.stage == PB_STAGE_ATTN_CONTEXT && !p.above_bound() && p.bound_ratio > of_float32;
  });
}

}  // namespace

bool AttentionRoundsDifferently(const LocalEvidence& local) {
  return std::any_of(local.points.begin(), local.points.end(), [](const PointRow& p) {
    return p.explained_by_precision && (p.stage == PB_STAGE_ATTN_SCORES || p.stage == PB_STAGE_ATTN_CONTEXT);
  });
}

namespace {

// `local` may be null: then nothing but the logits was compared.
Verdict Judge(Evidence* evidence, const LocalEvidence* local) {
  Verdict verdict;
  verdict.scope = local ? Scope::kLocal : Scope::kLogitsOnly;
  verdict.reasons = evidence->obstacles;
  CheckCompleteness(*evidence, &verdict);
  verdict.differing =
      DifferingSettings(evidence->settings[0], evidence->settings[1], evidence->precision_is_observed);
  for (const SettingDifference& d : verdict.differing) verdict.reasons.push_back(ReasonOf(d));
  if (AttentionDiffers(evidence->settings[0], evidence->settings[1]))
    verdict.reasons.push_back(
        {ReasonCode::kFusedAttention,
         fmt::format(
             "one engine computes attention as one op, whose sums are kept in f16, and the other does not "
             "(attn.flash): its scores and softmax cannot be seen, and the logits may lie within {:g} times "
             "the limits of noise",
             kFusedAttentionKl)});
  CheckFinite(evidence, &verdict);
  const bool comparable = IsComparable(verdict);
  if (!comparable && verdict.blame != Blame::kNone) verdict.blame = Blame::kUndetermined;
  std::optional<OpsJudged> ops;
  if (local) ops = CheckOps(*evidence, *local, comparable);
  CheckPrecision(*evidence, "reference", &verdict);
  if (comparable && verdict.coverage.compared > 0) {
    // Where the engines round differently, logits beyond the noise must lie within what that makes
    // of them; ops that were not seen have that limit, too.
    const bool fused_sums = ops && ops->all_shown_are_right && FusedSumsRound(*evidence, *local);
    const bool products_or_attention =
        PrecisionDiffers(*evidence) || (local && AttentionRoundsDifferently(*local));
    const bool rounds_differently =
        fused_sums || (products_or_attention && (!ops || ops->all_shown_are_right));
    const bool drifts = rounds_differently || (ops && ops->all_seen_and_right);
    const Outcome beyond_noise = drifts ? Outcome::kDrift : Outcome::kDiverged;
    CheckLogits(evidence, beyond_noise, &verdict);
    CheckRank(*evidence, beyond_noise, &verdict);
    if (rounds_differently && IsBeyondNoise(verdict)) {
      if (fused_sums)
        verdict.reasons.push_back(
            {ReasonCode::kFusedAttention,
             "both engines compute attention as one op (attn.flash), and on equal inputs they differ there "
             "by more than float32 sums do and no more than sums in f16 do"});
      CheckPrecisionEffect(*evidence, &verdict);
    }
  }
  BlameFailedEngine(&verdict);
  if (ops) PutOpsFirst(std::move(ops->verdict), &verdict);
  Settle(&verdict);
  return verdict;
}

}  // namespace

Verdict JudgeLogits(Evidence* evidence) { return Judge(evidence, nullptr); }

Verdict JudgeLocal(Evidence* evidence, const LocalEvidence& local) { return Judge(evidence, &local); }

}  // namespace pb::compare

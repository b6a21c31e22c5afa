// Judges differences of precision: accepted, asked for by a flag, or refused; and the logits under
// them.
#include "compare/judge_precision.h"

#include <algorithm>
#include <cmath>

namespace pb::compare {
namespace {

std::string Rounds(ActScheme scheme) {
  return scheme == ActScheme::kNone      ? "not at all"
         : scheme == ActScheme::kF16Sums ? "f16, with sums in f16"
                                         : ActSchemeName(scheme);
}

double LimitOf(const Verdict& verdict, std::string_view name) {
  double value = 0;
  for (const Limit& limit : verdict.limits)
    if (limit.name == name) value = std::max(value, limit.value);
  return value;
}

}  // namespace

bool IsAccepted(BlockType weight, ActScheme scheme, const PrecisionPolicy& policy) {
  return IsUsualPrecision(weight, scheme) || std::find(policy.accepted.begin(), policy.accepted.end(),
                                                       std::pair(weight, scheme)) != policy.accepted.end();
}

bool PrecisionDiffers(const Evidence& evidence) {
  return std::any_of(evidence.precision.begin(), evidence.precision.end(),
                     [](const PrecisionRow& row) { return row.n_products > 0; });
}

void CheckPrecision(const Evidence& evidence, const char* second, Verdict* verdict) {
  const PrecisionPolicy& policy = evidence.user.precision;
  for (const PrecisionRow& row : evidence.precision) {
    if (row.n_products == 0) continue;
    const bool of_engine = std::string_view(second) != "reference";
    const std::string what =
        fmt::format("{} product{} of {} weights round{} the input differently ({} {}, {} {})", row.n_products,
                    row.n_products == 1 ? "" : "s", row.weights, row.n_products == 1 ? "s" : "",
                    of_engine ? "engine" : "candidate", Rounds(row.scheme[0]), second, Rounds(row.scheme[1]));
    const std::string remedy = row.remedy.empty() ? "" : fmt::format("; {} makes them equal", row.remedy);
    const bool accepted =
        IsAccepted(row.weight, row.scheme[0], policy) && IsAccepted(row.weight, row.scheme[1], policy);
    if (!accepted)
      verdict->reasons.push_back(
          {Outcome::kIncomplete, ReasonCode::kPrecisionDiffers,
           fmt::format("{}, which no library of the reference does; if that is meant, say "
                       "--accept-precision {}={}",
                       what, BlockTypeName(static_cast<uint32_t>(row.weight)),
                       ActSchemeName(IsAccepted(row.weight, row.scheme[0], policy) ? row.scheme[1]
                                                                                   : row.scheme[0]))});
    else if (!row.bound.empty())
      verdict->reasons.push_back({Outcome::kDrift, ReasonCode::kPrecisionDiffers,
                                  fmt::format("{}; each is within the wider bound that such sums need, {}{}",
                                              what, row.bound, remedy)});
    else if (row.n_matrices < 2)
      verdict->reasons.push_back(
          {Outcome::kDrift, ReasonCode::kPrecisionDiffers,
           what + "; it is right by its own, but one matrix alone shows no habit of an engine" + remedy});
    else
      verdict->reasons.push_back(
          {Outcome::kMatch, ReasonCode::kPrecisionDiffers, what + "; each is right by its own" + remedy});
  }
}

void CheckPrecisionEffect(const Evidence& evidence, Verdict* verdict) {
  if (!evidence.effect || !evidence.effect->why_none.empty()) {
    verdict->reasons.push_back(
        {ReasonCode::kPrecisionEffectUnknown,
         "the logits lie beyond the noise, and how far the two precisions move them is not known: " +
             (evidence.effect ? evidence.effect->why_none : std::string("it was not predicted"))});
    return;
  }
  const PrecisionEffect& effect = *evidence.effect;
  const std::string origin = fmt::format(
      "the noise's limit and {} x what the arbiter's logits under the two precisions differ by, over {} "
      "positions",
      "{:g}", effect.n_positions);
  auto put = [&](const char* name, double noise, double factor, double predicted) {
    verdict->limits.push_back(
        {name, noise + factor * predicted, "nats", fmt::format(fmt::runtime(origin), factor), false});
    return verdict->limits.back().value;
  };
  const double mean = put("kl.mean.precision",
                          std::max(LimitOf(*verdict, "kl.prefill.mean"), LimitOf(*verdict, "kl.decode.mean")),
                          kMeanFactor, effect.mean_kl),
               worst =
                   put("kl.worst.precision", LimitOf(*verdict, "kl.worst"), kWorstFactor, effect.worst_kl),
               gap = put("gap.change.precision", LimitOf(*verdict, "gap.change"), kWorstFactor,
                         effect.worst_gap);
  for (const PromptEvidence& p : evidence.prompts) {
    for (Phase phase : {Phase::kPrefill, Phase::kDecode}) {
      double sum = 0;
      int64_t n = 0;
      for (const LogitsRow& row : p.rows) {
        if (row.phase != phase) continue;
        sum += row.kl, n++;
        const bool within = row.kl <= worst && (!row.flipped() || row.gap_change <= gap);
        if (within) continue;
        verdict->reasons.push_back(
            {ReasonCode::kBeyondPrecisionEffect,
             fmt::format("at position {} the logits differ by more than the two precisions and noise make of "
                         "them: KL {:.1e}, limit {:.1e}; gap change {:.1e}, limit {:.1e}",
                         row.position, row.kl, worst, row.gap_change, gap)});
        return;
      }
      if (n == 0 || sum / static_cast<double>(n) <= mean) continue;
      verdict->reasons.push_back(
          {ReasonCode::kBeyondPrecisionEffect,
           fmt::format(
               "{}: the mean KL over {} positions is {:.1e}, more than the two precisions and noise make "
               "of it, {:.1e}",
               PhaseName(phase), n, sum / static_cast<double>(n), mean)});
      return;
    }
  }
}

}  // namespace pb::compare

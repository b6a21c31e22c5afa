// Holds each position, each prompt's means and the rank against their limits, and says which
// were exceeded.
#include "compare/logits_judge.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace pb::compare {
namespace {

std::string Where(const Evidence& evidence, const LogitsRow& row) {
  if (evidence.n_prompts_asked <= 1) return fmt::format("position {}", row.position);
  return fmt::format("prompt {}, position {}", row.prompt, row.position);
}

template <typename Do>
void ForEachRow(Evidence& evidence, Do body) {
  for (PromptEvidence& p : evidence.prompts)
    for (LogitsRow& row : p.rows) body(row);
}

// Keeps the earlier of what is known and this row.
void Diverge(const LogitsRow& row, Verdict* verdict) {
  if (verdict->first_divergence) {
    const FirstDivergence& known = *verdict->first_divergence;
    if (std::pair(known.prompt, known.position) <= std::pair(row.prompt, row.position)) return;
  }
  verdict->first_divergence = FirstDivergence{row.prompt, row.position, row.token, -1, {}, {}};
}

// The limits in force; one that is not set is not enforced.
struct LimitsInForce {
  const NoiseFloor* floor = nullptr;  // usable and not zero, or zero and every row equal
  std::optional<Limit> kl_worst, gap, min_cosine, rel_l2, max_abs;
};

// One kind of finding about single positions: how many, the first, the worst.
struct Finding {
  std::optional<Limit> limit;
  ReasonCode code;
  const char* what;
  const char* format = "{:.1e}";
  bool lower_is_worse = false;
  int64_t n = 0;
  const LogitsRow* first = nullptr;
  double worst = 0;

  // NaN is beyond every limit.
  bool IsBeyond(double value) const {
    return limit && (lower_is_worse ? !(value >= limit->value) : !(value <= limit->value));
  }
  void Add(const LogitsRow* row, double value) {
    if (n++ == 0) first = row, worst = value;
    worst = lower_is_worse ? std::min(worst, value) : std::max(worst, value);
  }
};

class LogitsCheck {
 public:
  LogitsCheck(Evidence* evidence, Outcome beyond_noise, Verdict* verdict)
      : evidence_(*evidence), beyond_noise_(beyond_noise), verdict_(verdict) {}

  void Check() {
    LimitsInForce in_force = SetUpLimits();
    floor_ = in_force.floor;
    for (const auto* limit :
         {&in_force.kl_worst, &in_force.gap, &in_force.min_cosine, &in_force.rel_l2, &in_force.max_abs})
      if (*limit) PutLimit(**limit);
    kl_.limit = in_force.kl_worst;
    flip_.limit = near_tie_.limit = in_force.gap;
    cosine_.limit = in_force.min_cosine;
    rel_l2_.limit = in_force.rel_l2;
    max_abs_.limit = in_force.max_abs;
    for (PromptEvidence& p : evidence_.prompts)
      for (Phase phase : {Phase::kPrefill, Phase::kDecode}) CheckGroup(p, phase);
    Summarise();
  }

 private:
  template <typename... Args>
  void Add(Args&&... reason) {
    verdict_->reasons.emplace_back(std::forward<Args>(reason)...);
  }

  void PutLimit(Limit limit) {
    for (const Limit& known : verdict_->limits)
      if (known.name == limit.name && known.origin == limit.origin) return;
    verdict_->limits.push_back(std::move(limit));
  }

  std::optional<Limit> ByUser(const std::string& name, std::optional<double> value, const char* unit) const {
    if (!value) return std::nullopt;
    return Limit{name, *value, unit, evidence_.user.origin, true};
  }

  // Attention that is fused in one engine alone rounds by more than the reference's noise.
  Limit Widened(Limit limit, double factor) const {
    if (!AttentionDiffers(evidence_.settings[0], evidence_.settings[1])) return limit;
    limit.value *= factor;
    limit.origin = fmt::format("{:g} x ({}), as attn.flash differs", factor, limit.origin);
    return limit;
  }

  LimitsInForce SetUpLimits() {
    const UserLimits& user = evidence_.user;
    bool kl_by_user = user.kl_mean && user.kl_worst;
    LimitsInForce l;
    l.floor = UsableFloor(kl_by_user);
    l.kl_worst = ByUser("kl.worst", user.kl_worst, "nats");
    if (!l.kl_worst && l.floor) l.kl_worst = Widened(WorstKlLimit(*l.floor), kFusedAttentionKl);
    l.gap = ByUser("gap.change", user.gap_change, "nats");
    if (!l.gap && l.floor) l.gap = Widened(GapLimit(*l.floor), std::sqrt(kFusedAttentionKl));
    if (!l.gap && kl_by_user)
      l.gap = Limit{"gap.change", 0, "nats",
                    "no noise floor: a top-1 may differ only where two tokens tie exactly"};
    l.min_cosine = ByUser("cosine.min", user.min_cosine, "");
    l.rel_l2 = ByUser("rel_l2.worst", user.rel_l2, "");
    l.max_abs = ByUser("max_abs.worst", user.max_abs, "nats");
    return l;
  }

  // The floor to derive limits from, or none and, unless the user gave the limits on KL, the reason
  // why.
  const NoiseFloor* UsableFloor(bool kl_by_user) {
    const std::optional<NoiseFloor>& floor = evidence_.floor;
    if (!floor) {
      const std::string& why = evidence_.no_floor_reason;
      if (!kl_by_user)
        Add(ReasonCode::kNoNoiseFloor,
            "there are no limits to judge by: " + (why.empty() ? "no noise floor was measured" : why));
      return nullptr;
    }
    if (Status usable = CheckNoiseFloor(*floor); !usable.ok()) {
      if (!kl_by_user)
        Add(ReasonCode::kNoiseFloorUnusable, "there are no limits to judge by: " + usable.error().message);
      return nullptr;
    }
    return floor->IsZero() && !kl_by_user && !AllEqual() ? nullptr : &*floor;
  }

  // A floor of zeros cannot tell noise from a defect: only equal distributions pass, anything else
  // stays undecided.
  bool AllEqual() {
    int64_t n_different = 0;
    const LogitsRow* first = nullptr;
    double worst = 0;
    ForEachRow(evidence_, [&](LogitsRow& row) {
      if (row.kl == 0 && row.max_abs == 0) return;  // KL of a tiny difference rounds to 0
      if (!first) first = &row;
      ++n_different;
      worst = std::max(worst, row.kl);
    });
    if (!first) return true;
    Add(Outcome::kIncomplete, ReasonCode::kNoiseFloorZero,
        fmt::format("{} positions differ (first at {}, KL up to {:.1e}), and disturbing the reference "
                    "changed nothing, "
                    "so noise cannot be told from a defect: give limits of your own",
                    n_different, Where(evidence_, *first), worst));
    return false;
  }

  // A prompt's prefill, or its decode steps: each row by itself, then the mean.
  void CheckGroup(PromptEvidence& p, Phase phase) {
    double sum = 0;
    int64_t n = 0;
    const LogitsRow* largest = nullptr;
    bool any_above = false;
    for (LogitsRow& row : p.rows) {
      if (row.phase != phase || !row.finite) continue;
      sum += JudgedKl(row);
      ++n;
      if (!largest || row.kl > largest->kl) largest = &row;
      any_above |= CheckRow(&row);
    }
    std::optional<Limit> limit = n > 0 ? MeanLimit(phase, n) : std::nullopt;
    if (!limit) return;
    PutLimit(*limit);
    double mean = sum / static_cast<double>(n);
    if (mean <= limit->value) return;
    std::string prompt = evidence_.n_prompts_asked > 1 ? fmt::format("prompt {}, ", p.prompt) : "";
    std::string text = fmt::format("{}{}: the mean KL over {} positions is {:.1e}, above its limit {:.1e}",
                                   prompt, PhaseName(phase), n, mean, limit->value);
    if (!any_above) {
      text += fmt::format("; no position is beyond its own limit, position {} contributes most ({:.1e})",
                          largest->position, largest->kl);
      Diverge(*largest, verdict_);
    }
    mean_reasons_.emplace_back(Beyond(*limit), ReasonCode::kKlMeanAboveLimit, text);
  }

  std::optional<Limit> MeanLimit(Phase phase, int64_t n) {
    std::string name = fmt::format("kl.{}.mean", PhaseName(phase));
    if (evidence_.user.kl_mean) return ByUser(name, evidence_.user.kl_mean, "nats");
    if (!floor_) return std::nullopt;
    auto [it, fresh] = mean_limits_.try_emplace(n);
    // What is widened has room for that already.
    const bool one_more = !AttentionDiffers(evidence_.settings[0], evidence_.settings[1]);
    if (fresh) it->second = Widened(MeanKlLimit(*floor_, n, name, one_more), kFusedAttentionKl);
    it->second.name = name;
    return it->second;
  }

  // Returns whether the position is beyond a limit of a single position.
  bool CheckRow(LogitsRow* row) {
    bool above = false;
    auto check = [&](Finding* finding, double value) {
      if (!finding->IsBeyond(value)) return;
      finding->Add(row, value);
      above = true;
    };
    check(&kl_, JudgedKl(*row));
    check(&cosine_, row->cosine);
    check(&rel_l2_, row->rel_l2);
    check(&max_abs_, row->max_abs);
    if (row->flipped()) {
      check(&flip_, row->gap_change);
      if (flip_.limit && !flip_.IsBeyond(row->gap_change)) near_tie_.Add(row, row->gap_change);
    }
    row->above_limit = above;
    if (above) Diverge(*row, verdict_);
    return above;
  }

  // Of logits as close as float32 holds them there is nothing to judge, unless a user says so.
  double JudgedKl(const LogitsRow& row) const {
    const bool by_user = evidence_.user.kl_mean || evidence_.user.kl_worst;
    return row.rel_l2 > 0 && row.rel_l2 <= kLogitsResolution && !by_user ? 0 : row.kl;
  }

  Outcome Beyond(const Limit& limit) const { return limit.by_user ? Outcome::kDiverged : beyond_noise_; }

  void Report(const Finding& f) {
    if (f.n == 0) return;
    std::string worst = fmt::format(fmt::runtime(f.format), f.worst);
    std::string limit = fmt::format(fmt::runtime(f.format), f.limit->value);
    Add(FixedOutcome(f.code).value_or(Beyond(*f.limit)), f.code,
        fmt::format("{} at {} position{}, first at {}: {} at worst, limit {}", f.what, f.n,
                    f.n == 1 ? "" : "s", Where(evidence_, *f.first), worst, limit));
  }

  void Summarise() {
    Report(kl_);
    verdict_->reasons.insert(verdict_->reasons.end(), mean_reasons_.begin(), mean_reasons_.end());
    for (const Finding* finding : {&flip_, &cosine_, &rel_l2_, &max_abs_, &near_tie_}) Report(*finding);
    const bool diverged = std::any_of(verdict_->reasons.begin(), verdict_->reasons.end(),
                                      [](const Reason& r) { return r.outcome == Outcome::kDiverged; });
    if (diverged && verdict_->blame == Blame::kNone) verdict_->blame = Blame::kUndetermined;
    const Coverage& coverage = verdict_->coverage;
    if (kl_.limit && !verdict_->first_divergence && coverage.compared > 0 &&
        coverage.compared == coverage.expected)
      AddMatch();
    if (floor_ && !WeaknessOf(*floor_).empty())
      Add(ReasonCode::kWeakerFloor, "the limits are weaker than usual: " + WeaknessOf(*floor_));
  }

  void AddMatch() {
    double worst = 0, sum = 0;
    ForEachRow(evidence_, [&](LogitsRow& row) {
      worst = std::max(worst, row.kl);
      sum += row.kl;
    });
    int64_t n = verdict_->coverage.compared;
    if (worst == 0)
      Add(ReasonCode::kEqual, fmt::format("the distributions are equal at all {} positions (KL 0)", n));
    else
      Add(ReasonCode::kWithinLimits,
          fmt::format("all {} positions are within the limits: mean KL {:.1e}, worst {:.1e} (limit {:.1e})",
                      n, sum / static_cast<double>(n), worst, kl_.limit->value));
  }

  Evidence& evidence_;
  const Outcome beyond_noise_;
  Verdict* verdict_;
  const NoiseFloor* floor_ = nullptr;
  std::map<int64_t, Limit> mean_limits_;  // by number of positions
  std::vector<Reason> mean_reasons_;
  Finding kl_{{}, ReasonCode::kKlWorstAboveLimit, "KL is above the limit of a single position"};
  Finding flip_{{}, ReasonCode::kTop1Flip, "top-1 differs and the gap changed by more than noise"};
  Finding near_tie_{{}, ReasonCode::kNearTie, "top-1 differs and the gap changed no more than noise does"};
  Finding cosine_{{}, ReasonCode::kCosineBelowLimit, "the cosine is below the limit", "{:.9f}", true};
  Finding rel_l2_{{}, ReasonCode::kRelL2AboveLimit, "rel-L2 is above the limit"};
  Finding max_abs_{{}, ReasonCode::kMaxAbsAboveLimit, "the largest change of log p is above the limit"};
};

}  // namespace

void CheckFinite(Evidence* evidence, Verdict* verdict) {
  int64_t n_rows = 0, n_values[2] = {0, 0};
  const LogitsRow* first = nullptr;
  ForEachRow(*evidence, [&](LogitsRow& row) {
    if (row.finite && std::isfinite(row.kl) && std::isfinite(row.gap_change)) return;
    row.finite = false;
    row.above_limit = true;
    if (!first) first = &row;
    ++n_rows;
    for (int side : {0, 1}) n_values[side] += row.n_non_finite[side];
  });
  if (!first) return;
  // Of both engines it may be the file.
  verdict->blame = (n_values[0] > 0) == (n_values[1] > 0) ? Blame::kUndetermined
                   : n_values[0] > 0                      ? Blame::kCandidate
                                                          : Blame::kReference;
  Diverge(*first, verdict);
  verdict->reasons.push_back(
      {ReasonCode::kNonFinite,
       fmt::format(
           "{} position{} hold NaN or infinite logits ({} values of the candidate, {} of the reference), "
           "first at {}",
           n_rows, n_rows == 1 ? "" : "s", n_values[0], n_values[1], Where(*evidence, *first))});
}

void CheckLogits(Evidence* evidence, Outcome beyond_noise, Verdict* verdict) {
  LogitsCheck(evidence, beyond_noise, verdict).Check();
}

bool IsWithin(const NoiseFloor& floor, Evidence evidence) {
  evidence.floor = floor;
  Verdict verdict;
  CheckLogits(&evidence, Outcome::kDiverged, &verdict);
  const auto undecided = {ReasonCode::kNoiseFloorUnusable, ReasonCode::kNoiseFloorZero,
                          ReasonCode::kKlWorstAboveLimit, ReasonCode::kKlMeanAboveLimit,
                          ReasonCode::kTop1Flip};
  return std::none_of(undecided.begin(), undecided.end(), [&](ReasonCode code) { return verdict.Has(code); });
}

void CheckRank(const Evidence& evidence, Outcome beyond_noise, Verdict* verdict) {
  const std::optional<double>& asked = evidence.user.confidence;
  std::vector<double> candidate;
  for (const PromptEvidence& p : evidence.prompts)
    for (const LogitsRow& row : p.rows) candidate.push_back(row.kl);
  const std::vector<std::span<const double>> runs(evidence.noise_runs.begin(), evidence.noise_runs.end());
  std::string why = evidence.no_runs_reason;
  if (!runs.empty()) {
    auto rank = RankAmongNoise(candidate, runs, asked.value_or(kDefaultConfidence));
    if (rank.ok())
      verdict->rank = *rank;
    else
      why = rank.error().message;
  }
  if (!asked) return;
  if (!verdict->rank || !verdict->rank->decidable()) {
    if (why.empty()) why = fmt::format("{} runs are too few for it", runs.size());
    verdict->reasons.push_back(
        {ReasonCode::kConfidenceUndecided,
         fmt::format(
             "whether the candidate can be told from the reference's own noise at {:g} was not decided: {}",
             *asked, why)});
  } else if (verdict->rank->distinguishable()) {
    verdict->reasons.push_back(
        {beyond_noise, ReasonCode::kDistinguishable,
         fmt::format(
             "the candidate can be told from the reference's own noise at the confidence asked for, {:g}: "
             "over "
             "{} positions {} of {} runs of the reference against itself lie as far away (p = {:.2g})",
             *asked, verdict->rank->n_positions, verdict->rank->n_as_far, verdict->rank->n_runs,
             verdict->rank->p)});
    if (beyond_noise == Outcome::kDiverged && verdict->blame == Blame::kNone)
      verdict->blame = Blame::kUndetermined;
  }
}

}  // namespace pb::compare

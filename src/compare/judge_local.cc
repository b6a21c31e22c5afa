#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "compare/judge_precision.h"
#include "compare/local.h"
#include "compare/verdict.h"

namespace pb::compare {
namespace {

bool IsNonFinite(const PointRow& p) { return p.n_non_finite[0] + p.n_non_finite[1] > 0; }

// Found only through a limit that noise decides; a limit of the user's own stays enforced.
bool IsNoiseFinding(const Reason& reason, const UserLimits& user) {
  if (reason.code == "kl-worst-above-limit") return !user.kl_worst;
  if (reason.code == "kl-mean-above-limit") return !user.kl_mean;
  if (reason.code == "distinguishable") return true;
  return reason.code == "top1-flip" && !user.gap_change;
}

// What the points of an engine are compared with.
enum class Against { kEngine, kArbiter };

class LocalCheck {
 public:
  LocalCheck(const Evidence& evidence, const LocalEvidence& local, Against against, Verdict* verdict)
      : evidence_(evidence), local_(local), audit_(against == Against::kArbiter), verdict_(verdict) {}

  void Check() {
    for (const PointRow& p : local_.points) order_.push_back(&p);
    std::stable_sort(order_.begin(), order_.end(),
                     [](const PointRow* a, const PointRow* b) { return ComesBefore(*a, *b); });
    CheckCoverage();
    CheckFinite();
    // An op whose inputs are the engine's own is judged whatever became of the others.
    if (audit_ || !IsIncomparable()) CheckBounds();
  }

  bool found_defect() const { return found_defect_; }

 private:
  void Add(Outcome outcome, const char* code, std::string text) {
    verdict_->reasons.push_back({outcome, code, std::move(text)});
  }

  // As for the logits: other tokens, other settings or an undeclared op say nothing about a defect. Nor do inputs that were not
  // made equal.
  bool IsIncomparable() const {
    return std::any_of(verdict_->reasons.begin(), verdict_->reasons.end(), [](const Reason& r) {
      return r.code == "settings-differ" || r.code == "undeclared" || r.code == "tokens-differ" ||
             r.code == "overwrite-ignored";
    });
  }

  void CheckCoverage() {
    std::set<std::tuple<int32_t, int32_t, int32_t, int32_t, int32_t>> pieces;
    std::map<std::tuple<int32_t, int32_t, int32_t, int32_t>, bool> points;  // whether every piece was judged
    for (const PointRow& p : local_.points) {
      if (!pieces.emplace(p.prompt, p.step, p.stage, p.layer, p.first_position).second)
        Add(Outcome::kInvalid, "points-repeated", PointName(p.stage, p.layer) + " was compared twice");
      bool& judged = points.try_emplace({p.prompt, p.step, p.stage, p.layer}, true).first->second;
      judged = judged && (p.bound > 0 || IsNonFinite(p));
    }
    int64_t n_judged =
        std::count_if(points.begin(), points.end(), [](const auto& point) { return point.second; });
    // Rows that were not judged, and claims beyond the rows there are, count for nothing.
    int64_t compared = std::min(local_.n_compared, n_judged);
    verdict_->coverage = {"points",       local_.n_expected, compared,
                          local_.missing, local_.unmapped,   local_.unobservable};
    bool explained = !evidence_.obstacles.empty();
    if (compared == 0 && !explained) Add(Outcome::kInvalid, "no-points", "no tracepoint was compared");
    if (local_.n_expected <= 0 && !explained)
      Add(Outcome::kInvalid, "no-points-expected", "no tracepoint was to be compared");
    if (static_cast<int64_t>(points.size()) > local_.n_expected)
      Add(Outcome::kInvalid, "extra-points",
          fmt::format("{} points were compared, {} were expected", points.size(), local_.n_expected));
    if (compared < local_.n_expected || !local_.missing.empty())
      Add(Outcome::kIncomplete, "points-missing",
          fmt::format("{} of {} points were compared{}", compared, local_.n_expected,
                      local_.missing.empty()          ? ""
                      : compared >= local_.n_expected ? ", but: " + local_.missing[0]
                                                      : "; missing first: " + local_.missing[0]));
    if (!local_.unmapped.empty())
      Add(Outcome::kIncomplete, "points-unmapped",
          fmt::format("{} points of an engine are {}, first {}", local_.unmapped.size(),
                      audit_ ? "no op that the model has" : "not in the vocabulary", local_.unmapped[0]));
  }

  void CheckFinite() {
    for (const PointRow* p : order_) {
      if (!IsNonFinite(*p)) continue;
      const bool of_first = p->n_non_finite[0] > 0, of_second = p->n_non_finite[1] > 0;
      // What the mathematics makes of finite inputs is not finite: then the file holds what no engine can compute with.
      if (audit_)
        verdict_->blame = !of_second ? Blame::kEngine : !of_first ? Blame::kUndetermined : Blame::kModelFile;
      else
        verdict_->blame = IsIncomparable() || of_first == of_second ? Blame::kUndetermined
                          : of_first                                ? Blame::kCandidate
                                                                    : Blame::kReference;
      Add(Outcome::kInvalid, "non-finite-point",
          fmt::format("{} holds NaN or infinite values ({} of the {}, {} of the {})",
                      PointName(p->stage, p->layer), p->n_non_finite[0], audit_ ? "engine" : "candidate",
                      p->n_non_finite[1], audit_ ? "arbiter" : "reference"));
      Locate(*p);
      return;
    }
  }

  void CheckBounds() {
    const PointRow* first = nullptr;
    int64_t n_above = 0, n_before = 0, n_explained = 0, n_non_finite = 0;
    double worst_ratio = 0;
    for (const PointRow* p : order_) {
      n_non_finite += IsNonFinite(*p);
      if (IsNonFinite(*p) || !(p->bound > 0)) continue;
      bool above = p->is_defect();
      n_explained += p->explained_by_codes;
      if (!p->above_bound()) worst_ratio = std::max(worst_ratio, p->bound_ratio);
      n_above += above;
      n_before += !above && !first;
      // Siblings are equal: the one whose error is clearest names the place.
      if (above && (!first || (IsSibling(*first, *p) && p->bound_ratio > first->bound_ratio))) first = p;
    }
    if (n_explained > 0)
      Add(Outcome::kMatch, "explained-by-codes",
          fmt::format("{} points differ by activation codes on a rounding boundary and by nothing else",
                      n_explained));
    if (!first) {
      const Coverage& coverage = verdict_->coverage;
      if (coverage.compared > 0 && coverage.compared == coverage.expected && n_non_finite == 0 &&
          local_.missing.empty())
        Add(Outcome::kMatch, "ops-within-bounds",
            fmt::format(
                "all {} points agree {}; the worst local error is {:.2g} of its bound", coverage.compared,
                audit_ ? "with what the arbiter makes of their inputs" : "on equal inputs", worst_ratio));
      return;
    }
    found_defect_ = true;
    std::string feature = first->feature_alone ? fmt::format(", feature {}", first->worst_feature_index) : "";
    Add(Outcome::kDiverged, "local-error-above-bound",
        fmt::format("{}{}: local error {:.1e}, bound {}; {} points before it agree, {} of {} points are "
                    "beyond their "
                    "bound",
                    PointName(first->stage, first->layer), feature,
                    std::max(first->worst_row, first->worst_feature), BoundText(first->bound), n_before,
                    n_above, order_.size()));
    if (verdict_->blame == Blame::kNone) verdict_->blame = Blame::kUndetermined;
    Locate(*first);
  }

  static bool IsSibling(const PointRow& a, const PointRow& b) {
    return !ComesBefore(a, b) && !ComesBefore(b, a);
  }

  // A place among the ops says more than a position of the logits.
  void Locate(const PointRow& p) {
    if (verdict_->first_divergence && verdict_->first_divergence->stage) return;
    FirstDivergence d;
    d.prompt = p.prompt;
    d.position = p.first_row_above >= 0 ? p.first_row_above : p.worst_row_position;
    if (d.position < 0) d.position = p.first_position;
    d.token = TokenAt(p.prompt, d.position);
    d.layer = p.layer;
    d.stage = p.stage;
    if (p.feature_alone) d.feature = p.worst_feature_index;
    verdict_->first_divergence = d;
  }

  int32_t TokenAt(int32_t prompt, int32_t position) const {
    for (const PromptEvidence& p : evidence_.prompts) {
      if (p.prompt != prompt) continue;
      for (const LogitsRow& row : p.rows)
        if (row.position == position) return row.token;
      if (static_cast<size_t>(position) < p.tokens[1].size())
        return p.tokens[1][static_cast<size_t>(position)];
    }
    return -1;
  }

  const Evidence& evidence_;
  const LocalEvidence& local_;
  const bool audit_;
  Verdict* verdict_;
  std::vector<const PointRow*> order_;
  bool found_defect_ = false;
};

// Whether an audit was given something to run, and ran it.
void CheckRun(const Evidence& evidence, Verdict* verdict) {
  auto add = [verdict](Outcome outcome, const char* code, std::string text) {
    verdict->reasons.push_back({outcome, code, std::move(text)});
  };
  if (evidence.n_prompts_asked <= 0)
    add(Outcome::kInvalid, "no-prompts", "there is no prompt, so nothing was judged");
  if (!evidence.obstacles.empty()) return;  // it says itself why less was run
  if (static_cast<int64_t>(evidence.prompts.size()) < evidence.n_prompts_asked)
    add(Outcome::kIncomplete, "prompts-missing", "not every prompt was run");
  for (const PromptEvidence& p : evidence.prompts) {
    const auto n_asked = static_cast<int64_t>(p.tokens[1].size()) + p.n_decode_asked;
    const int64_t n_run = p.n_prefill[0] + p.n_decode[0];
    if (p.tokens[1].empty())
      add(Outcome::kInvalid, "empty-prompt",
          fmt::format("prompt {} has no tokens, so nothing can be judged", p.prompt));
    else if (n_run < n_asked)
      add(Outcome::kIncomplete, "positions-missing",
          fmt::format("prompt {}: {} of {} positions were run", p.prompt, n_run, n_asked));
    else if (n_run > n_asked)
      add(Outcome::kInvalid, "extra-output",
          fmt::format("prompt {}: {} rows of logits were delivered, {} were asked for", p.prompt, n_run,
                      n_asked));
  }
}

}  // namespace

std::string PointName(int32_t stage, int32_t layer) {
  const char* name = stage >= 0 && stage < PB_STAGE_COUNT ? pb_vocabulary[stage].name : "unmapped op";
  return layer >= 0 ? fmt::format("layer {}, {}", layer, name) : name;
}

Verdict JudgeLocal(Evidence* evidence, const LocalEvidence& local) {
  Verdict verdict = JudgeLogits(evidence, local.precision_is_observed);
  verdict.scope = Scope::kLocal;
  const auto n_of_logits = static_cast<ptrdiff_t>(verdict.reasons.size());
  LocalCheck check(*evidence, local, Against::kEngine, &verdict);
  check.Check();
  bool complete = verdict.coverage.compared == local.n_expected && local.n_expected > 0;
  bool all_seen = complete && local.missing.empty() && local.unmapped.empty() && local.unobservable.empty() &&
                  local.shown_is_used && evidence->obstacles.empty();
  CheckPrecision(local, evidence->user.precision, "reference", &verdict);
  const bool beyond = std::any_of(verdict.reasons.begin(), verdict.reasons.end(), [&](const Reason& r) {
    return r.outcome == Outcome::kDiverged && IsNoiseFinding(r, evidence->user);
  });
  // Where the engines round differently, logits beyond the noise must lie within what that makes of them.
  const bool by_precision = PrecisionDiffers(local);
  if (!check.found_defect() && all_seen && beyond && (!by_precision || IsWithinEffect(*evidence, &verdict)))
    for (Reason& reason : verdict.reasons)
      if (reason.outcome == Outcome::kDiverged && IsNoiseFinding(reason, evidence->user)) {
        reason.outcome = Outcome::kDrift;
        verdict.blame = Blame::kNone;
      }
  // Among reasons of one outcome the ops come first: they name a place.
  std::rotate(verdict.reasons.begin(), verdict.reasons.begin() + n_of_logits, verdict.reasons.end());
  Settle(&verdict);
  return verdict;
}

Verdict JudgeAudit(const Evidence& evidence, const LocalEvidence& local) {
  Verdict verdict;
  verdict.scope = Scope::kLocal;
  verdict.reasons = evidence.obstacles;
  CheckRun(evidence, &verdict);
  LocalCheck(evidence, local, Against::kArbiter, &verdict).Check();
  CheckPrecision(local, evidence.user.precision, "act.quant", &verdict);
  const bool failed = std::any_of(verdict.reasons.begin(), verdict.reasons.end(),
                                  [](const Reason& r) { return r.outcome == Outcome::kEngineFailed; });
  if (failed && verdict.blame == Blame::kNone) verdict.blame = Blame::kEngine;
  Settle(&verdict);
  return verdict;
}

}  // namespace pb::compare

// The judge of single operations: coverage, values that are not finite, errors beyond their bounds.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "compare/judge_precision.h"
#include "compare/local.h"
#include "compare/ops_judge.h"

namespace pb::compare {
namespace {

constexpr double kBeyondF16 = 65520;  // the least that rounds to an infinite f16

bool IsNonFinite(const PointRow& p) { return p.n_non_finite[0] + p.n_non_finite[1] > 0; }

// What the points of an engine are compared with.
enum class Against { kEngine, kArbiter };

class LocalCheck {
 public:
  // `comparable`: other tokens, other settings and undeclared ops say nothing about a defect, nor
  // do inputs that were not made equal. An op whose inputs are the engine's own is judged whatever
  // became of the others.
  LocalCheck(const Evidence& evidence, const LocalEvidence& local, Against against, bool comparable,
             Verdict* verdict)
      : evidence_(evidence),
        local_(local),
        audit_(against == Against::kArbiter),
        comparable_(comparable),
        verdict_(verdict) {}

  void Check() {
    for (const PointRow& p : local_.points) order_.push_back(&p);
    std::stable_sort(order_.begin(), order_.end(),
                     [](const PointRow* a, const PointRow* b) { return ComesBefore(*a, *b); });
    CheckCoverage();
    CheckFinite();
    if (comparable_) CheckBounds();
  }

  bool found_defect() const { return found_defect_; }

 private:
  template <typename... Args>
  void Add(Args&&... reason) {
    verdict_->reasons.emplace_back(std::forward<Args>(reason)...);
  }

  void CheckCoverage() {
    std::set<std::tuple<int32_t, int32_t, int32_t, int32_t, int32_t>> pieces;
    // whether every piece was judged
    std::map<std::tuple<int32_t, int32_t, int32_t, int32_t>, bool> points;
    for (const PointRow& p : local_.points) {
      if (!pieces.emplace(p.prompt, p.step, p.stage, p.layer, p.first_position).second)
        Add(ReasonCode::kPointsRepeated, PointName(p.stage, p.layer) + " was compared twice");
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
    if (compared == 0 && !explained) Add(ReasonCode::kNoPoints, "no tracepoint was compared");
    if (local_.n_expected <= 0 && !explained)
      Add(ReasonCode::kNoPointsExpected, "no tracepoint was to be compared");
    if (static_cast<int64_t>(points.size()) > local_.n_expected)
      Add(ReasonCode::kExtraPoints,
          fmt::format("{} points were compared, {} were expected", points.size(), local_.n_expected));
    if (compared < local_.n_expected || !local_.missing.empty())
      Add(ReasonCode::kPointsMissing,
          fmt::format("{} of {} points were compared{}", compared, local_.n_expected,
                      local_.missing.empty()          ? ""
                      : compared >= local_.n_expected ? ", but: " + local_.missing[0]
                                                      : "; missing first: " + local_.missing[0]));
    if (!local_.unmapped.empty())
      Add(ReasonCode::kPointsUnmapped,
          fmt::format("{} points of an engine are {}, first {}", local_.unmapped.size(),
                      audit_ ? "no op that the model has" : "not in the vocabulary", local_.unmapped[0]));
  }

  void CheckFinite() {
    for (const PointRow* p : order_) {
      // What follows from an op that is wrong with finite values is none of another's doing.
      if (comparable_ && !IsNonFinite(*p) && p->bound > 0 && p->is_defect()) return;
      if (!IsNonFinite(*p)) continue;
      if (CacheOverflowed(*p)) return Locate(*p);
      const bool of_first = p->n_non_finite[0] > 0, of_second = p->n_non_finite[1] > 0;
      // What the mathematics makes of finite inputs is not finite: then the file holds what no
      // engine can compute with.
      if (audit_)
        verdict_->blame = !of_second ? Blame::kEngine : !of_first ? Blame::kUndetermined : Blame::kModelFile;
      else
        verdict_->blame = !comparable_ || of_first == of_second ? Blame::kUndetermined
                          : of_first                            ? Blame::kCandidate
                                                                : Blame::kReference;
      Add(ReasonCode::kNonFinitePoint,
          fmt::format("{} holds NaN or infinite values ({} of the {}, {} of the {})",
                      PointName(p->stage, p->layer), p->n_non_finite[0], audit_ ? "engine" : "candidate",
                      p->n_non_finite[1], audit_ ? "arbiter" : "reference"));
      Locate(*p);
      return;
    }
  }

  // Whether attention is not finite because its keys or values are larger than an f16 cache can
  // hold; tells so then. Everything behind it follows.
  bool CacheOverflowed(const PointRow& p) {
    if (p.stage != PB_STAGE_ATTN_SCORES && p.stage != PB_STAGE_ATTN_CONTEXT) return false;
    double keys = 0, values = 0;
    for (const PointRow* q : order_) {
      if (q->prompt != p.prompt || q->layer != p.layer || q->first_position >= p.first_position + p.n_rows)
        continue;
      if (q->stage == PB_STAGE_K_ROPE) keys = std::max(keys, q->largest);
      if (q->stage == PB_STAGE_V_PROJ && p.stage == PB_STAGE_ATTN_CONTEXT)
        values = std::max(values, q->largest);
    }
    const bool of_keys = keys >= kBeyondF16;
    bool over[2] = {false, false};
    for (int side : {0, 1}) over[side] = p.n_non_finite[side] > 0 && IsF16(evidence_.settings[side]);
    // The arbiter's cache is the engine's.
    if (audit_) over[1] = false;
    if ((!of_keys && values < kBeyondF16) || (!over[0] && !over[1])) return false;
    verdict_->blame = audit_               ? Blame::kEngine
                      : over[0] && over[1] ? Blame::kBoth
                      : over[0]            ? Blame::kCandidate
                                           : Blame::kReference;
    Add(ReasonCode::kKvCacheOverflow,
        fmt::format(
            "{}: the f16 KV cache of {} overflows: {} up to {:.3g}, and the largest that f16 holds is 65504, "
            "so what "
            "attention makes of them is NaN or infinite, and so is all that follows; kv.type=f32 mends it",
            PointName(p.stage, p.layer),
            audit_               ? "the engine"
            : over[0] && over[1] ? "both engines"
            : over[0]            ? "the candidate"
                                 : "the reference",
            of_keys ? "keys are" : "values are", of_keys ? keys : values));
    return true;
  }

  static bool IsF16(const std::vector<Setting>& settings) {
    return std::any_of(settings.begin(), settings.end(),
                       [](const Setting& s) { return s.key == "kv.type" && s.value == "f16"; });
  }

  // One alone shows no habit of an engine, as with products of weights.
  void AddAttention(size_t n, const char* one, const char* many, const char* rounded) {
    if (n == 0) return;
    verdict_->reasons.push_back(
        {n > 1 ? Outcome::kMatch : Outcome::kDrift, ReasonCode::kPrecisionDiffers,
         fmt::format("{} {} of {} that one side rounds to f16, as its cache is, and the other does not; "
                     "each is right by its own",
                     n, n == 1 ? fmt::format("{} is", one) : fmt::format("{} are", many), rounded)});
  }

  void CheckBounds() {
    const PointRow* first = nullptr;
    const PointRow* tied = nullptr;
    int64_t n_non_finite = 0, n_tied = 0;
    Points all, above_bound, before, explained, scores, contexts;  // of a point in pieces each piece is a row
    double worst_ratio = 0;
    for (const PointRow* p : order_) {
      all.insert(KeyOf(*p));
      n_non_finite += IsNonFinite(*p);
      if (IsNonFinite(*p) || !(p->bound > 0)) continue;
      bool above = p->is_defect();
      if (p->explained_by_codes) explained.insert(KeyOf(*p));
      if (p->explained_by_precision && p->stage == PB_STAGE_ATTN_SCORES) scores.insert(KeyOf(*p));
      if (p->explained_by_precision && p->stage == PB_STAGE_ATTN_CONTEXT) contexts.insert(KeyOf(*p));
      if (p->explained_by_tie && n_tied++ == 0) tied = p;
      if (!p->above_bound()) worst_ratio = std::max(worst_ratio, p->bound_ratio);
      if (above) above_bound.insert(KeyOf(*p));
      if (!above && !first) before.insert(KeyOf(*p));
      // Siblings are equal: the one whose error is clearest names the place.
      if (above && (!first || (IsSibling(*first, *p) && p->bound_ratio > first->bound_ratio))) first = p;
    }
    if (!explained.empty())
      Add(ReasonCode::kExplainedByCodes,
          fmt::format(
              "{} points differ by codes, scales or sums of activations on a rounding boundary and by "
              "nothing else",
              explained.size()));
    AddAttention(scores.size(), "tensor of attention scores", "tensors of attention scores", "queries");
    AddAttention(contexts.size(), "attention context", "attention contexts", "probabilities");
    if (tied)
      Add(ReasonCode::kNearTie,
          fmt::format("{}: {}{}", PointName(tied->stage, tied->layer), tied->explanation,
                      n_tied > 1 ? fmt::format("; so in {} points", n_tied) : ""));
    if (!first) {
      const Coverage& coverage = verdict_->coverage;
      if (coverage.compared > 0 && coverage.compared == coverage.expected && n_non_finite == 0 &&
          local_.missing.empty())
        Add(ReasonCode::kOpsWithinBounds,
            fmt::format(
                "all {} points agree {}; the worst local error is {:.2g} of its bound", coverage.compared,
                audit_ ? "with what the arbiter makes of their inputs" : "on equal inputs", worst_ratio));
      return;
    }
    found_defect_ = true;
    std::string feature = first->feature_alone ? fmt::format(", feature {}", first->worst_feature_index) : "";
    Add(ReasonCode::kLocalErrorAboveBound,
        fmt::format("{}{}: error {:.1e}, bound {}; {} points before it agree, {} of {} points are beyond "
                    "their bound",
                    PointName(first->stage, first->layer), feature,
                    std::max(first->worst_row, first->worst_feature), BoundText(first->bound),
                    before.size() - before.count(KeyOf(*first)), above_bound.size(), all.size()));
    if (verdict_->blame == Blame::kNone) verdict_->blame = Blame::kUndetermined;
    Locate(*first);
  }

  using Points = std::set<std::tuple<int32_t, int32_t, int32_t, int32_t>>;  // prompt, step, stage, layer
  static Points::value_type KeyOf(const PointRow& p) { return {p.prompt, p.step, p.stage, p.layer}; }

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
  const bool audit_, comparable_;
  Verdict* verdict_;
  std::vector<const PointRow*> order_;
  bool found_defect_ = false;
};

// Whether an audit was given something to run, and ran it.
void CheckRun(const Evidence& evidence, Verdict* verdict) {
  auto add = [verdict](ReasonCode code, std::string text) {
    verdict->reasons.emplace_back(code, std::move(text));
  };
  if (evidence.n_prompts_asked <= 0) add(ReasonCode::kNoPrompts, "there is no prompt, so nothing was judged");
  if (!evidence.obstacles.empty()) return;  // it says itself why less was run
  if (static_cast<int64_t>(evidence.prompts.size()) < evidence.n_prompts_asked)
    add(ReasonCode::kPromptsMissing, "not every prompt was run");
  for (const PromptEvidence& p : evidence.prompts) {
    const auto n_asked = static_cast<int64_t>(p.tokens[1].size()) + p.n_decode_asked;
    const int64_t n_run = p.n_prefill[0] + p.n_decode[0];
    if (p.tokens[1].empty())
      add(ReasonCode::kEmptyPrompt,
          fmt::format("prompt {} has no tokens, so nothing can be judged", p.prompt));
    else if (n_run < n_asked)
      add(ReasonCode::kPositionsMissing,
          fmt::format("prompt {}: {} of {} positions were run", p.prompt, n_run, n_asked));
    else if (n_run > n_asked)
      add(ReasonCode::kExtraOutput,
          fmt::format("prompt {}: {} rows of logits were delivered, {} were asked for", p.prompt, n_run,
                      n_asked));
  }
}

}  // namespace

std::string PointName(int32_t stage, int32_t layer) {
  const char* name = stage >= 0 && stage < PB_STAGE_COUNT ? pb_vocabulary[stage].name : "unmapped op";
  return layer >= 0 ? fmt::format("layer {}, {}", layer, name) : name;
}

OpsJudged CheckOps(const Evidence& evidence, const LocalEvidence& local, bool comparable) {
  OpsJudged ops;
  comparable = comparable && !HasReason(evidence.obstacles, ReasonCode::kOverwriteIgnored);
  LocalCheck check(evidence, local, Against::kEngine, comparable, &ops.verdict);
  check.Check();
  const bool complete = ops.verdict.coverage.compared == local.n_expected && local.n_expected > 0;
  ops.all_shown_are_right = !check.found_defect() && complete && local.missing.empty() &&
                            local.unmapped.empty() && local.shown_is_used && evidence.obstacles.empty();
  ops.all_seen_and_right = ops.all_shown_are_right && local.unobservable.empty();
  return ops;
}

Verdict JudgeAudit(const Evidence& evidence, const LocalEvidence& local) {
  Verdict verdict;
  verdict.scope = Scope::kLocal;
  verdict.reasons = evidence.obstacles;
  CheckRun(evidence, &verdict);
  LocalCheck(evidence, local, Against::kArbiter, true, &verdict).Check();
  CheckPrecision(evidence, "act.quant", &verdict);
  const bool failed = std::any_of(verdict.reasons.begin(), verdict.reasons.end(),
                                  [](const Reason& r) { return r.outcome == Outcome::kEngineFailed; });
  if (failed && verdict.blame == Blame::kNone) verdict.blame = Blame::kEngine;
  Settle(&verdict);
  return verdict;
}

}  // namespace pb::compare

// Two traces against each other: what they have in common, where they part, and whether that is
// rounding.
#include "compare/trace_diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "compare/logits_judge.h"
#include "compare/trace_logits.h"
#include "compare/trace_point.h"
#include "compare/verdict.h"

namespace pb::compare {
namespace {

constexpr const char* kSides[] = {"candidate", "reference"};

std::vector<Setting> SettingsOf(const trace::Manifest& m) {
  std::vector<Setting> settings;
  for (const auto* facts : {&m.model_facts, &m.session_facts})
    for (const trace::Fact& f : *facts) settings.push_back({f.key, f.value, f.origin});
  return settings;
}

// Whether both traces were written by one engine in one build, so that its quantisers round alike.
bool SameEngine(const trace::Manifest& a, const trace::Manifest& b) {
  auto covers = [](const trace::Manifest& x, const trace::Manifest& y) {
    return std::all_of(x.engine_facts.begin(), x.engine_facts.end(), [&](const trace::Fact& f) {
      const bool decides = f.key == "name" || f.key == "version" || f.key == "commit" || f.key == "build" ||
                           f.key == "isa" || f.key.starts_with("digest.");
      return !decides || trace::FactText(y.engine_facts, f.key) == f.value;
    });
  };
  return !trace::FactText(a.engine_facts, "name").empty() && covers(a, b) && covers(b, a);
}

std::string PlaceOf(const TracePoint& p, int32_t position) {
  const std::string point = p.row.layer >= 0 ? fmt::format("layer {}, {}", p.row.layer, p.stage) : p.stage;
  return position >= 0 ? fmt::format("position {}, {}", position, point) : point;
}

// "a, b, c and 9 more".
std::string Some(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  std::string text = fmt::format(
      "{}",
      fmt::join(names.begin(), names.begin() + static_cast<ptrdiff_t>(std::min(names.size(), kShown)), ", "));
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

class Diff {
 public:
  Diff(const trace::Trace& candidate, const trace::Trace& reference, const TraceDiffOptions& options)
      : traces_{&candidate, &reference}, options_(options) {}

  Result<TraceDiff> Run() {
    out_.verdict.scope = Scope::kLocal;
    out_.verdict.coverage.unit = "points";
    if (!CheckRecords()) return Settle(&out_.verdict), std::move(out_);
    PB_ASSIGN(const bool same_tokens, CheckTokens());
    if (same_tokens) {
      CheckIdentity();
      PB_TRY(ComparePoints());
      JudgePoints();
    }
    Settle(&out_.verdict);
    return std::move(out_);
  }

 private:
  const trace::Manifest& manifest(int side) const { return traces_[side]->manifest(); }

  template <typename... Args>
  void Add(Args&&... reason) {
    out_.verdict.reasons.emplace_back(std::forward<Args>(reason)...);
  }

  bool CheckRecords() {
    bool any[2];
    for (int side : {0, 1}) {
      const trace::Trace& t = *traces_[side];
      any[side] = !t.records().empty();
      if (!any[side])
        Add(ReasonCode::kNoRecords,
            fmt::format("the {}'s trace holds no record: {}", kSides[side], t.folder().string()));
      if (t.documented()) {
        out_.notes.push_back(fmt::format(
            "the {}'s trace does not say of which model, tokens and positions it is", kSides[side]));
      } else if (!manifest(side).complete) {
        Add(ReasonCode::kTraceIncomplete, fmt::format("the {}'s trace is {}", kSides[side],
                                                      t.notes().empty() ? "incomplete" : t.notes().back()));
      }
    }
    return any[0] && any[1];
  }

  // Notes how many positions the traces share: to where their tokens part, if each engine chose its
  // own there.
  Result<bool> CheckTokens() {
    if (traces_[0]->documented() || traces_[1]->documented()) return true;
    const auto &a = manifest(0).tokens, &b = manifest(1).tokens;
    const size_t n = std::min(a.size(), b.size());
    const auto at = static_cast<size_t>(
        std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(n), b.begin()).first - a.begin());
    n_shared_ = static_cast<int64_t>(at);
    if (at == n && n > 0) return n_shared_ = INT64_MAX, true;
    if (n == 0) {
      Add(ReasonCode::kNoTokens, "a trace does not say of which tokens it is");
      return false;
    }
    PB_ASSIGN(const bool chosen, ChoseTheirTokens(at));
    if (!chosen)
      Add(Outcome::kInvalid, ReasonCode::kTokensDiffer,
          fmt::format("the traces are of different tokens, first at position {}: candidate {}, reference {}",
                      at, a[at], b[at]));
    return chosen;
  }

  // Whether the tokens at a position are decode steps, each the choice of its own engine after the
  // position before; tells so then.
  Result<bool> ChoseTheirTokens(size_t at) {
    std::string margins;
    for (int side : {0, 1}) {
      const trace::Manifest& m = manifest(side);
      if (m.n_prompt <= 0 || at < static_cast<size_t>(m.n_prompt)) return false;
      PB_ASSIGN(const auto top, TopsAt(*traces_[side], static_cast<int64_t>(at) - 1));
      // Without logits the same prompt must do: what follows it was chosen.
      if (!top && (m.prompt.empty() || manifest(0).prompt != manifest(1).prompt)) return false;
      if (top && (top->tokens.empty() || top->tokens[0].first != m.tokens[at])) return false;
      const std::string margin =
          top && top->tokens.size() > 1
              ? fmt::format("{:.2g} nats ahead of token {}", top->tokens[0].second - top->tokens[1].second,
                            top->tokens[1].first)
              : "its margin is not recorded";
      margins += fmt::format("{}the {} token {} ({})", side ? ", " : "", kSides[side], m.tokens[at], margin);
    }
    Add(ReasonCode::kGreedyFlip,
        fmt::format(
            "after position {} each engine goes on with a token of its own choice: {}; what follows is "
            "not compared",
            at - 1, margins));
    return true;
  }

  void CheckIdentity() {
    const trace::Manifest &a = manifest(0), &b = manifest(1);
    if (a.model_sha256 != b.model_sha256 && !options_.different_models && !traces_[0]->documented() &&
        !traces_[1]->documented()) {
      Add(ReasonCode::kModelsDiffer,
          fmt::format("the traces are of different model files (sha256 {} and {}), so their difference is "
                      "shown and not judged; "
                      "--different-models says that this is on purpose",
                      a.model_sha256.substr(0, 12), b.model_sha256.substr(0, 12)));
      comparable_ = false;
    }
    for (const SettingDifference& difference : DifferingSettings(SettingsOf(a), SettingsOf(b), false)) {
      out_.verdict.reasons.push_back(ReasonOf(difference));
      comparable_ = false;
    }
    if (AttentionDiffers(SettingsOf(a), SettingsOf(b))) {
      Add(ReasonCode::kSettingsDiffer,
          "attention is fused in one engine and not in the other (attn.flash), so what is behind it is shown "
          "and not judged");
      comparable_ = false;
    }
    for (int side : {0, 1}) {
      if (trace::ReadModelFacts(manifest(side).model_facts).activation_undeclared()) {
        Add(ReasonCode::kUndeclared,
            fmt::format("the {}'s model does not declare its FFN activation", kSides[side]));
        comparable_ = false;
      }
      const auto &tapped = manifest(side).logits_blake3, &untapped = manifest(side).logits_blake3_untapped;
      if (!tapped.empty() && !untapped.empty() && tapped != untapped)
        Add(ReasonCode::kObserverEffect,
            fmt::format("the {}'s logits change when its points are watched, so its trace does not show what "
                        "it computes otherwise",
                        kSides[side]));
    }
    if (a.sketch_seed != b.sketch_seed)
      out_.notes.push_back("the sketches have different seeds and are not compared");
  }

  Status ComparePoints() {
    const TracePairing pairing = PairTraces(*traces_[0], *traces_[1], options_.filter, n_shared_);
    if (!pairing.repeated.empty())
      Add(ReasonCode::kPointsRepeated, "rows are recorded twice: " + Some(pairing.repeated));
    if (!pairing.outside.empty())
      Add(ReasonCode::kPositionsWrong, "records lie outside the tokens: " + Some(pairing.outside));
    Coverage& coverage = out_.verdict.coverage;
    PointComparer comparer(*traces_[0], *traces_[1]);
    for (const TraceSpan& span : pairing.spans) {
      std::string problem;
      CheckFinite(span);
      auto point = comparer.Compare(span, &problem);
      if (!point.ok()) return std::move(point).error();
      ++coverage.expected;
      if (!*point) {
        out_.shapes.push_back(problem);
        continue;
      }
      coverage.compared += span.whole;
      if (!span.whole) coverage.missing.push_back(span.first->name + ": rows that one side alone has");
      if (span.records[0][0]->dtype != span.first->dtype)
        out_.dtypes.push_back(
            fmt::format("{}: {} against {}", span.first->name, span.records[0][0]->dtype, span.first->dtype));
      out_.points.push_back(std::move(**point));
      if (span.first->stage_id == PB_STAGE_LOGITS && span.placed) PB_TRY(CompareLogitsOf(span));
    }
    for (const TraceGap& gap : pairing.gaps) AddGap(gap);
    std::stable_sort(out_.points.begin(), out_.points.end(),
                     [](const TracePoint& a, const TracePoint& b) { return ComesBefore(a.row, b.row); });
    ReportCoverage();
    return {};
  }

  Status CompareLogitsOf(const TraceSpan& span) {
    PB_ASSIGN(std::vector<LogitsRow> rows,
              CompareTraceLogits(*traces_[0], *traces_[1], span, &out_.logits_exact));
    for (LogitsRow& row : rows) {
      const trace::Manifest& m = manifest(1);
      row.phase = row.position < m.n_prompt ? Phase::kPrefill : Phase::kDecode;
      row.token = m.tokens[static_cast<size_t>(row.position)];
      out_.logits.push_back(std::move(row));
    }
    return {};
  }

  void AddGap(const TraceGap& gap) {
    Coverage& coverage = out_.verdict.coverage;
    const trace::Manifest& lacking = manifest(gap.side);
    for (const auto& [stage, reason] : lacking.unobservable) {
      if (stage != gap.record->stage) continue;
      const std::string text = fmt::format("{}: {}: {}", stage, kSides[gap.side], reason);
      if (std::find(coverage.unobservable.begin(), coverage.unobservable.end(), text) ==
          coverage.unobservable.end())
        coverage.unobservable.push_back(text);
      return;
    }
    ++coverage.expected;
    auto& list = gap.record->stage_id == PB_STAGE_UNMAPPED ? coverage.unmapped : coverage.missing;
    list.push_back(fmt::format("{}: not in the {}'s trace", gap.record->name, kSides[gap.side]));
  }

  void ReportCoverage() {
    const Coverage& coverage = out_.verdict.coverage;
    if (out_.points.empty() && out_.shapes.empty())
      Add(ReasonCode::kNothingCompared, "the traces have no point in common, so nothing was compared");
    if (!out_.shapes.empty()) Add(ReasonCode::kShapesDiffer, "shapes differ: " + Some(out_.shapes));
    if (!out_.dtypes.empty())
      Add(ReasonCode::kDtypesDiffer,
          "tensors are stored in other types, so rounding of storage is part of the difference: " +
              Some(out_.dtypes));
    if (!coverage.missing.empty()) {
      std::string text = fmt::format("{} points are in one trace alone: {}", coverage.missing.size(),
                                     Some(coverage.missing));
      for (int side : {0, 1})
        if (!manifest(side).filter.empty())
          text += fmt::format("; the {} was recorded with --filter {}", kSides[side], manifest(side).filter);
      Add(ReasonCode::kPointsMissing, std::move(text));
    }
    if (!coverage.unmapped.empty())
      Add(ReasonCode::kPointsUnmapped,
          fmt::format("{} points have a stage that the other side does not know: {}",
                      coverage.unmapped.size(), Some(coverage.unmapped)));
    if (!non_finite_.empty()) Add(ReasonCode::kNonFinite, "NaN or infinity: " + Some(non_finite_));
  }

  // Hidden scores are -infinity: those of row q beyond key q, for each head.
  void CheckFinite(const TraceSpan& span) {
    for (int side : {0, 1})
      for (const trace::Record* r : span.records[side]) {
        int64_t hidden = 0;
        if (r->stage_id == PB_STAGE_ATTN_SCORES && r->shape.size() == 3 && span.placed)
          for (int64_t i = 0; i < r->n_rows(); ++i)
            hidden += r->shape[1] * std::max<int64_t>(r->shape[2] - (r->first_position + i + 1), 0);
        if (r->stage_id == PB_STAGE_ATTN_SCORES && !span.placed) hidden = r->n_negative_inf;
        if (r->n_nan + r->n_positive_inf == 0 && r->n_negative_inf == hidden) continue;
        non_finite_.push_back(fmt::format("{} ({}): {} NaN, {} +inf, {} -inf", r->name, kSides[side],
                                          r->n_nan, r->n_positive_inf, r->n_negative_inf - hidden));
      }
  }

  // An error on equal inputs that a quantised product of another engine may owe to the rounding of
  // its input's codes.
  bool MayBeCodes(const TracePoint& p) const {
    const std::string scheme = trace::ReadSessionFacts(manifest(1).session_facts).act_quant.value;
    return stages::kProducts.Contains(p.row.stage) && scheme != "none" && !p.own_feature &&
           !SameEngine(manifest(0), manifest(1));
  }

  void JudgePoints() {
    const TracePoint *defect = nullptr, *codes = nullptr;
    int64_t n_own = 0, n_unknown = 0;
    for (size_t i = 0; i < out_.points.size(); ++i) {
      const TracePoint& p = out_.points[i];
      out_.n_equal += p.equal;
      if (!p.equal && !out_.first_difference) out_.first_difference = i;
      n_own += p.own == OwnError::kWithin;
      n_unknown += p.own == OwnError::kUnknown;
      if (p.own != OwnError::kAbove) continue;
      const TracePoint*& kind = MayBeCodes(p) ? codes : defect;
      // Siblings are equal: the one whose error is clearest names the place.
      const bool sibling = kind && !ComesBefore(kind->row, p.row) && !ComesBefore(p.row, kind->row);
      if (!kind || (sibling && p.own_error / p.own_bound > kind->own_error / kind->own_bound)) kind = &p;
    }
    if (out_.points.empty()) return;
    if (out_.n_equal == static_cast<int64_t>(out_.points.size())) {
      Add(ReasonCode::kEqualBits, fmt::format("all {} points compared have equal bits", out_.points.size()));
      return;
    }
    if (!comparable_) return;
    if (defect) AddDefect(*defect);
    if (codes)
      Add(ReasonCode::kCodesNotExplained,
          fmt::format("{}: {:.1e} on equal inputs, bound {:.1e}: two engines may round the activation codes "
                      "of a quantised product "
                      "differently, which traces cannot tell from a defect",
                      PlaceOf(*codes, codes->own_position), codes->own_error, codes->own_bound));
    if (options_.max_rel_l2) {
      JudgeByLimit(*options_.max_rel_l2);
    } else if (!defect) {
      const std::string own = fmt::format(
          "{} of {} points differ. On inputs of equal bits {} ops agree within rounding{}; everything else "
          "is error that arrived "
          "from earlier ops",
          Differing(), out_.points.size(), n_own,
          n_unknown > 0 ? fmt::format(" and {} differ by what these traces cannot tell from it", n_unknown)
                        : "");
      std::string why = codes ? "an op's own error is open" : JudgeByNoise();
      if (why.empty())
        Add(ReasonCode::kDifferencesArrived, own);
      else
        Add(ReasonCode::kNotJudged,
            fmt::format("{}, which two traces can only describe; the logits are not judged: {}", own, why));
    }
  }

  // Judges the logits as crossval does without tracepoints. Returns why that cannot be done; empty:
  // it was.
  std::string JudgeByNoise() {
    if (options_.different_models) return "the models are different on purpose";
    if (traces_[0]->documented() || traces_[1]->documented())
      return "a trace does not say of which tokens it is";
    const auto n_tokens = std::min<int64_t>(
        n_shared_, static_cast<int64_t>(std::min(manifest(0).tokens.size(), manifest(1).tokens.size())));
    if (static_cast<int64_t>(out_.logits.size()) != n_tokens)
      return fmt::format("the traces tell those of {} of {} positions", out_.logits.size(), n_tokens);
    if (!options_.floor) return "there is no noise floor to judge them by";
    auto floor = options_.floor(n_tokens);
    if (!floor.ok()) return floor.error().message;
    Evidence evidence;
    evidence.n_prompts_asked = 1;
    evidence.floor = std::move(floor).value();
    evidence.prompts.emplace_back().rows = out_.logits;
    Verdict judged;
    judged.coverage.expected = judged.coverage.compared = n_tokens;
    CheckLogits(&evidence, Outcome::kDiverged, &judged);
    out_.logits = std::move(evidence.prompts[0].rows);
    Verdict& verdict = out_.verdict;
    verdict.scope = Scope::kLogitsOnly;
    verdict.reasons.insert(verdict.reasons.end(), judged.reasons.begin(), judged.reasons.end());
    verdict.limits.insert(verdict.limits.end(), judged.limits.begin(), judged.limits.end());
    if (!verdict.first_divergence) verdict.first_divergence = judged.first_divergence;
    if (verdict.blame == Blame::kNone) verdict.blame = judged.blame;
    if (!out_.logits_exact)
      out_.notes.push_back(
          fmt::format("the KL is that of the {} likeliest tokens and of all others together, which is at "
                      "most that of whole rows",
                      trace::kTopTokens));
    return "";
  }

  int64_t Differing() const { return static_cast<int64_t>(out_.points.size()) - out_.n_equal; }

  void AddDefect(const TracePoint& p) {
    const std::string feature = p.own_feature ? fmt::format(", feature {}", *p.own_feature) : "";
    Add(ReasonCode::kOwnErrorAboveBound,
        fmt::format("{}{}: the first op whose inputs have equal bits and whose error is no rounding: {:.1e}, "
                    "bound {:.1e}",
                    PlaceOf(p, p.own_position), feature, p.own_error, p.own_bound));
    Locate(p, p.own_position);
    if (out_.verdict.first_divergence) out_.verdict.first_divergence->feature = p.own_feature;
    out_.verdict.blame = Blame::kUndetermined;
  }

  void Locate(const TracePoint& p, int32_t position) {
    if (out_.verdict.first_divergence) return;
    FirstDivergence d;
    d.position = position >= 0 ? position : p.row.first_position;
    const auto& tokens = manifest(1).tokens;
    if (static_cast<size_t>(d.position) < tokens.size()) d.token = tokens[static_cast<size_t>(d.position)];
    d.layer = p.row.layer;
    if (p.row.stage >= 0) d.stage = p.row.stage;
    out_.verdict.first_divergence = d;
  }

  // Estimates decide only beyond what they may err.
  void JudgeByLimit(double limit) {
    out_.verdict.limits.push_back({"rel_l2", limit, "", "flag --rel-l2", true});
    const TracePoint *above = nullptr, *open = nullptr;
    double worst = 0;
    int64_t n_above = 0;
    for (const TracePoint& p : out_.points) {
      if (p.equal) continue;
      const double error = std::max(p.row.rel_l2, p.row.worst_row);
      worst = std::max(worst, error);
      const double slack = p.confidence == Confidence::kSketch ? 1 + trace::kSketchError : 1;
      const double told = std::max(error, p.below_floor ? trace::kSketchFloor : 0.0);
      const bool is_above = !p.below_floor && !(error / slack <= limit);
      const bool is_open = !is_above && (p.confidence == Confidence::kDigest || told * slack > limit);
      n_above += is_above;
      if (is_above && !above) above = &p;
      if (is_open && !open) open = &p;
    }
    if (above) {
      Add(ReasonCode::kRelL2AboveLimit,
          fmt::format("{}: rel-L2 {:.1e} ({}), limit {:.1e}; {} of {} points are above it",
                      PlaceOf(*above, above->row.worst_row_position),
                      std::max(above->row.rel_l2, above->row.worst_row), ConfidenceName(above->confidence),
                      limit, n_above, out_.points.size()));
      Locate(*above, above->row.worst_row_position);
      if (out_.verdict.blame == Blame::kNone) out_.verdict.blame = Blame::kUndetermined;
    } else if (open) {
      Add(ReasonCode::kLimitNotTold,
          fmt::format("{}: {} cannot tell whether the limit {:.1e} holds",
                      PlaceOf(*open, open->row.worst_row_position),
                      open->confidence == Confidence::kDigest ? "a digest" : "a sketch", limit));
    } else {
      Add(ReasonCode::kWithinLimit,
          fmt::format("all {} points are within the limit of rel-L2 {:.1e}; the worst is {:.1e}",
                      out_.points.size(), limit, worst));
    }
  }

  const trace::Trace* traces_[2];
  const TraceDiffOptions& options_;
  int64_t n_shared_ = INT64_MAX;  // positions whose tokens are the same in both
  bool comparable_ = true;
  std::vector<std::string> non_finite_;
  TraceDiff out_;
};

}  // namespace

const char* ConfidenceName(Confidence c) {
  return c == Confidence::kExact ? "exact" : c == Confidence::kSketch ? "sketch" : "digest";
}

const char* OwnErrorName(OwnError e) {
  return e == OwnError::kNone     ? "unjudged"
         : e == OwnError::kWithin ? "within"
         : e == OwnError::kAbove  ? "above"
                                  : "unknown";
}

Result<TraceDiff> DiffTraces(const trace::Trace& candidate, const trace::Trace& reference,
                             const TraceDiffOptions& options) {
  return Diff(candidate, reference, options).Run();
}

}  // namespace pb::compare

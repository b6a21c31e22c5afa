#include "compare/trace_diff.h"

#include <algorithm>
#include <cmath>

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

bool IsProduct(int32_t stage) { return BoundOf(static_cast<pb_stage>(stage), {}, 1).op_class == "product"; }

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
    if (CheckRecords() && CheckTokens()) {
      CheckIdentity();
      PB_TRY(ComparePoints());
      JudgePoints();
    }
    Settle(&out_.verdict);
    return std::move(out_);
  }

 private:
  const trace::Manifest& manifest(int side) const { return traces_[side]->manifest(); }

  void Add(Outcome outcome, const char* code, std::string text) {
    out_.verdict.reasons.push_back({outcome, code, std::move(text)});
  }

  bool CheckRecords() {
    bool any[2];
    for (int side : {0, 1}) {
      const trace::Trace& t = *traces_[side];
      any[side] = !t.records().empty();
      if (!any[side])
        Add(Outcome::kInvalid, "no-records",
            fmt::format("the {}'s trace holds no record: {}", kSides[side], t.folder().string()));
      if (t.documented()) {
        out_.notes.push_back(fmt::format(
            "the {}'s trace does not say of which model, tokens and positions it is", kSides[side]));
      } else if (!manifest(side).complete) {
        Add(Outcome::kIncomplete, "trace-incomplete",
            fmt::format("the {}'s trace is {}", kSides[side],
                        t.notes().empty() ? "incomplete" : t.notes().back()));
      }
    }
    return any[0] && any[1];
  }

  bool CheckTokens() {
    if (traces_[0]->documented() || traces_[1]->documented()) return true;
    const auto &a = manifest(0).tokens, &b = manifest(1).tokens;
    const size_t n = std::min(a.size(), b.size());
    const auto at = static_cast<size_t>(
        std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(n), b.begin()).first - a.begin());
    if (at == n && n > 0) return true;
    if (n == 0) {
      Add(Outcome::kInvalid, "no-tokens", "a trace does not say of which tokens it is");
    } else {
      Add(Outcome::kInvalid, "tokens-differ",
          fmt::format("the traces are of different tokens, first at position {}: candidate {}, reference {}",
                      at, a[at], b[at]));
    }
    return false;
  }

  void CheckIdentity() {
    const trace::Manifest &a = manifest(0), &b = manifest(1);
    if (a.model_sha256 != b.model_sha256 && !options_.different_models && !traces_[0]->documented() &&
        !traces_[1]->documented()) {
      Add(Outcome::kIncomplete, "models-differ",
          fmt::format("the traces are of different model files (sha256 {} and {}), so their difference is "
                      "shown and not judged; "
                      "--different-models says that this is on purpose",
                      a.model_sha256.substr(0, 12), b.model_sha256.substr(0, 12)));
      comparable_ = false;
    }
    for (Reason& reason : DifferingSettings(SettingsOf(a), SettingsOf(b), false)) {
      out_.verdict.reasons.push_back(std::move(reason));
      comparable_ = false;
    }
    for (int side : {0, 1}) {
      if (trace::FactText(manifest(side).model_facts, "ffn.activation") == "undeclared") {
        Add(Outcome::kIncomplete, "undeclared",
            fmt::format("the {}'s model does not declare its FFN activation", kSides[side]));
        comparable_ = false;
      }
      const auto &tapped = manifest(side).logits_blake3, &untapped = manifest(side).logits_blake3_untapped;
      if (!tapped.empty() && !untapped.empty() && tapped != untapped)
        Add(Outcome::kIncomplete, "observer-effect",
            fmt::format("the {}'s logits change when its points are watched, so its trace does not show what "
                        "it computes otherwise",
                        kSides[side]));
    }
    if (a.sketch_seed != b.sketch_seed)
      out_.notes.push_back("the sketches have different seeds and are not compared");
  }

  Status ComparePoints() {
    const TracePairing pairing = PairTraces(*traces_[0], *traces_[1], options_.filter);
    if (!pairing.repeated.empty())
      Add(Outcome::kInvalid, "points-repeated", "rows are recorded twice: " + Some(pairing.repeated));
    if (!pairing.outside.empty())
      Add(Outcome::kInvalid, "positions-wrong", "records lie outside the tokens: " + Some(pairing.outside));
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
    }
    for (const TraceGap& gap : pairing.gaps) AddGap(gap);
    std::stable_sort(out_.points.begin(), out_.points.end(),
                     [](const TracePoint& a, const TracePoint& b) { return ComesBefore(a.row, b.row); });
    ReportCoverage();
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
      Add(Outcome::kInvalid, "nothing-compared",
          "the traces have no point in common, so nothing was compared");
    if (!out_.shapes.empty()) Add(Outcome::kInvalid, "shapes-differ", "shapes differ: " + Some(out_.shapes));
    if (!out_.dtypes.empty())
      Add(Outcome::kIncomplete, "dtypes-differ",
          "tensors are stored in other types, so rounding of storage is part of the difference: " +
              Some(out_.dtypes));
    if (!coverage.missing.empty()) {
      std::string text = fmt::format("{} points are in one trace alone: {}", coverage.missing.size(),
                                     Some(coverage.missing));
      for (int side : {0, 1})
        if (!manifest(side).filter.empty())
          text += fmt::format("; the {} was recorded with --filter {}", kSides[side], manifest(side).filter);
      Add(Outcome::kIncomplete, "points-missing", std::move(text));
    }
    if (!coverage.unmapped.empty())
      Add(Outcome::kIncomplete, "points-unmapped",
          fmt::format("{} points have a stage that the other side does not know: {}",
                      coverage.unmapped.size(), Some(coverage.unmapped)));
    if (!non_finite_.empty()) Add(Outcome::kInvalid, "non-finite", "NaN or infinity: " + Some(non_finite_));
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

  // An error on equal inputs that a quantised product of another engine may owe to the rounding of its input's codes.
  bool MayBeCodes(const TracePoint& p) const {
    const std::string scheme = trace::FactText(manifest(1).session_facts, "act.quant");
    return IsProduct(p.row.stage) && scheme != "none" && !p.own_feature &&
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
      Add(Outcome::kMatch, "equal-bits",
          fmt::format("all {} points compared have equal bits", out_.points.size()));
      return;
    }
    if (!comparable_) return;
    if (defect) AddDefect(*defect);
    if (codes)
      Add(Outcome::kIncomplete, "codes-not-explained",
          fmt::format("{}: {:.1e} on equal inputs, bound {:.1e}: two engines may round the activation codes "
                      "of a quantised product "
                      "differently, which traces cannot tell from a defect",
                      PlaceOf(*codes, codes->own_position), codes->own_error, codes->own_bound));
    if (options_.max_rel_l2) {
      JudgeByLimit(*options_.max_rel_l2);
    } else if (!defect) {
      Add(Outcome::kIncomplete, "not-judged",
          fmt::format("{} of {} points differ. On inputs of equal bits {} ops agree within rounding{}; "
                      "everything else is error that "
                      "arrived from earlier ops, which two traces can only describe",
                      Differing(), out_.points.size(), n_own,
                      n_unknown > 0
                          ? fmt::format(" and {} differ by what these traces cannot tell from it", n_unknown)
                          : ""));
    }
  }

  int64_t Differing() const { return static_cast<int64_t>(out_.points.size()) - out_.n_equal; }

  void AddDefect(const TracePoint& p) {
    const std::string feature = p.own_feature ? fmt::format(", feature {}", *p.own_feature) : "";
    Add(Outcome::kDiverged, "own-error-above-bound",
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
      Add(Outcome::kDiverged, "rel-l2-above-limit",
          fmt::format("{}: rel-L2 {:.1e} ({}), limit {:.1e}; {} of {} points are above it",
                      PlaceOf(*above, above->row.worst_row_position),
                      std::max(above->row.rel_l2, above->row.worst_row), ConfidenceName(above->confidence),
                      limit, n_above, out_.points.size()));
      Locate(*above, above->row.worst_row_position);
      if (out_.verdict.blame == Blame::kNone) out_.verdict.blame = Blame::kUndetermined;
    } else if (open) {
      Add(Outcome::kIncomplete, "limit-not-told",
          fmt::format("{}: {} cannot tell whether the limit {:.1e} holds",
                      PlaceOf(*open, open->row.worst_row_position),
                      open->confidence == Confidence::kDigest ? "a digest" : "a sketch", limit));
    } else {
      Add(Outcome::kMatch, "within-limit",
          fmt::format("all {} points are within the limit of rel-L2 {:.1e}; the worst is {:.1e}",
                      out_.points.size(), limit, worst));
    }
  }

  const trace::Trace* traces_[2];
  const TraceDiffOptions& options_;
  bool comparable_ = true;
  std::vector<std::string> non_finite_;
  TraceDiff out_;
};

}  // namespace

const char* ConfidenceName(Confidence c) {
  return c == Confidence::kExact ? "exact" : c == Confidence::kSketch ? "sketch" : "digest";
}

const char* OwnErrorName(OwnError e) {
  return e == OwnError::kNone     ? "none"
         : e == OwnError::kWithin ? "within"
         : e == OwnError::kAbove  ? "above"
                                  : "unknown";
}

Result<TraceDiff> DiffTraces(const trace::Trace& candidate, const trace::Trace& reference,
                             const TraceDiffOptions& options) {
  return Diff(candidate, reference, options).Run();
}

}  // namespace pb::compare

// The text of a comparison: tables, limits, notes, verdict, what to do next.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "report/crossval_report.h"
#include "report/diagnosis_report.h"
#include "report/escape.h"
#include "report/growth.h"
#include "report/metrics_table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using compare::LogitsRow;
using compare::Outcome;

class TextReport {
 public:
  TextReport(const run::Comparison& c, const Context& context, const TextOptions& options)
      : c_(c), context_(context), options_(options) {}

  std::string Render() {
    if (options_.quiet) return Quiet();
    Head();
    if (!c_.rows.empty()) {
      out_ += '\n';
      out_ += PositionTable(c_, options_);
      out_ += MetricsTable(c_);
      out_ += '\n';
    }
    Points();
    Traces();
    Limits();
    for (const std::string& note : context_.notes) Line("note", Escape(note));
    for (const drive::EngineRecord* e : {&c_.candidate, &c_.reference}) out_ += LastWords(*e);
    if (out_.size() > 1 && out_[out_.size() - 2] != '\n') out_ += '\n';
    VerdictLines();
    out_ += NextLines(c_.next);
    return std::move(out_);
  }

 private:
  void Line(std::string_view label, const std::string& text) {
    out_ += LabelledLine(label, text, options_.width);
  }

  void Head() {
    Line("model", ModelLine(c_.candidate));
    bool other_model =
        !c_.reference.model_sha256.empty() && c_.reference.model_sha256 != c_.candidate.model_sha256;
    if (other_model) Line("", "reference: " + ModelLine(c_.reference));
    EngineLines(c_.candidate);
    EngineLines(c_.reference);
    Differences();
    Tokens();
    Noise();
    Distance();
    DefaultConfiguration();
  }

  void EngineLines(const drive::EngineRecord& e) {
    Line(e.role, EngineLine(e));
    std::string facts = FactsLine(e, c_.candidate, c_.reference);
    if (!facts.empty()) Line("", facts);
  }

  void Differences() {
    const std::vector<std::string> differing = FactsThatDiffer(c_.candidate, c_.reference);
    for (size_t i = 0; i < differing.size(); ++i) Line(i == 0 ? "differ" : "", differing[i]);
  }

  void Tokens() {
    if (c_.prompts.empty()) return;
    size_t n[2] = {0, 0};
    bool equal = true;
    int64_t steps = 0;
    for (const run::PromptRecord& p : c_.prompts) {
      for (int side : {0, 1}) n[side] += p.tokens_of[side].size();
      equal &= p.tokens_of[0] == p.tokens_of[1];
      steps += p.steps_asked;
    }
    std::string text = fmt::format("{} and {}, {}", n[0], n[1], equal ? "equal" : "DIFFERENT");
    if (c_.prompts.size() > 1) text += fmt::format(", in {} prompts", c_.prompts.size());
    if (steps > 0) text += fmt::format("; {} decode steps, both fed the reference's choice", steps);
    Line("tokens", text);
  }

  void Noise() {
    const noise::FloorRecord& f = c_.floor;
    if (f.n_runs == 0) return;
    Line("noise",
         fmt::format("{} against itself, {} runs of {} over {} tokens: mean KL {:.1e}, worst {:.1e}{}",
                     f.side, f.n_runs, f.method, f.n_positions, f.mean_kl, f.worst_kl,
                     f.weaker ? " (weaker than usual: see the verdict)" : ""));
  }

  // Whether the candidate can be told from the reference's own noise, and what it would take.
  void Distance() {
    if (!c_.verdict.rank) return;
    const compare::NoiseRank& r = *c_.verdict.rank;
    std::string text = fmt::format(
        "{} of {} runs of the reference against itself lie as far from it as the candidate, "
        "over {} positions (p = {:.2g}): ",
        r.n_as_far, r.n_runs, r.n_positions, r.p);
    if (r.distinguishable())
      text += fmt::format("it can be told from noise at {:g}, from {} positions on", r.confidence, *r.since);
    else if (r.n_as_far == 0)
      text += fmt::format("as few runs show no more; --confidence {:g} asks for enough", r.confidence);
    else
      text += fmt::format("it cannot be told from noise at {:g}", r.confidence);
    if (!r.distinguishable() && r.n_as_far > 0 && r.needed)
      text += fmt::format("; were it as far away everywhere, about {:.0f} positions would tell", *r.needed);
    Line("distance", text);
  }

  void DefaultConfiguration() {
    if (!c_.reference_default) return;
    const run::DefaultConfiguration& d = *c_.reference_default;
    if (!d.error.empty())
      Line("default", "the reference's default configuration gives no figure: " + Escape(d.error));
    else
      Line("default",
           fmt::format("reference as it comes (flash attention {}) against as compared: mean KL {:.1e}, "
                       "worst {:.1e}; for information",
                       Escape(d.flash), d.mean_kl, d.worst_kl));
  }

  void Points() {
    if (c_.points.empty()) return;
    const compare::PointRow* worst = &c_.points[0];
    for (const compare::PointRow& p : c_.points)
      if (!(p.bound_ratio <= worst->bound_ratio)) worst = &p;
    Line("ops",
         fmt::format(
             "{} tensors compared on equal inputs; worst local error {:.1e} ({:.2g} of its bound) in {}",
             c_.verdict.coverage.compared, std::max(worst->worst_row, worst->worst_feature),
             worst->bound_ratio, OpName(worst->stage, worst->layer, std::nullopt)));
    for (const std::string& stage : c_.verdict.coverage.unobservable)
      Line("", "not observable: " + Escape(stage));
    Uncompared("not in both engines", c_.verdict.coverage.unmapped);
    Uncompared("missing", c_.verdict.coverage.missing);
    Growth();
    Observer();
  }

  // Up to a few names of points that were not compared; the JSON has all.
  void Uncompared(const char* what, const std::vector<std::string>& names) {
    constexpr size_t kShown = 3;
    for (size_t i = 0; i < std::min(names.size(), kShown); ++i)
      Line("", fmt::format("{}: {}", what, Escape(names[i])));
    if (names.size() > kShown) Line("", fmt::format("{}: {} more", what, names.size() - kShown));
  }

  void Growth() {
    const std::vector<GrowthRow> rows = GrowthOf(c_);
    if (rows.empty()) return;
    std::vector<double> errors, noise;
    for (const GrowthRow& row : rows) {
      errors.push_back(row.rel_l2);
      if (row.noise) noise.push_back(row.noise->largest);
    }
    auto curve = [&](std::span<const double> values) {
      constexpr size_t kColumns = 40;
      return fmt::format("layer {} {:.1e} {} {:.1e} layer {}", rows.front().layer, values.front(),
                         GrowthCurve(values, kColumns), values.back(), rows.back().layer);
    };
    Line("growth", curve(errors) +
                       "; rel-L2 of the layers' outputs in the free run, each step of the curve is a "
                       "factor of ten");
    if (noise.size() == errors.size())
      Line("", fmt::format("{}; there the {} against itself, largest of {} runs of {}", curve(noise),
                           c_.floor.side, c_.floor.n_runs, c_.floor.method));
  }

  // Whether watching changed what an engine computes; a change is a reason of the verdict too.
  void Observer() {
    bool watched = false, changed[2] = {false, false};
    for (const run::PromptRecord& p : c_.prompts)
      for (int side : {0, 1}) {
        watched |= !p.tapped_sha256[side].empty();
        changed[side] |= p.observer_effect(side);
      }
    if (!watched) return;
    if (!changed[0] && !changed[1])
      Line("observer", "logits have the same bits with and without taps, in both engines");
    else
      Line("observer", fmt::format("logits CHANGE under taps in the {}", changed[0] && changed[1]
                                                                             ? "candidate and the reference"
                                                                         : changed[0] ? "candidate"
                                                                                      : "reference"));
  }

  void Traces() {
    bool first = true;
    for (const run::PromptRecord& p : c_.prompts)
      for (const std::optional<run::KeptTrace>& t : p.traces) {
        if (!t) continue;
        Line(first ? "traces" : "",
             fmt::format("{} (level {}, {} records, {:.1f} MB)", Escape(t->folder.string()), t->level,
                         t->n_records, static_cast<double>(t->n_bytes) / 1e6));
        first = false;
      }
  }

  // What the origins of the noise floor's limits end with, when it is the same for all: " in 8 runs
  // of ...".
  std::string CommonOrigin() const {
    std::string common;
    int n = 0;
    for (const compare::Limit& l : c_.verdict.limits) {
      if (l.by_user) continue;
      size_t at = l.origin.find(" in ");
      std::string end = at == std::string::npos ? "" : l.origin.substr(at);
      if (end.empty() || (n++ > 0 && end != common)) return "";
      common = end;
    }
    return n > 1 ? common : "";
  }

  void Limits() {
    std::string common = CommonOrigin();
    bool first = true;
    for (const compare::Limit& l : c_.verdict.limits) {
      std::string value =
          l.name == "cosine.min" ? fmt::format("{:g}", l.value) : fmt::format("{:.1e}", l.value);
      std::string origin = l.by_user ? l.origin : l.origin.substr(0, l.origin.size() - common.size());
      Line(first ? "limits" : "",
           fmt::format("{} {}{}{}: {}", l.name, value, l.unit.empty() ? "" : " ", l.unit, origin));
      first = false;
    }
    if (!common.empty()) Line("", "..." + common);
  }

  // What it means to somebody who has never heard of KL.
  std::string Sentence() const {
    const compare::Verdict& v = c_.verdict;
    switch (v.outcome) {
      case Outcome::kMatch:
        return fmt::format("at all {} {} the engines agree as closely as the {} agrees with itself",
                           v.coverage.compared, v.coverage.unit, c_.floor.side);
      case Outcome::kNearTie:
        return "the engines agree within noise; where they choose different tokens, those are as good as "
               "tied";
      case Outcome::kDrift:
        return "every op agrees on equal inputs; rounding alone has carried the logits beyond the "
               "reference's noise";
      case Outcome::kDiverged:
        if (!v.first_divergence) return "the engines do not compute the same";
        return fmt::format("at {}{}", WhereDiverged(c_),
                           v.first_divergence->stage ? ": the first op whose error its inputs do not explain"
                                                     : ": the engines do not compute the same");
      case Outcome::kIncomplete:
        return "not everything could be judged, so this is not a pass";
      case Outcome::kEngineFailed:
        return "an engine failed before the comparison was done";
      case Outcome::kInvalid:
        return "there is nothing here that could be judged, so this is not a pass";
    }
    return {};
  }

  void VerdictLines() {
    out_ += VerdictBlock(c_.verdict, Sentence(), options_);
    FirstError();
    if (context_.diagnosis)
      out_ += BlameLines(*context_.diagnosis, options_.width);
    else if (c_.verdict.blame != compare::Blame::kNone)
      Line("blame", compare::BlameName(c_.verdict.blame));
  }

  // The error where the engines part: on equal inputs, and as it arrived in the free run.
  void FirstError() {
    const auto& d = c_.verdict.first_divergence;
    if (!d || !d->stage) return;
    auto find = [&](const std::vector<compare::PointRow>& rows) {
      return std::find_if(rows.begin(), rows.end(), [&](const compare::PointRow& p) {
        return p.prompt == d->prompt && p.stage == *d->stage && p.layer == d->layer &&
               p.first_position <= d->position && d->position < p.first_position + p.n_rows;
      });
    };
    auto local = find(c_.points), accumulated = find(c_.accumulated);
    if (local == c_.points.end() || accumulated == c_.accumulated.end()) return;
    Line("error", fmt::format("{:.1e} on equal inputs, {:.1e} as it arrives in the free run (rel-L2)",
                              local->rel_l2, accumulated->rel_l2));
  }

  std::string Quiet() const {
    const compare::Verdict& v = c_.verdict;
    std::string text = fmt::format("{} {} of {} {}", VerdictWord(v.outcome, options_.colour),
                                   v.coverage.compared, v.coverage.expected, v.coverage.unit);
    if (v.first_divergence) text += ", first at " + WhereDiverged(c_);
    if (!v.reasons.empty()) text += ": " + EscapeLines(v.reasons[0].text);
    return text + "\n";
  }

  const run::Comparison& c_;
  const Context& context_;
  const TextOptions& options_;
  std::string out_;
};

}  // namespace

std::string RenderText(const run::Comparison& comparison, const Context& context,
                       const TextOptions& options) {
  return TextReport(comparison, context, options).Render();
}

}  // namespace pb::report

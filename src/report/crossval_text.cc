// The text of a comparison: tables, limits, notes, verdict, what to do next.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "report/crossval_report.h"
#include "report/diagnosis_report.h"
#include "report/escape.h"
#include "report/growth.h"
#include "report/headline.h"
#include "report/metrics_table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

class TextReport {
 public:
  TextReport(const run::Comparison& c, const Context& context, const TextOptions& options)
      : c_(c), context_(context), options_(options) {}

  std::string Render() {
    const Headline headline = HeadlineOf(c_, context_.diagnosis);
    if (options_.quiet) return HeadlineInOne(c_.verdict.outcome, headline, options_);
    Head();
    if (!c_.rows.empty()) {
      out_ += '\n';
      out_ += PositionTable(c_, options_);
      out_ += options_.details ? MetricsTable(c_) + "\n" : "\n" + MetricsLines(c_, options_);
    }
    Points();
    Paths();
    Traces();
    Limits();
    for (const std::string& note : context_.notes) Line("note", Escape(note));
    for (const drive::EngineRecord* e : {&c_.candidate, &c_.reference}) out_ += LastWords(*e, options_.width);
    out_ += ReasonLines(c_.verdict, headline.tells_reason ? 1 : 0, options_);
    if (context_.diagnosis) out_ += EvidenceLines(*context_.diagnosis, options_);
    if (out_.size() > 1 && out_[out_.size() - 2] != '\n') out_ += '\n';
    out_ += HeadlineBlock(c_.verdict.outcome, headline, options_);
    out_ += NextLines(c_.next, options_, context_.next_in_short);
    return std::move(out_);
  }

 private:
  void Line(std::string_view label, const std::string& text) {
    out_ += LabelledLine(label, text, options_.width);
  }

  void Head() {
    if (!c_.candidate.model_path.empty()) Line("model", ModelLine(c_.candidate));
    bool other_model =
        !c_.reference.model_sha256.empty() && c_.reference.model_sha256 != c_.candidate.model_sha256;
    if (other_model) Line("", "reference: " + ModelLine(c_.reference));
    EngineLines(c_.candidate);
    EngineLines(c_.reference);
    Differences();
    Tokens();
    Noise();
    if (options_.details || (c_.verdict.rank && c_.verdict.rank->distinguishable())) Distance();
    if (options_.details) DefaultConfiguration();
  }

  void EngineLines(const drive::EngineRecord& e) {
    const std::string engine = EngineLine(e);
    if (engine.empty()) return;  // it was never started
    Line(e.role, engine);
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
         fmt::format("{} against itself, {} run{} of {} over {} tokens: mean KL {:.1e}, worst {:.1e}{}",
                     f.side, f.n_runs, f.n_runs == 1 ? "" : "s", Escape(f.method), f.n_positions, f.mean_kl,
                     f.worst_kl,
                     f.weaker    ? " (weaker than usual: see the verdict)"
                     : f.partial ? " (as much as it took; --noise whole measures all of it)"
                                 : ""));
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
      Line("default", fmt::format("reference as it comes (flash attention {}) against as compared, over {} "
                                  "positions: mean KL {:.1e}, "
                                  "worst {:.1e}; for information",
                                  Escape(d.flash), d.n_positions, d.mean_kl, d.worst_kl));
  }

  void Points() {
    if (c_.points.empty()) return;
    // A long prompt comes in pieces.
    std::set<std::tuple<int32_t, int32_t, int32_t, int32_t>> beyond, explained;
    for (const compare::PointRow& p : c_.points) {
      const std::tuple point(p.prompt, p.step, p.stage, p.layer);
      if (p.is_defect() && c_.verdict.differing.empty()) beyond.insert(point);
      if (p.above_bound() && !p.is_defect()) explained.insert(point);
    }
    std::string text = fmt::format("{} tensors compared on equal inputs", c_.verdict.coverage.compared);
    if (!beyond.empty()) text += fmt::format(", {} beyond what rounding explains", beyond.size());
    if (!explained.empty())
      text += fmt::format(", {} beyond their bound for a reason (below)", explained.size());
    if (const compare::PointRow* worst = WorstPoint(c_.points)) text += "; the worst in " + WorstText(*worst);
    Line("ops", text);
    NotShown();
    Uncompared("not in both engines", c_.verdict.coverage.unmapped);
    Uncompared("missing", c_.verdict.coverage.missing);
    Growth();
    Observer();
  }

  // By engine, without the reasons, which are details: "not shown by the reference: ffn_act".
  void NotShown() {
    std::map<std::string, std::vector<std::string>> by_side;
    for (const std::string& text : c_.verdict.coverage.unobservable) {
      const size_t side = text.find(": "), why = side == std::string::npos ? side : text.find(": ", side + 2);
      if (options_.details || why == std::string::npos)
        Line("", "not shown: " + Escape(text));
      else
        by_side[text.substr(side + 2, why - side - 2)].push_back(Escape(text.substr(0, side)));
    }
    for (const auto& [side, stages] : by_side) {
      const bool by_an_engine = side == "candidate" || side == "reference";
      Line("", fmt::format("{}: {}", by_an_engine ? "not shown by the " + side : Escape(side),
                           fmt::join(stages, ", ")));
    }
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
    const int64_t n_watched = WatchedPositions();
    Line("growth", fmt::format("{}; rel-L2 of the layers' outputs in the free run{}, each step of the curve "
                               "is a factor of ten",
                               curve(errors),
                               n_watched > 0 ? fmt::format(" over the first {} positions", n_watched) : ""));
    if (options_.details && noise.size() == errors.size())
      Line("", fmt::format("{}; there the {} against itself, largest of {} runs of {}", curve(noise),
                           c_.floor.side, c_.floor.n_runs, Escape(c_.floor.method)));
  }

  // Of the longest part of a prompt that was watched; 0: all were whole.
  int64_t WatchedPositions() const {
    int64_t n = 0;
    for (const run::PromptRecord& p : c_.prompts) n = std::max(n, p.n_watched);
    return n;
  }

  // Whether watching changed what an engine computes; a change is a reason of the verdict too.
  void Observer() {
    bool watched = false, changed[2] = {false, false};
    const int64_t n_watched = WatchedPositions();
    for (const run::PromptRecord& p : c_.prompts)
      for (int side : {0, 1}) {
        watched |= !p.tapped_sha256[side].empty();
        changed[side] |= p.observer_effect(side);
      }
    if (!watched) return;
    if (!changed[0] && !changed[1] && !options_.details) return;
    if (!changed[0] && !changed[1])
      Line("observer",
           fmt::format("logits have the same bits with and without taps, in both engines{}",
                       n_watched > 0 ? fmt::format("; of the candidate the first {} positions (--watch whole "
                                                   "watches all)",
                                                   n_watched)
                                     : ""));
    else
      Line("observer", fmt::format("logits CHANGE under taps in the {}", changed[0] && changed[1]
                                                                             ? "candidate and the reference"
                                                                         : changed[0] ? "candidate"
                                                                                      : "reference"));
  }

  // What was run beside this comparison, and what nothing went through.
  void Paths() {
    if (c_.rows.empty()) return;
    bool first = true;
    for (const run::PathRun& p : c_.path_runs) {
      const std::string outcome = p.outcome.empty() ? "not run" : p.outcome;
      const bool tells = p.outcome != "match" || options_.details;
      Line(first ? "paths" : "",
           fmt::format("{}: {}{}", p.name, outcome, tells ? ": " + Escape(p.text) : ""));
      first = false;
    }
    const std::vector<run::Path> left = run::PathsNotTaken(c_);
    if (left.empty()) return;
    const bool more = c_.path_runs.empty() && compare::ExitCode(c_.verdict.outcome) == 0;
    Line(first ? "paths" : "",
         PathsLeftText(left, options_) + (more ? "; --paths all runs what it can" : ""));
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

  static std::string ValueOf(const compare::Limit& l) {
    std::string value =
        l.name == "cosine.min" ? fmt::format("{:g}", l.value) : fmt::format("{:.1e}", l.value);
    return Together(fmt::format("{} {}{}{}", l.name, value, l.unit.empty() ? "" : " ", l.unit));
  }

  // Where each comes from is a detail, but for the user's own.
  void Limits() {
    if (options_.details) return LimitsWithOrigins();
    std::string measured, own;
    for (const compare::Limit& l : c_.verdict.limits) {
      std::string& text = l.by_user ? own : measured;
      text += (text.empty() ? "" : ", ") + ValueOf(l);
    }
    if (!measured.empty()) Line("limits", fmt::format("{}, of {}'s noise", measured, "the " + c_.floor.side));
    if (!own.empty()) Line(measured.empty() ? "limits" : "", own + ": given by the user");
  }

  void LimitsWithOrigins() {
    std::string common = CommonOrigin();
    bool first = true;
    for (const compare::Limit& l : c_.verdict.limits) {
      std::string origin = l.by_user ? l.origin : l.origin.substr(0, l.origin.size() - common.size());
      Line(first ? "limits" : "", ValueOf(l) + ": " + Escape(origin));
      first = false;
    }
    if (!common.empty()) Line("", "..." + Escape(common));
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

// Lays out points, tables and the verdict of two traces.
#include "report/trace_diff_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "diagnose/stage_text.h"
#include "report/escape.h"
#include "report/headline.h"
#include "report/json.h"
#include "report/table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using compare::Confidence;
using compare::TraceDiff;
using compare::TracePoint;
using Json = nlohmann::ordered_json;

constexpr const char* kSides[] = {"candidate", "reference"};

// The larger of tensor and worst row.
double Error(const TracePoint& p) { return std::max(p.row.rel_l2, p.row.worst_row); }

// The larger error, equal bits the least.
bool IsWorse(const TracePoint& a, const TracePoint& b) {
  return a.equal != b.equal ? b.equal : Error(a) > Error(b);
}

// "2.1e-06", "~2.1e-03" from sketches, ">=2e-05" from digests, "<1e-03" below a sketch's floor, "0"
// for equal bits.
std::string ErrorOf(const TracePoint& p, double error) {
  if (p.equal) return "0";
  if (p.below_floor) return fmt::format("<{:.0e}", trace::kSketchFloor);
  const char* mark = p.confidence == Confidence::kSketch   ? "~"
                     : p.confidence == Confidence::kDigest ? ">="
                                                           : "";
  return std::isfinite(error) ? fmt::format("{}{:.1e}", mark, error) : "inf";
}

// "-" where no row is known by itself, as in sketches of whole tensors.
std::string WorstRowText(const TracePoint& p) {
  return p.row.worst_row_position < 0 && !p.equal ? "-" : ErrorOf(p, p.row.worst_row);
}

std::string Place(const TracePoint& p) {
  return p.row.layer >= 0 ? fmt::format("layer {}, {}", p.row.layer, p.stage) : p.stage;
}

// Worst error of each stage and layer over all steps.
using Cell = const TracePoint*;
std::map<int32_t, std::map<std::string, Cell>> Cells(const TraceDiff& diff) {
  std::map<int32_t, std::map<std::string, Cell>> cells;
  for (const TracePoint& p : diff.points) {
    Cell& cell = cells[p.row.layer][p.stage];
    if (!cell || IsWorse(p, *cell)) cell = &p;
  }
  return cells;
}

// What is known of a point's own error; the column's head says "on equal inputs".
const char* OwnText(const TracePoint& p) {
  switch (p.own) {
    case compare::OwnError::kNone:
      return "inputs differ: not judged";
    case compare::OwnError::kWithin:
      return p.equal ? "equal" : "within its bound";
    case compare::OwnError::kAbove:
      return "ABOVE its bound";
    case compare::OwnError::kUnknown:
      return "rounding or more: cannot be told";
  }
  return "";
}

class TraceDiffText {
 public:
  TraceDiffText(const TraceDiff& diff, const TraceDiffContext& context, const TextOptions& options)
      : diff_(diff), c_(context), options_(options) {}

  std::string Render() {
    const Headline headline = HeadlineOfTraces();
    if (options_.quiet) return HeadlineInOne(diff_.verdict.outcome, headline, options_);
    for (int side : {0, 1}) Trace(side);
    Identity();
    if (!diff_.points.empty()) {
      Compared();
      FirstDifference();
      Growth();
    }
    if (options_.details) Stages();
    out_ += ReasonLines(diff_.verdict, headline.tells_reason ? 1 : 0, options_);
    out_ += "\n" + HeadlineBlock(diff_.verdict.outcome, headline, options_) + NextLines(c_.next, options_);
    return std::move(out_);
  }

  Headline HeadlineOfTraces() const {
    const compare::Verdict& v = diff_.verdict;
    if (v.outcome == compare::Outcome::kMatch) return OfMatch();
    const std::string reason = v.reasons.empty() ? "nothing was compared" : EscapeLines(v.reasons[0].text);
    std::string place;
    if (v.first_divergence) {
      const compare::FirstDivergence& d = *v.first_divergence;
      if (d.stage) place = "at " + diagnose::PlaceText(d.layer, *d.stage, d.feature) + ", ";
      place += d.position == 0 ? "from the first token"
                               : fmt::format("from position {} (token {})", d.position, d.token);
    }
    if (v.blame != compare::Blame::kNone)
      place += (place.empty() ? "" : "; ") + Together(fmt::format("blame: {}", compare::BlameName(v.blame)));
    const bool own = v.Has(compare::ReasonCode::kOwnErrorAboveBound);
    if (v.outcome == compare::Outcome::kDiverged && own && v.first_divergence && v.first_divergence->stage)
      return {fmt::format("given inputs of equal bits, the engines do not agree on the {}",
                          diagnose::StageText(*v.first_divergence->stage)),
              place};
    return {reason, place, true};
  }

 private:
  void Line(std::string_view label, const std::string& text) {
    out_ += LabelledLine(label, text, options_.width);
  }

  void Trace(int side) {
    const trace::Manifest& m = c_.manifests[side];
    std::string engine = m.engine.empty() ? "engine not recorded" : m.engine;
    const trace::EngineFacts facts = trace::ReadEngineFacts(m.engine_facts);
    if (!facts.version.empty()) engine += fmt::format(" {}", facts.version);
    if (!facts.isa.empty()) engine += fmt::format(" ({})", facts.isa);
    Line(kSides[side], fmt::format("{}: {}, {} records, level {}{}", Escape(c_.folders[side]), Escape(engine),
                                   m.n_records, trace::LevelName(m.level), m.complete ? "" : ", INCOMPLETE"));
  }

  void Identity() {
    const trace::Manifest &a = c_.manifests[0], &b = c_.manifests[1];
    auto model = [](const trace::Manifest& m) {
      return fmt::format("{}, sha256:{}", Escape(m.model_path), m.model_sha256.substr(0, 12));
    };
    if (!a.model_sha256.empty() && !b.model_sha256.empty())
      Line("model", a.model_sha256 == b.model_sha256 ? model(b) : model(a) + " | " + model(b));
    if (!a.tokens.empty() && !b.tokens.empty())
      Line("tokens", fmt::format("{} and {}{}; prefill of {} and {}", a.tokens.size(), b.tokens.size(),
                                 a.tokens == b.tokens ? ", equal" : "", a.n_prompt, b.n_prompt));
  }

  void Compared() {
    const compare::Coverage& coverage = diff_.verdict.coverage;
    int64_t n[3] = {0, 0, 0};
    for (const TracePoint& p : diff_.points)
      if (!p.equal) ++n[static_cast<int>(p.confidence)];
    std::string text = fmt::format("{} of {} points: {} have equal bits", coverage.compared,
                                   coverage.expected, diff_.n_equal);
    const char* how[] = {"differ, by their values", "differ, by sketches",
                         "differ, by digests (how far is not known)"};
    for (int i : {0, 1, 2})
      if (n[i] > 0) text += fmt::format(", {} {}", n[i], how[i]);
    Line("compared", text);
    if (n[1] > 0) Line("", "~ is estimated from a sketch: within 25 % in 99 of 100 cases");
    for (const std::string& name : coverage.unobservable) Line("", "not shown: " + Escape(name));
    for (const std::string& note : diff_.notes) Line("note", Escape(note));
  }

  // What is known of the first point that differs.
  void FirstDifference() {
    if (!diff_.first_difference) return;
    const TracePoint& p = diff_.points[*diff_.first_difference];
    int32_t position = p.row.worst_row_position >= 0 ? p.row.worst_row_position : p.row.first_position;
    if (p.own == compare::OwnError::kAbove && p.own_position >= 0) position = p.own_position;
    std::string text = fmt::format("{}, step {}, position {}: ", Escape(Place(p)), p.row.step, position);
    switch (p.own) {
      case compare::OwnError::kNone:
        text +=
            fmt::format("rel-L2 {}; its inputs are not known to be equal, so that may have arrived with them",
                        ErrorOf(p, Error(p)));
        break;
      case compare::OwnError::kWithin:
        text += "its inputs have equal bits: rounding, within its bound";
        break;
      case compare::OwnError::kAbove:
        text += fmt::format("its inputs have equal bits: {}{} ({})",
                            p.confidence == Confidence::kSketch ? "estimated " : "",
                            ErrorText(p.own_error, p.own_bound), p.own_origin);
        break;
      case compare::OwnError::kUnknown:
        text += "its inputs have equal bits; whether it is rounding cannot be told";
    }
    Line("first diff", text);
    if (options_.details) FirstInFull(p);
  }

  void FirstInFull(const TracePoint& p) {
    Line("", fmt::format("rel-L2 {}, worst row {}", ErrorOf(p, p.row.rel_l2), WorstRowText(p)));
    if (p.confidence == Confidence::kExact)
      Line("", fmt::format("max abs {:.1e} at position {}, feature {}; fits {:.6g} x + {:.1e}; 1-cos {:.1e}; "
                           "non-finite {} and {}",
                           p.row.max_abs, p.max_abs_position, p.max_abs_feature, p.row.scale, p.row.offset,
                           std::max(0.0, 1 - p.row.cosine), p.row.n_non_finite[0], p.row.n_non_finite[1]));
    Line("", fmt::format("blake3 {} and {}", p.blake3[0].substr(0, 16), p.blake3[1].substr(0, 16)));
  }

  // How the error grows: each layer's output and the worst of its points.
  void Growth() {
    if (diff_.n_equal == static_cast<int64_t>(diff_.points.size())) return;
    Table table({{"layer"}, {"layer_out"}, {"worst"}, {"at", true}}, kLabel);
    const auto cells = Cells(diff_);
    for (const auto& [layer, stages] : cells) {
      if (layer < 0) continue;
      Cell worst = nullptr;
      for (const auto& [stage, cell] : stages)
        if (!worst || IsWorse(*cell, *worst)) worst = cell;
      const auto at = stages.find("layer_out");
      table.Row({std::to_string(layer), at == stages.end() ? "-" : ErrorOf(*at->second, Error(*at->second)),
                 ErrorOf(*worst, Error(*worst)), Escape(worst->stage)});
    }
    for (const char* stage : {"final_norm", "logits"}) {
      const auto outer = cells.find(-1);
      if (outer == cells.end() || !outer->second.count(stage)) continue;
      const Cell cell = outer->second.at(stage);
      table.Row({"", "", ErrorOf(*cell, Error(*cell)), stage});
    }
    Line("growth", "of what differs, arrived errors included: rel-L2, of a tensor or its worst row");
    out_ += table.Render(static_cast<size_t>(options_.width));
  }

  void Stages() {
    Table table({{"layer"},
                 {"stage", true, 0, 20, 8},
                 {"rel-L2"},
                 {"worst row", false, 1},
                 {"on equal inputs", true, 0, 40, 10}});
    for (const auto& [layer, stages] : Cells(diff_)) {
      std::vector<Cell> sorted;
      for (const auto& [stage, cell] : stages) sorted.push_back(cell);
      std::stable_sort(sorted.begin(), sorted.end(), [](Cell a, Cell b) {
        return stages::Order(a->row.stage, a->row.layer) < stages::Order(b->row.stage, b->row.layer);
      });
      for (Cell cell : sorted)
        table.Row({layer < 0 ? "-" : std::to_string(layer), Escape(cell->stage),
                   ErrorOf(*cell, cell->row.rel_l2), WorstRowText(*cell), OwnText(*cell)});
    }
    out_ += "\n" + table.Render(static_cast<size_t>(options_.width)) + "\n";
  }

  // Whether both are recordings of one build of an engine.
  bool OneEngine() const {
    const trace::EngineFacts a = trace::ReadEngineFacts(c_.manifests[0].engine_facts),
                             b = trace::ReadEngineFacts(c_.manifests[1].engine_facts);
    return !c_.manifests[0].engine.empty() && c_.manifests[0].engine == c_.manifests[1].engine &&
           a.version == b.version && a.isa == b.isa;
  }

  Headline OfMatch() const {
    const auto n = static_cast<int64_t>(diff_.points.size());
    const std::string over = fmt::format("over {} tokens", c_.manifests[1].tokens.size());
    const bool equal = diff_.n_equal == n;
    if (c_.same_folder)
      return {"this trace was compared with itself: its bits are its own",
              "which shows nothing of an engine; compare it with another engine's trace"};
    const std::string sentence = equal ? fmt::format("all {} points have equal bits in both traces", n)
                                       : "no op differs by more than rounding on equal inputs, and what has "
                                         "arrived at the end is within "
                                         "its limits";
    if (OneEngine())
      return {sentence,
              over + "; both are of one engine, which shows that it repeats itself and not that it is right"};
    return {sentence, over};
  }

  const TraceDiff& diff_;
  const TraceDiffContext& c_;
  const TextOptions& options_;
  std::string out_;
};

Json Number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json PointJson(const TracePoint& p) {
  Json o;
  o["step"] = p.row.step;
  o["layer"] = p.row.layer;
  o["stage"] = p.stage;
  o["position"] = p.row.first_position;
  o["n_rows"] = p.row.n_rows;
  o["confidence"] = compare::ConfidenceName(p.confidence);
  o["equal"] = p.equal;
  o["below_floor"] = p.below_floor;
  o["rel_l2"] = Number(p.row.rel_l2);
  o["worst_row"] = Number(p.row.worst_row);
  o["worst_row_position"] = p.row.worst_row_position;
  if (p.confidence == Confidence::kExact && !p.equal) {
    o["worst_feature"] = Number(p.row.worst_feature);
    o["worst_feature_index"] = p.row.worst_feature_index;
    o["max_abs"] = Number(p.row.max_abs);
    o["max_abs_position"] = p.max_abs_position;
    o["max_abs_feature"] = p.max_abs_feature;
    o["cosine"] = Number(p.row.cosine);
    o["scale"] = Number(p.row.scale);
    o["offset"] = Number(p.row.offset);
    o["n_non_finite"] = p.row.n_non_finite;
  }
  o["blake3"] = p.blake3;
  o["own_error"] = {{"state", compare::OwnErrorName(p.own)}, {"n_rows", p.n_own_rows}};
  if (p.own == compare::OwnError::kWithin || p.own == compare::OwnError::kAbove) {
    o["own_error"]["error"] = Number(p.own_error);
    o["own_error"]["bound"] = Number(p.own_bound);
    o["own_error"]["origin"] = p.own_origin;
    o["own_error"]["position"] = p.own_position;
    o["own_error"]["feature"] = p.own_feature ? Json(*p.own_feature) : Json(nullptr);
  }
  return o;
}

Json FirstDivergenceJson(const compare::Verdict& verdict) {
  if (!verdict.first_divergence) return nullptr;
  const compare::FirstDivergence& d = *verdict.first_divergence;
  Json o = {{"prompt", 0}, {"position", d.position}, {"token", d.token}, {"layer", d.layer}};
  o["stage"] = d.stage ? Json(pb_vocabulary[*d.stage].name) : Json(nullptr);
  o["feature"] = d.feature ? Json(*d.feature) : Json(nullptr);
  return o;
}

// The logits of the positions that both share; null where the traces do not tell them.
Json LogitsJson(const TraceDiff& diff) {
  if (diff.logits.empty()) return nullptr;
  double sum = 0, worst = 0;
  int64_t n_flips = 0;
  for (const compare::LogitsRow& row : diff.logits) {
    sum += row.kl;
    if (!(row.kl <= worst)) worst = row.kl;
    n_flips += row.flipped();
  }
  return {{"n_positions", diff.logits.size()},
          {"exact", diff.logits_exact},
          {"mean_kl", Number(sum / static_cast<double>(diff.logits.size()))},
          {"worst_kl", Number(worst)},
          {"n_top1_differs", n_flips}};
}

Json TraceJson(const TraceDiffContext& c, int side) {
  const trace::Manifest& m = c.manifests[side];
  const trace::EngineFacts facts = trace::ReadEngineFacts(m.engine_facts);
  return {{"role", kSides[side]},
          {"folder", c.folders[side]},
          {"engine", m.engine},
          {"version", facts.version},
          {"isa", facts.isa},
          {"model", {{"path", m.model_path}, {"sha256", m.model_sha256}}},
          {"n_tokens", m.tokens.size()},
          {"n_prefill", m.n_prompt},
          {"level", trace::LevelName(m.level)},
          {"per_row", m.per_row},
          {"complete", m.complete},
          {"n_records", m.n_records}};
}

}  // namespace

Headline HeadlineOf(const TraceDiff& diff, const TraceDiffContext& context) {
  return TraceDiffText(diff, context, {}).HeadlineOfTraces();
}

std::string RenderText(const TraceDiff& diff, const TraceDiffContext& c, const TextOptions& options) {
  return TraceDiffText(diff, c, options).Render();
}

std::string RenderJson(const TraceDiff& diff, const TraceDiffContext& c) {
  const compare::Verdict& v = diff.verdict;
  Json o;
  o["schema"] = "paritybit.trace-diff/0";
  o["verdict"] = compare::OutcomeName(v.outcome);
  o["scope"] = compare::ScopeName(v.scope);
  o["exit_code"] = compare::ExitCode(v.outcome);
  o["reasons"] = Json::array();
  for (const compare::Reason& r : v.reasons)
    o["reasons"].push_back({{"outcome", compare::OutcomeName(r.outcome)},
                            {"code", compare::ReasonName(r.code)},
                            {"text", r.text}});
  PutNext(c.next, &o);
  o["traces"] = {TraceJson(c, 0), TraceJson(c, 1)};
  o["coverage"] = {{"unit", v.coverage.unit},         {"expected", v.coverage.expected},
                   {"compared", v.coverage.compared}, {"missing", v.coverage.missing},
                   {"unmapped", v.coverage.unmapped}, {"unobservable", v.coverage.unobservable}};
  o["n_equal"] = diff.n_equal;
  o["logits"] = LogitsJson(diff);
  o["shapes_differ"] = diff.shapes;
  o["dtypes_differ"] = diff.dtypes;
  o["first_divergence"] = FirstDivergenceJson(v);
  o["first_difference"] =
      diff.first_difference ? PointJson(diff.points[*diff.first_difference]) : Json(nullptr);
  o["blame"] = compare::BlameName(v.blame);
  o["limits"] = Json::array();
  for (const compare::Limit& l : v.limits)
    o["limits"].push_back(
        {{"name", l.name}, {"value", Number(l.value)}, {"unit", l.unit}, {"origin", l.origin}});
  o["notes"] = diff.notes;
  o["points"] = Json::array();
  for (const TracePoint& p : diff.points) o["points"].push_back(PointJson(p));
  return DumpJson(o, 2) + "\n";
}

}  // namespace pb::report

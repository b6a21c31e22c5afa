// Lays out points, tables and the verdict of two traces.
#include "report/trace_diff_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"
#include "report/escape.h"
#include "report/json.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using compare::Confidence;
using compare::TraceDiff;
using compare::TracePoint;
using Json = nlohmann::ordered_json;

constexpr size_t kWidth = 80, kIndent = 11;
constexpr const char* kSides[] = {"candidate", "reference"};

// The larger of tensor and worst row.
double Error(const TracePoint& p) { return std::max(p.row.rel_l2, p.row.worst_row); }

// The larger error, equal bits the least.
bool IsWorse(const TracePoint& a, const TracePoint& b) {
  return a.equal != b.equal ? b.equal : Error(a) > Error(b);
}

// "2.1e-06", "~2.1e-03" from sketches, ">=2e-05" from digests, "<1e-03" below a sketch's floor, "0"
// for equal bits.
std::string ErrorText(const TracePoint& p, double error) {
  if (p.equal) return "0";
  if (p.below_floor) return fmt::format("<{:.0e}", trace::kSketchFloor);
  const char* mark = p.confidence == Confidence::kSketch   ? "~"
                     : p.confidence == Confidence::kDigest ? ">="
                                                           : "";
  return std::isfinite(error) ? fmt::format("{}{:.1e}", mark, error) : "inf";
}

// "-" where no row is known by itself, as in sketches of whole tensors.
std::string WorstRowText(const TracePoint& p) {
  return p.row.worst_row_position < 0 && !p.equal ? "-" : ErrorText(p, p.row.worst_row);
}

std::string Place(const TracePoint& p) {
  return p.row.layer >= 0 ? fmt::format("layer {}, {}", p.row.layer, p.stage) : p.stage;
}

std::string Line(std::string_view label, std::string_view text) {
  return fmt::format("{:<11}{}\n", label, Wrap(text, kWidth, kIndent));
}

std::string TraceLine(const TraceDiffContext& c, int side) {
  const trace::Manifest& m = c.manifests[side];
  std::string engine = m.engine.empty() ? "engine not recorded" : m.engine;
  const trace::EngineFacts facts = trace::ReadEngineFacts(m.engine_facts);
  if (!facts.version.empty()) engine += fmt::format(" {}", facts.version);
  if (!facts.isa.empty()) engine += fmt::format(" ({})", facts.isa);
  return Line(kSides[side],
              fmt::format("{}: {}, {} records, level {}{}", c.folders[side], Escape(engine), m.n_records,
                          trace::LevelName(m.level), m.complete ? "" : ", INCOMPLETE"));
}

std::string Identity(const TraceDiffContext& c) {
  const trace::Manifest &a = c.manifests[0], &b = c.manifests[1];
  std::string text;
  if (!a.model_sha256.empty() && !b.model_sha256.empty())
    text += Line("model",
                 a.model_sha256 == b.model_sha256
                     ? fmt::format("{}  sha256:{}", b.model_path, b.model_sha256.substr(0, 12))
                     : fmt::format("{}  sha256:{} | {}  sha256:{}", a.model_path,
                                   a.model_sha256.substr(0, 12), b.model_path, b.model_sha256.substr(0, 12)));
  if (!a.tokens.empty() && !b.tokens.empty())
    text += Line("tokens", fmt::format("{} and {}{}; prefill of {} and {}", a.tokens.size(), b.tokens.size(),
                                       a.tokens == b.tokens ? ", equal" : "", a.n_prompt, b.n_prompt));
  return text;
}

std::string Compared(const TraceDiff& diff) {
  const compare::Coverage& coverage = diff.verdict.coverage;
  int64_t n[3] = {0, 0, 0};
  for (const TracePoint& p : diff.points)
    if (!p.equal) ++n[static_cast<int>(p.confidence)];
  std::string text =
      fmt::format("{} of {} points: {} have equal bits", coverage.compared, coverage.expected, diff.n_equal);
  const char* how[] = {"differ, by their values", "differ, by sketches (+-25 % in 99 of 100)",
                       "differ, by digests (how far is not known)"};
  for (int i : {0, 1, 2})
    if (n[i] > 0) text += fmt::format(", {} {}", n[i], how[i]);
  std::string out = Line("compared", text);
  for (const std::string& name : coverage.unobservable)
    out += Line("", fmt::format("not observable: {}", name));
  for (const std::string& note : diff.notes) out += Line("note", note);
  return out;
}

// All that is known of the first point that differs.
std::string FirstDifference(const TraceDiff& diff) {
  if (!diff.first_difference) return "";
  const TracePoint& p = diff.points[*diff.first_difference];
  const int32_t position = p.row.worst_row_position >= 0 ? p.row.worst_row_position : p.row.first_position;
  std::string out =
      Line("first diff", fmt::format("{}, step {}, position {}: rel-L2 {}, worst row {}", Place(p),
                                     p.row.step, position, ErrorText(p, p.row.rel_l2), WorstRowText(p)));
  if (p.confidence == Confidence::kExact)
    out += Line(
        "", fmt::format("max abs {:.1e} at position {}, feature {}; fits {:.6g} x + {:.1e}; 1-cos {:.1e}; "
                        "non-finite {} and {}",
                        p.row.max_abs, p.max_abs_position, p.max_abs_feature, p.row.scale, p.row.offset,
                        std::max(0.0, 1 - p.row.cosine), p.row.n_non_finite[0], p.row.n_non_finite[1]));
  out += Line("", fmt::format("blake3 {} and {}", p.blake3[0].substr(0, 16), p.blake3[1].substr(0, 16)));
  switch (p.own) {
    case compare::OwnError::kNone:
      return out + Line("", "its inputs are not known to be equal, so the error may have arrived with them");
    case compare::OwnError::kWithin:
      return out + Line("", "its inputs have equal bits: rounding, within its bound");
    case compare::OwnError::kAbove:
      return out + Line("", fmt::format("its inputs have equal bits: error {:.1e}, bound {:.1e} ({})",
                                        p.own_error, p.own_bound, p.own_origin));
    case compare::OwnError::kUnknown:
      return out + Line("", "its inputs have equal bits; whether it is rounding cannot be told");
  }
  return out;
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

// How the error grows: each layer's output and the worst of its points.
std::string Growth(const TraceDiff& diff) {
  if (diff.n_equal == static_cast<int64_t>(diff.points.size())) return "";
  std::string out =
      fmt::format("{:<11}{:>5}  {:>9}  {:>9}  {}\n", "growth", "layer", "layer_out", "worst", "at");
  for (const auto& [layer, stages] : Cells(diff)) {
    if (layer < 0) continue;
    Cell worst = nullptr;
    for (const auto& [stage, cell] : stages)
      if (!worst || IsWorse(*cell, *worst)) worst = cell;
    const auto at = stages.find("layer_out");
    out += fmt::format("{:<11}{:>5}  {:>9}  {:>9}  {}\n", "", layer,
                       at == stages.end() ? "-" : ErrorText(*at->second, Error(*at->second)),
                       ErrorText(*worst, Error(*worst)), worst->stage);
  }
  for (const char* stage : {"final_norm", "logits"}) {
    const auto outer = Cells(diff);
    if (!outer.count(-1) || !outer.at(-1).count(stage)) continue;
    const Cell cell = outer.at(-1).at(stage);
    out += fmt::format("{:<11}{:>5}  {:>9}  {:>9}  {}\n", "", "", "", ErrorText(*cell, Error(*cell)), stage);
  }
  return out;
}

// What is known of a point's own error; the column's head says "on equal inputs".
const char* OwnText(const TracePoint& p) {
  switch (p.own) {
    case compare::OwnError::kNone:
      return "no row has such inputs";
    case compare::OwnError::kWithin:
      return p.equal ? "equal" : "within its bound";
    case compare::OwnError::kAbove:
      return "ABOVE its bound";
    case compare::OwnError::kUnknown:
      return "rounding or more: cannot be told";
  }
  return "";
}

std::string Table(const TraceDiff& diff) {
  const auto cells = Cells(diff);
  std::string out;
  for (const auto& [layer, stages] : cells) {
    std::vector<Cell> sorted;
    for (const auto& [stage, cell] : stages) sorted.push_back(cell);
    std::stable_sort(sorted.begin(), sorted.end(), [](Cell a, Cell b) {
      return stages::Order(a->row.stage, a->row.layer) < stages::Order(b->row.stage, b->row.layer);
    });
    for (Cell cell : sorted)
      out += fmt::format("{:>5}  {:<20}  {:>9}  {:>9}  {}\n", layer < 0 ? "-" : fmt::format("{}", layer),
                         Fit(cell->stage, 20), ErrorText(*cell, cell->row.rel_l2), WorstRowText(*cell),
                         OwnText(*cell));
  }
  return fmt::format("{:>5}  {:<20}  {:>9}  {:>9}  on equal inputs\n", "layer", "stage", "rel-L2",
                     "worst row") +
         out;
}

std::string Verdict(const TraceDiff& diff, const TraceDiffContext& c) {
  std::string word = compare::OutcomeName(diff.verdict.outcome);
  for (char& ch : word) ch = static_cast<char>(std::toupper(static_cast<unsigned char>(ch)));
  std::string out;
  for (const compare::Reason& reason : diff.verdict.reasons)
    out += Line(out.empty() ? word : "", fmt::format("{}{}", out.empty() ? "" : "- ", reason.text));
  out += Line("", fmt::format("(exit {})", compare::ExitCode(diff.verdict.outcome)));
  return out + NextLines(c.next);
}

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

std::string RenderText(const TraceDiff& diff, const TraceDiffContext& c) {
  std::string out = TraceLine(c, 0) + TraceLine(c, 1) + Identity(c);
  if (!diff.points.empty()) out += Compared(diff) + FirstDifference(diff) + Growth(diff);
  if (c.table) out += fmt::format("\n{}", Table(diff));
  return fmt::format("{}\n{}", out, Verdict(diff, c));
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

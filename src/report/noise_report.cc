// Lays out the floor, the axes and the limits that follow.
#include "report/noise_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/escape.h"
#include "report/growth.h"
#include "report/headline.h"
#include "report/json.h"
#include "report/table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using compare::Outcome;
using Json = JsonWriter::Json;

std::string Figure(double value) { return value == 0 ? "0" : fmt::format("{:.1e}", value); }

// What a row comes to: a promise kept or broken, else how it lies to the floor.
std::string JudgementOf(const noise::AxisRow& row) {
  if (row.promised) return row.first_other ? "BROKEN" : "as promised";
  if (!row.inside) return "no floor";
  return *row.inside ? "inside" : "beyond";
}

Headline HeadlineOf(const run::Comparison& c) {
  Headline headline = NoiseHeadline(c);
  using compare::ReasonCode;
  if (c.verdict.outcome != Outcome::kDiverged ||
      compare::HasReason(c.verdict.reasons, ReasonCode::kPromiseBroken))
    return headline;
  headline.sentence = compare::HasReason(c.verdict.reasons, ReasonCode::kNotRepeatable)
                          ? "the engine is not repeatable: two equal runs of it differ"
                          : "the engine lies beyond its own noise floor: it depends on how it is run by more "
                            "than rounding";
  return headline;
}

class NoiseText {
 public:
  NoiseText(const run::SelfNoise& noise, const Context& context, const TextOptions& options)
      : n_(noise), run_(noise.run), context_(context), options_(options) {}

  std::string Render() {
    Head();
    Floor();
    Points();
    Provenance();
    Axes();
    for (const std::string& note : context_.notes) Line("note", Escape(note));
    out_ += LastWords(run_.reference, options_.width);
    const bool measured = run_.verdict.outcome == Outcome::kMatch;
    const Headline headline = HeadlineOf(run_);
    out_ += ReasonLines(run_.verdict, headline.tells_reason ? 1 : 0, options_) + "\n";
    out_ += measured ? Measured() : HeadlineBlock(run_.verdict.outcome, headline, options_);
    out_ += NextLines(run_.next, options_);
    return std::move(out_);
  }

 private:
  void Line(std::string_view label, const std::string& text) {
    out_ += LabelledLine(label, text, options_.width);
  }

  void Head() {
    Line("model", ModelLine(run_.reference));
    Line("engine", EngineLine(run_.reference));
    const std::string facts = FactsLine(run_.reference, run_.reference, run_.reference);
    if (!facts.empty()) Line("", facts);
    size_t n = 0, n_steps = 0;
    for (const run::PromptRecord& p : run_.prompts) n += p.tokens.size(), n_steps += p.decoded.size();
    std::string text = run_.prompts.empty() ? "no prompt" : fmt::format("{} of the prompt", n);
    if (run_.prompts.size() > 1) text = fmt::format("{} in {} prompts", n, run_.prompts.size());
    if (n_steps > 0) text += fmt::format(", {} decode steps", n_steps);
    if (n_.n_calibration > 0) text += fmt::format("; {} of the calibration text", n_.n_calibration);
    Line("tokens", text);
  }

  void Floor() {
    const noise::FloorRecord& f = run_.floor;
    if (run_.verdict.limits.empty()) return;
    Line("noise",
         fmt::format("against itself, {} runs of {} over {} positions: mean KL {}, worst {}, top-1/top-2 "
                     "gap changes by up to {}{}",
                     f.n_runs, Escape(f.method), f.n_positions, Figure(f.mean_kl), Figure(f.worst_kl),
                     Figure(f.worst_gap), f.weaker ? " (weaker than usual: see below)" : ""));
    for (size_t i = 0; i < run_.verdict.limits.size(); ++i) {
      const compare::Limit& limit = run_.verdict.limits[i];
      const std::string origin = limit.origin.substr(0, limit.origin.find(" in "));
      Line(i == 0 ? "limits" : "",
           fmt::format("{} {} {}: {}", limit.name, Figure(limit.value), limit.unit, origin));
    }
  }

  // The layers' outputs over the calibration text, and where the noise is largest.
  void Points() {
    std::vector<double> by_layer;
    const compare::PointFloor* largest = nullptr;
    int64_t n_runs = 0;
    for (const compare::PointFloor& p : run_.floor.points) {
      if (p.prompt || p.positions != compare::PositionClass::kPrefill) continue;
      if (!largest || p.largest > largest->largest) largest = &p;
      if (p.stage != PB_STAGE_LAYER_OUT) continue;
      by_layer.push_back(p.largest);
      n_runs = p.n_runs;
    }
    if (by_layer.empty()) return;
    constexpr size_t kColumns = 40;
    Line("points", fmt::format("layer 0 {} {} {} layer {}; rel-L2 of the layers' outputs, largest of {} runs",
                               Figure(by_layer.front()), GrowthCurve(by_layer, kColumns),
                               Figure(by_layer.back()), by_layer.size() - 1, n_runs));
    Line("", fmt::format("largest of all {} in {}", Figure(largest->largest),
                         OpName(largest->stage, largest->layer, std::nullopt)));
  }

  void Provenance() {
    if (!n_.floor || run_.verdict.limits.empty()) return;
    const compare::NoiseFloor& f = *n_.floor;
    std::string text =
        fmt::format("engine {:.12}, model sha256:{:.12}, {:.28}; {} to {}", f.engine_digest, f.model_sha256,
                    f.calibration, f.runs.front().variation, f.runs.back().variation);
    Line("floor of", text);
    const noise::FloorRecord& r = run_.floor;
    Line("", fmt::format("digest sha256:{:.32}", r.sha256));
    if (r.n_cached + r.n_measured > 0)
      Line("", fmt::format("{} of {} runs from the cache", r.n_cached, r.n_cached + r.n_measured));
    Line("", Escape(r.provenance));
  }

  void Axes() {
    if (n_.axes.empty()) return;
    const auto width = static_cast<size_t>(options_.width);
    Table table({{"varied", true, 0, 30, 12},
                 {"bits", true},
                 {"rel-L2", false, 3},
                 {"mean KL", false, 2},
                 {"worst KL"},
                 {"choices", false, 1},
                 {"floor", true}},
                2);
    for (const noise::AxisRow& row : n_.axes) {
      const std::string name = fmt::format("{} {}", row.axis, Escape(row.value));
      if (!row.refused.empty()) {
        table.Line("  " + Wrap(name + " is not offered: " + EscapeLines(row.refused), width, 4));
        continue;
      }
      table.Row({name, row.first_other ? "differ" : "equal", Figure(row.rel_l2), Figure(row.mean_kl),
                 Figure(row.worst_kl), std::to_string(row.n_flips), JudgementOf(row)});
      if (!row.why.empty()) table.Line("    " + Wrap(EscapeLines(row.why), width, 4));
    }
    out_ +=
        "\n" + table.Render(width) + "  " +
        Wrap(
            "floor: whether the KL lies inside what random rounding moves it by; choices: next tokens that "
            "are others",
            width, 2) +
        "\n\n";
  }

  // A measurement is no comparison that could match.
  std::string Measured() const {
    std::string text = "the engine was measured against itself";
    if (const noise::FloorRecord& f = run_.floor; f.n_runs > 0)
      text += fmt::format(": rounding moves its logits by a KL of {} on average, {} at worst",
                          Figure(f.mean_kl), Figure(f.worst_kl));
    return LabelledLine("OK", text, options_.width);
  }

  const run::SelfNoise& n_;
  const run::Comparison& run_;
  const Context& context_;
  const TextOptions& options_;
  std::string out_;
};

Json AxisJson(const noise::AxisRow& row, JsonWriter* writer) {
  Json out{{"axis", row.axis}, {"value", row.value}, {"promised", row.promised}};
  out["refused"] = row.refused.empty() ? Json(nullptr) : Json(row.refused);
  if (!row.refused.empty()) return out;
  out["n_positions"] = row.rows.size();
  out["equal_bits"] = !row.first_other;
  out["n_equal"] = row.n_equal;
  out["first_difference"] = nullptr;
  if (row.first_other) {
    const compare::LogitsRow& first = row.rows[*row.first_other];
    out["first_difference"] =
        Json{{"prompt", first.prompt}, {"position", first.position}, {"token", first.token}};
  }
  out["rel_l2"] = writer->Number(row.rel_l2);
  out["mean_kl"] = writer->Number(row.mean_kl);
  out["worst_kl"] = writer->Number(row.worst_kl);
  out["n_top1_differs"] = row.n_flips;
  out["why"] = row.why;
  out["inside_floor"] = row.inside ? Json(*row.inside) : Json(nullptr);
  out["kl"] = Json::array();
  out["rel_l2_by_position"] = Json::array();
  for (const compare::LogitsRow& r : row.rows) {
    out["kl"].push_back(writer->Number(r.kl));
    out["rel_l2_by_position"].push_back(writer->Number(r.rel_l2));
  }
  return out;
}

Json FloorJson(const run::SelfNoise& noise, JsonWriter* writer) {
  Json out = writer->Floor();
  if (out.is_null() || !noise.floor) return out;
  const compare::NoiseFloor& f = *noise.floor;
  out["engine"] = f.engine;
  out["engine_identity"] = f.engine_digest;
  out["model_sha256"] = f.model_sha256;
  out["calibration"] = f.calibration;
  out["runs"] = Json::array();
  for (const compare::NoiseRun& run : f.runs) out["runs"].push_back(run.variation);
  out["runs_from_cache"] = noise.run.floor.n_cached;
  out["runs_measured"] = noise.run.floor.n_measured;
  out["cache"] = noise.run.floor.provenance;
  return out;
}

Json PromptsJson(const run::Comparison& run) {
  Json out = Json::array();
  for (const run::PromptRecord& p : run.prompts)
    out.push_back(Json{{"text", p.text},
                       {"origin", p.origin},
                       {"tokens", p.tokens},
                       {"steps_asked", p.steps_asked},
                       {"decoded", p.decoded},
                       {"logits_sha256", p.logits_sha256[1]}});
  return out;
}

Json AxesJson(const run::SelfNoise& noise, JsonWriter* writer) {
  Json out = Json::array();
  for (const noise::AxisRow& row : noise.axes) out.push_back(AxisJson(row, writer));
  return out;
}

}  // namespace

std::string RenderNoiseText(const run::SelfNoise& noise, const Context& context, const TextOptions& options) {
  return NoiseText(noise, context, options).Render();
}

std::string RenderNoiseJson(const run::SelfNoise& noise, const Context& context) {
  const run::Comparison& run = noise.run;
  JsonWriter writer(run);
  const compare::Verdict& v = run.verdict;
  Json out{{"schema", "paritybit.noise-run/0"},
           {"verdict", v.outcome == Outcome::kMatch ? "ok" : compare::OutcomeName(v.outcome)},
           {"scope", nullptr},
           {"exit_code", compare::ExitCode(v.outcome)},
           {"reasons", writer.Reasons()}};
  PutNext(run.next, &out);
  out["engine"] = writer.Engine(run.reference);
  out["model"] = Json{{"path", run.reference.model_path.string()}, {"sha256", run.reference.model_sha256}};
  out["noise_floor"] = FloorJson(noise, &writer);
  out["limits"] = writer.Limits();
  out["axes"] = AxesJson(noise, &writer);
  out["first_divergence"] = writer.FirstDivergence();
  out["blame"] = compare::BlameName(v.blame);
  out["n_calibration"] = noise.n_calibration;
  out["prompts"] = PromptsJson(run);
  out["choices"] = writer.Choices();
  out["notes"] = context.notes;
  out["command"] = context.command;
  out["tool_version"] = context.tool_version;
  out["host"] = Json{{"os", context.os}, {"cpu", context.cpu}, {"n_cpus", context.n_cpus}};
  out["wall_seconds"] = writer.Number(run.wall_seconds);
  out["non_finite_numbers"] = writer.non_finite_numbers();
  return DumpJson(out, 2) + "\n";
}

std::string RenderReceipt(const run::SelfNoise& noise, const Context& context, const ReceiptHead& head) {
  const run::Comparison& run = noise.run;
  const compare::Verdict& v = run.verdict;
  JsonWriter writer(run);
  Json out = ReceiptBase(context, head);
  out["verdict"] = v.outcome == Outcome::kMatch ? "measured" : compare::OutcomeName(v.outcome);
  out["scope"] = nullptr;
  out["exit_code"] = compare::ExitCode(v.outcome);
  out["reasons"] = writer.Reasons();
  out["engines"] = Json::array({writer.Engine(run.reference)});
  out["model"] =
      Json{{"name", run.reference.model_path.filename().string()}, {"sha256", run.reference.model_sha256}};
  out["coverage"] = writer.CoverageOf();
  out["first_divergence"] = writer.FirstDivergence();
  out["blame"] = compare::BlameName(v.blame);
  out["limits"] = writer.Limits();
  out["noise_floor"] = writer.Floor();
  out["axes"] = AxesJson(noise, &writer);
  out["n_calibration"] = noise.n_calibration;
  out["prompts"] = PromptsJson(run);
  out["choices"] = writer.Choices();
  out["wall_seconds"] = writer.Number(run.wall_seconds);
  out["non_finite_numbers"] = writer.non_finite_numbers();
  return SealReceipt(out);
}

}  // namespace pb::report

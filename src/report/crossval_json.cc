// The JSON report of a comparison.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/crossval_report.h"
#include "report/diagnosis_report.h"
#include "report/json.h"

namespace pb::report {
namespace {

using Json = JsonWriter::Json;

Json HostJson(const Context& context) {
  return Json{{"os", context.os}, {"cpu", context.cpu}, {"isa", context.isa}, {"n_cpus", context.n_cpus}};
}

// The fields of the contract (ARCHITECTURE.md), in its order.
Json ContractFields(const run::Comparison& c, const char* schema, JsonWriter* writer) {
  const compare::Verdict& v = c.verdict;
  Json out{{"schema", schema},
           {"verdict", compare::OutcomeName(v.outcome)},
           {"scope", compare::ScopeName(v.scope)},
           {"exit_code", compare::ExitCode(v.outcome)},
           {"reasons", writer->Reasons()}};
  return out;
}

Json Engines(const run::Comparison& c, JsonWriter* writer) {
  return Json::array({writer->Engine(c.candidate), writer->Engine(c.reference)});
}

Json Prompts(const run::Comparison& c, JsonWriter* writer) {
  Json out = Json::array();
  for (const run::PromptRecord& p : c.prompts) out.push_back(writer->Prompt(p));
  return out;
}

Json Positions(const run::Comparison& c, bool with_text, JsonWriter* writer) {
  Json out = Json::array();
  for (const compare::LogitsRow& row : c.rows) out.push_back(writer->Position(row, with_text));
  return out;
}

Json Points(const std::vector<compare::PointRow>& rows, JsonWriter* writer) {
  Json out = Json::array();
  for (const compare::PointRow& row : rows) out.push_back(writer->Point(row));
  return out;
}

Json DefaultConfiguration(const run::Comparison& c, JsonWriter* writer) {
  if (!c.reference_default) return nullptr;
  const run::DefaultConfiguration& d = *c.reference_default;
  return Json{{"decides", false},
              {"attn.flash", d.flash},
              {"mean_kl", writer->Number(d.mean_kl)},
              {"worst_kl", writer->Number(d.worst_kl)},
              {"rel_l2", writer->Number(d.rel_l2)},
              {"n_positions", d.n_positions},
              {"n_top1_differs", d.n_top1_differs},
              {"from_cache", d.cached},
              {"error", d.error.empty() ? Json(nullptr) : Json(d.error)}};
}

}  // namespace

int ExitCodeOf(const run::Comparison& comparison, const Context& context) {
  constexpr int kEnvironment = 5;
  const int exit_code = compare::ExitCode(comparison.verdict.outcome);
  return exit_code == 0 && !context.not_written.empty() ? kEnvironment : exit_code;
}

std::string RenderJson(const run::Comparison& c, const Context& context) {
  JsonWriter writer(c);
  Json out = ContractFields(c, "paritybit.crossval/0", &writer);
  out["exit_code"] = ExitCodeOf(c, context);
  if (!context.not_written.empty()) out["reasons"].push_back({{"code", "io"}, {"text", context.not_written}});
  PutNext(c.next, &out);
  out["engines"] = Engines(c, &writer);
  out["model"] = Json{{"path", c.candidate.model_path.string()}, {"sha256", c.candidate.model_sha256}};
  out["coverage"] = writer.CoverageOf();
  out["first_divergence"] = writer.FirstDivergence();
  out["blame"] = compare::BlameName(c.verdict.blame);
  out["diagnosis"] = context.diagnosis ? DiagnosisJson(*context.diagnosis, &writer) : Json(nullptr);
  out["limits"] = writer.Limits();
  out["positions"] = Positions(c, true, &writer);
  out["points"] = Points(c.points, &writer);
  out["accumulated"] = Points(c.accumulated, &writer);
  out["growth"] = writer.Growth();
  out["prompts"] = Prompts(c, &writer);
  out["precision_effect"] = writer.Effect();
  out["paths"] = writer.Paths();
  out["noise_floor"] = writer.Floor();
  if (!out["noise_floor"].is_null()) {
    out["noise_floor"]["runs_from_cache"] = c.floor.n_cached;
    out["noise_floor"]["cache"] = c.floor.provenance;
  }
  out["distance"] = writer.Distance();
  out["reference_default"] = DefaultConfiguration(c, &writer);
  out["choices"] = writer.Choices();
  out["notes"] = context.notes;
  out["command"] = context.command;
  out["tool_version"] = context.tool_version;
  out["host"] = HostJson(context);
  out["wall_seconds"] = writer.Number(c.wall_seconds);
  out["non_finite_numbers"] = writer.non_finite_numbers();
  return DumpJson(out, 2) + "\n";
}

}  // namespace pb::report

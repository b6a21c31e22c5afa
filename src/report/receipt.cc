// Puts the evidence of comparisons, audits and differences of traces into receipts.
#include "report/receipt.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/text.h"
#include "receipt/sealed.h"
#include "report/audit_report.h"
#include "report/diagnosis_report.h"
#include "report/json.h"

namespace pb::report {
namespace {

using Json = JsonWriter::Json;

constexpr const char* kReceiptSchema = "paritybit.receipt/1";

// A word of a command line; bytes that are no UTF-8, which JSON cannot hold, as a list of numbers.
Json Word(const std::string& text) {
  return EscapeInvalid(text) == text ? Json(text) : Json(std::vector<uint8_t>(text.begin(), text.end()));
}

template <typename Rows, typename Write>
Json List(const Rows& rows, Write write) {
  Json out = Json::array();
  for (const auto& row : rows) out.push_back(write(row));
  return out;
}

void PutVerdict(const run::Comparison& run, JsonWriter* writer, Json* out) {
  const compare::Verdict& v = run.verdict;
  (*out)["verdict"] = compare::OutcomeName(v.outcome);
  (*out)["scope"] = compare::ScopeName(v.scope);
  (*out)["exit_code"] = compare::ExitCode(v.outcome);
  (*out)["reasons"] = writer->Reasons();
  (*out)["engines"] = Json::array({writer->Engine(run.candidate), writer->Engine(run.reference)});
  (*out)["model"] =
      Json{{"name", run.candidate.model_path.filename().string()}, {"sha256", run.candidate.model_sha256}};
  (*out)["coverage"] = writer->CoverageOf();
  (*out)["first_divergence"] = writer->FirstDivergence();
  (*out)["blame"] = compare::BlameName(v.blame);
  (*out)["limits"] = writer->Limits();
  (*out)["choices"] = writer->Choices();
  (*out)["points"] = List(run.points, [&](const compare::PointRow& p) { return writer->Point(p); });
  (*out)["wall_seconds"] = writer->Number(run.wall_seconds);
}

Json Facts(const trace::Facts& facts) {
  Json out = Json::object();
  for (const trace::Fact& fact : facts) out[fact.key] = Json{{"value", fact.value}, {"origin", fact.origin}};
  return out;
}

// The engine that a trace was recorded from, as far as the trace tells.
Json RecordedEngine(const TraceDiffContext& traces, int side) {
  const trace::Manifest& m = traces.manifests[side];
  return Json{{"role", side == 0 ? "candidate" : "reference"},
              {"spec", m.engine},
              {"plugin", ""},
              {"plugin_sha256", ""},
              {"identity", trace::FactText(m.engine_facts, "identity")},
              {"description", Facts(m.engine_facts)},
              {"settings", Json::object()},
              {"model_facts", Facts(m.model_facts)},
              {"session_facts", Facts(m.session_facts)},
              {"model", {{"path", m.model_path}, {"sha256", m.model_sha256}}},
              {"error", nullptr}};
}

Json RecordedTrace(const TraceDiffContext& traces, int side) {
  const trace::Manifest& m = traces.manifests[side];
  return Json{{"role", side == 0 ? "candidate" : "reference"},
              {"folder", traces.folders[side]},
              {"records_blake3", traces.records_blake3[side]},
              {"level", trace::LevelName(m.level)},
              {"per_row", m.per_row},
              {"complete", m.complete},
              {"n_records", m.n_records},
              {"tokens", m.tokens},
              {"n_prefill", m.n_prompt},
              {"logits_blake3", m.logits_blake3},
              {"logits_blake3_untapped", m.logits_blake3_untapped}};
}

}  // namespace

Json ReceiptBase(const Context& context, const ReceiptHead& head) {
  Json out;
  out["schema"] = kReceiptSchema;
  out["command"] = context.command;
  out["created"] = head.created;
  out["tool"] = Json{{"version", context.tool_version},
                     {"commit", head.commit.empty() ? Json(nullptr) : Json(head.commit)},
                     {"sha256", head.sha256}};
  out["arguments"] = List(head.arguments, Word);
  out["host"] = Json{{"os", context.os}, {"cpu", context.cpu}, {"n_cpus", context.n_cpus}};
  out["notes"] = context.notes;
  return out;
}

std::string SealReceipt(const Json& receipt) {
  auto sealed = receipt::Seal(nlohmann::json::parse(DumpJson(receipt)));
  PB_CHECK(sealed.ok());
  return std::move(sealed).value();
}

Json EngineForReceipt(const drive::EngineRecord& engine) {
  run::Comparison alone;
  return JsonWriter(alone).Engine(engine);
}

std::string RenderReceipt(const run::Comparison& c, const Context& context, const ReceiptHead& head) {
  JsonWriter writer(c);
  Json out = ReceiptBase(context, head);
  PutVerdict(c, &writer, &out);
  out["diagnosis"] = context.diagnosis ? DiagnosisJson(*context.diagnosis, &writer) : Json(nullptr);
  out["positions"] = List(c.rows, [&](const compare::LogitsRow& row) { return writer.Position(row, false); });
  out["accumulated"] = List(c.accumulated, [&](const compare::PointRow& p) { return writer.Point(p); });
  out["growth"] = writer.Growth();
  out["prompts"] = List(c.prompts, [&](const run::PromptRecord& p) { return writer.Prompt(p); });
  out["precision_effect"] = writer.Effect();
  out["paths"] = writer.Paths();
  out["noise_floor"] = writer.Floor();
  out["distance"] = writer.Distance();
  out["non_finite_numbers"] = writer.non_finite_numbers();
  return SealReceipt(out);
}

std::string RenderReceipt(const audit::Audit& audit, const Context& context, const ReceiptHead& head) {
  JsonWriter writer(audit.run);
  Json out = ReceiptBase(context, head);
  PutVerdict(audit.run, &writer, &out);
  out["findings"] =
      List(audit.findings, [&](const audit::AuditFinding& f) { return AuditFindingJson(f, &writer); });
  out["recomputed"] = audit.recomputed;
  out["prompts"] = List(audit.run.prompts, AuditedPromptJson);
  out["non_finite_numbers"] = writer.non_finite_numbers();
  return SealReceipt(out);
}

std::string RenderReceipt(const compare::TraceDiff& diff, const TraceDiffContext& traces,
                          const Context& context, const ReceiptHead& head) {
  Json out = ReceiptBase(context, head);
  const Json told = nlohmann::ordered_json::parse(RenderJson(diff, traces));
  for (const char* key :
       {"verdict", "scope", "exit_code", "reasons", "coverage", "n_equal", "logits", "shapes_differ",
        "dtypes_differ", "first_divergence", "first_difference", "blame", "points"})
    out[key] = told[key];
  out["limits"] = List(diff.verdict.limits, LimitJson);
  const trace::Manifest& m = traces.manifests[1];
  out["model"] =
      Json{{"name", std::filesystem::path(m.model_path).filename().string()}, {"sha256", m.model_sha256}};
  out["engines"] = Json::array({RecordedEngine(traces, 0), RecordedEngine(traces, 1)});
  out["traces"] = Json::array({RecordedTrace(traces, 0), RecordedTrace(traces, 1)});
  out["choices"] = Json::array();
  for (const std::string& note : diff.notes) out["notes"].push_back(note);
  out["wall_seconds"] = nullptr;
  out["non_finite_numbers"] = 0;
  return SealReceipt(out);
}

}  // namespace pb::report

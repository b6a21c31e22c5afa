// One function for each part: engines, prompts, rows, points, limits, verdict.
#include "report/json.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "report/growth.h"

namespace pb::report {
namespace {

using Json = JsonWriter::Json;

const char* StageName(int32_t stage) {
  return stage >= 0 && stage < PB_STAGE_COUNT ? pb_vocabulary[stage].name : "unmapped";
}

Json FactsJson(const host::Facts& facts) {
  Json out = Json::object();
  for (const host::Fact& f : facts) out[f.key] = Json{{"value", f.value}, {"origin", f.origin}};
  return out;
}

// null: not kept. The digest binds the folder wherever it is moved.
Json Trace(const std::optional<run::KeptTrace>& t) {
  if (!t) return nullptr;
  return Json{{"folder", t->folder.string()},
              {"level", t->level},
              {"n_records", t->n_records},
              {"n_bytes", t->n_bytes},
              {"records_blake3", t->records_blake3}};
}

Json Pair(int64_t candidate, int64_t reference) {
  return Json{{"candidate", candidate}, {"reference", reference}};
}

}  // namespace

Json LimitJson(const compare::Limit& l) {
  return Json{{"name", l.name},       {"value", std::isfinite(l.value) ? Json(l.value) : Json(nullptr)},
              {"unit", l.unit},       {"origin", l.origin},
              {"by_user", l.by_user}, {"window", l.window}};
}

void PutNext(const std::vector<run::NextCommand>& commands, Json* object) {
  for (const char* list : {"next", "next_for"}) (*object)[list] = Json::array();
  for (const run::NextCommand& next : commands) {
    (*object)["next"].push_back(next.command);
    (*object)["next_for"].push_back(next.purpose);
  }
}

Json JsonWriter::Number(double value) {
  if (std::isfinite(value)) return value;
  ++non_finite_numbers_;
  return nullptr;
}

Json JsonWriter::Engine(const drive::EngineRecord& e) {
  Json settings = Json::object();
  for (const auto& [key, value] : e.settings) settings[key] = value;
  Json out{{"role", e.role},
           {"spec", e.spec},
           {"plugin", e.plugin.string()},
           {"plugin_sha256", e.plugin_sha256},
           {"identity", e.identity},
           {"description", FactsJson(e.description)},
           {"settings", settings},
           {"model_facts", FactsJson(e.model)},
           {"session_facts", FactsJson(e.session)},
           {"model", {{"path", e.model_path.string()}, {"sha256", e.model_sha256}}}};
  out["error"] = e.error.empty() ? Json(nullptr) : Json(e.error);
  if (!e.last_words.empty()) out["last_words"] = e.last_words;
  return out;
}

Json JsonWriter::Prompt(const run::PromptRecord& p) {
  // The same logits with every point tapped, and in the same passes untapped: null where nothing
  // was.
  auto digest = [](const std::string& hex) { return hex.empty() ? Json(nullptr) : Json(hex); };
  Json part;
  if (p.reference_part)
    part = {{"folder", p.reference_part->folder.string()},
            {"data_blake3", p.reference_part->data_blake3},
            {"recorded", p.reference_part->recorded},
            {"n_bytes", p.reference_part->n_bytes},
            {"proofs", {"observer effect", "shown is delivered"}}};
  Json proof;
  if (p.reference_proof)
    proof = {{"logits_sha256", p.reference_proof->logits_sha256},
             {"recorded", p.reference_proof->recorded},
             {"proofs", {"observer effect"}}};
  return Json{{"text", p.text},
              {"reference_from_cache", part},
              {"reference_proof_from_cache", proof},
              {"origin", p.origin},
              {"tokens", p.tokens},
              {"tokens_equal", p.tokens_of[0] == p.tokens_of[1]},
              {"tokens_candidate", p.tokens_of[0]},
              {"tokens_reference", p.tokens_of[1]},
              {"steps_asked", p.steps_asked},
              {"decoded", p.decoded},
              {"logits_sha256", {{"candidate", p.logits_sha256[0]}, {"reference", p.logits_sha256[1]}}},
              {"logits_sha256_tapped",
               {{"candidate", digest(p.tapped_sha256[0])}, {"reference", digest(p.tapped_sha256[1])}}},
              {"logits_sha256_untapped",
               {{"candidate", digest(p.untapped_sha256[0])}, {"reference", digest(p.untapped_sha256[1])}}},
              {"logits_sha256_repeated",
               {{"candidate", digest(p.repeated_sha256[0])}, {"reference", digest(p.repeated_sha256[1])}}},
              {"candidate_watched_positions", p.n_watched > 0 ? Json(p.n_watched) : Json()},
              {"traces", {{"candidate", Trace(p.traces[0])}, {"reference", Trace(p.traces[1])}}}};
}

Json JsonWriter::Growth() {
  Json out = Json::array();
  for (const GrowthRow& row : GrowthOf(c_)) {
    Json noise;
    if (row.noise)
      noise = Json{{"median", Number(row.noise->median)}, {"largest", Number(row.noise->largest)}};
    out.push_back(Json{{"layer", row.layer},
                       {"rel_l2", Number(row.rel_l2)},
                       {"worst_row", Number(row.worst_row)},
                       {"noise", noise}});
  }
  return out;
}

Json JsonWriter::TopK(const compare::LogitsRow& row, int side, bool with_text) {
  Json out = Json::array();
  for (size_t i = 0; i < row.top_k[side].size(); ++i) {
    int32_t id = row.top_k[side][i];
    Json entry{{"token", id}};
    auto text = c_.token_text.find(id);
    if (with_text && text != c_.token_text.end()) entry["text"] = text->second;
    if (i < row.top_k_logp[side].size()) entry["logp"] = Number(row.top_k_logp[side][i]);
    out.push_back(std::move(entry));
  }
  return out;
}

Json JsonWriter::Position(const compare::LogitsRow& row, bool with_text) {
  Json out{{"prompt", row.prompt},
           {"position", row.position},
           {"phase", compare::PhaseName(row.phase)},
           {"token", row.token}};
  auto text = c_.token_text.find(row.token);
  if (with_text && text != c_.token_text.end()) out["text"] = text->second;
  out["finite"] = row.finite;
  out["n_non_finite"] = Pair(row.n_non_finite[0], row.n_non_finite[1]);
  out["kl"] = Number(row.kl);
  out["rel_l2"] = Number(row.rel_l2);
  out["max_abs"] = Number(row.max_abs);
  out["cosine"] = Number(row.cosine);
  out["mse"] = Number(row.mse);
  out["top1"] = Pair(row.top1[0], row.top1[1]);
  out["gap"] = Json{{"candidate", Number(row.gap_candidate)},
                    {"reference", Number(row.gap_reference)},
                    {"change", Number(row.gap_change)}};
  out["top_k_overlap"] = row.top_k_overlap;
  out["top_k"] = Json{{"candidate", TopK(row, 0, with_text)}, {"reference", TopK(row, 1, with_text)}};
  out["above_limit"] = row.above_limit;
  return out;
}

Json JsonWriter::Point(const compare::PointRow& p) {
  Json out{{"prompt", p.prompt},
           {"step", p.step},
           {"stage", StageName(p.stage)},
           {"layer", p.layer},
           {"first_position", p.first_position},
           {"n_rows", p.n_rows},
           {"n_features", p.n_features},
           {"n_non_finite", Pair(p.n_non_finite[0], p.n_non_finite[1])},
           {"rel_l2", Number(p.rel_l2)},
           {"worst_row", {{"error", Number(p.worst_row)}, {"position", p.worst_row_position}}},
           {"worst_feature", {{"error", Number(p.worst_feature)}, {"feature", p.worst_feature_index}}},
           {"bound", Number(p.bound)},
           {"bound_ratio", Number(p.bound_ratio)},
           {"max_abs", Number(p.max_abs)},
           {"cosine", Number(p.cosine)},
           {"scale", Number(p.scale)},
           {"offset", Number(p.offset)},
           {"explained_by_codes", p.explained_by_codes},
           {"explained_by_precision", p.explained_by_precision}};
  if (p.explained_by_tie) out["explained_by_tie"] = true;
  if (!p.explanation.empty()) out["explanation"] = p.explanation;
  return out;
}

Json JsonWriter::Floor() {
  const noise::FloorRecord& f = c_.floor;
  if (f.n_runs == 0) return nullptr;
  return Json{{"side", f.side},
              {"method", f.method},
              {"weaker", f.weaker},
              {"partial", f.partial},
              {"n_runs", f.n_runs},
              {"n_positions", f.n_positions},
              {"n_calibration", f.n_calibration},
              {"mean_kl", Number(f.mean_kl)},
              {"worst_kl", Number(f.worst_kl)},
              {"worst_gap", Number(f.worst_gap)},
              {"sha256", f.sha256},
              {"points", PointFloors()}};
}

// One entry for a class and stage, its figures by layer; the stages outside the layers have one.
Json JsonWriter::PointFloors() {
  Json out = Json::array();
  for (const compare::PointFloor& p : c_.floor.points) {
    if (p.prompt) continue;
    const char* positions = compare::PositionClassName(p.positions);
    if (out.empty() || out.back()["positions"] != positions || out.back()["stage"] != StageName(p.stage))
      out.push_back(Json{{"stage", StageName(p.stage)},
                         {"positions", positions},
                         {"n_runs", p.n_runs},
                         {"n_rows", p.n_rows},
                         {"median", Json::array()},
                         {"largest", Json::array()},
                         {"worst_row", Json::array()}});
    out.back()["median"].push_back(Number(p.median));
    out.back()["largest"].push_back(Number(p.largest));
    out.back()["worst_row"].push_back(Number(p.worst_row));
  }
  return out;
}

Json JsonWriter::Distance() {
  if (!c_.verdict.rank) return nullptr;
  const compare::NoiseRank& r = *c_.verdict.rank;
  return Json{{"n_positions", r.n_positions},
              {"n_runs", r.n_runs},
              {"n_as_far", r.n_as_far},
              {"p", r.p},
              {"confidence", r.confidence},
              {"decidable", r.decidable()},
              {"distinguishable", r.distinguishable()},
              {"since_position_count", r.since ? Json(*r.since) : Json(nullptr)},
              {"positions_needed", r.needed ? Json(*r.needed) : Json(nullptr)},
              {"mean_kl", Number(r.mean_kl)},
              {"mean_kl_noise", Number(r.mean_kl_noise)}};
}

Json JsonWriter::Limits() {
  Json out = Json::array();
  for (const compare::Limit& l : c_.verdict.limits) {
    Number(l.value);  // counts
    out.push_back(LimitJson(l));
  }
  return out;
}

Json JsonWriter::Reasons() {
  Json out = Json::array();
  for (const compare::Reason& r : c_.verdict.reasons)
    out.push_back(Json{{"outcome", compare::OutcomeName(r.outcome)},
                       {"code", compare::ReasonName(r.code)},
                       {"text", r.text}});
  return out;
}

Json JsonWriter::CoverageOf() {
  const compare::Coverage& v = c_.verdict.coverage;
  return Json{{"unit", v.unit},       {"expected", v.expected}, {"compared", v.compared},
              {"missing", v.missing}, {"unmapped", v.unmapped}, {"unobservable", v.unobservable}};
}

Json JsonWriter::FirstDivergence() {
  if (!c_.verdict.first_divergence) return nullptr;
  const compare::FirstDivergence& d = *c_.verdict.first_divergence;
  // Layer and stage are null where nothing below the logits was judged; layer -1 is outside the
  // layers, as in traces.
  return Json{{"prompt", d.prompt},
              {"position", d.position},
              {"token", d.token},
              {"layer", d.stage ? Json(d.layer) : Json(nullptr)},
              {"stage", d.stage ? Json(StageName(*d.stage)) : Json(nullptr)},
              {"feature", d.feature ? Json(*d.feature) : Json(nullptr)}};
}

Json JsonWriter::Effect() {
  if (!c_.effect) return nullptr;
  return Json{{"mean_kl", Number(c_.effect->mean_kl)},
              {"worst_kl", Number(c_.effect->worst_kl)},
              {"worst_gap", Number(c_.effect->worst_gap)},
              {"n_positions", c_.effect->n_positions}};
}

Json JsonWriter::Paths() {
  Json runs = Json::array(), left = Json::array();
  for (const run::PathRun& p : c_.path_runs)
    runs.push_back({{"name", p.name},
                    {"verdict", p.outcome.empty() ? Json(nullptr) : Json(p.outcome)},
                    {"text", p.text},
                    {"wall_seconds", Number(p.wall_seconds)}});
  for (run::Path p : run::PathsNotTaken(c_)) left.push_back(run::PathText(p));
  return Json{{"runs", std::move(runs)}, {"not_taken", std::move(left)}};
}

Json JsonWriter::Choices() {
  Json out = Json::array();
  for (const run::Choice& choice : c_.choices)
    out.push_back(Json{{"key", choice.key}, {"value", choice.value}, {"origin", choice.origin}});
  return out;
}

}  // namespace pb::report

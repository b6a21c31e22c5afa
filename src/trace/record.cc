// Writes manifests and records as JSON lines.
#include "trace/record.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "trace/base64.h"

namespace pb::trace {
namespace {

using Json = nlohmann::ordered_json;

std::string Quote(std::string_view text) { return DumpJson(Json(text), -1, true); }

std::string FloatsToBase64(std::span<const float> values) {
  return Base64({reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)});
}

std::string RowSketches(const std::vector<Sketch>& sketches) {
  std::vector<uint8_t> bytes;
  for (const Sketch& s : sketches) {
    auto one = s.Bytes();
    bytes.insert(bytes.end(), one.begin(), one.end());
  }
  return Base64(bytes);
}

// Of each row: rest f32, then (id i32, logit f32) of its likeliest tokens.
std::string RowTops(const std::vector<TopTokens>& rows) {
  std::vector<uint8_t> bytes;
  auto add = [&bytes](const auto& value) {
    const auto* at = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), at, at + sizeof value);
  };
  for (const TopTokens& row : rows) {
    add(row.rest);
    for (const auto& [id, logit] : row.tokens) add(id), add(logit);
  }
  return Base64(bytes);
}

Json FactsToJson(const Facts& facts) {
  Json list = Json::array();
  for (const Fact& f : facts) list.push_back({f.key, f.value, f.origin});
  return list;
}

}  // namespace

const char* LevelName(Level level) {
  return level == Level::kDigest ? "digest" : level == Level::kSketch ? "sketch" : "full";
}

Result<Level> ParseLevel(std::string_view name) {
  for (Level level : {Level::kDigest, Level::kSketch, Level::kFull}) {
    if (name == LevelName(level)) return level;
  }
  return MakeError(Code::kUsage, "trace level \"{}\" is none of digest, sketch, full", name);
}

std::string PointName(int32_t seq, int32_t layer, std::string_view stage, int32_t first_position,
                      int32_t step_position) {
  std::string name =
      layer >= 0 ? fmt::format("t{}/blk{}/{}", seq, layer, stage) : fmt::format("t{}/{}", seq, stage);
  if (first_position != step_position) name += fmt::format("@{}", first_position);
  return name;
}

std::string ToJson(const Record& r) {
  std::string json = fmt::format(
      R"({{"name":{},"shape":[{}],"dtype":{},"blake3":"{}","rms":{:.10g},"num_elements":{},"seq":{},"layer":{},"stage":{})",
      Quote(r.name), fmt::join(r.shape, ","), Quote(r.dtype), r.blake3, r.rms, r.num_elements, r.seq, r.layer,
      Quote(r.stage));
  if (r.stage_id != PB_STAGE_UNMAPPED) json += fmt::format(R"(,"order":{})", pb_vocabulary[r.stage_id].level);
  if (r.first_position >= 0) json += fmt::format(R"(,"position":{})", r.first_position);
  if (!r.row_rms.empty()) json += fmt::format(R"(,"row_rms":"{}")", FloatsToBase64(r.row_rms));
  if (r.n_nan > 0) json += fmt::format(R"(,"nan":{})", r.n_nan);
  if (r.n_positive_inf > 0) json += fmt::format(R"(,"inf":{})", r.n_positive_inf);
  if (r.n_negative_inf > 0) json += fmt::format(R"(,"neg_inf":{})", r.n_negative_inf);
  if (r.sketch) json += fmt::format(R"(,"sketch":"{}")", Base64(r.sketch->Bytes()));
  if (!r.row_top.empty()) json += fmt::format(R"(,"row_top":"{}")", RowTops(r.row_top));
  if (!r.row_blake3.empty()) json += fmt::format(R"(,"row_blake3":["{}"])", fmt::join(r.row_blake3, "\",\""));
  if (!r.row_sketch.empty()) json += fmt::format(R"(,"row_sketch":"{}")", RowSketches(r.row_sketch));
  if (!r.payload_file.empty())
    json += fmt::format(R"(,"payload":[{},{}])", Quote(r.payload_file), r.payload_offset);
  return json + "}";
}

std::string ToJson(const Step& s) {
  return fmt::format(R"({{"seq":{},"position":{},"tokens":[{}]}})", s.seq, s.first_position,
                     fmt::join(s.tokens, ","));
}

std::string ToJson(const Manifest& m) {
  Json json;
  json["schema"] = kSchema;
  json["state"] = m.complete ? "complete" : "incomplete";
  if (!m.reason.empty()) json["reason"] = m.reason;
  json["level"] = LevelName(m.level);
  json["per_row"] = m.per_row;
  json["n_records"] = m.n_records;
  json["engine"] = m.engine;
  json["engine_facts"] = FactsToJson(m.engine_facts);
  json["model"] = {{"path", m.model_path}, {"sha256", m.model_sha256}};
  json["model_facts"] = FactsToJson(m.model_facts);
  json["session_facts"] = FactsToJson(m.session_facts);
  json["unobservable"] = Json::object();
  for (const auto& [stage, reason] : m.unobservable) json["unobservable"][stage] = reason;
  json["prompt"] = m.prompt;
  json["n_prompt"] = m.n_prompt;
  json["tokens"] = m.tokens;
  if (!m.filter.empty()) json["filter"] = m.filter;
  json["sketch"] = {{"seed", m.sketch_seed}, {"tables", kSketchTables}, {"buckets", kSketchBuckets}};
  json["logits_blake3"] = m.logits_blake3;
  json["logits_blake3_untapped"] = m.logits_blake3_untapped;
  return DumpJson(json, 1, true) + "\n";
}

}  // namespace pb::trace

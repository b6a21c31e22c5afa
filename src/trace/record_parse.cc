// Parsing of records and manifests: hostile input, so every type, length and count is checked.
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/json_text.h"
#include "stages/stages.h"
#include "trace/base64.h"
#include "trace/record.h"

namespace pb::trace {
namespace {

using Json = nlohmann::json;
constexpr int64_t kMaxElements = int64_t{1} << 48;
constexpr size_t kMaxDims = 8;

Error Wrong(std::string_view key, std::string_view expected) {
  return MakeError(Code::kMalformed, "field \"{}\" is no {}", key, expected);
}
Error Missing(std::string_view key) { return MakeError(Code::kMalformed, "field \"{}\" is missing", key); }

// Copies a field into `out`; an absent one leaves it as it is unless `needed`.
Status Get(const Json& json, const char* key, bool needed, std::string* out) {
  auto at = json.find(key);
  if (at == json.end() || at->is_null()) return needed ? Status(Missing(key)) : Status();
  if (!at->is_string()) return Wrong(key, "text");
  *out = at->get<std::string>();
  return {};
}

template <typename T>
Status GetInt(const Json& json, const char* key, bool needed, int64_t lowest, int64_t highest, T* out) {
  auto at = json.find(key);
  if (at == json.end() || at->is_null()) return needed ? Status(Missing(key)) : Status();
  bool unsigned_too_large =
      at->is_number_unsigned() && at->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (!at->is_number_integer() || unsigned_too_large) return Wrong(key, "integer in range");
  int64_t v = at->get<int64_t>();
  if (v < lowest || v > highest) return Wrong(key, "integer in range");
  *out = static_cast<T>(v);
  return {};
}

Status GetBool(const Json& json, const char* key, bool* out) {
  auto at = json.find(key);
  if (at == json.end()) return {};
  if (!at->is_boolean()) return Wrong(key, "true or false");
  *out = at->get<bool>();
  return {};
}

template <typename T>
Status GetInts(const Json& json, const char* key, int64_t lowest, int64_t highest, std::vector<T>* out) {
  auto at = json.find(key);
  if (at == json.end()) return Missing(key);
  if (!at->is_array()) return Wrong(key, "list of integers");
  for (const Json& v : *at) {
    if (!v.is_number_integer()) return Wrong(key, "list of integers");
    int64_t i = v.is_number_unsigned() && v.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)
                    ? -1
                    : v.get<int64_t>();
    if (i < lowest || i > highest) return Wrong(key, "list of integers in range");
    out->push_back(static_cast<T>(i));
  }
  return {};
}

bool IsDigest(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Status GetBase64(const Json& json, const char* key, std::optional<std::vector<uint8_t>>* out) {
  std::string text;
  PB_TRY(Get(json, key, false, &text));
  if (!json.contains(key)) return {};
  *out = FromBase64(text);
  return *out ? Status() : Status(Wrong(key, "base64"));
}

// Fields that every record has, ours or the documented system's.
Status ParseDocumentedFields(const Json& json, Record* r) {
  PB_TRY(Get(json, "name", true, &r->name));
  PB_TRY(GetInts(json, "shape", 0, kMaxElements, &r->shape));
  PB_TRY(Get(json, "dtype", true, &r->dtype));
  PB_TRY(Get(json, "blake3", true, &r->blake3));
  PB_TRY(GetInt(json, "num_elements", true, 0, kMaxElements, &r->num_elements));
  if (!IsDigest(r->blake3)) return Wrong("blake3", "64 lower-case hexadecimal digits");
  if (r->shape.size() > kMaxDims) return Wrong("shape", "list of at most 8 sizes");
  int64_t n = 1;
  for (int64_t d : r->shape) {
    if (d > 0 && n > kMaxElements / d) return Wrong("shape", "product in range");
    n *= d;
  }
  if (n != r->num_elements) {
    return MakeError(Code::kMalformed, "\"num_elements\" is {}, the product of \"shape\" is {}",
                     r->num_elements, n);
  }
  auto rms = json.find("rms");
  if (rms == json.end()) return Missing("rms");
  if (!rms->is_number() && !rms->is_null()) return Wrong("rms", "number");
  // serde_json writes NaN and infinity as null
  r->rms = rms->is_null() ? std::nan("") : rms->get<double>();
  return {};
}

Status ParseRowSketches(const std::vector<uint8_t>& bytes, int64_t n_rows, std::vector<Sketch>* out) {
  constexpr size_t kBytes = 4 + 2 * kSketchValues;
  if (bytes.size() != kBytes * static_cast<size_t>(n_rows)) return Wrong("row_sketch", "sketch for each row");
  for (size_t i = 0; i < bytes.size(); i += kBytes) {
    PB_ASSIGN(Sketch s, SketchFromBytes(std::span(bytes).subspan(i, kBytes)));
    out->push_back(s);
  }
  return {};
}

Status ParseRowDigests(const Json& json, Record* r) {
  auto at = json.find("row_blake3");
  if (at == json.end()) return {};
  if (!at->is_array() || static_cast<int64_t>(at->size()) != r->n_rows())
    return Wrong("row_blake3", "list of one digest a row");
  for (const Json& digest : *at) {
    if (!digest.is_string() || !IsDigest(digest.get_ref<const std::string&>()))
      return Wrong("row_blake3", "list of digests");
    r->row_blake3.push_back(digest.get<std::string>());
  }
  return {};
}

Status ParseSketches(const Json& json, Record* r) {
  std::optional<std::vector<uint8_t>> rms, sketch, rows;
  PB_TRY(GetBase64(json, "row_rms", &rms));
  PB_TRY(GetBase64(json, "sketch", &sketch));
  PB_TRY(GetBase64(json, "row_sketch", &rows));
  if (rms) {
    if (rms->size() != 4 * static_cast<size_t>(r->n_rows()))
      return Wrong("row_rms", "list of one value a row");
    for (size_t i = 0; i < rms->size(); i += 4) r->row_rms.push_back(LoadLe<float>(rms->data() + i));
  }
  if (sketch) {
    PB_ASSIGN(r->sketch, SketchFromBytes(*sketch));
  }
  if (rows) PB_TRY(ParseRowSketches(*rows, r->n_rows(), &r->row_sketch));
  return {};
}

// A row has as many tokens as every other.
Status ParseRowTops(const Json& json, Record* r) {
  std::optional<std::vector<uint8_t>> bytes;
  PB_TRY(GetBase64(json, "row_top", &bytes));
  if (!bytes) return {};
  const auto n_rows = static_cast<size_t>(std::max<int64_t>(r->n_rows(), 1));
  const size_t row_bytes = bytes->size() / n_rows;
  if (bytes->size() % n_rows != 0 || row_bytes < 4 || (row_bytes - 4) % 8 != 0)
    return Wrong("row_top", "list of the likeliest tokens of each row");
  for (size_t row = 0; row < bytes->size(); row += row_bytes) {
    TopTokens top;
    top.rest = LoadLe<float>(bytes->data() + row);
    for (size_t at = row + 4; at < row + row_bytes; at += 8)
      top.tokens.emplace_back(LoadLe<int32_t>(bytes->data() + at), LoadLe<float>(bytes->data() + at + 4));
    r->row_top.push_back(std::move(top));
  }
  return {};
}

Status ParsePayload(const Json& json, Record* r) {
  auto at = json.find("payload");
  if (at == json.end()) return {};
  if (!at->is_array() || at->size() != 2 || !(*at)[0].is_string() || !(*at)[1].is_number_unsigned()) {
    return Wrong("payload", "pair of file name and offset");
  }
  r->payload_file = (*at)[0].get<std::string>();
  r->payload_offset = (*at)[1].get<uint64_t>();
  // A name and nothing that leads out of the folder.
  if (r->payload_file.empty() || r->payload_file.find_first_of("/\\") != std::string::npos ||
      r->payload_file[0] == '.') {
    return Wrong("payload", "file name within the trace");
  }
  return {};
}

Result<Record> ParseRecord(const Json& json) {
  Record r;
  PB_TRY(ParseDocumentedFields(json, &r));
  if (r.shape.empty()) return Wrong("shape", "list that begins with the rows");
  PB_TRY(GetInt(json, "seq", true, 0, INT32_MAX, &r.seq));
  PB_TRY(GetInt(json, "layer", true, INT32_MIN, INT32_MAX, &r.layer));
  PB_TRY(Get(json, "stage", true, &r.stage));
  PB_TRY(GetInt(json, "position", true, 0, INT32_MAX, &r.first_position));
  r.stage_id = stages::Find(r.stage);
  PB_TRY(GetInt(json, "nan", false, 0, r.num_elements, &r.n_nan));
  PB_TRY(GetInt(json, "inf", false, 0, r.num_elements, &r.n_positive_inf));
  PB_TRY(GetInt(json, "neg_inf", false, 0, r.num_elements, &r.n_negative_inf));
  PB_TRY(ParseSketches(json, &r));
  PB_TRY(ParseRowTops(json, &r));
  PB_TRY(ParseRowDigests(json, &r));
  PB_TRY(ParsePayload(json, &r));
  return r;
}

Result<Step> ParseStep(const Json& json) {
  Step s;
  PB_TRY(GetInt(json, "seq", true, 0, INT32_MAX, &s.seq));
  PB_TRY(GetInt(json, "position", true, 0, INT32_MAX, &s.first_position));
  PB_TRY(GetInts(json, "tokens", INT32_MIN, INT32_MAX, &s.tokens));
  return s;
}

Result<Json> ParseObject(std::string_view text) {
  PB_ASSIGN(Json json, ParseJson(text));
  if (!json.is_object()) return MakeError(Code::kMalformed, "no JSON object");
  return json;
}

// "t0/blk3/q_proj", "t12_logits", "t0_blk3_q_proj": fills in what the record does not say itself.
void FieldsFromName(bool has_seq, bool has_layer, bool has_stage, Record* r) {
  std::string_view rest = r->name;
  auto number = [&rest](std::string_view prefix, int32_t* out) {
    if (rest.substr(0, prefix.size()) != prefix) return false;
    const char* begin = rest.data() + prefix.size();
    auto [end, error] = std::from_chars(begin, rest.data() + rest.size(), *out);
    if (error != std::errc() || end == rest.data() + rest.size() || (*end != '/' && *end != '_'))
      return false;
    rest.remove_prefix(static_cast<size_t>(end - rest.data()) + 1);
    return true;
  };
  int32_t seq = 0, layer = -1;
  bool seq_named = number("t", &seq);
  bool layer_named = number("blk", &layer);
  if (!has_seq && seq_named) r->seq = seq;
  if (!has_layer && layer_named) r->layer = layer;
  if (!has_stage) r->stage = std::string(rest);
}

Result<Facts> ParseFacts(const Json& json, const char* key) {
  Facts facts;
  auto at = json.find(key);
  if (at == json.end()) return facts;
  if (!at->is_array()) return Wrong(key, "list of facts");
  for (const Json& f : *at) {
    bool good = f.is_array() && f.size() == 3 && f[0].is_string() && f[1].is_string() && f[2].is_string();
    if (!good) return Wrong(key, "list of [key, value, origin]");
    facts.push_back({f[0].get<std::string>(), f[1].get<std::string>(), f[2].get<std::string>()});
  }
  return facts;
}

Status ParseUnobservable(const Json& json, Manifest* m) {
  auto at = json.find("unobservable");
  if (at == json.end()) return {};
  if (!at->is_object()) return Wrong("unobservable", "object of stage and reason");
  for (const auto& [stage, reason] : at->items()) {
    if (!reason.is_string()) return Wrong("unobservable", "object of stage and reason");
    m->unobservable.emplace_back(stage, reason.get<std::string>());
  }
  return {};
}

Status ParseSketchShape(const Json& json, Manifest* m) {
  auto at = json.find("sketch");
  if (at == json.end() || !at->is_object()) return Wrong("sketch", "object");
  int tables = 0, buckets = 0;
  PB_TRY(GetInt(*at, "tables", true, 0, INT32_MAX, &tables));
  PB_TRY(GetInt(*at, "buckets", true, 0, INT32_MAX, &buckets));
  if (tables != kSketchTables || buckets != kSketchBuckets) {
    return MakeError(Code::kUnsupported, "sketches of {} x {} buckets; this version reads {} x {}", tables,
                     buckets, kSketchTables, kSketchBuckets);
  }
  auto seed = at->find("seed");
  if (seed == at->end() || !seed->is_number_unsigned()) return Wrong("seed", "unsigned integer");
  m->sketch_seed = seed->get<uint64_t>();
  return {};
}

}  // namespace

Result<Line> ParseLine(std::string_view text) {
  PB_ASSIGN(Json json, ParseObject(text));
  Line line;
  if (!json.contains("name")) {
    PB_ASSIGN(line.step, ParseStep(json));
  } else {
    PB_ASSIGN(line.record, ParseRecord(json));
  }
  return line;
}

Result<Record> ParseDocumentedRecord(std::string_view text) {
  PB_ASSIGN(Json json, ParseObject(text));
  Record r;
  PB_TRY(ParseDocumentedFields(json, &r));
  PB_TRY(GetInt(json, "seq", false, 0, INT32_MAX, &r.seq));
  PB_TRY(GetInt(json, "layer", false, INT32_MIN, INT32_MAX, &r.layer));
  PB_TRY(Get(json, "stage", false, &r.stage));
  auto has = [&json](const char* key) { return json.contains(key) && !json[key].is_null(); };
  FieldsFromName(has("seq"), has("layer"), has("stage"), &r);
  r.stage_id = stages::Find(r.stage);
  return r;
}

Result<Manifest> ParseManifest(std::string_view text) {
  PB_ASSIGN(Json json, ParseObject(text));
  Manifest m;
  std::string schema, state, level;
  PB_TRY(Get(json, "schema", true, &schema));
  if (schema != kSchema)
    return MakeError(Code::kUnsupported, "schema \"{}\"; this version reads {}", schema, kSchema);
  PB_TRY(Get(json, "state", true, &state));
  if (state != "complete" && state != "incomplete") return Wrong("state", "\"complete\" or \"incomplete\"");
  m.complete = state == "complete";
  PB_TRY(Get(json, "reason", false, &m.reason));
  PB_TRY(Get(json, "level", true, &level));
  PB_ASSIGN(m.level, ParseLevel(level));
  PB_TRY(GetBool(json, "per_row", &m.per_row));
  PB_TRY(GetInt(json, "n_records", true, 0, INT64_MAX, &m.n_records));
  PB_TRY(Get(json, "engine", true, &m.engine));
  PB_ASSIGN(m.engine_facts, ParseFacts(json, "engine_facts"));
  PB_ASSIGN(m.model_facts, ParseFacts(json, "model_facts"));
  PB_ASSIGN(m.session_facts, ParseFacts(json, "session_facts"));
  PB_TRY(ParseUnobservable(json, &m));
  if (auto model = json.find("model"); model != json.end() && model->is_object()) {
    PB_TRY(Get(*model, "path", false, &m.model_path));
    PB_TRY(Get(*model, "sha256", false, &m.model_sha256));
  }
  PB_TRY(Get(json, "prompt", false, &m.prompt));
  PB_TRY(GetInts(json, "tokens", INT32_MIN, INT32_MAX, &m.tokens));
  PB_TRY(GetInt(json, "n_prompt", true, 0, INT32_MAX, &m.n_prompt));
  PB_TRY(Get(json, "filter", false, &m.filter));
  PB_TRY(ParseSketchShape(json, &m));
  PB_TRY(Get(json, "logits_blake3", false, &m.logits_blake3));
  PB_TRY(Get(json, "logits_blake3_untapped", false, &m.logits_blake3_untapped));
  return m;
}

}  // namespace pb::trace

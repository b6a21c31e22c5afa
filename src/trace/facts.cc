// The keys of facts, and how their values are written.
#include "trace/facts.h"

#include <charconv>
#include <cstdlib>

namespace pb::trace {
namespace {

Fact Of(const Facts& facts, std::string_view key) {
  const Fact* fact = FindFact(facts, key);
  return fact ? *fact : Fact{};
}

// Token ids, "2,128009"; "none" is none.
std::vector<int32_t> Ids(const std::string& text) {
  std::vector<int32_t> ids;
  for (const char* at = text.c_str(); *at;) {
    char* end = nullptr;
    const long id = std::strtol(at, &end, 10);
    if (end == at) break;
    if (id >= 0) ids.push_back(static_cast<int32_t>(id));
    at = *end == ',' ? end + 1 : end;
  }
  return ids;
}

int32_t Id(const Facts& facts, std::string_view key) {
  const std::vector<int32_t> ids = Ids(FactText(facts, key));
  return ids.empty() ? -1 : ids.front();
}

}  // namespace

const Fact* FindFact(const Facts& facts, std::string_view key) {
  for (const Fact& fact : facts)
    if (fact.key == key) return &fact;
  return nullptr;
}

std::string FactText(const Facts& facts, std::string_view key) { return Of(facts, key).value; }

int64_t FactNumber(const Facts& facts, std::string_view key, int64_t otherwise) {
  const std::string text = FactText(facts, key);
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  return parsed.ec == std::errc() && parsed.ptr == end && value > 0 ? value : otherwise;
}

EngineFacts ReadEngineFacts(const Facts& facts) {
  return {FactText(facts, "name"), FactText(facts, "version"), FactText(facts, "isa"),
          FactText(facts, "threads")};
}

ModelFacts ReadModelFacts(const Facts& facts) {
  ModelFacts m;
  m.architecture = FactText(facts, "architecture"), m.weights = FactText(facts, "weights");
  m.n_layers = FactNumber(facts, "n_layers", 0), m.n_ctx_train = FactNumber(facts, "n_ctx_train", 0);
  for (const ShapeKey& size : kShapeKeys) m.shape.*size.member = FactNumber(facts, size.key, 0);
  m.shape.norms_rows = FactText(facts, "norms.rows") == "yes";
  m.activation = Of(facts, "ffn.activation");
  m.bos = Id(facts, "bos"), m.eos = Id(facts, "eos");
  const std::string adds = FactText(facts, "add_bos");
  m.adds_bos = adds == "yes" || adds == "true";
  m.ends = Ids(FactText(facts, FindFact(facts, "eog") ? "eog" : "eos"));
  m.chat_template = FactText(facts, "chat_template");
  return m;
}

SessionFacts ReadSessionFacts(const Facts& facts) {
  SessionFacts s;
  s.act_quant = Of(facts, "act.quant"), s.kv_type = Of(facts, "kv.type"), s.flash = Of(facts, "attn.flash");
  s.rope_factors = Of(facts, "rope.factors");
  s.threads = FactText(facts, "threads");
  s.ubatch = FactNumber(facts, "ubatch", 0);
  s.overwrite_exact = FactText(facts, "overwrite.exact") != "no";
  return s;
}

}  // namespace pb::trace

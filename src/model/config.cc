#include "model/config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json_text.h"

namespace pb {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxConfigBytes = 4 << 20;

Result<Json> ParseJson(const std::filesystem::path& path) {
  PB_ASSIGN(std::string text, ReadFile(path, kMaxConfigBytes));
  auto json = ParseJson(text);
  if (!json.ok()) return std::move(json).error().In(path.string());
  if (!json->is_object()) return MakeError(Code::kMalformed, "{}: no JSON object", path.string());
  return json;
}

// Compares fields of the config with what the model file says.
class Comparison {
 public:
  Comparison(const std::filesystem::path& path, const Json& json, ConfigJson& out)
      : path_(path), json_(json), out_(out) {}

  Status Integer(const char* field, int64_t in_model, bool shape) {
    auto it = json_.find(field);
    if (it == json_.end() || it->is_null()) return {};
    if (!it->is_number_integer()) return Wrong(field, "a whole number");
    bool equal = it->is_number_unsigned() ? it->get<uint64_t>() == static_cast<uint64_t>(in_model)
                                          : it->get<int64_t>() == in_model;
    if (equal) return {};
    out_.shape_differs = out_.shape_differs || shape;
    return Differs(field, it->dump(), fmt::format("{}", in_model));
  }

  // Equal as float32, which is what the model file stores.
  Status Real(const char* field, float in_model) {
    auto it = json_.find(field);
    if (it == json_.end() || it->is_null()) return {};
    if (!it->is_number()) return Wrong(field, "a number");
    if (static_cast<float>(it->get<double>()) == in_model) return {};
    return Differs(field, it->dump(), fmt::format("{}", in_model));
  }

  Status Bool(const char* field, bool in_model) {
    auto it = json_.find(field);
    if (it == json_.end() || it->is_null()) return {};
    if (!it->is_boolean()) return Wrong(field, "true or false");
    if (it->get<bool>() == in_model) return {};
    return Differs(field, it->dump(), in_model ? "true" : "false");
  }

  Status Activation() {
    for (const char* field : {"hidden_act", "hidden_activation"}) {
      auto it = json_.find(field);
      if (it == json_.end() || it->is_null()) continue;
      if (!it->is_string()) return Wrong(field, "a string");
      out_.hidden_act = it->get<std::string>();
      return {};
    }
    return {};
  }

  void RopeScaling(const HyperParameters& p) {
    auto it = json_.find("rope_scaling");
    if (it == json_.end() || it->is_null() || p.rope_scale.value != 1.0f) return;
    if (it->is_object() &&
        (it->value("rope_type", Json()) == "default" || it->value("type", Json()) == "default"))
      return;
    out_.findings.push_back(
        fmt::format("{}: rope_scaling is declared, the model file has none", path_.string()));
  }

 private:
  Error Wrong(const char* field, const char* expected) {
    return MakeError(Code::kMalformed, "{}: {} is not {}", path_.string(), field, expected);
  }
  Status Differs(const char* field, const std::string& here, const std::string& there) {
    out_.findings.push_back(
        fmt::format("{}: {} is {}, the model file says {}", path_.string(), field, here, there));
    return {};
  }

  const std::filesystem::path& path_;
  const Json& json_;
  ConfigJson& out_;
};

}  // namespace

Result<ConfigJson> ReadConfigJson(const std::filesystem::path& path, const HyperParameters& p) {
  PB_ASSIGN(Json json, ParseJson(path));
  ConfigJson config;
  Comparison compare(path, json, config);
  PB_TRY(compare.Activation());
  PB_TRY(compare.Integer("num_hidden_layers", p.n_layers, true));
  PB_TRY(compare.Integer("hidden_size", p.d_model, true));
  PB_TRY(compare.Integer("intermediate_size", p.d_ff, true));
  PB_TRY(compare.Integer("num_attention_heads", p.n_heads, true));
  PB_TRY(compare.Integer("num_key_value_heads", p.n_kv_heads, true));
  PB_TRY(compare.Integer("head_dim", p.head_dim, true));
  PB_TRY(compare.Integer("vocab_size", p.n_vocab, false));
  PB_TRY(compare.Integer("max_position_embeddings", p.n_ctx_train, false));
  PB_TRY(compare.Real("rms_norm_eps", p.norm_eps.value));
  PB_TRY(compare.Real("rope_theta", p.rope_base.value));
  PB_TRY(compare.Bool("tie_word_embeddings", p.output_tied));
  compare.RopeScaling(p);
  return config;
}

}  // namespace pb

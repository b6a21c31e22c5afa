// What a config.json says of the rotation's frequencies, held against the model file.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/config_fields.h"
#include "model/rope_freqs.h"

namespace pb::config {
namespace {

// What transformers has below rope_scaling or rope_parameters; all but base and part are of one
// type of scaling.
bool IsRopeField(std::string_view name) {
  constexpr std::string_view kNames[] = {"rope_theta",       "partial_rotary_factor",
                                         "rope_type",        "type",
                                         "factor",           "original_max_position_embeddings",
                                         "low_freq_factor",  "high_freq_factor",
                                         "attention_factor", "beta_fast",
                                         "beta_slow",        "mscale",
                                         "mscale_all_dim",   "short_factor",
                                         "long_factor",      "truncate",
                                         "finetuned"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

}  // namespace

// Of LLaMA 3.1 and later: each frequency has a factor, which the model file holds as a tensor.
Status Fields::LlamaThree(const std::string& name, const Json& rope) {
  if (!reader_.params) return {};
  RopeFreqRule rule;
  for (auto [field, to] : {std::pair{"factor", &rule.factor},
                           {"low_freq_factor", &rule.low},
                           {"high_freq_factor", &rule.high},
                           {"original_max_position_embeddings", &rule.n_ctx}}) {
    auto it = rope.find(field);
    if (it == rope.end() || it->is_null()) continue;
    if (!it->is_number()) return Wrong(name + "." + field, "a number");
    *to = it->get<double>();
  }
  const GgufTensor* there = reader_.keys.file().FindTensor("rope_freqs.weight");
  const double base =
      reader_.options.rope_base ? *reader_.options.rope_base : reader_.params->rope_base.value;
  if (!there)
    Differs(name, "llama3", "has no rope_freqs.weight, which would hold its factors");
  else if (!FollowsRule(*there, rule, base, reader_.params->rope_dims))
    Differs(name, fmt::format("llama3, factor {}", rule.factor), "has other factors in rope_freqs.weight");
  return {};
}

Status Fields::Yarn(const std::string& name, const Json& rope) {
  if (!reader_.params) return {};
  const RopeStretch& there = reader_.params->rope_stretch;
  if (!there.yarn) {
    Differs(name, "yarn", Lacks("rope.scaling.type", "none"));
    return {};
  }
  const auto number = [&rope](const char* field) -> std::optional<double> {
    auto it = rope.find(field);
    return it != rope.end() && it->is_number() ? std::optional(it->get<double>()) : std::nullopt;
  };
  const auto hold = [&](const char* field, double here, double in_file) {
    if (std::fabs(here - in_file) > 1e-6 * std::fabs(in_file))
      Differs(name + "." + field, fmt::format("{}", here), fmt::format("has {}", in_file));
  };
  const double factor = number("factor").value_or(1);
  hold("factor", factor, double(reader_.params->rope_scale.value));
  hold("beta_fast", number("beta_fast").value_or(32), double(there.beta_fast));
  hold("beta_slow", number("beta_slow").value_or(1), double(there.beta_slow));
  if (const auto n = number("original_max_position_embeddings"))
    hold("original_max_position_embeddings", *n, static_cast<double>(there.n_ctx_original));
  // transformers, modeling_rope_utils.py, _compute_yarn_parameters.
  const auto scale = [factor](double m) { return factor <= 1 ? 1 : 0.1 * m * std::log(factor) + 1; };
  const auto m = number("mscale"), all = number("mscale_all_dim");
  const double attention = m && all && *m != 0 && *all != 0 ? scale(*m) / scale(*all) : scale(1);
  hold("attention_factor", number("attention_factor").value_or(attention), double(there.attention_factor));
  if (auto whole = rope.find("truncate"); whole != rope.end() && *whole == false)
    Note(
        name + ".truncate",
        fmt::format("{}.truncate: {} mixes frequencies between pairs that are no whole numbers; a model file "
                    "cannot say so, and engines that read one take whole pairs",
                    name, path_));
  return {};
}

Status Fields::LongRope(const std::string& name, const Json& rope) {
  constexpr double kClose = 1e-5;  // converters write float32
  for (const auto& [field, tensor] : {std::pair{"long_factor", "rope_factors_long.weight"},
                                      {"short_factor", "rope_factors_short.weight"}}) {
    const GgufTensor* there = reader_.keys.file().FindTensor(tensor);
    auto here = rope.find(field);
    if (here == rope.end() || !here->is_array()) continue;
    if (!there) {
      Differs(name + "." + field, Text(*here), fmt::format("has no {}", tensor));
      continue;
    }
    bool equal = there->type_id == 0 && there->n_elements() == here->size();
    for (size_t i = 0; equal && i < here->size(); i++) {
      float factor = 0;
      std::memcpy(&factor, there->data.data() + i * sizeof factor, sizeof factor);
      equal = (*here)[i].is_number() &&
              std::fabs((*here)[i].get<double>() - double(factor)) <= kClose * double(factor);
    }
    if (!equal) Differs(name + "." + field, Text(*here), fmt::format("has other factors in {}", tensor));
  }
  return {};
}

Status Fields::RopeScaling(const FieldRow&, const std::string& name, const Json& value) {
  if (!value.is_object()) return Wrong(name, "an object");
  const Json* rope = &value;
  // transformers 5 may keep one object for each kind of layer.
  std::string prefix = name;
  if (auto full = value.find("full_attention"); full != value.end() && full->is_object())
    rope = &*full, prefix += ".full_attention";
  std::string type;
  for (const char* field : {"type", "rope_type"}) {
    auto it = rope->find(field);
    if (it == rope->end() || it->is_null()) continue;
    if (!it->is_string()) return Wrong(prefix + "." + field, "a string");
    type = it->get<std::string>();
  }
  for (const char* field : {"rope_theta", "partial_rotary_factor"}) {
    auto it = rope->find(field);
    if (it == rope->end() || it->is_null()) continue;
    const FieldRow* row = FindField(field);
    PB_TRY((this->*row->check)(*row, prefix + "." + field, *it));
  }
  for (const auto& [field, other] : value.items())
    if (other.is_object() && field != "full_attention")
      Unheard(name + "." + field, other, "is of layers that are not offered");
  for (const auto& [field, other] : rope->items())
    if (!other.is_object() && !other.is_null() && !IsRopeField(field))
      Unheard(prefix + "." + field, other, "is unknown here: what it decides is not computed");
  auto factor = rope->find("factor");
  if (type.empty()) type = factor != rope->end() && factor->is_number() ? "linear" : "default";
  if (type == "llama3") return LlamaThree(prefix, *rope);
  const bool none = type == "default" || type == "none";
  if (none && HasTensor("rope_freqs.weight"))
    Differs(prefix, "no scaling", "has factors in rope_freqs.weight");
  if (none || type == "linear") {
    if (!none && factor == rope->end()) return {};
    return Real(none ? prefix + " (" + type + ")" : prefix + ".factor", none ? Json(1) : *factor,
                "rope.scaling.factor", 1.0f, "rope.scale");
  }
  if (type == "yarn") return Yarn(prefix, *rope);
  if (type == "longrope" || type == "su") return LongRope(prefix, *rope);
  const std::string declared =
      reader_.keys.Has("rope.scaling.type")
          ? reader_.keys.String("rope.scaling.type").ok() ? *reader_.keys.String("rope.scaling.type") : ""
          : "";
  if (declared == type) return {};
  // NTK scaling by length begins where the trained context ends.
  auto from = rope->find("original_max_position_embeddings");
  const int64_t trained = from != rope->end() && from->is_number_unsigned() ? from->get<int64_t>() : n_ctx_;
  Differs(prefix, type,
          declared.empty() ? Lacks("rope.scaling.type", "none") : Says("rope.scaling.type", declared), {},
          type == "dynamic" ? trained : 0);
  return {};
}

}  // namespace pb::config

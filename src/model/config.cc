// Reads a config.json field by field through one table: what each decides, and how it is held
// against the model file.
#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/json_text.h"
#include "base/text.h"
#include "model/config_fields.h"

namespace pb {
namespace config {
namespace {

constexpr uint64_t kMaxConfigBytes = 4 << 20;

Result<Json> ParseObject(const std::filesystem::path& path) {
  PB_ASSIGN(std::string text, ReadFile(path, kMaxConfigBytes));
  auto json = ParseJson(text);
  if (!json.ok()) return std::move(json).error().In(path.string());
  if (!json->is_object()) return MakeError(Code::kMalformed, "{}: no JSON object", path.string());
  return json;
}

}  // namespace

// A value for people: at most 64 characters.
std::string Text(const Json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : DumpJson(value);
  return text.size() > 64 ? text.substr(0, 61) + "..." : text;
}

namespace {

// Of architectures that are not read here, what all of them mean alike.
bool IsCommon(std::string_view name) {
  return name == "rope_theta" || name == "rms_norm_eps" || name == "hidden_size" ||
         name == "num_attention_heads";
}

}  // namespace

Status Fields::Read(const Json& json) {
  // A model of text and images keeps what concerns the text by itself.
  auto text = json.find("text_config");
  const bool nested = text != json.end() && text->is_object();
  const Json& own = nested ? *text : json;
  ReadShape(own);
  return ReadAll(own, nested ? "text_config." : "");
}

// What fields are read with, whatever their order.
void Fields::ReadShape(const Json& json) {
  auto n = json.find("max_position_embeddings");
  if (n != json.end() && n->is_number_unsigned() && n->get<uint64_t>() < (uint64_t{1} << 40))
    n_ctx_ = static_cast<int64_t>(n->get<uint64_t>());
  auto window = json.find("use_sliding_window");
  no_window_ = window != json.end() && window->is_boolean() && !window->get<bool>();
  for (const char* name : {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
                           "num_key_value_heads", "head_dim"}) {
    auto it = json.find(name);
    if (it == json.end() || !it->is_number_integer()) continue;
    auto there = reader_.keys.Has(FindField(name)->key) ? reader_.keys.Count(FindField(name)->key)
                                                        : Result<int64_t>(Error{Code::kNotFound, ""});
    other_shape_ |= there.ok() && *it != *there;
  }
}

Status Fields::ReadAll(const Json& json, const std::string& prefix) {
  for (const auto& [name, value] : json.items()) {
    if (value.is_null() || (!reader_.architecture && !IsCommon(name))) continue;
    const FieldRow* row = FindField(name);
    if (!row)
      Unheard(prefix + name, value, "is unknown here: what it decides is not computed");
    else if (row->check)
      PB_TRY((this->*row->check)(*row, prefix + name, value));
  }
  return {};
}

Status Fields::Count(const FieldRow& row, const std::string& name, const Json& value) {
  if (!value.is_number_integer()) return Wrong(name, "a whole number");
  const bool has = reader_.keys.Has(row.key);
  int64_t there = 0;
  // Of models that have experts alone it may be an expert's width.
  const bool of_experts = reader_.params && reader_.params->experts.n > 0 &&
                          row.key == "feed_forward_length" && value == reader_.params->experts.d_ff;
  if (of_experts) return {};
  if (has) {
    auto counted = reader_.keys.Count(row.key);
    if (!counted.ok()) return {};  // the file's reader says what is wrong with it
    there = *counted;
  } else if (reader_.params) {
    there = row.key == "attention.head_count_kv" ? reader_.params->n_kv_heads : reader_.params->head_dim;
  } else {
    return {};
  }
  if (value == there) return {};
  const std::string text = fmt::format("{}", there);
  Differs(name, Text(value), has ? Says(row.key, text) : Lacks(row.key, text));
  return {};
}

Status Fields::Vocabulary(const FieldRow&, const std::string& name, const Json& value) {
  if (!value.is_number_integer()) return Wrong(name, "a whole number");
  if (!reader_.params || value == reader_.params->n_vocab) return {};
  Differs(name, Text(value), fmt::format("has {} rows in token_embd.weight", reader_.params->n_vocab));
  return {};
}

// Nothing is computed from it; how far a text may go is a note of its own.
Status Fields::Context(const FieldRow& row, const std::string& name, const Json& value) {
  if (!value.is_number_integer()) return Wrong(name, "a whole number");
  if (!reader_.params || value == reader_.params->n_ctx_train) return {};
  Note(name,
       fmt::format("{}: {} says {}, {} {}; it decides nothing that is computed", name, path_, Text(value),
                   reader_.model_name, Says(row.key, fmt::format("{}", reader_.params->n_ctx_train))));
  return {};
}

Status Fields::Real(const std::string& name, const Json& value, std::string_view key,
                    std::optional<float> taken, const char* setting) {
  if (!value.is_number()) return Wrong(name, "a number");
  const float here = static_cast<float>(value.get<double>());
  if (!std::isfinite(here)) return Wrong(name, "a number that float32 holds");
  const bool has = reader_.keys.Has(key);
  if (!has && !taken) return {};
  auto read = has ? reader_.keys.file().Float(reader_.keys.Full(key)) : Result<double>(*taken);
  if (!read.ok()) return {};  // the file's reader says what is wrong with it
  const float there = static_cast<float>(*read);
  if (here == there) return {};
  const std::string text = fmt::format("{}", there);
  std::vector<std::string> choices;
  if (setting) choices = {fmt::format("{}={}", setting, here), fmt::format("{}={}", setting, text)};
  Differs(name, Text(value), has ? Says(key, text) : Lacks(key, text), std::move(choices));
  return {};
}

Status Fields::Epsilon(const FieldRow& row, const std::string& name, const Json& value) {
  return Real(name, value, row.key, std::nullopt, "norm.eps");
}

// Decides nothing where norms are no LayerNorm.
Status Fields::LayerNormEpsilon(const FieldRow& row, const std::string& name, const Json& value) {
  if (!reader_.params || !reader_.params->layer_norm) return {};
  return Real(name, value, row.key, std::nullopt, "norm.eps");
}

Status Fields::RopeBase(const FieldRow& row, const std::string& name, const Json& value) {
  if (!value.is_number()) return Wrong(name, "a number");
  return Real(name, value, row.key, kDefaultRopeBase, "rope.base");
}

Status Fields::RotatedPart(const FieldRow& row, const std::string& name, const Json& value) {
  if (!value.is_number()) return Wrong(name, "a number");
  if (!reader_.params) return {};
  const double n = std::floor(value.get<double>() * static_cast<double>(reader_.params->head_dim));
  if (n == static_cast<double>(reader_.params->rope_dims)) return {};
  Differs(name, fmt::format("{}, {} of {} dimensions", Text(value), n, reader_.params->head_dim),
          Says(row.key, fmt::format("{}", reader_.params->rope_dims)));
  return {};
}

Status Fields::ActivationName(const FieldRow& row, const std::string& name, const Json& value) {
  if (!value.is_string()) return Wrong(name, "a string");
  if (!reader_.params) return {};
  const std::string spelled = Text(value);
  auto here = ParseActivation(spelled);
  std::optional<Declared<Activation>>& there = reader_.params->ffn_activation;
  if (there && there->origin == Origin::kConfigJson) {  // another field of this file said it
    if (!here.ok() || *here != there->value)
      Differs(name, spelled,
              "says nothing, and another field of the config.json " +
                  std::string(pb::ActivationName(there->value)));
    return {};
  }
  if (there) {
    if (here.ok() && *here == there->value) return {};
    // gpt-oss names SiLU, which its own SwiGLU is a form of.
    if (here.ok() && *here == Activation::kSilu && there->value == Activation::kSwigluOai) return {};
    const std::string runs = pb::ActivationName(there->value);
    std::vector<std::string> choices = {"ffn.activation=" + runs};
    if (here.ok())
      choices.insert(choices.begin(), std::string("ffn.activation=") + pb::ActivationName(*here));
    Differs(name, spelled,
            there->origin == Origin::kMetadata
                ? Says(row.key, runs)
                : fmt::format("is of architecture {}, which runs {}", reader_.params->architecture, runs),
            std::move(choices));
    return {};
  }
  if (other_shape_) {
    Note(name, fmt::format("{}: describes a model of another shape, so its {} is not used", path_, name));
    return {};
  }
  if (!here.ok()) {
    if (reader_.options.ffn_activation) return {};
    return std::move(here).error().In(path_ + ": " + name);
  }
  there = {*here, Origin::kConfigJson};
  return {};
}

Status Fields::Tied(const FieldRow&, const std::string& name, const Json& value) {
  if (!value.is_boolean()) return Wrong(name, "true or false");
  const GgufTensor* output = reader_.keys.file().FindTensor("output.weight");
  const GgufTensor* embedding = reader_.keys.file().FindTensor("token_embd.weight");
  if (!reader_.params || !embedding || value.get<bool>() == (output == nullptr)) return {};
  if (!output) {
    Differs(name, "false", "has no output.weight, for which engines take token_embd.weight");
    return {};
  }
  // Some converters write the embedding twice; quantised apart, the two need not be equal in bits.
  const bool same =
      output->type_id == embedding->type_id &&
      std::equal(output->data.begin(), output->data.end(), embedding->data.begin(), embedding->data.end());
  if (!same && output->type_id == embedding->type_id)
    Differs(name, "true", "has an output.weight that is not its token_embd.weight");
  else if (!same)
    Note(name, fmt::format("{}: {} says true, {} has an output.weight of another type than its "
                           "token_embd.weight; whether they hold the same values is not checked",
                           name, path_, reader_.model_name));
  return {};
}

Status Fields::Bias(const FieldRow& row, const std::string& name, const Json& value) {
  if (!value.is_boolean()) return Wrong(name, "true or false");
  const std::string tensor = fmt::format("blk.0.{}.bias", row.key);
  if (value.get<bool>() == HasTensor(tensor.c_str())) return {};
  Differs(name, value.get<bool>() ? "true" : "false", (value.get<bool>() ? "has no " : "has ") + tensor);
  return {};
}

Status Fields::Window(const FieldRow& row, const std::string& name, const Json& value) {
  if (!value.is_number_integer()) return Wrong(name, "a whole number");
  // the file's reader refuses what it has of it
  if (no_window_ || reader_.keys.Has(row.key)) return {};
  const int64_t window =
      value.is_number_unsigned()
          ? static_cast<int64_t>(std::min<uint64_t>(value.get<uint64_t>(), uint64_t{1} << 40))
          : value.get<int64_t>();
  if (window <= 0 || (n_ctx_ > 0 && window >= n_ctx_)) return {};
  if (reader_.params && reader_.params->window == window) return {};  // which its files do not say
  Differs(name, Text(value), Lacks(row.key, "none"), {}, window);
  return {};
}

Status Fields::LayerTypes(const FieldRow&, const std::string& name, const Json& value) {
  if (!value.is_array()) return Wrong(name, "a list");
  for (size_t layer = 0; layer < value.size(); layer++) {
    const bool local = reader_.params && reader_.params->is_local(static_cast<int64_t>(layer));
    if (value[layer] == (local ? "sliding_attention" : "full_attention")) continue;
    if (reader_.params && !reader_.params->local.empty() && layer < reader_.params->local.size())
      Differs(
          fmt::format("{}[{}]", name, layer), Text(value[layer]),
          fmt::format("has a layer {} that sees {}", layer, local ? "its window alone" : "all positions"));
    else
      Unheard(name, value, "has other layers than full_attention, which are not offered");
    break;
  }
  return {};
}

// Of every n layers the last sees all positions.
Status Fields::Pattern(const FieldRow&, const std::string& name, const Json& value) {
  if (!value.is_number_unsigned()) return Wrong(name, "a whole number");
  if (!reader_.params || reader_.params->local.empty()) return {};  // no layer has a window
  const auto n = value.get<uint64_t>();
  for (size_t layer = 0; layer < reader_.params->local.size(); layer++) {
    if (n > 0 && reader_.params->local[layer] == ((layer + 1) % n != 0)) continue;
    Differs(name, Text(value), fmt::format("has other layers with a window, first layer {}", layer));
    break;
  }
  return {};
}

Status Fields::LocalBase(const FieldRow& row, const std::string& name, const Json& value) {
  if (!value.is_number()) return Wrong(name, "a number");
  if (!reader_.params || reader_.params->local.empty()) return {};
  const float here = static_cast<float>(value.get<double>()), there = reader_.params->local_rope_base.value;
  if (here != there)
    Differs(name, Text(value),
            reader_.keys.Has(row.key) ? Says(row.key, fmt::format("{}", there))
                                      : Lacks(row.key, fmt::format("{}", there)));
  return {};
}

// 1: the layer has one.
Status Fields::Unrotated(const FieldRow&, const std::string& name, const Json& value) {
  if (!value.is_array()) return Wrong(name, "a list");
  if (!reader_.params) return {};
  for (size_t layer = 0; layer < value.size(); layer++) {
    const bool rotates = reader_.params->rotates(static_cast<int64_t>(layer));
    if (value[layer] == (rotates ? 1 : 0) || value[layer] == rotates) continue;
    Differs(fmt::format("{}[{}]", name, layer), Text(value[layer]),
            fmt::format("is of architecture {}, whose layer {} is {}", reader_.params->architecture, layer,
                        rotates ? "rotated" : "not rotated"));
    break;
  }
  return {};
}

Status Fields::Scale(const FieldRow& row, const std::string& name, const Json& value) {
  const KeyRow* key = FindKey(ArchitectureKeys(), row.key);
  if (!reader_.architecture || (reader_.architecture->options & key->option) == 0)
    return Neutral(row, name, value);
  if (!value.is_number()) return Wrong(name, "a number");
  if (!reader_.params || reader_.keys.Has(row.key)) return Real(name, value, row.key, std::nullopt, nullptr);
  const float here = static_cast<float>(value.get<double>());
  const HyperParameters& p = *reader_.params;
  const float taken = row.key == "attn_logit_softcapping"    ? p.score_cap
                      : row.key == "final_logit_softcapping" ? p.logit_cap
                      : row.key == "attention.scale"         ? p.attention_scale
                                                             : 1;
  if (here != taken) Differs(name, Text(value), Lacks(row.key, fmt::format("{}", taken)));
  return {};
}

// Gemma's scores are divided by its root.
Status Fields::QueryScalar(const FieldRow& row, const std::string& name, const Json& value) {
  if (!reader_.architecture || !reader_.architecture->scales_embeddings) return Neutral(row, name, value);
  if (!value.is_number()) return Wrong(name, "a number");
  if (!reader_.params) return {};
  const double there =
      1 / (double(reader_.params->attention_scale) * double(reader_.params->attention_scale));
  if (std::fabs(value.get<double>() - there) > 1e-5 * there)
    Differs(name, Text(value),
            fmt::format("is of a shape whose scores are divided by the root of {:.6g}", there));
  return {};
}

// Of architectures that have none, as a field that is not offered.
Status Fields::Experts(const FieldRow& row, const std::string& name, const Json& value) {
  const bool offered = reader_.architecture && (reader_.architecture->options & kMayHaveExperts) != 0;
  if (!offered) return Neutral(row, name, value);
  if (!value.is_number_integer()) return Wrong(name, "a whole number");
  if (!reader_.params) return {};
  const pb::Experts& e = reader_.params->experts;
  const int64_t there = row.key == "expert_count"                 ? e.n
                        : row.key == "expert_used_count"          ? e.n_used
                        : row.key == "expert_feed_forward_length" ? e.d_ff
                                                                  : reader_.params->d_ff;
  if (value == there) return {};
  const std::string text = fmt::format("{}", there);
  Differs(name, Text(value), reader_.keys.Has(row.key) ? Says(row.key, text) : Lacks(row.key, text));
  return {};
}

Status Fields::Normalised(const FieldRow& row, const std::string& name, const Json& value) {
  if (!value.is_boolean()) return Wrong(name, "true or false");
  if (!reader_.params || reader_.params->experts.n == 0) return Neutral(row, name, value);
  if (value.get<bool>() != reader_.params->experts.normalised)
    Differs(name, Text(value),
            fmt::format("is of architecture {}, whose weights of experts are {}normalised",
                        reader_.params->architecture, reader_.params->experts.normalised ? "" : "not "));
  return {};
}

Status Fields::SwigluLimit(const FieldRow&, const std::string& name, const Json& value) {
  if (!value.is_number()) return Wrong(name, "a number");
  if (!reader_.params) return {};
  const bool capped =
      reader_.params->ffn_activation && reader_.params->ffn_activation->value == Activation::kSwigluOai;
  if (!capped)
    Unheard(name, value, "decides a cap of what the gate multiplies, which is not offered");
  else if (value.get<double>() != double(kSwigluOaiLimit))
    Differs(name, Text(value),
            fmt::format("is of architecture {}, which caps at {}", reader_.params->architecture,
                        kSwigluOaiLimit));
  return {};
}

Status Fields::Parallel(const FieldRow& row, const std::string& name, const Json& value) {
  const bool offered = reader_.architecture && (reader_.architecture->options & kMayBeParallel) != 0;
  if (!offered) return Neutral(row, name, value);
  if (!value.is_boolean()) return Wrong(name, "true or false");
  if (reader_.params && value.get<bool>() == reader_.params->ops.Contains(PB_STAGE_FFN_NORM))
    Differs(name, Text(value),
            value.get<bool>() ? "has a second norm in its layers" : "has no second norm in its layers");
  return {};
}

Status Fields::ModelType(const FieldRow&, const std::string& name, const Json& value) {
  if (!value.is_string()) return Wrong(name, "a string");
  std::string_view rest = reader_.architecture->model_types;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(' '), rest.size());
    if (rest.substr(0, end) == value.get<std::string>()) return {};
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  Unheard(name, value,
          fmt::format("is no family that is converted into architecture {}", reader_.architecture->name));
  return {};
}

// Engines take the model file's ids, so this decides nothing; a text made elsewhere may begin or
// end otherwise.
Status Fields::TokenId(const FieldRow& row, const std::string& name, const Json& value) {
  auto there = reader_.keys.file().Uint(row.key);
  if (!there.ok()) return {};
  if (value.is_array() ? std::find(value.begin(), value.end(), Json(*there)) != value.end()
                       : !value.is_number_integer() || value == *there)
    return {};
  Note(name, fmt::format("{}: {} says {}, {} says {} ({}), which counts", name, path_, Text(value),
                         reader_.model_name, *there, row.key));
  return {};
}

Status Fields::Neutral(const FieldRow& row, const std::string& name, const Json& value) {
  std::string_view rest = row.neutral;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(' '), rest.size());
    const Json neutral = Json::parse(rest.substr(0, end), nullptr, false);
    if (value == neutral || (value.is_string() && value.get<std::string>() == rest.substr(0, end))) return {};
    if ((neutral == 0 || neutral == false) && (value == false || value == 0)) return {};
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  Unheard(name, value, fmt::format("decides {}, which is not offered", row.decides));
  return {};
}

}  // namespace config

Status ReadConfigJson(const std::filesystem::path& path, const ConfigReader& reader) {
  PB_ASSIGN(config::Json json, config::ParseObject(path));
  return config::Fields(path, reader).Read(json);
}

std::vector<ConfigFieldText> ConfigFields() {
  std::vector<ConfigFieldText> fields;
  for (const config::FieldRow& row : config::FieldTable())
    fields.push_back({row.field, row.decides, row.check == nullptr});
  return fields;
}

}  // namespace pb

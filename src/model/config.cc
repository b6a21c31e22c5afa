// Reads a config.json field by field through one table: what each decides, and how it is held
// against the model file.
#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json_text.h"
#include "base/text.h"
#include "model/rope_freqs.h"

namespace pb {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxConfigBytes = 4 << 20;

Result<Json> ParseObject(const std::filesystem::path& path) {
  PB_ASSIGN(std::string text, ReadFile(path, kMaxConfigBytes));
  auto json = ParseJson(text);
  if (!json.ok()) return std::move(json).error().In(path.string());
  if (!json->is_object()) return MakeError(Code::kMalformed, "{}: no JSON object", path.string());
  return json;
}

// A value for people: at most 64 characters.
std::string Text(const Json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : DumpJson(value);
  return text.size() > 64 ? text.substr(0, 61) + "..." : text;
}

class Fields;
struct FieldRow {
  std::string_view field;  // a * at the end stands for any rest
  // Holds the value against the model file; null: the field decides nothing.
  Status (Fields::*check)(const FieldRow& row, const std::string& name, const Json& value);
  std::string_view decides;  // what; why it decides nothing
  std::string_view key;      // of the model file
  std::string_view neutral;  // values that change nothing, with blanks between
};

// Compares fields of one config with what the model file says.
class Fields {
 public:
  Fields(const std::filesystem::path& path, const ConfigReader& reader)
      : path_(path.string()), reader_(reader) {}

  Status Read(const Json& json);

  // The checks that the table names.
  Status Count(const FieldRow& row, const std::string& name, const Json& value);
  Status Vocabulary(const FieldRow& row, const std::string& name, const Json& value);
  Status Context(const FieldRow& row, const std::string& name, const Json& value);
  Status Epsilon(const FieldRow& row, const std::string& name, const Json& value);
  Status RopeBase(const FieldRow& row, const std::string& name, const Json& value);
  Status RopeScaling(const FieldRow& row, const std::string& name, const Json& value);
  Status RotatedPart(const FieldRow& row, const std::string& name, const Json& value);
  Status ActivationName(const FieldRow& row, const std::string& name, const Json& value);
  Status Tied(const FieldRow& row, const std::string& name, const Json& value);
  Status Bias(const FieldRow& row, const std::string& name, const Json& value);
  Status Window(const FieldRow& row, const std::string& name, const Json& value);
  Status LayerTypes(const FieldRow& row, const std::string& name, const Json& value);
  Status Pattern(const FieldRow& row, const std::string& name, const Json& value);
  Status LocalBase(const FieldRow& row, const std::string& name, const Json& value);
  Status Unrotated(const FieldRow& row, const std::string& name, const Json& value);
  Status Scale(const FieldRow& row, const std::string& name, const Json& value);
  Status QueryScalar(const FieldRow& row, const std::string& name, const Json& value);
  Status ModelType(const FieldRow& row, const std::string& name, const Json& value);
  Status TokenId(const FieldRow& row, const std::string& name, const Json& value);
  Status Neutral(const FieldRow& row, const std::string& name, const Json& value);

 private:
  Status ReadAll(const Json& json, const std::string& prefix);
  void ReadShape(const Json& json);

  Error Wrong(const std::string& name, const char* expected) const {
    return MakeError(Code::kMalformed, "{}: {} is not {}", path_, name, expected);
  }
  // A contradiction: what the config says, and what the model file does. `choices`: settings of
  // which each decides it.
  void Differs(const std::string& name, const std::string& here, const std::string& there,
               std::vector<std::string> choices = {}, int64_t beyond = 0) {
    reader_.doubts->push_back(
        {Doubt::Kind::kContradiction, name,
         fmt::format("{}: {} says {}, {} {}", name, path_, here, reader_.model_name, there),
         std::move(choices), beyond});
  }
  void Note(const std::string& name, std::string text) {
    reader_.doubts->push_back({Doubt::Kind::kNote, name, std::move(text)});
  }
  void Unheard(const std::string& name, const Json& value, std::string_view why) {
    if (!reader_.architecture) return;
    reader_.doubts->push_back(
        {Doubt::Kind::kUnheard, name, fmt::format("{} of {} ({}) {}", name, path_, Text(value), why)});
  }
  // "says 10000 (llama.rope.freq_base)"
  std::string Says(std::string_view key, const std::string& value) const {
    return fmt::format("says {} ({})", value, reader_.keys.Full(key));
  }
  std::string Lacks(std::string_view key, const std::string& taken) const {
    return fmt::format("has no {}, for which engines take {}", reader_.keys.Full(key), taken);
  }
  // Equal as float32, which is what model files store; `taken`: what engines take where the file
  // has no such key; `setting`: which decides it, null: none does.
  Status Real(const std::string& name, const Json& value, std::string_view key, std::optional<float> taken,
              const char* setting);
  Status LlamaThree(const std::string& name, const Json& rope);
  bool HasTensor(const char* name) const { return reader_.keys.file().FindTensor(name) != nullptr; }

  const std::string path_;
  const ConfigReader& reader_;
  bool other_shape_ = false;  // layers, widths or heads differ: it describes another model
  int64_t n_ctx_ = 0;         // max_position_embeddings; 0: not said
  bool no_window_ = false;    // use_sliding_window is false
};

constexpr std::string_view kStored = "how the checkpoint is stored or loaded";
constexpr std::string_view kTraining = "training alone";
constexpr std::string_view kGeneration = "how tokens are chosen";
constexpr std::string_view kInterface = "what transformers hands back";
constexpr std::string_view kTask = "heads of other tasks";
constexpr std::string_view kLayerNorm = "of LayerNorm, which these architectures have not";

// The fields that transformers' LlamaConfig, MistralConfig, BitNetConfig and PretrainedConfig
// write, in every place where its versions put them, and what checkpoints of these families add.
constexpr FieldRow kFields[] = {
    {"num_hidden_layers", &Fields::Count, "number of layers", "block_count", ""},
    {"hidden_size", &Fields::Count, "width of the residual stream", "embedding_length", ""},
    {"intermediate_size", &Fields::Count, "width of the FFN", "feed_forward_length", ""},
    {"num_attention_heads", &Fields::Count, "query heads", "attention.head_count", ""},
    {"num_key_value_heads", &Fields::Count, "key and value heads", "attention.head_count_kv", ""},
    {"head_dim", &Fields::Count, "dimensions of a head", "attention.key_length", ""},
    {"vocab_size", &Fields::Vocabulary, "number of tokens", "vocab_size", ""},
    {"max_position_embeddings", &Fields::Context, "positions the model was trained for", "context_length",
     ""},
    {"rms_norm_eps", &Fields::Epsilon, "epsilon of every RMSNorm", "attention.layer_norm_rms_epsilon", ""},
    {"norm_eps", &Fields::Epsilon, "the same", "attention.layer_norm_rms_epsilon", ""},
    {"rms_norm_epsilon", &Fields::Epsilon, "the same", "attention.layer_norm_rms_epsilon", ""},
    {"rope_theta", &Fields::RopeBase, "base of the rotation's angles", "rope.freq_base", ""},
    {"rotary_emb_base", &Fields::RopeBase, "the same", "rope.freq_base", ""},
    {"rope_scaling", &Fields::RopeScaling, "how positions are scaled", "rope.scaling.factor", ""},
    {"rope_parameters", &Fields::RopeScaling, "base and scaling, as transformers 5 has them",
     "rope.freq_base", ""},
    {"partial_rotary_factor", &Fields::RotatedPart, "part of a head that is rotated", "rope.dimension_count",
     ""},
    {"rotary_pct", &Fields::RotatedPart, "the same", "rope.dimension_count", ""},
    {"rope_pct", &Fields::RotatedPart, "the same", "rope.dimension_count", ""},
    {"hidden_act", &Fields::ActivationName, "the FFN's activation", "hidden_activation", ""},
    {"hidden_activation", &Fields::ActivationName, "the same", "hidden_activation", ""},
    {"activation_function", &Fields::ActivationName, "the same", "hidden_activation", ""},
    {"tie_word_embeddings", &Fields::Tied, "whether the output matrix is the embedding", "", ""},
    {"attention_bias", &Fields::Bias, "biases of Q, K, V and O", "attn_q", ""},
    {"qkv_bias", &Fields::Bias, "biases of Q, K and V", "attn_q", ""},
    {"mlp_bias", &Fields::Bias, "biases of the FFN", "ffn_up", ""},
    {"sliding_window", &Fields::Window, "how far back attention sees", "attention.sliding_window", ""},
    {"layer_types", &Fields::LayerTypes, "which attention each layer has", "", ""},
    {"sliding_window_pattern", &Fields::Pattern, "which attention each layer has", "", ""},
    {"_sliding_window_pattern", &Fields::Pattern, "the same", "", ""},
    {"rope_local_base_freq", &Fields::LocalBase, "base of the rotation in layers with a window",
     "rope.freq_base_swa", ""},
    {"no_rope_layers", &Fields::Unrotated, "which layers have a rotary embedding", "", ""},
    {"no_rope_layer_interval", nullptr, "read as no_rope_layers", "", ""},
    {"model_type", &Fields::ModelType, "the family", "", ""},
    {"bos_token_id", &Fields::TokenId, "the token that begins a text", "tokenizer.ggml.bos_token_id", ""},
    {"eos_token_id", &Fields::TokenId, "the token that ends a text", "tokenizer.ggml.eos_token_id", ""},

    {"attn_logit_softcapping", &Fields::Scale, "a cap of the scores", "attn_logit_softcapping", "0"},
    {"final_logit_softcapping", &Fields::Scale, "a cap of the logits", "final_logit_softcapping", "0"},
    {"logits_scaling", &Fields::Scale, "a scale of the logits", "logit_scale", "1"},
    {"logit_scale", &Fields::Neutral, "a scale of the logits", "", "1"},
    {"residual_multiplier", &Fields::Scale, "a scale of what is added to the residual stream",
     "residual_scale", "1"},
    {"embedding_multiplier", &Fields::Scale, "a scale of the embeddings", "embedding_scale", "1"},
    {"attention_multiplier", &Fields::Scale, "the scale of the scores", "attention.scale", ""},
    {"query_pre_attn_scalar", &Fields::QueryScalar, "the scale of the scores", "", ""},
    {"scale_emb", &Fields::Neutral, "a scale of the embeddings", "", "1"},
    {"clip_qkv", &Fields::Neutral, "a limit on queries, keys and values", "", "0"},
    {"use_qk_norm", &Fields::Neutral, "norms of queries and keys", "", "false"},
    {"qk_norm", &Fields::Neutral, "norms of queries and keys", "", "false"},
    {"qk_layernorm", &Fields::Neutral, "norms of queries and keys", "", "false"},
    {"num_experts", &Fields::Neutral, "experts", "", "0"},
    {"num_local_experts", &Fields::Neutral, "experts", "", "0"},
    {"n_routed_experts", &Fields::Neutral, "experts", "", "0"},
    {"n_shared_experts", &Fields::Neutral, "experts", "", "0"},
    {"num_experts_per_tok", &Fields::Neutral, "experts", "", "0"},
    {"use_parallel_residual", &Fields::Neutral, "attention beside the FFN", "", "false"},
    {"parallel_attn", &Fields::Neutral, "attention beside the FFN", "", "false"},
    {"alibi", &Fields::Neutral, "ALiBi", "", "false"},
    {"position_embedding_type", &Fields::Neutral, "how positions are told apart", "", "rope rotary"},
    {"rope_interleaved", &Fields::Neutral, "which dimensions are rotated together", "", "false"},
    {"is_causal", &Fields::Neutral, "whether attention sees what follows", "", "true"},
    {"use_bidirectional_attention", &Fields::Neutral, "whether attention sees what follows", "", "false"},
    {"attention_chunk_size", &Fields::Neutral, "how far back attention sees", "", "0"},
    {"attn_temperature_tuning", &Fields::Neutral, "a temperature by position", "", "false"},
    {"use_bias", &Fields::Neutral, "biases", "", "false"},
    {"bias", &Fields::Neutral, "biases", "", "false"},
    {"is_encoder_decoder", &Fields::Neutral, "an encoder", "", "false"},
    {"add_cross_attention", &Fields::Neutral, "an encoder", "", "false"},
    {"tie_encoder_decoder", &Fields::Neutral, "an encoder", "", "false"},
    {"per_layer_config", &Fields::Neutral, "other values in some layers", "", "{}"},
    {"pruned_heads", &Fields::Neutral, "heads left out", "", "{}"},
    {"vision_config", &Fields::Neutral, "images, which a text has not", "", "{}"},

    {"use_sliding_window", nullptr, "read with sliding_window", "", ""},
    {"max_window_layers", nullptr, "of a window alone", "", ""},
    {"layer_norm_eps", nullptr, kLayerNorm, "", ""},
    {"layer_norm_epsilon", nullptr, kLayerNorm, "", ""},
    {"norm_epsilon", nullptr, kLayerNorm, "", ""},
    {"architectures", nullptr, "a class of transformers; the family is model_type", "", ""},
    {"auto_map", nullptr, kStored, "", ""},
    {"torch_dtype", nullptr, kStored, "", ""},
    {"dtype", nullptr, kStored, "", ""},
    {"transformers_version", nullptr, kStored, "", ""},
    {"transformers.js_config", nullptr, kStored, "", ""},
    {"transformers_weights", nullptr, kStored, "", ""},
    {"name_or_path", nullptr, kStored, "", ""},
    {"_*", nullptr, "transformers' own", "", ""},
    {"quantization_config", nullptr, kStored, "", ""},
    {"quantization", nullptr, kStored, "", ""},
    {"compression_config", nullptr, kStored, "", ""},
    {"input_bits", nullptr, kStored, "", ""},
    {"weight_bits", nullptr, kStored, "", ""},
    {"is_bitnet_config", nullptr, kStored, "", ""},
    {"is_llama_config", nullptr, kStored, "", ""},
    {"tokenizer_class", nullptr, "the tokeniser's class; the model file has its tables", "", ""},
    {"original_max_position_embeddings", nullptr, "of scaling alone", "", ""},
    {"pretraining_tp", nullptr, "in how many slices products were computed", "", ""},
    {"use_cache", nullptr, "speed alone", "", ""},
    {"use_bfloat16", nullptr, kStored, "", ""},
    {"torchscript", nullptr, kInterface, "", ""},
    {"chunk_size_feed_forward", nullptr, "speed alone", "", ""},
    {"attn_implementation", nullptr, "speed alone", "", ""},
    {"is_decoder", nullptr, kInterface, "", ""},
    {"cross_attention_hidden_size", nullptr, "of an encoder alone", "", ""},
    {"initializer_range", nullptr, kTraining, "", ""},
    {"attention_dropout", nullptr, kTraining, "", ""},
    {"hidden_dropout", nullptr, kTraining, "", ""},
    {"hidden_dropout_prob", nullptr, kTraining, "", ""},
    {"resid_pdrop", nullptr, kTraining, "", ""},
    {"embd_pdrop", nullptr, kTraining, "", ""},
    {"gradient_checkpointing", nullptr, kTraining, "", ""},
    {"router_aux_loss_coef", nullptr, kTraining, "", ""},
    {"output_router_logits", nullptr, kTraining, "", ""},
    {"router_jitter_noise", nullptr, kTraining, "", ""},
    {"unsloth_*", nullptr, kTraining, "", ""},
    {"tf_legacy_loss", nullptr, kTraining, "", ""},
    {"return_dict*", nullptr, kInterface, "", ""},
    {"use_return_dict", nullptr, kInterface, "", ""},
    {"output_attentions", nullptr, kInterface, "", ""},
    {"output_hidden_states", nullptr, kInterface, "", ""},
    {"output_scores", nullptr, kInterface, "", ""},
    {"id2label", nullptr, kTask, "", ""},
    {"label2id", nullptr, kTask, "", ""},
    {"num_labels", nullptr, kTask, "", ""},
    {"problem_type", nullptr, kTask, "", ""},
    {"finetuning_task", nullptr, kTask, "", ""},
    {"task_specific_params", nullptr, kTask, "", ""},
    {"pad_token_id", nullptr, "nothing is padded", "", ""},
    {"unk_token_id", nullptr, "byte-level BPE knows every text", "", ""},
    {"sep_token_id", nullptr, kTask, "", ""},
    {"decoder_start_token_id", nullptr, "of an encoder alone", "", ""},
    {"prefix", nullptr, kGeneration, "", ""},
    {"do_sample", nullptr, kGeneration, "", ""},
    {"temperature", nullptr, kGeneration, "", ""},
    {"top_k", nullptr, kGeneration, "", ""},
    {"top_p", nullptr, kGeneration, "", ""},
    {"typical_p", nullptr, kGeneration, "", ""},
    {"max_length", nullptr, kGeneration, "", ""},
    {"min_length", nullptr, kGeneration, "", ""},
    {"max_new_tokens", nullptr, kGeneration, "", ""},
    {"num_beams", nullptr, kGeneration, "", ""},
    {"num_beam_groups", nullptr, kGeneration, "", ""},
    {"num_return_sequences", nullptr, kGeneration, "", ""},
    {"diversity_penalty", nullptr, kGeneration, "", ""},
    {"repetition_penalty", nullptr, kGeneration, "", ""},
    {"length_penalty", nullptr, kGeneration, "", ""},
    {"no_repeat_ngram_size", nullptr, kGeneration, "", ""},
    {"encoder_no_repeat_ngram_size", nullptr, kGeneration, "", ""},
    {"early_stopping", nullptr, kGeneration, "", ""},
    {"bad_words_ids", nullptr, kGeneration, "", ""},
    {"suppress_tokens", nullptr, kGeneration, "", ""},
    {"begin_suppress_tokens", nullptr, kGeneration, "", ""},
    {"forced_bos_token_id", nullptr, kGeneration, "", ""},
    {"forced_eos_token_id", nullptr, kGeneration, "", ""},
    {"exponential_decay_length_penalty", nullptr, kGeneration, "", ""},
    {"remove_invalid_values", nullptr, kGeneration, "", ""},
};

// A row of the name alone goes before one that ends with a star.
const FieldRow* FindField(std::string_view name) {
  const FieldRow* found = nullptr;
  for (const FieldRow& row : kFields) {
    const bool star = row.field.ends_with('*');
    const bool matches =
        star ? name.starts_with(row.field.substr(0, row.field.size() - 1)) : name == row.field;
    if (matches && (!found || !star)) found = &row;
  }
  return found;
}

// Of architectures that are not read here, what all of them mean alike.
bool IsCommon(std::string_view name) {
  return name == "rope_theta" || name == "rms_norm_eps" || name == "hidden_size" ||
         name == "num_attention_heads";
}

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

}  // namespace

Status ReadConfigJson(const std::filesystem::path& path, const ConfigReader& reader) {
  PB_ASSIGN(Json json, ParseObject(path));
  return Fields(path, reader).Read(json);
}

std::vector<ConfigFieldText> ConfigFields() {
  std::vector<ConfigFieldText> fields;
  for (const FieldRow& row : kFields) fields.push_back({row.field, row.decides, row.check == nullptr});
  return fields;
}

}  // namespace pb

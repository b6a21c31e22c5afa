// The table of metadata keys, and the typed look-ups that go through it.
#include "model/keys.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace pb {
namespace {

// Names as llama.cpp's converters and quantisers write them.
constexpr KeyRow kArchitectureKeys[] = {
    {"context_length", KeyRole::kUsed, "positions the model was trained for"},
    {"embedding_length", KeyRole::kUsed, "width of the residual stream"},
    {"block_count", KeyRole::kUsed, "number of layers"},
    {"feed_forward_length", KeyRole::kUsed, "width of the FFN"},
    {"vocab_size", KeyRole::kUsed, "number of tokens"},
    {"hidden_activation", KeyRole::kUsed, "the FFN's activation"},
    {"attention.head_count", KeyRole::kUsed, "query heads"},
    {"attention.head_count_kv", KeyRole::kUsed, "key and value heads"},
    {"attention.key_length", KeyRole::kUsed, "dimensions of a head"},
    {"attention.value_length", KeyRole::kUsed, "dimensions of a head's values"},
    {"attention.layer_norm_rms_epsilon", KeyRole::kUsed, "epsilon of every RMSNorm"},
    {"attention.sliding_window", KeyRole::kUsed, "how far back attention sees"},
    {"rope.dimension_count", KeyRole::kUsed, "dimensions of a head that are rotated"},
    {"rope.freq_base", KeyRole::kUsed, "base of the rotation's angles"},
    {"rope.scaling.type", KeyRole::kUsed, "how positions are scaled"},
    {"rope.scaling.factor", KeyRole::kUsed, "what positions are divided by"},
    {"rope.scale_linear", KeyRole::kUsed, "the same, under its old name"},
    {"rope.scaling.original_context_length", KeyRole::kUsed, "positions before they are scaled"},
    {"rope.scaling.attn_factor", KeyRole::kUsed, "a scale of rotated vectors"},
    {"rope.scaling.yarn_beta_fast", KeyRole::kUsed, "YaRN: turns from which a frequency is kept"},
    {"rope.scaling.yarn_beta_slow", KeyRole::kUsed, "YaRN: turns up to which a frequency is divided"},
    {"rope.scaling.yarn_log_multiplier", KeyRole::kUsed, "YaRN: what its attention factor is over"},
    {"attention.layer_norm_epsilon", KeyRole::kUsed, "epsilon of every LayerNorm"},
    {"pooling_type", KeyRole::kNothing, "of embedding models"},
    {"rope.scaling.finetuned", KeyRole::kNothing, "history of the training"},
    {"tensor_data_layout", KeyRole::kNothing, "where the weights came from"},
    {"expert_*", KeyRole::kNothing, "of experts that are chosen otherwise"},

    {"expert_count", KeyRole::kOption, "experts", 0, kMayHaveExperts},
    {"expert_used_count", KeyRole::kOption, "experts that a token uses", 0, kMayHaveExperts},
    {"expert_shared_count", KeyRole::kOption, "experts that all tokens use", 0, kMayHaveExperts},
    {"expert_feed_forward_length", KeyRole::kOption, "width of an expert", 0, kMayHaveExperts},
    {"expert_shared_feed_forward_length", KeyRole::kOption, "width of the shared expert", 0, kMayHaveExperts},
    {"expert_weights_scale", KeyRole::kOption, "a scale of the experts' weights", 0, kMayHaveExperts},
    {"expert_weights_norm", KeyRole::kOption, "whether the experts' weights add up to 1", 0, kMayHaveExperts},
    {"expert_gating_func", KeyRole::kOption, "how the experts' weights are made", 0, kMayHaveExperts},
    {"expert_group_count", KeyRole::kRefused, "experts chosen by groups", 0},
    {"rope.scaling.yarn_ext_factor", KeyRole::kRefused, "how far YaRN mixes frequencies", 1},
    {"rope.scaling.yarn_attn_factor", KeyRole::kRefused, "a scale of rotated vectors", 1},
    {"attention.causal", KeyRole::kRefused, "whether attention sees what follows", 1},
    {"attention.clamp_kqv", KeyRole::kRefused, "a limit on queries, keys and values", 0},
    {"attention.max_alibi_bias", KeyRole::kRefused, "ALiBi", 0},
    {"attention.scale", KeyRole::kOption, "the scale of the scores", 0, kScales},
    {"attention.output_scale", KeyRole::kRefused, "a scale of the attention's output", 0},
    {"attention.value_scale", KeyRole::kRefused, "a scale of the values", 0},
    {"attention.temperature_length", KeyRole::kRefused, "a temperature by position", 0},
    {"attention.temperature_scale", KeyRole::kRefused, "a temperature by position", 0},
    {"attention.sliding_window_pattern", KeyRole::kOption, "which layers have a window", 0, kWindows},
    {"rope.freq_base_swa", KeyRole::kOption, "base of the rotation in layers with a window", 0, kWindows},
    {"attention.shared_kv_layers", KeyRole::kRefused, "layers that share keys and values", 0},
    {"attn_logit_softcapping", KeyRole::kOption, "a cap of the scores", 0, kScoreCap},
    {"final_logit_softcapping", KeyRole::kOption, "a cap of the logits", 0, kLogitCap},
    {"rope.scaling.alpha", KeyRole::kRefused, "NTK scaling", 0},
    {"logit_scale", KeyRole::kOption, "a scale of the logits", 0, kScales},
    {"residual_scale", KeyRole::kOption, "a scale of what is added to the residual stream", 0, kScales},
    {"embedding_scale", KeyRole::kOption, "a scale of the embeddings", 0, kScales},
    {"nextn_predict_layers", KeyRole::kRefused, "layers that predict further tokens", 0},
    {"use_parallel_residual", KeyRole::kOption, "attention beside the FFN", 0, kMayBeParallel},
    {"swin_norm", KeyRole::kRefused, "norms behind instead of before", 0},
    {"rescale_every_n_layers", KeyRole::kRefused, "a scale of the residual stream", 0},
};

// general.name reaches the tokeniser as it does in llama.cpp.
constexpr KeyRow kOtherKeys[] = {
    {"general.architecture", KeyRole::kUsed, "the architecture"},
    {"general.alignment", KeyRole::kUsed, "where tensors begin"},
    {"general.name", KeyRole::kUsed, "white space round special tokens, for some names"},
    {"general.*", KeyRole::kNothing, "about the model, its makers and its sources"},
    {"split.*", KeyRole::kNothing, "how the file was cut"},
    {"quantize.*", KeyRole::kNothing, "how the weights were quantised"},
    {"imatrix.*", KeyRole::kNothing, "how the weights were quantised"},
    {"mradermacher.*", KeyRole::kNothing, "who quantised the weights"},
    {"unsloth.*", KeyRole::kNothing, "who made the file"},
    {"tokenizer.ggml.model", KeyRole::kUsed, "the kind of tokeniser"},
    {"tokenizer.ggml.pre", KeyRole::kUsed, "how text is cut into words"},
    {"tokenizer.ggml.tokens", KeyRole::kUsed, "the vocabulary"},
    {"tokenizer.ggml.merges", KeyRole::kUsed, "the merges"},
    {"tokenizer.ggml.token_type", KeyRole::kUsed, "control tokens and others"},
    {"tokenizer.ggml.scores", KeyRole::kUsed, "which neighbours SentencePiece joins first"},
    {"tokenizer.ggml.token_type_count", KeyRole::kNothing, "of BERT"},
    {"tokenizer.ggml.bos_token_id", KeyRole::kUsed, "the token that begins a text"},
    {"tokenizer.ggml.eos_token_id", KeyRole::kUsed, "the token that ends a text"},
    {"tokenizer.ggml.eot_token_id", KeyRole::kUsed, "the token that ends a turn"},
    {"tokenizer.ggml.eom_token_id", KeyRole::kUsed, "the token that ends a message"},
    {"tokenizer.ggml.fim_*", KeyRole::kUsed, "tokens of fill-in-the-middle"},
    {"tokenizer.ggml.prefix_token_id", KeyRole::kUsed, "the same, under its old name"},
    {"tokenizer.ggml.suffix_token_id", KeyRole::kUsed, "the same, under its old name"},
    {"tokenizer.ggml.middle_token_id", KeyRole::kUsed, "the same, under its old name"},
    {"tokenizer.ggml.add_bos_token", KeyRole::kUsed, "whether BOS is put before a text"},
    {"tokenizer.ggml.add_eos_token", KeyRole::kUsed, "whether EOS is put behind a text"},
    {"tokenizer.ggml.add_sep_token", KeyRole::kNothing, "of BERT"},
    {"tokenizer.ggml.unknown_token_id", KeyRole::kUsed, "what stands for text without a token"},
    {"tokenizer.ggml.seperator_token_id", KeyRole::kUsed, "the token that ends a text of WordPiece"},
    {"tokenizer.ggml.padding_token_id", KeyRole::kNothing, "nothing is padded"},
    {"tokenizer.ggml.cls_token_id", KeyRole::kNothing, "of BERT"},
    {"tokenizer.ggml.mask_token_id", KeyRole::kNothing, "of BERT"},
    {"tokenizer.ggml.add_space_prefix", KeyRole::kUsed, "whether SentencePiece puts a space before a text"},
    {"tokenizer.ggml.remove_extra_whitespaces", KeyRole::kUsed, "whether Unigram joins blanks"},
    {"tokenizer.ggml.precompiled_charsmap", KeyRole::kUsed, "how Unigram normalises text"},
    {"tokenizer.ggml.suppress_tokens", KeyRole::kNothing, "which tokens are sampled"},
    {"tokenizer.huggingface.json", KeyRole::kNothing, "the tables again, in another form"},
    {"tokenizer.rwkv.world", KeyRole::kNothing, "of RWKV"},
    {"tokenizer.chat_template", KeyRole::kUsed, "how infer --chat frames a prompt"},
    {"tokenizer.chat_template.*", KeyRole::kNothing, "other frames"},
    {"tokenizer.chat_templates", KeyRole::kNothing, "other frames"},
};

bool Matches(const KeyRow& row, std::string_view key) {
  if (!row.key.ends_with('*')) return row.key == key;
  return key.starts_with(row.key.substr(0, row.key.size() - 1));
}

}  // namespace

std::span<const KeyRow> ArchitectureKeys() { return kArchitectureKeys; }
std::span<const KeyRow> OtherKeys() { return kOtherKeys; }

// A row of the key alone goes before one that ends with a star.
const KeyRow* FindKey(std::span<const KeyRow> rows, std::string_view key) {
  const KeyRow* found = nullptr;
  for (const KeyRow& row : rows)
    if (Matches(row, key) && (!found || row.key == key)) found = &row;
  return found;
}

std::string Keys::Full(std::string_view key) const {
  const KeyRow* row = FindKey(kArchitectureKeys, key);
  PB_CHECK(row && (row->role == KeyRole::kUsed || row->role == KeyRole::kOption));
  asked_.emplace(key);
  return prefix_ + std::string(key);
}

Result<int64_t> Keys::Count(std::string_view key) const {
  std::string full = Full(key);
  const GgufValue* value = file_.Find(full);
  if (!value) return MakeError(Code::kMalformed, "metadata key {} is missing", full);
  PB_ASSIGN(uint64_t n, Number(full, *value));
  if (n < 1 || n > (1u << 24)) {
    return MakeError(Code::kMalformed, "byte {}: key {} is {}, expected 1 to {}", value->offset, full, n,
                     1u << 24);
  }
  return static_cast<int64_t>(n);
}

Result<int64_t> Keys::CountOr(std::string_view key, int64_t otherwise) const {
  if (!Has(key)) return otherwise;
  return Count(key);
}

Result<double> Keys::Real(std::string_view key, double least) const {
  std::string full = Full(key);
  auto value = file_.Float(full);
  if (!value.ok() && value.error().code == Code::kNotFound) {
    return MakeError(Code::kMalformed, "metadata key {} is missing", full);
  }
  if (!value.ok()) return value;
  if (!std::isfinite(*value) || *value < least) {
    return MakeError(Code::kMalformed, "byte {}: key {} is {}", file_.Find(full)->offset, full, *value);
  }
  return value;
}

Result<std::vector<bool>> Keys::Flags(std::string_view key) const {
  const std::string full = Full(key);
  const GgufValue* value = file_.Find(full);
  std::vector<bool> flags;
  if (const auto* u = value ? std::get_if<std::vector<uint64_t>>(&value->value) : nullptr)
    flags.assign(u->begin(), u->end());
  else if (const auto* i = value ? std::get_if<std::vector<int64_t>>(&value->value) : nullptr)
    flags.assign(i->begin(), i->end());
  if (flags.empty()) return MakeError(Code::kMalformed, "key {} is no array of truths, one a layer", full);
  return flags;
}

Result<uint64_t> Keys::Number(const std::string& full, const GgufValue& value) const {
  if (value.type != GgufType::kArray) return file_.Uint(full);
  std::vector<uint64_t> all;
  if (auto* u = std::get_if<std::vector<uint64_t>>(&value.value)) all = *u;
  if (auto* i = std::get_if<std::vector<int64_t>>(&value.value)) all.assign(i->begin(), i->end());
  if (all.empty()) return MakeError(Code::kMalformed, "byte {}: key {} holds no numbers", value.offset, full);
  if (std::any_of(all.begin(), all.end(), [&](uint64_t n) { return n != all[0]; })) {
    return MakeError(Code::kUnsupported, "byte {}: key {} differs between layers, which is not supported",
                     value.offset, full);
  }
  return all[0];
}

std::string ValueText(const GgufValue& value) {
  if (auto* u = std::get_if<uint64_t>(&value.value)) return fmt::format("{}", *u);
  if (auto* i = std::get_if<int64_t>(&value.value)) return fmt::format("{}", *i);
  // A float32 is shown by the digits that make it.
  if (auto* d = std::get_if<double>(&value.value))
    return value.type == GgufType::kF32 ? fmt::format("{}", static_cast<float>(*d)) : fmt::format("{}", *d);
  if (auto* b = std::get_if<bool>(&value.value)) return *b ? "true" : "false";
  if (auto* s = std::get_if<std::string>(&value.value)) return s->substr(0, 64);
  return "an array";
}

}  // namespace pb

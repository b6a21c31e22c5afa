// Hyper-parameters from GGUF metadata: the architecture table, defaults of missing keys, and what
// is refused by name.
#include "model/hyper.h"

#include <cmath>

namespace pb {
namespace {

using stages::kDense, stages::kExperts, stages::kHeadNorms, stages::kInputNorms, stages::kPostNorms,
    stages::kPreNorms, stages::kSharedExpert, stages::kSubNorms;

// Fields that are not named are as Architecture has them.
constexpr Architecture BitNet(std::string_view name) {
  Architecture a{name, RopePairing::kHalves, "bitnet llama", "BitNetForCausalLM"};
  a.optional = kPreNorms | kSubNorms | kDense;
  a.activation = std::nullopt, a.full_rotation = false;
  return a;
}

constexpr Architecture Qwen2() {
  Architecture a{"qwen2", RopePairing::kHalves, "qwen2", "Qwen2ForCausalLM"};
  a.biased = {PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_V_PROJ};
  return a;
}

// BitNet's embedding models: a norm before each of the seven projections of a layer, in the file of a
// backbone that has none (microsoft/BitNet, utils/convert-bitnet-embedding-to-gguf.py).
constexpr void AddInputNorms(Architecture* a) {
  a->may_have |= kInputNorms, a->together = kInputNorms;
  a->renamed = {RenamedTensor{PB_STAGE_ATTN_SUB_NORM, "attn_output_norm_in"},
                RenamedTensor{PB_STAGE_FFN_SUB_NORM, "ffn_down_norm_in"}};
}

constexpr Architecture Qwen3() {
  Architecture a{"qwen3", RopePairing::kHalves, "qwen3", "Qwen3ForCausalLM"};
  a.optional |= kHeadNorms;
  AddInputNorms(&a);
  return a;
}

constexpr Architecture Phi3() {
  Architecture a{"phi3", RopePairing::kHalves, "phi3", "Phi3ForCausalLM"};
  a.full_rotation = false, a.scale_queries = true, a.fused = true;
  return a;
}

// Norms on both sides, and embeddings scaled (Gemma Team 2024, "Gemma 2", section 2).
constexpr Architecture Gemma2() {
  Architecture a{"gemma2", RopePairing::kHalves, "gemma2", "Gemma2ForCausalLM"};
  a.optional |= kPostNorms;
  a.activation = Activation::kGeluTanh;
  a.scale_queries = a.scales_embeddings = true;
  a.tied = true;
  a.options = kWindows | kScoreCap | kLogitCap;
  a.window_period = 2, a.layers_of_largest = 46;
  a.usual_window = 4096, a.usual_score_cap = 50, a.usual_logit_cap = 30;
  return a;
}

// Norms of queries and keys in place of the caps (Gemma Team 2025, "Gemma 3", section 2).
constexpr Architecture Gemma3() {
  Architecture a = Gemma2();
  a.name = "gemma3", a.model_types = "gemma3_text gemma3", a.hf_class = "Gemma3ForCausalLM";
  a.optional |= kHeadNorms;
  a.options = kWindows | kLogitCap;
  a.window_period = 6, a.local_rope_as_global = false, a.layers_of_largest = 62;
  a.usual_window = 0, a.usual_score_cap = 0, a.usual_logit_cap = 0;
  AddInputNorms(&a);
  return a;
}

// Norms behind attention and FFN alone (OLMo Team 2024, "2 OLMo 2 Furious", section 3).
constexpr Architecture Olmo2() {
  Architecture a{"olmo2", RopePairing::kHalves, "olmo2", "Olmo2ForCausalLM"};
  a.optional = kPostNorms | kHeadNorms | kDense, a.norms_rows = true;
  a.tied = false;
  return a;
}

constexpr Architecture Granite() {
  Architecture a{"granite", RopePairing::kAdjacent, "granite", "GraniteForCausalLM"};
  a.options = kScales;
  return a;
}

constexpr Architecture SmolLm3() {
  Architecture a{"smollm3", RopePairing::kAdjacent, "smollm3", "SmolLM3ForCausalLM"};
  a.unrotated_every = 4;
  return a;
}

// GGUF files of `llama` hold Q and K with rows permuted for adjacent pairs. With experts it is
// Mixtral, whose weights are a softmax of the chosen logits: that of all, over the sum of the chosen
// (Jiang et al. 2024, "Mixtral of Experts", section 2.1).
constexpr Architecture Llama() {
  Architecture a{"llama", RopePairing::kAdjacent, "llama mistral mixtral", "LlamaForCausalLM"};
  a.options = kMayHaveExperts;
  a.experts_of_full_width = a.normalised_experts = true;
  return a;
}

constexpr Architecture Mistral3() {
  Architecture a = Llama();
  a.name = "mistral3", a.model_types = "ministral3 mistral3 mistral", a.hf_class = "Ministral3ForCausalLM";
  a.options = kNoOption;
  return a;
}

// The softmax is over all experts, and the weights are not normalised; beside them stands one that
// every token uses, as much as its gate says (Qwen Team 2024, "Qwen1.5-MoE").
constexpr Architecture Qwen2Moe() {
  Architecture a = Qwen2();
  a.name = "qwen2moe", a.model_types = "qwen2_moe", a.hf_class = "Qwen2MoeForCausalLM";
  a.optional |= kExperts | kSharedExpert;
  a.options = kMayHaveExperts;
  a.tied = false;
  a.renamed = {RenamedTensor{PB_STAGE_GATE_PROJ, "ffn_gate_shexp"},
               RenamedTensor{PB_STAGE_UP_PROJ, "ffn_up_shexp"},
               RenamedTensor{PB_STAGE_DOWN_PROJ, "ffn_down_shexp"}};
  return a;
}

constexpr Architecture Qwen3Moe() {
  Architecture a = Qwen3();
  a.name = "qwen3moe", a.model_types = "qwen3_moe", a.hf_class = "Qwen3MoeForCausalLM";
  a.optional = (a.optional - kDense) | kExperts;
  a.may_have = a.together = {}, a.renamed = {};
  a.options = kMayHaveExperts;
  a.normalised_experts = true;
  return a;
}

// Sinks, a window on every other layer, biases everywhere, the chosen logits' softmax
// (openai/gpt-oss, torch/model.py).
constexpr Architecture GptOss() {
  Architecture a{"gpt-oss", RopePairing::kHalves, "gpt_oss", "GptOssForCausalLM"};
  a.optional = kPreNorms | kExperts;
  a.activation = Activation::kSwigluOai;
  a.biased = {PB_STAGE_Q_PROJ,        PB_STAGE_K_PROJ,      PB_STAGE_V_PROJ,    PB_STAGE_ATTN_OUT,
              PB_STAGE_ROUTER_LOGITS, PB_STAGE_EXPERT_GATE, PB_STAGE_EXPERT_UP, PB_STAGE_EXPERT_DOWN};
  a.options = kWindows | kMayHaveExperts;
  a.window_period = 2, a.attention_sinks = true, a.softmax_of_chosen = true;
  a.tied = false;
  a.renamed = {RenamedTensor{PB_STAGE_FFN_NORM, "post_attention_norm"}};
  return a;
}

// LayerNorm; without a second norm in a layer, attention and the network read the first
// (stabilityai/stablelm-2-12b).
constexpr Architecture StableLm() {
  Architecture a{"stablelm", RopePairing::kHalves, "stablelm", "StableLmForCausalLM"};
  a.optional = stages::Set(PB_STAGE_ATTN_NORM) | kDense, a.may_have = PB_STAGE_FFN_NORM;
  a.options = kMayBeParallel;
  a.full_rotation = false, a.layer_norm = true;
  a.tied = false;
  return a;
}

constexpr Architecture kArchitectures[] = {
    Llama(),
    Mistral3(),
    Qwen2(),
    Qwen2Moe(),
    Qwen3(),
    Qwen3Moe(),
    GptOss(),
    StableLm(),
    Phi3(),
    Gemma2(),
    Gemma3(),
    Olmo2(),
    Granite(),
    SmolLm3(),
    BitNet("bitnet"),
    BitNet("bitnet-25"),
    BitNet("bitnet-b1.58"),
};

}  // namespace

const Architecture* FindArchitecture(std::string_view name) {
  for (const Architecture& a : kArchitectures)
    if (a.name == name) return &a;
  return nullptr;
}

std::string TensorNameIn(const Architecture* architecture, pb_stage stage, int32_t layer,
                         std::string_view part) {
  std::string name;
  if (stages::Of(stage).per_layer) name.append("blk.").append(std::to_string(layer)).append(".");
  const char* tensor = architecture ? architecture->TensorOf(stage) : stages::Of(stage).weight.tensor;
  return name.append(tensor).append(".").append(part);
}

std::string ArchitectureNames() {
  std::string names;
  for (const Architecture& a : kArchitectures)
    names += fmt::format("{}{}", names.empty() ? "" : ", ", a.name);
  return names;
}

Result<const Architecture*> ArchitectureOf(const GgufFile& file) {
  auto name = file.String("general.architecture");
  if (!name.ok() && name.error().code == Code::kNotFound) {
    return MakeError(Code::kMalformed, "metadata key general.architecture is missing");
  }
  if (!name.ok()) return std::move(name).error();
  if (const Architecture* found = FindArchitecture(*name)) return found;
  return MakeError(Code::kUnsupported, "architecture \"{}\" is not supported ({} are)", name->substr(0, 64),
                   ArchitectureNames());
}

namespace {

Result<double> AsNumber(const GgufValue& value) {
  if (auto* u = std::get_if<uint64_t>(&value.value)) return static_cast<double>(*u);
  if (auto* i = std::get_if<int64_t>(&value.value)) return static_cast<double>(*i);
  if (auto* d = std::get_if<double>(&value.value)) return *d;
  if (auto* b = std::get_if<bool>(&value.value)) return *b ? 1.0 : 0.0;
  return MakeError(Code::kUnsupported, "not a number");
}

// Keys whose meaning this architecture does not offer, unless they hold the value that changes
// nothing.
Status CheckRefusedKeys(const Keys& keys, const Architecture& architecture) {
  for (const auto& [name, value] : keys.file().metadata()) {
    if (!name.starts_with(keys.prefix())) continue;
    const KeyRow* row = FindKey(ArchitectureKeys(), std::string_view(name).substr(keys.prefix().size()));
    if (!row || (row->role != KeyRole::kRefused && row->role != KeyRole::kOption)) continue;
    if (row->role == KeyRole::kOption && (architecture.options & row->option) != 0) continue;
    auto number = AsNumber(value);
    if (!number.ok() || *number != row->neutral) {
      return MakeError(Code::kUnsupported,
                       "byte {}: key {} ({}) asks for something that is not supported (only {} is)",
                       value.offset, name, row->decides, row->neutral);
    }
  }
  return {};
}

Status ReadHeads(const Keys& keys, const Architecture& architecture, HyperParameters& p) {
  PB_ASSIGN(p.n_heads, keys.Count("attention.head_count"));
  PB_ASSIGN(p.n_kv_heads, keys.CountOr("attention.head_count_kv", p.n_heads));
  if (p.n_heads % p.n_kv_heads != 0) {
    return MakeError(Code::kMalformed, "{} heads are no multiple of {} KV heads", p.n_heads, p.n_kv_heads);
  }
  if (!keys.Has("attention.key_length") && p.d_model % p.n_heads != 0) {
    return MakeError(Code::kMalformed, "embedding length {} is no multiple of {} heads and {} is missing",
                     p.d_model, p.n_heads, keys.Full("attention.key_length"));
  }
  PB_ASSIGN(p.head_dim, keys.CountOr("attention.key_length", p.d_model / p.n_heads));
  PB_ASSIGN(int64_t value_dim, keys.CountOr("attention.value_length",
                                            p.d_model % p.n_heads == 0 ? p.d_model / p.n_heads : p.head_dim));
  if (value_dim != p.head_dim) {
    return MakeError(Code::kUnsupported,
                     "keys of {} and values of {} per head: unequal lengths are not supported", p.head_dim,
                     value_dim);
  }
  PB_ASSIGN(p.rope_dims, keys.CountOr("rope.dimension_count", p.head_dim));
  if (p.rope_dims > p.head_dim || p.rope_dims % 2 != 0 ||
      (architecture.full_rotation && p.rope_dims != p.head_dim)) {
    return MakeError(Code::kMalformed, "{} is {}: heads have {} dimensions",
                     keys.Full("rope.dimension_count"), p.rope_dims, p.head_dim);
  }
  return {};
}

// YaRN's attention factor (Peng et al. 2023, equation 22), over another where the model has one
// (transformers, modeling_rope_utils.py, _compute_yarn_parameters).
float YarnAttentionFactor(float factor, float log_multiplier) {
  const auto scale = [factor](float m) { return factor <= 1 ? 1.0f : 0.1f * m * std::log(factor) + 1.0f; };
  return log_multiplier != 0 ? scale(1) / scale(log_multiplier) : scale(1);
}

Status ReadRopeScaling(const Keys& keys, HyperParameters& p) {
  std::string type = "linear";
  if (keys.Has("rope.scaling.type")) {
    PB_ASSIGN(type, keys.String("rope.scaling.type"));
  }
  if (type != "linear" && type != "none" && type != "yarn" && type != "longrope") {
    return MakeError(Code::kUnsupported,
                     "rope scaling \"{}\" ({}) is not supported (linear, yarn, longrope and none are)",
                     type.substr(0, 64), keys.Full("rope.scaling.type"));
  }
  p.rope_scale = {1.0f, Origin::kDefault};
  // the new name counts
  for (std::string_view key : {"rope.scale_linear", "rope.scaling.factor"}) {
    if (!keys.Has(key)) continue;
    PB_ASSIGN(double factor, keys.Real(key, 0));
    p.rope_scale = {factor == 0 || type == "none" ? 1.0f : static_cast<float>(factor), Origin::kMetadata};
  }
  RopeStretch& r = p.rope_stretch;
  r.yarn = type == "yarn";
  PB_ASSIGN(r.n_ctx_original, keys.CountOr("rope.scaling.original_context_length", p.n_ctx_train));
  const auto real = [&](std::string_view key, float otherwise) -> Result<float> {
    if (!keys.Has(key)) return otherwise;
    PB_ASSIGN(const double value, keys.Real(key, 0));
    return static_cast<float>(value);
  };
  PB_ASSIGN(r.beta_fast, real("rope.scaling.yarn_beta_fast", r.beta_fast));
  PB_ASSIGN(r.beta_slow, real("rope.scaling.yarn_beta_slow", r.beta_slow));
  PB_ASSIGN(const float log_multiplier, real("rope.scaling.yarn_log_multiplier", 0));
  PB_ASSIGN(r.attention_factor, real("rope.scaling.attn_factor", 1));
  if (r.yarn) r.attention_factor *= YarnAttentionFactor(p.rope_scale.value, log_multiplier);
  return {};
}

// How many experts, how wide, and how they are weighed.
Status ReadExperts(const Keys& keys, const Architecture& architecture, HyperParameters& p) {
  if ((architecture.options & kMayHaveExperts) == 0) return {};
  const GgufValue* count = keys.file().Find(keys.Full("expert_count"));
  const bool must = architecture.optional.Contains(PB_STAGE_ROUTER_LOGITS);
  if (!must && (!count || ValueText(*count) == "0")) return {};
  const std::string router = TensorNameIn(&architecture, PB_STAGE_ROUTER_LOGITS, 0);
  if (!keys.file().FindTensor(router))
    return MakeError(Code::kUnsupported, "{} is {}, and the file has no {}: such experts are not supported",
                     keys.Full("expert_count"), count ? ValueText(*count) : "missing", router);
  Experts& e = p.experts;
  PB_ASSIGN(e.n, keys.Count("expert_count"));
  PB_ASSIGN(e.n_used, keys.Count("expert_used_count"));
  if (e.n_used > e.n)
    return MakeError(Code::kMalformed, "{} of {} experts are used ({})", e.n_used, e.n,
                     keys.Full("expert_used_count"));
  PB_ASSIGN(e.d_ff, keys.CountOr("expert_feed_forward_length",
                                 architecture.experts_of_full_width ? p.d_ff : p.d_ff / e.n_used));
  PB_ASSIGN(p.d_ff, keys.CountOr("expert_shared_feed_forward_length", p.d_ff));
  e.softmax_of_chosen = architecture.softmax_of_chosen, e.normalised = architecture.normalised_experts;
  if (keys.Has("expert_weights_scale")) {
    PB_ASSIGN(const double scale, keys.Real("expert_weights_scale", 0));
    e.scale = scale == 0 ? 1 : static_cast<float>(scale);
  }
  if (!must) p.ops = (p.ops - kDense) | kExperts;
  return {};
}

// What architectures decide by themselves, and a file may say besides: then it has to be the same.
Status CheckExperts(const Keys& keys, const HyperParameters& p) {
  constexpr double kSoftmax = 1, kSoftmaxOfChosen = 3;  // as llama.cpp numbers them
  const auto check = [&](std::string_view key, double expected) -> Status {
    const GgufValue* value = keys.file().Find(keys.Full(key));
    if (!value) return {};
    auto number = AsNumber(*value);
    if (number.ok() && (*number == expected || (key == "expert_gating_func" && *number == 0))) return {};
    return MakeError(Code::kUnsupported, "byte {}: key {} is {}: architecture {} is computed with {}",
                     value->offset, keys.Full(key), ValueText(*value), p.architecture, expected);
  };
  if (p.experts.n == 0) return {};
  if (keys.Has("expert_shared_count") && !p.ops.Contains(PB_STAGE_SHARED_OUT))
    PB_TRY(check("expert_shared_count", 0));
  PB_TRY(check("expert_weights_norm", p.experts.normalised ? 1 : 0));
  return check("expert_gating_func", p.experts.softmax_of_chosen ? kSoftmaxOfChosen : kSoftmax);
}

// Converters write what the checkpoint's config.json calls it.
Status ReadActivation(const Keys& keys, const Architecture& architecture, HyperParameters& p) {
  if (architecture.activation) p.ffn_activation = {*architecture.activation, Origin::kDefault};
  if (!keys.Has("hidden_activation")) return {};
  PB_ASSIGN(const std::string name, keys.String("hidden_activation"));
  auto activation = ParseActivation(name);
  if (!activation.ok())
    return std::move(activation).error().In(fmt::format("key {}", keys.Full("hidden_activation")));
  p.ffn_activation = {*activation, Origin::kMetadata};
  return {};
}

// Which layers are local: as the file says, else by the architecture's period.
Status ReadLocalLayers(const Keys& keys, const Architecture& architecture, HyperParameters& p) {
  int64_t period = architecture.window_period;
  constexpr std::string_view kPattern = "attention.sliding_window_pattern";
  const GgufValue* pattern = keys.file().Find(keys.Full(kPattern));
  if (pattern && pattern->type == GgufType::kArray) {
    PB_ASSIGN(p.local, keys.Flags(kPattern));
    if (static_cast<int64_t>(p.local.size()) < p.n_layers)
      return MakeError(Code::kMalformed, "byte {}: key {} is of {} layers, and there are {}", pattern->offset,
                       keys.Full(kPattern), p.local.size(), p.n_layers);
    p.local.resize(static_cast<size_t>(p.n_layers));
    return {};
  }
  if (pattern) {
    PB_ASSIGN(period, keys.Count(kPattern));
  }
  for (int64_t layer = 0; layer < p.n_layers; layer++) p.local.push_back(layer % period < period - 1);
  return {};
}

// Where an architecture has no local layers, a window shorter than the context limits how many
// positions are computed.
Status ReadSlidingWindow(const Keys& keys, const Architecture& architecture, HyperParameters& p) {
  int64_t window = architecture.usual_window;
  if (keys.Has("attention.sliding_window")) {
    PB_ASSIGN(window, keys.Count("attention.sliding_window"));
  }
  if ((architecture.options & kWindows) == 0) {
    if (window > 0 && window < p.n_ctx_train) p.longest = window;
    return {};
  }
  if (window == 0) return {};
  p.window = window;
  return ReadLocalLayers(keys, architecture, p);
}

// A number that an option's architectures may declare; `otherwise` where they do not, or say 0.
Result<float> OptionOr(const Keys& keys, const Architecture& architecture, std::string_view key,
                       Option option, float otherwise) {
  if ((architecture.options & option) == 0 || !keys.Has(key)) return otherwise;
  PB_ASSIGN(const double value, keys.Real(key, 0));
  return value == 0 ? otherwise : static_cast<float>(value);
}

Status ReadScales(const Keys& keys, const Architecture& architecture, HyperParameters& p) {
  auto of = [&](std::string_view key, Option option, float otherwise) {
    return OptionOr(keys, architecture, key, option, otherwise);
  };
  p.scale_queries = architecture.scale_queries;
  const bool largest = p.n_layers == architecture.layers_of_largest;
  const auto per_head = static_cast<float>(largest ? p.d_model / p.n_heads : p.head_dim);
  PB_ASSIGN(p.attention_scale, of("attention.scale", kScales, 1.0f / std::sqrt(per_head)));
  PB_ASSIGN(p.residual_scale, of("residual_scale", kScales, 1));
  PB_ASSIGN(p.embedding_scale, of("embedding_scale", kScales, 1));
  if (architecture.scales_embeddings) p.embedding_scale = std::sqrt(static_cast<float>(p.d_model));
  // Granite's logits are divided by it.
  PB_ASSIGN(const float divisor, of("logit_scale", kScales, 1));
  p.logit_scale = 1.0f / divisor;
  PB_ASSIGN(p.score_cap, of("attn_logit_softcapping", kScoreCap, architecture.usual_score_cap));
  PB_ASSIGN(p.logit_cap, of("final_logit_softcapping", kLogitCap, architecture.usual_logit_cap));
  return {};
}

// Of local layers, once the others' is known.
Status ReadLocalRope(const Keys& keys, const Architecture& architecture, HyperParameters& p) {
  p.local_rope_base = p.rope_base, p.local_rope_scale = p.rope_scale;
  if (p.local.empty()) return {};
  if (!architecture.local_rope_as_global) {
    p.local_rope_base = {kDefaultRopeBase, Origin::kDefault};
    p.local_rope_scale = {1.0f, Origin::kDefault};
  }
  if (!keys.Has("rope.freq_base_swa")) return {};
  PB_ASSIGN(const double base, keys.Real("rope.freq_base_swa", 1));
  p.local_rope_base = {static_cast<float>(base), Origin::kMetadata};
  return {};
}

// n_vocab and output_tied, which the tensors decide.
Status ReadVocabulary(const Keys& keys, HyperParameters& p) {
  const GgufFile& file = keys.file();
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (!embedding) return MakeError(Code::kMalformed, "tensor token_embd.weight is missing");
  if (embedding->shape.size() != 2 || embedding->shape[1] > INT32_MAX) {
    return MakeError(Code::kMalformed, "byte {}: tensor token_embd.weight has not two dimensions",
                     embedding->info_offset);
  }
  p.n_vocab = static_cast<int64_t>(embedding->shape[1]);
  p.output_tied = file.FindTensor("output.weight") == nullptr;
  const auto* tokens = file.Strings("tokenizer.ggml.tokens");
  if (tokens && tokens->size() != embedding->shape[1]) {
    return MakeError(Code::kMalformed,
                     "byte {}: tensor token_embd.weight has {} rows, tokenizer.ggml.tokens has {} tokens",
                     embedding->info_offset, p.n_vocab, tokens->size());
  }
  return {};
}

}  // namespace

Result<HyperParameters> ReadHyperParameters(const Keys& keys, const Architecture& architecture) {
  PB_TRY(CheckRefusedKeys(keys, architecture));
  HyperParameters p;
  p.architecture = architecture.name;
  p.ops = (stages::kAll - stages::kOptional) | architecture.optional;
  for (pb_stage stage : architecture.may_have)
    if (keys.file().FindTensor(TensorNameIn(&architecture, stage, 0))) p.ops |= stage;
  const stages::Set left_out = architecture.together - p.ops;
  if (!left_out.empty() && left_out != architecture.together)
    return MakeError(Code::kMalformed, "tensor {} is missing, and others of its kind are there",
                     TensorNameIn(&architecture, *left_out.begin(), 0));
  p.layer_norm = architecture.layer_norm, p.attention_sinks = architecture.attention_sinks;
  p.norms_rows = architecture.norms_rows, p.unrotated_every = architecture.unrotated_every;
  p.rope_pairing = {architecture.pairing, Origin::kDefault};
  PB_TRY(ReadActivation(keys, architecture, p));
  PB_ASSIGN(p.n_layers, keys.Count("block_count"));
  PB_ASSIGN(p.d_model, keys.Count("embedding_length"));
  PB_ASSIGN(p.d_ff, keys.Count("feed_forward_length"));
  PB_ASSIGN(p.n_ctx_train, keys.Count("context_length"));
  PB_TRY(ReadExperts(keys, architecture, p));
  PB_TRY(CheckExperts(keys, p));
  PB_TRY(ReadHeads(keys, architecture, p));
  PB_TRY(ReadSlidingWindow(keys, architecture, p));
  PB_TRY(ReadScales(keys, architecture, p));
  const bool of_layer_norm = keys.Has("attention.layer_norm_epsilon") && architecture.layer_norm;
  PB_ASSIGN(
      double eps,
      keys.Real(of_layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 0));
  p.norm_eps = {static_cast<float>(eps), Origin::kMetadata};
  p.rope_base = {kDefaultRopeBase, Origin::kDefault};
  if (keys.Has("rope.freq_base")) {
    PB_ASSIGN(double base, keys.Real("rope.freq_base", 1));
    p.rope_base = {static_cast<float>(base), Origin::kMetadata};
  }
  PB_TRY(ReadRopeScaling(keys, p));
  PB_TRY(ReadLocalRope(keys, architecture, p));
  PB_TRY(ReadVocabulary(keys, p));
  return p;
}

}  // namespace pb

// Hyper-parameters from GGUF metadata: the architecture table, defaults of missing keys, and what
// is refused by name.
#include "model/hyper.h"

#include <cmath>

namespace pb {
namespace {

constexpr stages::Set kSubNorms = {PB_STAGE_ATTN_SUB_NORM, PB_STAGE_FFN_SUB_NORM};
constexpr stages::Set kHeadNorms = {PB_STAGE_Q_NORM, PB_STAGE_K_NORM};
constexpr stages::Set kQkv = {PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_V_PROJ};
constexpr Architecture kArchitectures[] = {
    // GGUF files of `llama` hold Q and K with rows permuted for adjacent pairs.
    {"llama",
     RopePairing::kAdjacent,
     {},
     {},
     Activation::kSilu,
     true,
     false,
     false,
     "llama mistral mixtral",
     "LlamaForCausalLM"},
    {"qwen2",
     RopePairing::kHalves,
     {},
     kQkv,
     Activation::kSilu,
     true,
     false,
     false,
     "qwen2",
     "Qwen2ForCausalLM"},
    {"qwen3",
     RopePairing::kHalves,
     kHeadNorms,
     {},
     Activation::kSilu,
     true,
     false,
     false,
     "qwen3",
     "Qwen3ForCausalLM"},
    {"phi3", RopePairing::kHalves, {}, {}, Activation::kSilu, false, true, true, "phi3", "Phi3ForCausalLM"},
    {"bitnet",
     RopePairing::kHalves,
     kSubNorms,
     {},
     std::nullopt,
     false,
     false,
     false,
     "bitnet llama",
     "BitNetForCausalLM"},
    {"bitnet-25",
     RopePairing::kHalves,
     kSubNorms,
     {},
     std::nullopt,
     false,
     false,
     false,
     "bitnet llama",
     "BitNetForCausalLM"},
    {"bitnet-b1.58",
     RopePairing::kHalves,
     kSubNorms,
     {},
     std::nullopt,
     false,
     false,
     false,
     "bitnet llama",
     "BitNetForCausalLM"},
};

}  // namespace

const Architecture* FindArchitecture(std::string_view name) {
  for (const Architecture& a : kArchitectures)
    if (a.name == name) return &a;
  return nullptr;
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

// Keys whose meaning is not offered, unless they hold the value that changes nothing.
Status CheckRefusedKeys(const Keys& keys) {
  for (const auto& [name, value] : keys.file().metadata()) {
    if (!name.starts_with(keys.prefix())) continue;
    const KeyRow* row = FindKey(ArchitectureKeys(), std::string_view(name).substr(keys.prefix().size()));
    if (!row || row->role != KeyRole::kRefused) continue;
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

Status ReadRopeScaling(const Keys& keys, HyperParameters& p) {
  std::string type = "linear";
  if (keys.Has("rope.scaling.type")) {
    PB_ASSIGN(type, keys.String("rope.scaling.type"));
  }
  if (type != "linear" && type != "none") {
    return MakeError(Code::kUnsupported, "rope scaling \"{}\" ({}) is not supported (linear and none are)",
                     type.substr(0, 64), keys.Full("rope.scaling.type"));
  }
  p.rope_scale = {1.0f, Origin::kDefault};
  // the new name counts
  for (std::string_view key : {"rope.scale_linear", "rope.scaling.factor"}) {
    if (!keys.Has(key)) continue;
    PB_ASSIGN(double factor, keys.Real(key, 0));
    p.rope_scale = {factor == 0 || type == "none" ? 1.0f : static_cast<float>(factor), Origin::kMetadata};
  }
  return {};
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

// A window shorter than the context limits how many positions are computed.
Status ReadSlidingWindow(const Keys& keys, HyperParameters& p) {
  if (!keys.Has("attention.sliding_window")) return {};
  PB_ASSIGN(const int64_t window, keys.Count("attention.sliding_window"));
  if (window < p.n_ctx_train) p.window = window;
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
  PB_TRY(CheckRefusedKeys(keys));
  HyperParameters p;
  p.architecture = architecture.name;
  p.ops = (stages::kAll - stages::kOptional) | architecture.optional;
  p.rope_pairing = {architecture.pairing, Origin::kDefault};
  p.scale_queries = architecture.scale_queries;
  PB_TRY(ReadActivation(keys, architecture, p));
  PB_ASSIGN(p.n_layers, keys.Count("block_count"));
  PB_ASSIGN(p.d_model, keys.Count("embedding_length"));
  PB_ASSIGN(p.d_ff, keys.Count("feed_forward_length"));
  PB_ASSIGN(p.n_ctx_train, keys.Count("context_length"));
  PB_TRY(ReadSlidingWindow(keys, p));
  PB_TRY(ReadHeads(keys, architecture, p));
  PB_ASSIGN(double eps, keys.Real("attention.layer_norm_rms_epsilon", 0));
  p.norm_eps = {static_cast<float>(eps), Origin::kMetadata};
  p.rope_base = {kDefaultRopeBase, Origin::kDefault};
  if (keys.Has("rope.freq_base")) {
    PB_ASSIGN(double base, keys.Real("rope.freq_base", 1));
    p.rope_base = {static_cast<float>(base), Origin::kMetadata};
  }
  PB_TRY(ReadRopeScaling(keys, p));
  PB_TRY(ReadVocabulary(keys, p));
  return p;
}

}  // namespace pb

#include "model/hyper.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace pb {
namespace {

// What an architecture string fixes.
struct Architecture {
  std::string_view name;
  RopePairing pairing;
  stages::Set optional;  // the optional stages that it has
  std::optional<Activation> activation;  // none: the file does not say, several exist
  bool full_rotation;                    // rope dims must equal head_dim
};
constexpr stages::Set kSubNorms = {PB_STAGE_ATTN_SUB_NORM, PB_STAGE_FFN_SUB_NORM};
constexpr Architecture kArchitectures[] = {
    // GGUF files of `llama` hold Q and K with rows permuted for adjacent pairs.
    {"llama", RopePairing::kAdjacent, {}, Activation::kSilu, true},
    {"bitnet", RopePairing::kHalves, kSubNorms, std::nullopt, false},
    {"bitnet-25", RopePairing::kHalves, kSubNorms, std::nullopt, false},
    {"bitnet-b1.58", RopePairing::kHalves, kSubNorms, std::nullopt, false},
};

// Keys that change the arithmetic in a way that is not offered, unless they hold the value that changes
// nothing.
struct RefusedKey {
  std::string_view key;
  double neutral;
};
constexpr RefusedKey kRefusedKeys[] = {
    {"expert_count", 0},
    {"expert_used_count", 0},
    {"expert_shared_count", 0},
    {"attention.causal", 1},
    {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0},
    {"attention.scale", 0},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"rope.scaling.attn_factor", 1},
    {"rope.scaling.alpha", 0},
    {"logit_scale", 0},
    {"residual_scale", 0},
    {"embedding_scale", 0},
    {"nextn_predict_layers", 0},
    {"use_parallel_residual", 0},
};

// Keys that are read or that decide nothing.
constexpr std::string_view kKnownKeys[] = {
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "vocab_size",
    "pooling_type",
};

// Reads keys of one architecture ("llama.block_count") and remembers none.
class Keys {
 public:
  Keys(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(fmt::format("{}.", architecture)) {}

  std::string Full(std::string_view key) const { return prefix_ + std::string(key); }
  const std::string& prefix() const { return prefix_; }
  bool Has(std::string_view key) const { return file_.Find(Full(key)) != nullptr; }

  // A number from 1 to 2^24; an array (one number a layer) serves where all are equal.
  Result<int64_t> Count(std::string_view key) const {
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
  Result<int64_t> CountOr(std::string_view key, int64_t otherwise) const {
    if (!Has(key)) return otherwise;
    return Count(key);
  }
  // A finite number of at least `least`.
  Result<double> Real(std::string_view key, double least) const {
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
  Result<std::string> String(std::string_view key) const { return file_.String(Full(key)); }

 private:
  Result<uint64_t> Number(const std::string& full, const GgufValue& value) const {
    if (value.type != GgufType::kArray) return file_.Uint(full);
    std::vector<uint64_t> all;
    if (auto* u = std::get_if<std::vector<uint64_t>>(&value.value)) all = *u;
    if (auto* i = std::get_if<std::vector<int64_t>>(&value.value)) all.assign(i->begin(), i->end());
    if (all.empty())
      return MakeError(Code::kMalformed, "byte {}: key {} holds no numbers", value.offset, full);
    if (std::any_of(all.begin(), all.end(), [&](uint64_t n) { return n != all[0]; })) {
      return MakeError(Code::kUnsupported, "byte {}: key {} differs between layers, which is not supported",
                       value.offset, full);
    }
    return all[0];
  }

  const GgufFile& file_;
  std::string prefix_;
};

Result<const Architecture*> FindArchitecture(const GgufFile& file) {
  auto name = file.String("general.architecture");
  if (!name.ok() && name.error().code == Code::kNotFound) {
    return MakeError(Code::kMalformed, "metadata key general.architecture is missing");
  }
  if (!name.ok()) return std::move(name).error();
  for (const Architecture& a : kArchitectures) {
    if (a.name == *name) return &a;
  }
  return MakeError(Code::kUnsupported,
                   "architecture \"{}\" is not supported (llama, bitnet, bitnet-25, bitnet-b1.58 are)",
                   name->substr(0, 64));
}

Result<double> AsNumber(const GgufValue& value) {
  if (auto* u = std::get_if<uint64_t>(&value.value)) return static_cast<double>(*u);
  if (auto* i = std::get_if<int64_t>(&value.value)) return static_cast<double>(*i);
  if (auto* d = std::get_if<double>(&value.value)) return *d;
  if (auto* b = std::get_if<bool>(&value.value)) return *b ? 1.0 : 0.0;
  return MakeError(Code::kUnsupported, "not a number");
}

Status CheckRefusedKeys(const GgufFile& file, const Keys& keys) {
  for (const RefusedKey& refused : kRefusedKeys) {
    std::string full = keys.Full(refused.key);
    const GgufValue* value = file.Find(full);
    if (!value) continue;
    auto number = AsNumber(*value);
    if (!number.ok() || *number != refused.neutral) {
      return MakeError(Code::kUnsupported,
                       "byte {}: key {} asks for something that is not supported (only {} is)", value->offset,
                       full, refused.neutral);
    }
  }
  return {};
}

void ReportUnknownKeys(const GgufFile& file, const Keys& keys, std::vector<std::string>& findings) {
  for (auto it = file.metadata().lower_bound(keys.prefix());
       it != file.metadata().end() && it->first.starts_with(keys.prefix()); ++it) {
    std::string_view key = std::string_view(it->first).substr(keys.prefix().size());
    bool known =
        std::find(std::begin(kKnownKeys), std::end(kKnownKeys), key) != std::end(kKnownKeys) ||
        std::any_of(std::begin(kRefusedKeys), std::end(kRefusedKeys), [&](auto& r) { return r.key == key; });
    if (!known) findings.push_back(fmt::format("metadata key {} is unknown and not used", it->first));
  }
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
  std::string_view key = keys.Has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
  if (!keys.Has(key)) return {};
  PB_ASSIGN(double factor, keys.Real(key, 0));
  p.rope_scale = {factor == 0 || type == "none" ? 1.0f : static_cast<float>(factor), Origin::kMetadata};
  return {};
}

Status CheckSlidingWindow(const Keys& keys, int64_t n_ctx_train) {
  if (!keys.Has("attention.sliding_window")) return {};
  auto window = keys.Count("attention.sliding_window");
  if (window.ok() && *window >= n_ctx_train) return {};
  return MakeError(Code::kUnsupported,
                   "a sliding attention window ({}) shorter than the context is not supported",
                   keys.Full("attention.sliding_window"));
}

}  // namespace

Result<HyperParameters> ReadHyperParameters(const GgufFile& file, std::vector<std::string>& findings) {
  PB_ASSIGN(const Architecture* architecture, FindArchitecture(file));
  Keys keys(file, architecture->name);
  PB_TRY(CheckRefusedKeys(file, keys));
  HyperParameters p;
  p.architecture = architecture->name;
  p.ops = (stages::kAll - stages::kOptional) | architecture->optional;
  p.rope_pairing = {architecture->pairing, Origin::kDefault};
  if (architecture->activation) p.ffn_activation = {*architecture->activation, Origin::kDefault};
  PB_ASSIGN(p.n_layers, keys.Count("block_count"));
  PB_ASSIGN(p.d_model, keys.Count("embedding_length"));
  PB_ASSIGN(p.d_ff, keys.Count("feed_forward_length"));
  PB_ASSIGN(p.n_ctx_train, keys.Count("context_length"));
  PB_TRY(CheckSlidingWindow(keys, p.n_ctx_train));
  PB_TRY(ReadHeads(keys, *architecture, p));
  PB_ASSIGN(double eps, keys.Real("attention.layer_norm_rms_epsilon", 0));
  p.norm_eps = {static_cast<float>(eps), Origin::kMetadata};
  p.rope_base = {10000.0f, Origin::kDefault};
  if (keys.Has("rope.freq_base")) {
    PB_ASSIGN(double base, keys.Real("rope.freq_base", 1));
    p.rope_base = {static_cast<float>(base), Origin::kMetadata};
  }
  PB_TRY(ReadRopeScaling(keys, p));
  ReportUnknownKeys(file, keys, findings);
  return p;
}

}  // namespace pb

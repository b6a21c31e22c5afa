// Reads settings by key, and applies variations of an op's parameters.
#include "native/config.h"

#include <charconv>
#include <cmath>

namespace pb::native {
namespace {

constexpr int64_t kMaxPositions = 1 << 20;

template <typename T>
Result<T> Number(std::string_view key, std::string_view text, T least, T most) {
  T v{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || !(v >= least && v <= most)) {
    return MakeError(Code::kUsage, "{}={}: a number from {} to {} is expected", key, text, least, most);
  }
  return v;
}

Result<bool> ParseKvType(std::string_view value) {
  if (value == "f16" || value == "f32") return value == "f16";
  return MakeError(Code::kUnsupported, "kv.type={}: f16 and f32 are offered", value);
}

Result<ActQuant> ParseActQuant(std::string_view value) {
  PB_ASSIGN(ActQuant parsed, ActQuant::Parse(value));
  bool f16_sums = parsed.all == ActScheme::kF16Sums;
  for (const ActQuant::Exception& e : parsed.exceptions) f16_sums |= e.scheme == ActScheme::kF16Sums;
  if (!f16_sums) return parsed;
  return MakeError(Code::kUnsupported, "act.quant={}: this engine keeps its sums in f32", value);
}

}  // namespace

Result<bool> ApplySetting(std::string_view key, std::string_view value, Config& config) {
  ModelOptions declared;
  PB_ASSIGN(const bool declares, Declare(key, value, &declared));
  if (declares) return false;
  if (key == "act.quant") {
    PB_ASSIGN(config.act_quant, ParseActQuant(value));
  } else if (key == "kv.type") {
    PB_ASSIGN(config.kv_f16, ParseKvType(value));
  } else if (key == "attn.flash") {
    if (value != "off")
      return MakeError(Code::kUnsupported, "attn.flash={}: this engine computes attention in full", value);
  } else if (key == "threads") {
    PB_ASSIGN(config.threads, Number<int>(key, value, 1, 256));
  } else if (key == "ubatch") {
    PB_ASSIGN(config.ubatch, Number<int64_t>(key, value, 1, 4096));
  } else if (key == "n_ctx") {
    PB_ASSIGN(config.n_ctx, Number<int64_t>(key, value, 1, kMaxPositions));
  } else if (key == "noise.seed") {
    PB_ASSIGN(config.noise_seed, Number<uint64_t>(key, value, 0, UINT64_MAX));
  } else if (key == "cpu.library") {
    PB_ASSIGN(config.isa, ParseIsa(value));
  } else if (key == "rope.factors") {
    if (value != "long" && value != "short")
      return MakeError(Code::kUsage, "rope.factors={}: long or short is expected", value);
    config.long_rope = value == "long";
  } else {
    return MakeError(Code::kUnsupported, "setting {}: not offered by the native engine", key);
  }
  return true;
}

OpParams DeclaredParams(const HyperParameters& p, const Config& config) {
  OpParams o;
  o.activation = p.ffn_activation ? p.ffn_activation->value : Activation::kSilu;
  o.act_quant = config.act_quant, o.kv_f16 = config.kv_f16;
  o.norm_eps = p.norm_eps.value;
  o.rope_pairing = p.rope_pairing.value, o.rope_base = p.rope_base.value, o.rope_scale = p.rope_scale.value;
  o.local_rope_base = p.local_rope_base.value, o.local_rope_scale = p.local_rope_scale.value;
  o.long_rope = config.long_rope.value_or(config.n_ctx > p.rope_stretch.n_ctx_original);
  return o;
}

Result<OpParams> Vary(OpParams params, std::string_view variation) {
  size_t equals = variation.find('=');
  if (equals == std::string_view::npos)
    return MakeError(Code::kUsage, "variation \"{}\": not KEY=VALUE", variation);
  std::string_view key = variation.substr(0, equals), value = variation.substr(equals + 1);
  constexpr float kMax = 1e30f;
  if (key == "ffn.activation") {
    PB_ASSIGN(params.activation, ParseActivation(value));
  } else if (key == "norm.eps") {
    PB_ASSIGN(params.norm_eps, Number<float>(key, value, 0, kMax));
  } else if (key == "rope.base") {
    PB_ASSIGN(params.rope_base, Number<float>(key, value, 1, kMax));
    params.local_rope_base = params.rope_base;
  } else if (key == "rope.scale") {
    PB_ASSIGN(params.rope_scale, Number<float>(key, value, 1e-6f, kMax));
    params.local_rope_scale = params.rope_scale;
  } else if (key == "rope.pairing") {
    if (value != "adjacent" && value != "halves") {
      return MakeError(Code::kUsage, "rope.pairing={}: adjacent or halves is expected", value);
    }
    params.rope_pairing = value == "halves" ? RopePairing::kHalves : RopePairing::kAdjacent;
  } else if (key == "act.quant") {
    PB_ASSIGN(params.act_quant, ParseActQuant(value));
  } else if (key == "kv.type") {
    PB_ASSIGN(params.kv_f16, ParseKvType(value));
  } else {
    return MakeError(Code::kUnsupported, "variation {}: the native engine has none of this name", key);
  }
  return params;
}

}  // namespace pb::native

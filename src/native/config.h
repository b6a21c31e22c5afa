// How the native engine computes: every setting that can change a bit, and those that cannot
// (threads, batch, instruction set).
#ifndef PARITYBIT_NATIVE_CONFIG_H_
#define PARITYBIT_NATIVE_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "formats/act_scheme.h"
#include "kernels/isa.h"
#include "kernels/packed.h"
#include "model/model.h"

namespace pb::native {

struct Config {
  ActQuant act_quant;
  bool kv_f16 = true;
  int threads = 1;
  int64_t ubatch = 512;  // rows computed at once
  // positions reserved; 0: what the model was trained for, at most kDefaultContext
  int64_t n_ctx = 0;
  std::optional<uint64_t> noise_seed;
  // LongRoPE: which factors count; none: what n_ctx decides.
  std::optional<bool> long_rope;
  Isa isa = BestIsa();
};
inline constexpr int64_t kDefaultContext = 8192;

// Applies one setting; false where the key belongs to somebody else (ffn.activation, hf.config).
// Values that make no sense are errors that name key and value.
Result<bool> ApplySetting(std::string_view key, std::string_view value, Config& config);

// What one operation is computed with: what the model declares, the session's settings, and what a
// variation changes.
struct OpParams {
  Activation activation = Activation::kSilu;
  ActQuant act_quant;
  bool kv_f16 = true;
  float norm_eps = 0;
  RopePairing rope_pairing = RopePairing::kAdjacent;
  float rope_base = 0, rope_scale = 1;
  float local_rope_base = 0, local_rope_scale = 1;  // of local layers
  bool long_rope = false;                           // LongRoPE: the long factors count
};
OpParams DeclaredParams(const HyperParameters& p, const Config& config);
// One field changed: "ffn.activation=relu2", also norm.eps rope.base rope.scale rope.pairing
// act.quant kv.type.
Result<OpParams> Vary(OpParams params, std::string_view variation);

}  // namespace pb::native

#endif  // PARITYBIT_NATIVE_CONFIG_H_

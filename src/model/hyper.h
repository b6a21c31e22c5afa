// Reads hyper-parameters from GGUF metadata: the architecture table, defaults, and what is refused
// by name.
#ifndef PARITYBIT_MODEL_HYPER_H_
#define PARITYBIT_MODEL_HYPER_H_

#include <optional>
#include <string>
#include <string_view>

#include "model/keys.h"
#include "model/model.h"

namespace pb {

// What an architecture string fixes.
struct Architecture {
  std::string_view name;
  RopePairing pairing;
  stages::Set optional;                  // the optional stages that it has
  stages::Set biased;                    // products that always have a bias; others may have one
  std::optional<Activation> activation;  // none: the architecture allows several
  bool full_rotation;                    // rope dims must equal head_dim
  bool scale_queries;                    // by 1 / sqrt(head_dim) before the scores, in place of those
  bool fused;                            // its files hold Q, K and V, and gate and up, in one tensor each
  std::string_view model_types;          // of config.json files that are converted into it, the usual first
  std::string_view hf_class;             // what such a config.json names as its class
};

// What engines take where a file has no rope.freq_base.
inline constexpr float kDefaultRopeBase = 10000.0f;

// nullptr: there is none of this name.
const Architecture* FindArchitecture(std::string_view name);
// "llama, qwen2, ...".
std::string ArchitectureNames();
// kUnsupported, by name: an architecture that is not read.
Result<const Architecture*> ArchitectureOf(const GgufFile& file);
// All of them, as the file alone declares them.
Result<HyperParameters> ReadHyperParameters(const Keys& keys, const Architecture& architecture);

}  // namespace pb

#endif  // PARITYBIT_MODEL_HYPER_H_

// Reads hyper-parameters from GGUF metadata: the architecture table, defaults, and what is refused
// by name.
#ifndef PARITYBIT_MODEL_HYPER_H_
#define PARITYBIT_MODEL_HYPER_H_

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "model/keys.h"
#include "model/model.h"

namespace pb {

// A tensor that is called otherwise in an architecture's files.
struct RenamedTensor {
  pb_stage stage = PB_STAGE_UNMAPPED;
  const char* tensor = nullptr;
};

// What an architecture string fixes.
struct Architecture {
  std::string_view name;
  RopePairing pairing;
  // Of config.json files that are converted into it, the usual first; what such a file names as its
  // class.
  std::string_view model_types, hf_class;
  // The optional stages that it has, and those that a file of it may have: they are there where their
  // tensor is.
  stages::Set optional = stages::kPreNorms | stages::kDense;
  stages::Set may_have = {};
  // Of those: all of them are there, or none.
  stages::Set together = {};
  std::optional<Activation> activation = Activation::kSilu;  // none: it allows several
  stages::Set biased = {};         // products that always have a bias; others may have one
  bool full_rotation = true;       // rope dims must equal head_dim
  bool scale_queries = false;      // by the attention scale before the scores, in place of those
  bool fused = false;              // its files hold Q, K and V, and gate and up, in one tensor each
  bool norms_rows = false;         // its norms of queries and keys are of the row, not of each head
  bool scales_embeddings = false;  // by sqrt(d_model)
  std::optional<bool> tied = {};   // whether the output matrix is the embedding; none: as a file has it
  unsigned options = kNoOption;    // which Options it has
  // Of every n layers the last sees all positions, the others the window; 0: all see all.
  int64_t window_period = 0;
  // Where its files do not say; 0: all positions, no cap.
  int64_t usual_window = 0;
  float usual_score_cap = 0, usual_logit_cap = 0;
  bool local_rope_as_global = true;  // local layers rotate as the others; else by 10000, unscaled
  // So many layers make the size whose attention scale is 1 / sqrt(d_model / heads).
  int64_t layers_of_largest = 0;
  int64_t unrotated_every = 0;  // of every n layers the last has no rotary embedding; 0: all have
  std::array<RenamedTensor, 4> renamed = {};
  bool layer_norm = false;  // its norms subtract the mean, and have a bias
  bool attention_sinks = false;
  // Of kMayHaveExperts. Where a file does not say how wide they are: as wide as the network of
  // a model without experts, or that over the experts used.
  bool experts_of_full_width = false;
  bool softmax_of_chosen = false, normalised_experts = false;

  // "ffn_norm": the tensor of a stage in its files.
  const char* TensorOf(pb_stage stage) const {
    for (const RenamedTensor& r : renamed)
      if (r.stage == stage && r.tensor) return r.tensor;
    return stages::Of(stage).weight.tensor;
  }
};

// What engines take where a file has no rope.freq_base.
inline constexpr float kDefaultRopeBase = 10000.0f;

// nullptr: there is none of this name.
const Architecture* FindArchitecture(std::string_view name);
// stages::TensorName in files of this architecture; null: of one that renames nothing.
std::string TensorNameIn(const Architecture* architecture, pb_stage stage, int32_t layer,
                         std::string_view part = "weight");
// "llama, qwen2, ...".
std::string ArchitectureNames();
// kUnsupported, by name: an architecture that is not read.
Result<const Architecture*> ArchitectureOf(const GgufFile& file);
// All of them, as the file alone declares them.
Result<HyperParameters> ReadHyperParameters(const Keys& keys, const Architecture& architecture);

}  // namespace pb

#endif  // PARITYBIT_MODEL_HYPER_H_

// What a model file, a config.json beside it and the user's settings declare: hyper-parameters with the
// origin of each, weights by role, and what is missing. Reads; decides nothing about arithmetic.
#ifndef PARITYBIT_MODEL_MODEL_H_
#define PARITYBIT_MODEL_MODEL_H_

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/block.h"
#include "formats/gguf.h"

namespace pb {

enum class Origin { kMetadata, kConfigJson, kSet, kDefault };
const char* OriginName(Origin origin);  // "metadata" "config.json" "set" "default", as in pb_fact

enum class Activation { kSilu, kRelu2, kRelu, kGelu };
enum class RopePairing {
  kAdjacent,
  kHalves
};  // (0,1)(2,3)...: "adjacent"; (0,d/2)(1,d/2+1)...: "halves" (NEOX)

// A value and where it comes from.
template <typename T>
struct Declared {
  T value{};
  Origin origin = Origin::kDefault;
};

struct HyperParameters {
  std::string architecture;  // llama bitnet bitnet-b1.58 bitnet-25
  int64_t n_layers = 0, d_model = 0, d_ff = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, n_vocab = 0,
          n_ctx_train = 0;
  int64_t rope_dims = 0;
  Declared<RopePairing> rope_pairing;
  Declared<float> rope_base;
  Declared<float> rope_scale;  // linear: positions are divided by it
  Declared<float> norm_eps;
  std::optional<Declared<Activation>>
      ffn_activation;  // none: undeclared where the architecture allows several
  bool has_sub_norms = false;
  bool output_tied = false;
};

// Weights of one layer; norms are float32 vectors. Optional ones have null data. *_scale: extra per-tensor
// factors that some BitNet files carry (blk.N.attn_q.scale); 1 when absent.
struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm;  // (d_model)
  std::vector<float> attn_sub_norm;        // (n_heads * head_dim)
  std::vector<float> ffn_sub_norm;         // (d_ff)
  WeightView attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down;
  float attn_q_scale = 1, attn_k_scale = 1, attn_v_scale = 1, attn_output_scale = 1;
  float ffn_gate_scale = 1, ffn_up_scale = 1, ffn_down_scale = 1;
};

struct ModelOptions {
  std::optional<Activation> ffn_activation;  // --set ffn.activation
  std::optional<std::filesystem::path>
      hf_config;                      // --hf-config; none: config.json beside the model, if there
  bool ignore_config_beside = false;  // tests
};

// A model file, opened and checked: every tensor known and present, of a supported type, with the shape the
// hyper-parameters imply. Immutable. A defect of the file is kMalformed with the byte offset; an architecture
// or type that is not supported is kUnsupported and named.
class Model {
 public:
  static Result<std::shared_ptr<const Model>> Open(const std::filesystem::path& path,
                                                   const ModelOptions& options = {});
  // The same on a file already parsed; a config.json is looked for beside file.path(), if it has one.
  static Result<std::shared_ptr<const Model>> FromFile(GgufFile file, const ModelOptions& options = {});

  const GgufFile& file() const { return file_; }
  const HyperParameters& params() const { return params_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  const WeightView& token_embedding() const { return token_embedding_; }
  const WeightView& output() const { return output_; }  // the embedding when tied
  const std::vector<float>& final_norm() const { return final_norm_; }
  // The config.json that was read, empty when none; and what it contradicts in the file's metadata, one
  // sentence each.
  const std::filesystem::path& config_path() const { return config_path_; }
  const std::vector<std::string>& findings() const { return findings_; }
  // "TQ2_0 x42, F16 x1, F32 x25"
  std::string WeightTypes() const;

 private:
  explicit Model(GgufFile file) : file_(std::move(file)) {}
  Status ReadDeclarations(const ModelOptions& options);
  Status ReadWeights();
  Status ReadLayer(class TensorTable& table, int64_t layer);

  GgufFile file_;
  HyperParameters params_;
  std::vector<LayerWeights> layers_;
  WeightView token_embedding_, output_;
  std::vector<float> final_norm_;
  std::filesystem::path config_path_;
  std::vector<std::string> findings_;
};

Result<Activation> ParseActivation(
    std::string_view name);  // silu relu2 relu gelu, and Hugging Face's spellings
const char* ActivationName(Activation a);

}  // namespace pb

#endif  // PARITYBIT_MODEL_MODEL_H_

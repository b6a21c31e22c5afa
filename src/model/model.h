// What a model file, a config.json beside it and the user's settings declare: hyper-parameters with
// the origin of each, weights by role, and what is missing. Reads; decides nothing about
// arithmetic.
#ifndef PARITYBIT_MODEL_MODEL_H_
#define PARITYBIT_MODEL_MODEL_H_

#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/act_scheme.h"
#include "formats/block.h"
#include "formats/gguf.h"
#include "model/doubt.h"
#include "stages/stages.h"

namespace pb {

enum class Origin { kMetadata, kConfigJson, kSet, kDefault };
const char* OriginName(Origin origin);  // "metadata" "config.json" "set" "default", as in pb_fact

// kGelu: by the error function; kGeluTanh: its approximation (Hendrycks, Gimpel 2016, section 2).
// kSwigluOai: of gpt-oss, x sigmoid(1.702 x) of a gate that is capped at 7; what it multiplies is
// capped at 7 both ways, and 1 is added (openai/gpt-oss, torch/model.py, swiglu).
enum class Activation { kSilu, kRelu2, kRelu, kGelu, kGeluTanh, kSwigluOai };
inline constexpr float kSwigluOaiSlope = 1.702f, kSwigluOaiLimit = 7.0f;
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

// Experts of which each token uses a few (Shazeer et al. 2017). All 0: a network that all tokens
// pass through.
struct Experts {
  int64_t n = 0, n_used = 0, d_ff = 0;
  // The softmax that makes weights is over the chosen logits; else over all of them, before the
  // choice.
  bool softmax_of_chosen = false;
  bool normalised = false;  // the chosen weights are divided by their sum
  float scale = 1;          // of the weights, last
};

// Whether a router may take two logits of a row, whose largest is given, for equal, or the smaller for
// the larger: one that compares their exponentials sees no more of them (docs/numerics.md, "Experts").
// Of logits that are no numbers, or of a row that has such (`largest` is NaN then), nobody knows.
bool RouterTies(double a, double b, double largest);

// How a rotation is stretched beyond the context of the training, besides rope_scale and
// rope_factors, which divide positions and frequencies.
struct RopeStretch {
  // YaRN (Peng et al. 2023, section 3.2): pairs that turn more than beta_fast times within
  // n_ctx_original positions keep their frequency, those that turn less than beta_slow times have it
  // divided by rope_scale, and those between have a mixture.
  bool yarn = false;
  float beta_fast = 32, beta_slow = 1;
  int64_t n_ctx_original = 0;
  float attention_factor = 1;  // of what was rotated: of its cosine and sine
  // LongRoPE (Ding et al. 2024): two sets of factors, in place of rope_factors; which one counts is
  // decided by whether a session has room for more than n_ctx_original positions.
  std::vector<float> long_factors, short_factors;
};

struct HyperParameters {
  std::string architecture;  // the row of the architecture table (hyper.cc)
  int64_t n_layers = 0, d_model = 0, d_ff = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, n_vocab = 0,
          n_ctx_train = 0;
  // Positions that attention sees where its window is not computed; 0: all of them. Texts that are
  // longer are refused.
  int64_t longest = 0;
  // Local layers: those whose attention sees the last `window` positions alone, its own among them.
  int64_t window = 0;
  std::vector<bool> local;      // of each layer; empty: none is
  int64_t unrotated_every = 0;  // layer l has no rotary embedding where n divides l + 1; 0: all have
  // Queries, not scores, are multiplied by the scale: it decides what a f16 cache's rounding meets.
  bool scale_queries = false;
  float attention_scale = 0;  // of queries times keys
  float score_cap = 0;        // c: scores become c tanh(score / c); 0: they stay
  float embedding_scale = 1, residual_scale = 1, logit_scale = 1;
  float logit_cap = 0;
  bool norms_rows = false;  // the norms of queries and keys are of the row, not of each head
  int64_t rope_dims = 0;
  Declared<RopePairing> rope_pairing;
  Declared<float> rope_base;
  Declared<float> rope_scale;                         // positions are divided by it
  Declared<float> local_rope_base, local_rope_scale;  // of local layers
  // Of each rotated pair, what its frequency is divided by (rope_freqs.weight: LLaMA 3.1 and later);
  // empty: nothing.
  std::vector<float> rope_factors;
  RopeStretch rope_stretch;
  Experts experts;
  bool layer_norm = false;       // norms subtract the mean, and have a bias (Ba et al. 2016)
  bool attention_sinks = false;  // each head has a logit that takes a share of the softmax
  Declared<float> norm_eps;
  std::optional<Declared<Activation>>
      ffn_activation;  // none: undeclared where the architecture allows several
  stages::Set ops;     // that the architecture has
  bool output_tied = false;

  stages::ModelShape shape() const {
    return {d_model, d_ff,       n_heads,   n_kv_heads,     head_dim,
            n_vocab, norms_rows, experts.n, experts.n_used, experts.d_ff};
  }
  // What divides the frequencies: of LongRoPE the long factors or the short ones.
  const std::vector<float>& RopeFactors(bool long_rope) const {
    if (rope_stretch.long_factors.empty()) return rope_factors;
    return long_rope ? rope_stretch.long_factors : rope_stretch.short_factors;
  }
  bool is_local(int64_t layer) const {
    return !local.empty() && layer >= 0 && local[static_cast<size_t>(layer)];
  }
  // Positions that a layer's attention sees; 0: all.
  int64_t window_of(int64_t layer) const { return is_local(layer) ? window : 0; }
  bool rotates(int64_t layer) const {
    return unrotated_every == 0 || layer < 0 || (layer + 1) % unrotated_every != 0;
  }
  // Whether rope_stretch holds in a layer: local ones that have a scale of their own are not stretched.
  bool stretches(int64_t layer) const {
    return !is_local(layer) || local_rope_scale.value == rope_scale.value;
  }
  // kUnsupported: a text of n positions is longer than what is computed.
  Status CheckLength(int64_t n_positions) const;
  bool has_sub_norms() const { return ops.Contains(PB_STAGE_ATTN_SUB_NORM); }
};

// What a stage reads of the file: a matrix (of the embeddings: a row for each token; of experts: the
// rows of all), a norm's float32 vector, or neither.
struct StageWeights {
  std::string name;   // of the tensor, "blk.3.ffn_up.weight"; empty: the stage reads none
  WeightView matrix;  // data is null where there is none
  // a factor beside the matrix that some BitNet files carry (blk.N.attn_q.scale)
  float scale = 1;
  std::vector<float> vector;  // empty where there is none
  // Added to the outputs of a product or a norm (blk.N.attn_q.bias); empty where there is none.
  std::vector<float> bias;
  std::vector<float> sinks;  // of the softmax (blk.N.attn_sinks), one a head; empty where there are none
  int64_t n_experts = 0;     // that the matrix and the bias are of, one after the other; 0: of none

  // Of one expert.
  WeightView MatrixOf(int64_t expert) const {
    WeightView one = matrix;
    one.n_rows = n_experts > 0 ? matrix.n_rows / n_experts : matrix.n_rows;
    one.data += static_cast<uint64_t>(expert * one.n_rows) * matrix.row_bytes;
    return one;
  }
  std::span<const float> BiasOf(int64_t expert) const {
    const size_t n = n_experts > 0 ? bias.size() / static_cast<size_t>(n_experts) : bias.size();
    return std::span(bias).subspan(static_cast<size_t>(expert) * n, n);
  }
};

// Where the matrix stands that a product reads.
inline MatrixPlace PlaceOf(int32_t product) {
  if (stages::kExpertProducts.Contains(static_cast<pb_stage>(product))) return MatrixPlace::kExpert;
  return product == PB_STAGE_LOGITS ? MatrixPlace::kOutput : MatrixPlace::kLayer;
}

// What the user says that counts, whatever the files declare.
struct ModelOptions {
  std::optional<Activation> ffn_activation;  // --set ffn.activation
  std::optional<float> norm_eps;             // --set norm.eps
  std::optional<float> rope_base;            // --set rope.base
  std::optional<float> rope_scale;           // --set rope.scale
  // --hf-config; none: config.json beside the model, if there
  std::optional<std::filesystem::path> hf_config;
  bool ignore_config_beside = false;  // --hf-config none
  // Decodes weights of types that nothing here decodes; null: a file that has some is refused.
  std::shared_ptr<const LentDecoder> decoder;
};

// Takes a setting that declares something of the model (ffn.activation, norm.eps, rope.base,
// rope.scale, hf.config); false: the key is none of these. A value that makes no sense is kUsage,
// an activation that is not offered kUnsupported.
Result<bool> Declare(std::string_view key, std::string_view value, ModelOptions* options);

// A model file, opened and checked: every tensor known and present, of a supported type, with the
// shape the hyper-parameters imply. Immutable. A defect of the file is kMalformed with the byte
// offset; an architecture or type that is not supported is kUnsupported and named.
class Model {
 public:
  static Result<std::shared_ptr<const Model>> Open(const std::filesystem::path& path,
                                                   const ModelOptions& options = {});
  // The same on a file already parsed; a config.json is looked for beside file.path(), if it has
  // one.
  static Result<std::shared_ptr<const Model>> FromFile(GgufFile file, const ModelOptions& options = {});
  // The products' matrices alone, for a file of an architecture in no table: those that it has under
  // the names, in the shapes and in a type that are known here; others read nothing. `told`: ops and
  // sizes, as an engine tells them that runs it.
  static Result<std::shared_ptr<const Model>> OpenProducts(const std::filesystem::path& path,
                                                           HyperParameters told);

  const GgufFile& file() const { return file_; }
  const HyperParameters& params() const { return params_; }
  // Of any stage and layer; those that the model does not have read nothing. The output matrix is
  // the embedding when tied.
  const StageWeights& weights(int32_t stage, int32_t layer) const;
  const WeightView& token_embedding() const { return weights(PB_STAGE_EMBEDDINGS, -1).matrix; }
  const WeightView& output() const { return weights(PB_STAGE_LOGITS, -1).matrix; }
  // The config.json that was read, empty when none.
  const std::filesystem::path& config_path() const { return config_path_; }
  const std::vector<Doubt>& doubts() const { return doubts_; }
  // "TQ2_0 x42, F16 x1, F32 x25"
  std::string WeightTypes() const;
  // Who decodes weights that nothing here does, and their types; null and empty: there are none.
  const LentDecoder* lent() const { return lent_types_.empty() ? nullptr : decoder_.get(); }
  const std::vector<std::string>& lent_types() const { return lent_types_; }

 private:
  explicit Model(GgufFile file) : file_(std::move(file)) {}
  Status TakeDeclarations(const ModelOptions& options);
  Status ReadWeights();
  void ReadProducts();
  Result<StageWeights> ReadStage(class TensorTable& table, pb_stage stage, int32_t layer) const;
  Result<StageWeights> ReadExperts(class TensorTable& table, pb_stage stage, int32_t layer) const;
  Status ReadRopeFactors(class TensorTable& table);
  // Rows [first, first + the stage's own) of a tensor of n_rows that several stages share.
  struct FusedRows {
    const char* tensor;
    int32_t layer;
    int64_t first = 0, n_rows = 0;
  };
  Result<StageWeights> ReadFused(class TensorTable& table, const FusedRows& fused, pb_stage stage) const;

  GgufFile file_;
  HyperParameters params_;
  // By stage; [0]: outside the layers, [1 + layer]: of a layer.
  std::vector<std::array<StageWeights, PB_STAGE_COUNT>> weights_;
  std::filesystem::path config_path_;
  std::vector<Doubt> doubts_;
  std::shared_ptr<const LentDecoder> decoder_;
  std::vector<std::string> lent_types_;
};

// silu relu2 relu gelu, and the other spellings that converters and Hugging Face have for them.
Result<Activation> ParseActivation(std::string_view name);
const char* ActivationName(Activation a);
// The keys of a model's files that nothing here hears, with blanks between.
std::string UnheardKeys(const Model& model);

}  // namespace pb

#endif  // PARITYBIT_MODEL_MODEL_H_

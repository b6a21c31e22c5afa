// Deterministic models of any shape: random ternary or Gaussian weights, a working byte-level BPE
// tokenizer, a config.json. Equal specifications give equal bytes on every machine.
#ifndef PARITYBIT_MODEL_GENERATE_H_
#define PARITYBIT_MODEL_GENERATE_H_

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "model/model.h"

namespace pb {

enum class Distribution {
  // -1, 0, +1 with equal odds, times one f16 scale a tensor: every format holds the same weights
  // exactly
  kTernary,
  kGaussian,  // normal; a ternary format keeps the nearest it can
};

struct GenerateSpec {
  std::string architecture = "llama";
  int64_t n_layers = 2, d_model = 256, d_ff = 512, n_heads = 4, n_kv_heads = 2;
  int64_t head_dim = 0;   // 0: d_model / n_heads
  int64_t n_vocab = 512;  // fewer than 258 leave bytes without a token
  int64_t n_ctx = 512;
  BlockType weights = BlockType::kF16;  // of the linear layers
  // of the embedding, and of the output matrix where it is another; nothing: F32 for F32, else F16
  std::optional<BlockType> embedding;
  Distribution distribution = Distribution::kTernary;
  // Goes to config.json; none: the architecture's own, or SiLU where it allows several.
  std::optional<Activation> activation;
  bool output_tied = true;
  bool llama3_rope = false;  // frequencies with factors, as LLaMA 3.1 has them
  // linear, yarn, longrope: how positions beyond n_ctx_original are reached; empty: they are not. The
  // context is n_ctx_original times the factor.
  std::string rope_scaling;
  double rope_factor = 4;
  int64_t n_ctx_original = 0;  // 0: n_ctx over the factor
  int64_t rope_dims = 0;       // 0: the architecture's own part of a head
  bool input_norms = false;    // qwen3, gemma3: a norm before each projection, as BitNet's embedding models
  bool parallel = false;       // stablelm: layers of one norm, which attention and the network read
  // Experts of llama; the architectures that must have some have 8, of which 2 are used.
  int64_t n_experts = 0, n_experts_used = 0;
  uint64_t seed = 1;
};

struct GeneratedModel {
  GgufWriter gguf;
  std::string config_json;
};

// kUsage for a shape that cannot be (rows that are no multiple of the block, heads that do not
// divide) with what would do.
Result<GeneratedModel> Generate(const GenerateSpec& spec);
// Writes the model to `path` and its config.json beside. A folder that holds another config.json is
// kUsage.
Status GenerateFile(const GenerateSpec& spec, const std::filesystem::path& path);

struct ConvertReport {
  int n_converted = 0;   // tensors rewritten
  int n_inexact = 0;     // of them: those where some weight changed its value
  float max_change = 0;  // largest |new - old|
};

// Rewrites the linear weights of a model's layers into another type and everything else as it is.
// Ternary weights with an f16 scale change no value between F32, F16, TQ1_0, TQ2_0 and I2_S. I2_S
// goes with architecture bitnet-b1.58, the others with bitnet. The embedding and the output matrix
// are rewritten into `embedding`, if any. A config.json beside the input goes beside the output.
Result<ConvertReport> Convert(const std::filesystem::path& in, BlockType type,
                              std::optional<BlockType> embedding, const std::filesystem::path& out);

// general.file_type of llama.cpp (I2_S: of bitnet.cpp) for a model whose linear weights have this
// type.
uint32_t FileTypeOf(BlockType type);

// tokenizer.ggml tables of a byte-level BPE with n_vocab tokens: up to 256 bytes (text of ASCII
// first), merges of letters, and at the end <|begin_of_text|> and <|end_of_text|>. Depends on
// n_vocab alone.
struct Vocabulary {
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;
};
Vocabulary MakeVocabulary(int64_t n_vocab);

// Writes `json` as config.json in the folder of `model`, unless the same text is there; another
// text is kUsage.
Status PlaceConfigJson(const std::filesystem::path& model, const std::string& json);

}  // namespace pb

#endif  // PARITYBIT_MODEL_GENERATE_H_

// Draws weights, writes tensors and metadata of each architecture, and refuses impossible
// shapes.
#include "model/generate.h"

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/half.h"
#include "base/random.h"
#include "model/hyper.h"
#include "model/rope_freqs.h"

namespace pb {
namespace {

constexpr int64_t kMaxDimension = 1 << 24;
constexpr double kMaxElements = 4e10;
constexpr float kRopeBase = 10000;
// Where the architecture's local layers rotate by 10000, the others do by Gemma 3's base.
constexpr float kGlobalRopeBase = 1000000;
// Positions that local layers see, caps and scales: such that each shows in a short text.
constexpr int64_t kWindow = 8;
constexpr double kScoreCapOfGenerated = 4, kLogitCapOfGenerated = 6;
struct ScaleKey {
  const char *key, *field;  // of the model file, of config.json
  double value;
};
constexpr ScaleKey kScaleKeys[] = {{"attention.scale", "attention_multiplier", 0.0625},
                                   {"embedding_scale", "embedding_multiplier", 12},
                                   {"residual_scale", "residual_multiplier", 0.25},
                                   {"logit_scale", "logits_scaling", 8}};

constexpr int64_t kExpertsOfGenerated = 8, kExpertsUsedOfGenerated = 2;

bool HasExperts(const GenerateSpec& s) { return s.n_experts > 0; }

// The optional stages that the model gets.
stages::Set StagesOf(const GenerateSpec& s) {
  const Architecture& architecture = *FindArchitecture(s.architecture);
  stages::Set stages = (stages::kAll - stages::kOptional) | architecture.optional;
  if (!s.parallel) stages |= architecture.may_have - architecture.together;
  if (s.input_norms) stages |= architecture.together;
  const bool must = architecture.optional.Contains(PB_STAGE_ROUTER_LOGITS);
  if (HasExperts(s) && !must) stages = (stages - stages::kDense) | stages::kExperts;
  return stages;
}

// An expert is half as wide as the network of a model without them, where the architecture's files
// say how wide it is and blocks allow it.
int64_t ExpertWidth(const GenerateSpec& s) {
  const bool halves = !FindArchitecture(s.architecture)->experts_of_full_width &&
                      s.d_ff % (2 * GetBlockFormat(s.weights).block_values) == 0;
  return halves ? s.d_ff / 2 : s.d_ff;
}

stages::ModelShape ShapeOf(const GenerateSpec& s) {
  stages::ModelShape shape = {s.d_model,
                              s.d_ff,
                              s.n_heads,
                              s.n_kv_heads,
                              s.head_dim,
                              s.n_vocab,
                              FindArchitecture(s.architecture)->norms_rows};
  if (HasExperts(s))
    shape.n_experts = s.n_experts, shape.n_experts_used = s.n_experts_used,
    shape.d_ff_expert = ExpertWidth(s);
  return shape;
}

// Of each pair what its frequency is divided by, from 1 on.
std::vector<double> LongRopeFactors(int64_t n_dims, double largest) {
  std::vector<double> factors;
  for (int64_t i = 0; i < n_dims / 2; ++i)
    factors.push_back(1 + (largest - 1) * static_cast<double>(i) /
                              static_cast<double>(std::max<int64_t>(n_dims / 2 - 1, 1)));
  return factors;
}

// Ding et al. 2024, as transformers has it: the scale of attention beyond the original context.
double LongRopeAttentionFactor(const GenerateSpec& s) {
  return std::sqrt(1 + std::log(s.rope_factor) / std::log(static_cast<double>(s.n_ctx_original)));
}

float RopeBaseOf(const GenerateSpec& s) {
  return FindArchitecture(s.architecture)->local_rope_as_global ? kRopeBase : kGlobalRopeBase;
}

Status CheckRow(BlockType type, const char* what, int64_t n) {
  const BlockFormat& format = GetBlockFormat(type);
  if (n % format.block_values == 0) return {};
  return MakeError(Code::kUsage, "{} {} is no multiple of {}, which {} needs", what, n, format.block_values,
                   format.name);
}

Status CompleteRotation(GenerateSpec& s, const Architecture& architecture) {
  constexpr int64_t kRotatedPart = 4;  // of a head: StableLM's
  const bool part = architecture.layer_norm && s.rope_dims == 0 && s.head_dim % (2 * kRotatedPart) == 0;
  if (s.rope_dims == 0) s.rope_dims = part ? s.head_dim / kRotatedPart : s.head_dim;
  if (s.rope_dims < 2 || s.rope_dims > s.head_dim || s.rope_dims % 2 != 0)
    return MakeError(Code::kUsage, "{} of {} dimensions of a head cannot be rotated", s.rope_dims,
                     s.head_dim);
  if (s.rope_dims != s.head_dim && architecture.full_rotation)
    return MakeError(Code::kUsage, "architecture {} rotates whole heads", s.architecture);
  if (s.rope_scaling.empty()) return {};
  if (s.rope_scaling != "linear" && s.rope_scaling != "yarn" && s.rope_scaling != "longrope")
    return MakeError(Code::kUsage, "rope scaling {} (linear, yarn and longrope are offered)", s.rope_scaling);
  if (!(s.rope_factor >= 1 && s.rope_factor <= 1e6))
    return MakeError(Code::kUsage, "a rope factor of {}, expected 1 to 1e6", s.rope_factor);
  if (s.n_ctx_original == 0)
    s.n_ctx_original =
        std::max<int64_t>(static_cast<int64_t>(static_cast<double>(s.n_ctx) / s.rope_factor), 2);
  return {};
}

Status CompleteExperts(GenerateSpec& s, const Architecture& architecture) {
  const bool must = architecture.optional.Contains(PB_STAGE_ROUTER_LOGITS);
  if (must && s.n_experts == 0) s.n_experts = kExpertsOfGenerated;
  if (s.n_experts == 0) return {};
  if ((architecture.options & kMayHaveExperts) == 0)
    return MakeError(Code::kUsage, "architecture {} has no experts", s.architecture);
  if (s.n_experts_used == 0) s.n_experts_used = std::min(kExpertsUsedOfGenerated, s.n_experts);
  if (s.n_experts > 1024 || s.n_experts_used < 1 || s.n_experts_used > s.n_experts)
    return MakeError(Code::kUsage, "{} of {} experts cannot be used", s.n_experts_used, s.n_experts);
  return {};
}

// Fills in head_dim and refuses what no engine could load.
Status Complete(GenerateSpec& s) {
  struct Row {
    const char* name;
    int64_t value, least, most;
  };
  const Row rows[] = {{"n_layers", s.n_layers, 1, 512},      {"d_model", s.d_model, 1, kMaxDimension},
                      {"d_ff", s.d_ff, 1, kMaxDimension},    {"n_heads", s.n_heads, 1, 4096},
                      {"n_kv_heads", s.n_kv_heads, 1, 4096}, {"head_dim", s.head_dim, 0, 4096},
                      {"n_vocab", s.n_vocab, 34, 1 << 20},   {"n_ctx", s.n_ctx, 1, kMaxDimension}};
  for (const Row& r : rows) {
    if (r.value >= r.least && r.value <= r.most) continue;
    return MakeError(Code::kUsage, "{} is {}, expected {} to {}", r.name, r.value, r.least, r.most);
  }
  if (s.n_heads % s.n_kv_heads != 0) {
    return MakeError(Code::kUsage, "{} heads are no multiple of {} KV heads", s.n_heads, s.n_kv_heads);
  }
  const Architecture* architecture = FindArchitecture(s.architecture);
  if (!architecture)
    return MakeError(Code::kUsage, "cannot generate architecture {} ({} can be)", s.architecture,
                     ArchitectureNames());
  // What has norms before the output projections takes the width of the heads for that of the rows.
  const bool bitnet = architecture->optional.Contains(PB_STAGE_ATTN_SUB_NORM);
  if (s.input_norms && architecture->together.empty())
    return MakeError(Code::kUsage, "architecture {} has no norm before each projection", s.architecture);
  s.output_tied = architecture->tied.value_or(s.output_tied);
  if (!s.activation) s.activation = architecture->activation.value_or(Activation::kSilu);
  if ((s.head_dim == 0 || bitnet) && s.d_model % s.n_heads != 0) {
    return MakeError(Code::kUsage, "d_model {} is no multiple of {} heads: give head_dim", s.d_model,
                     s.n_heads);
  }
  if (s.head_dim == 0) s.head_dim = s.d_model / s.n_heads;
  if (s.head_dim % 2 != 0)
    return MakeError(Code::kUsage, "head_dim {} is odd, rotary embedding needs pairs", s.head_dim);
  PB_TRY(CompleteRotation(s, *architecture));
  PB_TRY(CompleteExperts(s, *architecture));
  if (bitnet && s.head_dim * s.n_heads != s.d_model) {
    return MakeError(Code::kUsage, "architecture {} needs n_heads * head_dim = d_model", s.architecture);
  }
  if (architecture->activation && s.activation != *architecture->activation)
    return MakeError(Code::kUsage, "architecture {} runs {}, not {}", s.architecture,
                     ActivationName(*architecture->activation), ActivationName(*s.activation));
  double elements =
      2.0 * static_cast<double>(s.n_vocab) * static_cast<double>(s.d_model) +
      static_cast<double>(s.n_layers * s.d_model) *
          static_cast<double>(3 * s.d_ff * std::max<int64_t>(s.n_experts, 1) + 4 * s.n_heads * s.head_dim);
  if (elements > kMaxElements)
    return MakeError(Code::kUsage, "{:.1e} weights, at most {:.1e}", elements, kMaxElements);
  if (!GetBlockFormat(s.weights).encode)
    return MakeError(Code::kUsage, "weights cannot be written in this type");
  PB_TRY(CheckRow(s.weights, "d_model", s.d_model));
  if (s.embedding) PB_TRY(CheckRow(*s.embedding, "d_model", s.d_model));
  PB_TRY(CheckRow(s.weights, "n_heads * head_dim", s.n_heads * s.head_dim));
  return CheckRow(s.weights, "d_ff", s.d_ff);
}

float RoundF16(double v) { return F16ToF32(F32ToF16(static_cast<float>(v))); }

// Each tensor has a stream of its own, by its name (FNV-1a), so that a shape or type changes no
// other tensor.
Random StreamOf(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return Random(hash ^ std::rotl(seed, 32));
}

// The sum of twelve uniform 16-bit numbers (Irwin-Hall): variance 1 within 2^-32, mean 0, and exact
// integer arithmetic, so that no machine's logarithm decides a weight.
double Normal(Random& random) {
  uint64_t sum = 0;
  for (int draw = 0; draw < 3; ++draw) {
    uint64_t bits = random.Next();
    for (int k = 0; k < 4; ++k) sum += bits >> (16 * k) & 0xffff;
  }
  return (static_cast<double>(sum) - 6.0 * 65535.0) * 0x1p-16;
}

class Builder {
 public:
  Builder(const GenerateSpec& spec, GgufWriter& out) : spec_(spec), out_(out) {}

  void Norm(const std::string& name, int64_t n) {
    Random random = StreamOf(spec_.seed, name);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = RoundF16(1.0 + 0.125 * Normal(random));
    Write(name, BlockType::kF32, {static_cast<uint64_t>(n)}, values);
  }

  void Bias(const std::string& name, int64_t n) {
    Random random = StreamOf(spec_.seed, name);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = RoundF16(0.25 * Normal(random));
    Write(name, BlockType::kF32, {static_cast<uint64_t>(n)}, values);
  }

  // Of experts: one row of n values for each.
  void ExpertBias(const std::string& name, int64_t n, int64_t n_experts) {
    Random random = StreamOf(spec_.seed, name);
    std::vector<float> values(static_cast<size_t>(n * n_experts));
    for (float& v : values) v = RoundF16(0.25 * Normal(random));
    Write(name, BlockType::kF32, {static_cast<uint64_t>(n), static_cast<uint64_t>(n_experts)}, values);
  }

  void Factors(const std::string& name, const std::vector<double>& factors) {
    Write(name, BlockType::kF32, {static_cast<uint64_t>(factors.size())}, {factors.begin(), factors.end()});
  }

  // A router, or the shared expert's gate: in float32, as quantisers leave them.
  void Router(const std::string& name, int64_t n_rows, int64_t n_columns) {
    Random random = StreamOf(spec_.seed, name);
    std::vector<float> values(static_cast<size_t>(n_rows * n_columns));
    const double deviation = 1.0 / std::sqrt(static_cast<double>(n_columns));
    for (float& v : values) v = RoundF16(deviation * Normal(random));
    std::vector<uint64_t> shape = {static_cast<uint64_t>(n_columns)};
    if (n_rows > 1) shape.push_back(static_cast<uint64_t>(n_rows));
    Write(name, BlockType::kF32, std::move(shape), values);
  }

  void RopeFactors(int64_t n_dims) {
    const std::vector<double> factors = pb::RopeFactors(RopeFreqRule(), kRopeBase, n_dims);
    Write("rope_freqs.weight", BlockType::kF32, {static_cast<uint64_t>(factors.size())},
          {factors.begin(), factors.end()});
  }

  void Embedding(const std::string& name) {
    Random random = StreamOf(spec_.seed, name);
    std::vector<float> values(static_cast<size_t>(spec_.n_vocab * spec_.d_model));
    // Logits of a normed row then have a standard deviation of about two.
    double deviation = 2.0 / std::sqrt(static_cast<double>(spec_.d_model));
    for (float& v : values) v = RoundF16(deviation * Normal(random));
    const BlockType usual = spec_.weights == BlockType::kF32 ? BlockType::kF32 : BlockType::kF16;
    Write(name, spec_.embedding.value_or(usual),
          {static_cast<uint64_t>(spec_.d_model), static_cast<uint64_t>(spec_.n_vocab)}, values);
  }

  // A linear layer that keeps the variance of its input.
  // `n_experts`: that the rows are of; 0: of none.
  void Linear(const std::string& name, int64_t n_rows, int64_t n_columns, int64_t n_experts = 0) {
    Random random = StreamOf(spec_.seed, name);
    std::vector<float> values(static_cast<size_t>(n_rows * n_columns));
    double columns = static_cast<double>(n_columns);
    if (spec_.distribution == Distribution::kTernary) {
      float scale = RoundF16(std::sqrt(1.5 / columns));
      for (float& v : values) v = (static_cast<float>(random.Below(3)) - 1.0f) * scale;
    } else {
      double deviation = 1.0 / std::sqrt(columns);
      for (float& v : values) v = RoundF16(deviation * Normal(random));
    }
    std::vector<uint64_t> shape = {static_cast<uint64_t>(n_columns), static_cast<uint64_t>(n_rows)};
    if (n_experts > 0) {
      shape[1] /= static_cast<uint64_t>(n_experts);
      shape.push_back(static_cast<uint64_t>(n_experts));
    }
    Write(name, spec_.weights, std::move(shape), values);
  }

 private:
  void Write(const std::string& name, BlockType type, std::vector<uint64_t> shape,
             const std::vector<float>& values) {
    auto bytes = TensorBytes(static_cast<uint32_t>(type), shape);
    PB_CHECK(bytes.ok());
    std::vector<std::byte> data(*bytes);
    GetBlockFormat(type).encode(values.data(), data.data(), static_cast<int64_t>(values.size()));
    out_.AddTensor(name, static_cast<uint32_t>(type), std::move(shape), std::move(data));
  }

  const GenerateSpec& spec_;
  GgufWriter& out_;
};

void AddMetadata(const GenerateSpec& s, GgufWriter& out) {
  out.AddString("general.architecture", s.architecture);
  out.AddString("general.name", fmt::format("generated seed {}", s.seed));
  out.AddUint32("general.file_type", FileTypeOf(s.weights));
  out.AddUint32("general.quantization_version", 2);
  auto count = [&](const char* key, int64_t v) {
    out.AddUint32(s.architecture + "." + key, static_cast<uint32_t>(v));
  };
  count("context_length", s.n_ctx);
  count("embedding_length", s.d_model);
  count("block_count", s.n_layers);
  count("feed_forward_length", s.d_ff);
  count("attention.head_count", s.n_heads);
  count("attention.head_count_kv", s.n_kv_heads);
  count("rope.dimension_count", s.rope_dims);
  count("vocab_size", s.n_vocab);
  if (s.architecture == "phi3") {  // the reference asks for both
    count("attention.sliding_window", s.n_ctx);
    if (s.rope_scaling.empty()) count("rope.scaling.original_context_length", s.n_ctx);
  }
  const Architecture& architecture = *FindArchitecture(s.architecture);
  // Shorter than any text: that a window is crossed shows.
  if (architecture.options & kWindows) count("attention.sliding_window", std::min<int64_t>(s.n_ctx, kWindow));
  auto real = [&](const char* key, double v) {
    out.AddFloat32(s.architecture + "." + key, static_cast<float>(v));
  };
  // Caps that bite, and Granite's scales.
  if (architecture.options & kScoreCap) real("attn_logit_softcapping", kScoreCapOfGenerated);
  if (architecture.options & kLogitCap) real("final_logit_softcapping", kLogitCapOfGenerated);
  if (architecture.options & kScales)
    for (const ScaleKey& scale : kScaleKeys) real(scale.key, scale.value);
  if (s.n_heads * s.head_dim != s.d_model) {
    count("attention.key_length", s.head_dim);
    count("attention.value_length", s.head_dim);
  }
  if (HasExperts(s)) {
    count("expert_count", s.n_experts), count("expert_used_count", s.n_experts_used);
    if (!architecture.experts_of_full_width) count("expert_feed_forward_length", ExpertWidth(s));
    if (StagesOf(s).Contains(PB_STAGE_SHARED_OUT)) count("expert_shared_feed_forward_length", s.d_ff);
  }
  if (architecture.options & kMayBeParallel)
    out.AddBool(s.architecture + ".use_parallel_residual", s.parallel);
  if (!s.rope_scaling.empty()) {
    out.AddString(s.architecture + ".rope.scaling.type", s.rope_scaling);
    if (s.rope_scaling != "longrope") real("rope.scaling.factor", s.rope_factor);
    count("rope.scaling.original_context_length", s.n_ctx_original);
    if (s.rope_scaling == "longrope") real("rope.scaling.attn_factor", LongRopeAttentionFactor(s));
  }
  real(architecture.layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 1e-5);
  out.AddFloat32(s.architecture + ".rope.freq_base", RopeBaseOf(s));
  Vocabulary vocabulary = MakeVocabulary(s.n_vocab);
  out.AddString("tokenizer.ggml.model", "gpt2");
  out.AddString("tokenizer.ggml.pre", "llama-bpe");
  out.AddStrings("tokenizer.ggml.tokens", std::move(vocabulary.tokens));
  out.AddInts("tokenizer.ggml.token_type", std::move(vocabulary.types));
  out.AddStrings("tokenizer.ggml.merges", std::move(vocabulary.merges));
  out.AddUint32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(s.n_vocab - 2));
  out.AddUint32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(s.n_vocab - 1));
  out.AddBool("tokenizer.ggml.add_bos_token", true);
}

// One stage's tensors of a layer, or outside the layers.
void AddStage(const GenerateSpec& s, pb_stage stage, int32_t layer, Builder& build) {
  const Architecture& architecture = *FindArchitecture(s.architecture);
  const auto [n_rows, n_columns] = stages::WeightShapeOf(stage, ShapeOf(s));
  const std::string name = TensorNameIn(&architecture, stage, layer),
                    bias = TensorNameIn(&architecture, stage, layer, "bias");
  const bool of_experts = stages::kExpertProducts.Contains(stage);
  switch (stages::Of(stage).weight.kind) {
    case stages::WeightKind::kNone:
      return;
    case stages::WeightKind::kVector:
      build.Norm(name, n_columns);
      if (architecture.layer_norm) build.Bias(bias, n_columns);
      return;
    case stages::WeightKind::kMatrix:
      break;
  }
  if (stage == PB_STAGE_ROUTER_LOGITS || stage == PB_STAGE_SHARED_GATE)
    build.Router(name, n_rows, n_columns);
  else
    build.Linear(name, n_rows, n_columns, of_experts ? s.n_experts : 0);
  if (!architecture.biased.Contains(stage)) return;
  if (of_experts)
    build.ExpertBias(bias, n_rows / s.n_experts, s.n_experts);
  else
    build.Bias(bias, n_rows);
}

void AddTensors(const GenerateSpec& s, GgufWriter& out) {
  Builder build(s, out);
  const Architecture& architecture = *FindArchitecture(s.architecture);
  build.Embedding("token_embd.weight");
  for (int32_t layer = 0; layer < s.n_layers; ++layer) {
    stages::Set apart = StagesOf(s);
    if (architecture.fused) {
      apart = apart - stages::Set{PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_V_PROJ, PB_STAGE_GATE_PROJ,
                                  PB_STAGE_UP_PROJ};
      build.Linear(fmt::format("blk.{}.attn_qkv.weight", layer), (s.n_heads + 2 * s.n_kv_heads) * s.head_dim,
                   s.d_model);
      build.Linear(fmt::format("blk.{}.ffn_up.weight", layer), 2 * s.d_ff, s.d_model);
    }
    for (pb_stage stage : apart)
      if (stages::Of(stage).per_layer) AddStage(s, stage, layer, build);
    if (architecture.attention_sinks) build.Bias(fmt::format("blk.{}.attn_sinks.weight", layer), s.n_heads);
  }
  if (s.llama3_rope) build.RopeFactors(s.head_dim);
  if (s.rope_scaling == "longrope") {
    build.Factors("rope_factors_long.weight", LongRopeFactors(s.rope_dims, s.rope_factor));
    build.Factors("rope_factors_short.weight", LongRopeFactors(s.rope_dims, std::sqrt(s.rope_factor)));
  }
  AddStage(s, PB_STAGE_FINAL_NORM, -1, build);
  if (!s.output_tied) build.Embedding("output.weight");
}

// How positions are scaled, as transformers has it.
nlohmann::ordered_json RopeScalingJson(const GenerateSpec& s) {
  nlohmann::ordered_json json = {{"rope_type", s.rope_scaling}, {"factor", s.rope_factor}};
  if (s.rope_scaling != "linear") json["original_max_position_embeddings"] = s.n_ctx_original;
  if (s.rope_scaling == "longrope") {
    // As the model file holds them.
    for (const auto& [key, largest] :
         {std::pair{"long_factor", s.rope_factor}, {"short_factor", std::sqrt(s.rope_factor)}}) {
      json[key] = nlohmann::ordered_json::array();
      for (double f : LongRopeFactors(s.rope_dims, largest)) json[key].push_back(f);
    }
    json["attention_factor"] = LongRopeAttentionFactor(s);
  }
  return json;
}

void AddExpertsJson(const GenerateSpec& s, nlohmann::ordered_json* json) {
  const Architecture& architecture = *FindArchitecture(s.architecture);
  const bool full = architecture.experts_of_full_width || architecture.softmax_of_chosen;
  (*json)[full ? "num_local_experts" : "num_experts"] = s.n_experts;
  (*json)["num_experts_per_tok"] = s.n_experts_used;
  if (full) {
    (*json)["intermediate_size"] = ExpertWidth(s);
  } else {
    (*json)["moe_intermediate_size"] = ExpertWidth(s);
    (*json)["norm_topk_prob"] = architecture.normalised_experts;
  }
  if (StagesOf(s).Contains(PB_STAGE_SHARED_OUT)) (*json)["shared_expert_intermediate_size"] = s.d_ff;
}

std::string ConfigJsonOf(const GenerateSpec& s) {
  const Architecture& architecture = *FindArchitecture(s.architecture);
  nlohmann::ordered_json json = {
      {"architectures", {architecture.hf_class}},
      {"model_type", architecture.model_types.substr(0, architecture.model_types.find(' '))},
      // gpt-oss has no name for its own.
      {"hidden_act",
       ActivationName(*s.activation == Activation::kSwigluOai ? Activation::kSilu : *s.activation)},
      {"hidden_size", s.d_model},
      {"intermediate_size", s.d_ff},
      {"num_hidden_layers", s.n_layers},
      {"num_attention_heads", s.n_heads},
      {"num_key_value_heads", s.n_kv_heads},
      {"head_dim", s.head_dim},
      {"max_position_embeddings", s.n_ctx},
      {architecture.layer_norm ? "layer_norm_eps" : "rms_norm_eps", 1e-5},
      {"rope_theta", RopeBaseOf(s)},
      {"vocab_size", s.n_vocab},
      {"tie_word_embeddings", s.output_tied},
      {"bos_token_id", s.n_vocab - 2},
      {"eos_token_id", s.n_vocab - 1},
  };
  if (HasExperts(s)) AddExpertsJson(s, &json);
  if (HasExperts(s) && architecture.name == std::string_view("llama"))
    json["model_type"] = "mixtral", json["architectures"] = {"MixtralForCausalLM"};
  if (architecture.options & kMayBeParallel) json["use_parallel_residual"] = s.parallel;
  if (s.rope_dims != s.head_dim)
    json["partial_rotary_factor"] = static_cast<double>(s.rope_dims) / static_cast<double>(s.head_dim);
  if (!s.rope_scaling.empty()) json["rope_scaling"] = RopeScalingJson(s);
  if (architecture.options & kWindows) json["sliding_window"] = std::min<int64_t>(s.n_ctx, kWindow);
  if (!architecture.local_rope_as_global) json["rope_local_base_freq"] = kRopeBase;
  if (architecture.scales_embeddings) json["query_pre_attn_scalar"] = s.head_dim;
  if (architecture.options & kScoreCap) json["attn_logit_softcapping"] = kScoreCapOfGenerated;
  if (architecture.options & kLogitCap) json["final_logit_softcapping"] = kLogitCapOfGenerated;
  if (architecture.options & kScales)
    for (const ScaleKey& scale : kScaleKeys) json[scale.field] = scale.value;
  const RopeFreqRule rule;
  if (s.llama3_rope)
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", rule.factor},
                            {"low_freq_factor", rule.low},
                            {"high_freq_factor", rule.high},
                            {"original_max_position_embeddings", rule.n_ctx}};
  return json.dump(2) + "\n";
}

}  // namespace

uint32_t FileTypeOf(BlockType type) {
  struct Row {
    BlockType type;
    uint32_t file_type;
  };
  // llama.h of llama.cpp v0.5.0, llama_ftype: of several mixes the plainest. I2_S: bitnet.cpp.
  constexpr Row kRows[] = {{BlockType::kF32, 0},     {BlockType::kF16, 1},     {BlockType::kQ4_0, 2},
                           {BlockType::kQ4_1, 3},    {BlockType::kQ8_0, 7},    {BlockType::kQ5_0, 8},
                           {BlockType::kQ5_1, 9},    {BlockType::kQ2_K, 10},   {BlockType::kQ3_K, 11},
                           {BlockType::kQ4_K, 14},   {BlockType::kQ5_K, 16},   {BlockType::kQ6_K, 18},
                           {BlockType::kIQ4_NL, 25}, {BlockType::kIQ4_XS, 30}, {BlockType::kBF16, 32},
                           {BlockType::kTQ1_0, 36},  {BlockType::kTQ2_0, 37},  {BlockType::kMXFP4, 38},
                           {BlockType::kI2_S, 40},   {BlockType::kQ1_0, 40},   {BlockType::kQ2_0, 41}};
  const Row* row =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.type == type; });
  PB_CHECK(row != std::end(kRows));
  return row->file_type;
}

Result<GeneratedModel> Generate(const GenerateSpec& spec) {
  GenerateSpec complete = spec;
  PB_TRY(Complete(complete));
  GeneratedModel model;
  AddMetadata(complete, model.gguf);
  AddTensors(complete, model.gguf);
  model.config_json = ConfigJsonOf(complete);
  return model;
}

Status PlaceConfigJson(const std::filesystem::path& model, const std::string& json) {
  std::filesystem::path path = model.parent_path() / "config.json";
  auto there = ReadFile(path);
  if (there.ok() && *there == json) return {};
  if (there.ok()) {
    return MakeError(Code::kUsage, "{}: describes another model: choose a folder of its own for {}",
                     path.string(), model.filename().string());
  }
  if (there.error().code != Code::kNotFound) return std::move(there).error();
  return WriteFileAtomic(path, json);
}

Status GenerateFile(const GenerateSpec& spec, const std::filesystem::path& path) {
  PB_ASSIGN(GeneratedModel model, Generate(spec));
  PB_TRY(PlaceConfigJson(path, model.config_json));
  return model.gguf.Write(path);
}

}  // namespace pb

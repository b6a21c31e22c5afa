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

float RopeBaseOf(const GenerateSpec& s) {
  return FindArchitecture(s.architecture)->local_rope_as_global ? kRopeBase : kGlobalRopeBase;
}

Status CheckRow(BlockType type, const char* what, int64_t n) {
  const BlockFormat& format = GetBlockFormat(type);
  if (n % format.block_values == 0) return {};
  return MakeError(Code::kUsage, "{} {} is no multiple of {}, which {} needs", what, n, format.block_values,
                   format.name);
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
  s.output_tied = architecture->tied.value_or(s.output_tied);
  if (!s.activation) s.activation = architecture->activation.value_or(Activation::kSilu);
  if ((s.head_dim == 0 || bitnet) && s.d_model % s.n_heads != 0) {
    return MakeError(Code::kUsage, "d_model {} is no multiple of {} heads: give head_dim", s.d_model,
                     s.n_heads);
  }
  if (s.head_dim == 0) s.head_dim = s.d_model / s.n_heads;
  if (s.head_dim % 2 != 0)
    return MakeError(Code::kUsage, "head_dim {} is odd, rotary embedding needs pairs", s.head_dim);
  if (bitnet && s.head_dim * s.n_heads != s.d_model) {
    return MakeError(Code::kUsage, "architecture {} needs n_heads * head_dim = d_model", s.architecture);
  }
  if (architecture->activation && s.activation != *architecture->activation)
    return MakeError(Code::kUsage, "architecture {} runs {}, not {}", s.architecture,
                     ActivationName(*architecture->activation), ActivationName(*s.activation));
  double elements = 2.0 * static_cast<double>(s.n_vocab) * static_cast<double>(s.d_model) +
                    static_cast<double>(s.n_layers * s.d_model) *
                        static_cast<double>(3 * s.d_ff + 4 * s.n_heads * s.head_dim);
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
  void Linear(const std::string& name, int64_t n_rows, int64_t n_columns) {
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
    Write(name, spec_.weights, {static_cast<uint64_t>(n_columns), static_cast<uint64_t>(n_rows)}, values);
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
  count("rope.dimension_count", s.head_dim);
  count("vocab_size", s.n_vocab);
  if (s.architecture == "phi3") {  // the reference asks for both
    count("attention.sliding_window", s.n_ctx);
    count("rope.scaling.original_context_length", s.n_ctx);
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
  out.AddFloat32(s.architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
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

void AddTensors(const GenerateSpec& s, GgufWriter& out) {
  Builder build(s, out);
  const Architecture& architecture = *FindArchitecture(s.architecture);
  const stages::ModelShape shape = {
      s.d_model, s.d_ff, s.n_heads, s.n_kv_heads, s.head_dim, s.n_vocab, architecture.norms_rows};
  auto add = [&](pb_stage stage, int32_t layer) {
    const auto [n_rows, n_columns] = stages::WeightShapeOf(stage, shape);
    const stages::WeightKind kind = stages::Of(stage).weight.kind;
    if (kind == stages::WeightKind::kMatrix)
      build.Linear(stages::TensorName(stage, layer), n_rows, n_columns);
    if (kind == stages::WeightKind::kVector) build.Norm(stages::TensorName(stage, layer), n_columns);
  };
  build.Embedding("token_embd.weight");
  for (int32_t layer = 0; layer < s.n_layers; ++layer) {
    stages::Set apart = (stages::kAll - stages::kOptional) | architecture.optional;
    if (architecture.fused) {
      apart = apart - stages::Set{PB_STAGE_Q_PROJ, PB_STAGE_K_PROJ, PB_STAGE_V_PROJ, PB_STAGE_GATE_PROJ,
                                  PB_STAGE_UP_PROJ};
      build.Linear(fmt::format("blk.{}.attn_qkv.weight", layer), (s.n_heads + 2 * s.n_kv_heads) * s.head_dim,
                   s.d_model);
      build.Linear(fmt::format("blk.{}.ffn_up.weight", layer), 2 * s.d_ff, s.d_model);
    }
    for (pb_stage stage : apart)
      if (stages::Of(stage).per_layer) add(stage, layer);
    for (pb_stage stage : architecture.biased)
      build.Bias(stages::TensorName(stage, layer, "bias"), stages::WeightShapeOf(stage, shape).n_rows);
  }
  if (s.llama3_rope) build.RopeFactors(s.head_dim);
  build.Norm("output_norm.weight", s.d_model);
  if (!s.output_tied) build.Embedding("output.weight");
}

std::string ConfigJsonOf(const GenerateSpec& s) {
  const Architecture& architecture = *FindArchitecture(s.architecture);
  nlohmann::ordered_json json = {
      {"architectures", {architecture.hf_class}},
      {"model_type", architecture.model_types.substr(0, architecture.model_types.find(' '))},
      {"hidden_act", ActivationName(*s.activation)},
      {"hidden_size", s.d_model},
      {"intermediate_size", s.d_ff},
      {"num_hidden_layers", s.n_layers},
      {"num_attention_heads", s.n_heads},
      {"num_key_value_heads", s.n_kv_heads},
      {"head_dim", s.head_dim},
      {"max_position_embeddings", s.n_ctx},
      {"rms_norm_eps", 1e-5},
      {"rope_theta", RopeBaseOf(s)},
      {"vocab_size", s.n_vocab},
      {"tie_word_embeddings", s.output_tied},
      {"bos_token_id", s.n_vocab - 2},
      {"eos_token_id", s.n_vocab - 1},
  };
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

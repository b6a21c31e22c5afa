// What model files declare: bundled models, defaults, contradictions, and files that are refused
// by name.
#include "model/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "base/bytes.h"
#include "base/file.h"
#include "model/generate.h"
#include "tests/paths.h"

namespace pb {
namespace {

std::filesystem::path Bundled(std::string_view name, std::string_view format) {
  return ModelPath(name, format);
}

// A folder that vanishes.
class Folder {
 public:
  Folder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() / fmt::format("pb-model-{}-{}", ::getpid(), count++);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

void Write(const std::filesystem::path& path, std::string_view text) {
  ASSERT_TRUE(WriteFileAtomic(path, text).ok());
}

GenerateSpec SmallSpec(std::string architecture = "llama") {
  GenerateSpec s;
  s.architecture = std::move(architecture);
  s.n_layers = 1;
  s.d_model = 32;
  s.d_ff = 64;
  s.n_heads = 2;
  s.n_kv_heads = 1;
  s.n_vocab = 96;
  s.n_ctx = 64;
  return s;
}

std::vector<std::byte> SmallFile(std::string architecture = "llama") {
  return Generate(SmallSpec(std::move(architecture))).value().gguf.Serialise();
}

// Copies metadata and tensors of a file, with keys and tensors replaced or added; an empty optional
// drops a key.
std::vector<std::byte> Edited(const std::vector<std::byte>& bytes, std::string_view key,
                              std::optional<GgufValue> value, std::string_view new_tensor = {},
                              std::vector<uint64_t> shape = {}) {
  GgufFile file = GgufFile::Parse(bytes).value();
  GgufWriter out;
  for (const auto& [k, v] : file.metadata()) {
    if (k != key) out.Add(k, v);
  }
  if (value) out.Add(std::string(key), *value);
  for (const GgufTensor& t : file.tensors())
    out.AddTensor(t.name, t.type_id, t.shape, {t.data.begin(), t.data.end()});
  if (!new_tensor.empty()) {
    auto n = TensorBytes(0, shape).value();
    std::vector<std::byte> ones(n);
    for (uint64_t i = 0; i < n; i += 4) StoreLe(ones.data() + i, 2.0f);
    out.AddTensor(std::string(new_tensor), 0, shape, ones);
  }
  return out.Serialise();
}

Result<std::shared_ptr<const Model>> Load(std::vector<std::byte> bytes) {
  auto file = GgufFile::Parse(std::move(bytes));
  if (!file.ok()) return std::move(file).error();
  return Model::FromFile(std::move(file).value());
}

GgufValue U32(uint64_t v) { return {GgufType::kU32, {}, v, 0}; }
GgufValue Float(double v) { return {GgufType::kF32, {}, v, 0}; }
GgufValue Text(std::string v) { return {GgufType::kString, {}, std::move(v), 0}; }

void ExpectError(const Result<std::shared_ptr<const Model>>& model, Code code, std::string_view part) {
  ASSERT_FALSE(model.ok()) << part;
  EXPECT_EQ(model.error().code, code) << model.error().message;
  EXPECT_NE(model.error().message.find(part), std::string::npos) << model.error().message;
}

// The same matrices as a reader has who knows the architecture.
TEST(Model, FindsProductsOfWhatNoTableHas) {
  const std::filesystem::path path = Bundled("tiny-bitnet-silu", "tq2_0");
  auto known = Model::Open(path);
  ASSERT_TRUE(known.ok());
  HyperParameters told;
  const HyperParameters& p = (*known)->params();
  told.n_layers = p.n_layers, told.d_model = p.d_model, told.d_ff = p.d_ff, told.n_vocab = p.n_vocab;
  told.n_heads = p.n_heads, told.n_kv_heads = p.n_kv_heads, told.head_dim = p.head_dim, told.ops = p.ops;
  auto found = Model::OpenProducts(path, told);
  ASSERT_TRUE(found.ok());
  int n_matrices = 0;
  for (pb_stage stage : stages::kProducts) {
    for (int32_t layer = -1; layer < p.n_layers; ++layer) {
      const WeightView &a = (*known)->weights(stage, layer).matrix,
                       &b = (*found)->weights(stage, layer).matrix;
      ASSERT_EQ(a.data == nullptr, b.data == nullptr) << stages::Of(stage).name << " " << layer;
      if (!a.data || stages::Of(stage).per_layer != (layer >= 0)) continue;
      ++n_matrices;
      EXPECT_EQ(std::tuple(a.type, a.n_rows, a.n_columns, a.scale),
                std::tuple(b.type, b.n_rows, b.n_columns, b.scale));
      EXPECT_EQ(std::memcmp(a.data, b.data, static_cast<size_t>(a.n_rows) * a.row_bytes), 0);
    }
  }
  EXPECT_EQ(n_matrices, 7 * 6 + 1);
  // Sizes that the file contradicts, and layers that it cannot hold: nothing is read.
  told.d_ff += 1, told.n_layers = INT64_MAX;
  found = Model::OpenProducts(path, told);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ((*found)->weights(PB_STAGE_UP_PROJ, 0).matrix.data, nullptr);
  EXPECT_NE((*found)->weights(PB_STAGE_Q_PROJ, 0).matrix.data, nullptr);
}

TEST(Model, UnderstandsTheBundledModels) {
  for (auto [name, activation] :
       {std::pair{"tiny-bitnet-relu2", Activation::kRelu2}, {"tiny-bitnet-silu", Activation::kSilu}}) {
    for (auto [format, architecture] :
         {std::pair{"tq2_0", "bitnet"}, {"tq1_0", "bitnet"}, {"i2_s", "bitnet-b1.58"}}) {
      auto opened = Model::Open(Bundled(name, format));
      ASSERT_TRUE(opened.ok()) << opened.error().message;
      const Model& m = **opened;
      const HyperParameters& p = m.params();
      EXPECT_EQ(p.architecture, architecture);
      EXPECT_EQ(p.n_layers, 6);
      EXPECT_EQ(p.d_model, 256);
      EXPECT_EQ(p.d_ff, 512);
      EXPECT_EQ(p.n_heads, 4);
      EXPECT_EQ(p.n_kv_heads, 2);
      EXPECT_EQ(p.head_dim, 64);
      EXPECT_EQ(p.n_vocab, 2048);
      EXPECT_EQ(p.n_ctx_train, 512);
      EXPECT_EQ(p.rope_dims, 64);
      EXPECT_EQ(p.rope_pairing.value, RopePairing::kHalves);
      EXPECT_EQ(p.rope_base.value, 10000.0f);
      EXPECT_EQ(p.rope_base.origin, Origin::kMetadata);
      EXPECT_EQ(p.rope_scale.value, 1.0f);
      EXPECT_EQ(p.norm_eps.value, 1e-5f);
      EXPECT_TRUE(p.has_sub_norms() && p.output_tied);
      ASSERT_TRUE(p.ffn_activation);
      EXPECT_EQ(p.ffn_activation->value, activation);
      EXPECT_EQ(p.ffn_activation->origin, Origin::kConfigJson);
      EXPECT_TRUE(m.doubts().empty());
      EXPECT_EQ(m.config_path().filename(), "config.json");
      EXPECT_EQ(m.weights(PB_STAGE_DOWN_PROJ, 6).matrix.data, nullptr);  // there is no such layer
      EXPECT_EQ(m.weights(PB_STAGE_DOWN_PROJ, 5).matrix.n_columns, 512);
      EXPECT_EQ(m.weights(PB_STAGE_FFN_SUB_NORM, 5).vector.size(), 512u);
      EXPECT_EQ(m.output().data, m.token_embedding().data);
    }
  }
}

TEST(Model, ActivationComesFromSetThenConfigElseIsUndeclared) {
  auto path = Bundled("tiny-bitnet-relu2", "tq2_0");
  ModelOptions options;
  options.ffn_activation = Activation::kSilu;
  auto set = Model::Open(path, options);
  ASSERT_TRUE(set.ok());
  EXPECT_EQ((*set)->params().ffn_activation->value, Activation::kSilu);
  EXPECT_EQ((*set)->params().ffn_activation->origin, Origin::kSet);

  options = {};
  options.ignore_config_beside = true;
  auto bare = Model::Open(path, options);
  ASSERT_TRUE(bare.ok());
  EXPECT_FALSE((*bare)->params().ffn_activation);
  EXPECT_TRUE((*bare)->config_path().empty());

  Folder folder;
  std::filesystem::copy_file(path, folder / "m.gguf");
  auto alone = Model::Open(folder / "m.gguf");
  ASSERT_TRUE(alone.ok());
  EXPECT_FALSE((*alone)->params().ffn_activation);
  Write(folder / "config.json", R"({"hidden_act": "silu"})");
  Write(folder / "other.json", R"({"hidden_act": "relu2"})");
  EXPECT_EQ((*Model::Open(folder / "m.gguf"))->params().ffn_activation->value, Activation::kSilu);
  options = {};
  options.hf_config = folder / "other.json";
  auto named = Model::Open(folder / "m.gguf", options);
  ASSERT_TRUE(named.ok());
  EXPECT_EQ((*named)->params().ffn_activation->value, Activation::kRelu2);
  EXPECT_EQ((*named)->config_path(), folder / "other.json");
  options.hf_config = folder / "missing.json";
  ExpectError(Model::Open(folder / "m.gguf", options), Code::kNotFound, "missing.json");
}

TEST(Model, RefusesADamagedConfigJson) {
  Folder folder;
  ASSERT_TRUE(GenerateFile(SmallSpec("bitnet"), folder / "m.gguf").ok());
  for (std::string json : {std::string("{"),
                           std::string("[]"),
                           std::string(R"({"hidden_act": 3})"),
                           std::string(R"({"hidden_size": "wide"})"),
                           std::string(R"({"hidden_size": 1.5})"),
                           std::string(R"({"rms_norm_eps": []})"),
                           std::string(R"({"tie_word_embeddings": 1})"),
                           "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}",
                           std::string("\xff"),
                           std::string(R"({"rope_theta": 1e999})"),
                           std::string(R"({"rope_theta": "10000"})"),
                           std::string(R"({"rope_scaling": 3})"),
                           std::string(R"({"rope_parameters": {"rope_theta": true}})"),
                           std::string(R"({"model_type": 1})"),
                           std::string(R"({"attention_bias": "no"})"),
                           std::string(R"({"layer_types": "full_attention"})"),
                           std::string(R"({"sliding_window": 1.5})"),
                           std::string(R"({"hidden_size": 32, "hidden_size": 32})"),
                           std::string(R"({"rope_parameters": {"factor": 1, "factor": 2}})"),
                           std::string("{\"hidden_act\": \"\xc3\"}")}) {
    Write(folder / "config.json", json);
    ExpectError(Model::Open(folder / "m.gguf"), Code::kMalformed, "config.json");
  }
  Write(folder / "config.json", R"({"hidden_act": "mish"})");
  ExpectError(Model::Open(folder / "m.gguf"), Code::kUnsupported, "mish");
}

TEST(Model, LlamaRunsSilu) {
  Folder folder;
  ASSERT_TRUE(GenerateFile(SmallSpec(), folder / "m.gguf").ok());
  auto m = Model::Open(folder / "m.gguf");
  ASSERT_TRUE(m.ok());
  EXPECT_EQ((*m)->params().ffn_activation->value, Activation::kSilu);
  EXPECT_EQ((*m)->params().ffn_activation->origin, Origin::kDefault);
  EXPECT_EQ((*m)->params().rope_pairing.value, RopePairing::kAdjacent);
  EXPECT_FALSE((*m)->params().has_sub_norms());
  EXPECT_TRUE((*m)->doubts().empty());
}

TEST(Model, DefaultsOfMissingKeys) {
  auto base = SmallFile();
  EXPECT_EQ((*Load(Edited(base, "llama.rope.freq_base", {})))->params().rope_base.origin, Origin::kDefault);
  EXPECT_EQ((*Load(Edited(base, "llama.rope.freq_base", {})))->params().rope_base.value, 10000.0f);
  EXPECT_EQ((*Load(Edited(base, "llama.rope.dimension_count", {})))->params().rope_dims, 16);
  EXPECT_EQ((*Load(Edited(base, "llama.rope.scaling.factor", Float(4))))->params().rope_scale.value, 4.0f);
  EXPECT_EQ((*Load(Edited(base, "llama.rope.scale_linear", Float(2))))->params().rope_scale.value, 2.0f);
  EXPECT_FALSE((*Load(Edited(base, "", {}, "output.weight", {32, 96})))->params().output_tied);
  ExpectError(Load(Edited(base, "llama.attention.head_count_kv", {})), Code::kMalformed,
              "blk.0.attn_k.weight");  // = n_heads
  for (const char* key :
       {"general.architecture", "llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
        "llama.context_length", "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"}) {
    ExpectError(Load(Edited(base, key, {})), Code::kMalformed,
                fmt::format("metadata key {} is missing", key));
  }
}

TEST(Model, RefusesByNameWhatItDoesNotRun) {
  auto base = SmallFile();
  auto key = [&](const char* k, GgufValue v) { return Load(Edited(base, k, std::move(v))); };
  ExpectError(key("general.architecture", Text("mamba")), Code::kUnsupported, "mamba");
  ExpectError(key("llama.expert_count", U32(8)), Code::kUnsupported, "llama.expert_count");
  ExpectError(key("llama.rope.scaling.type", Text("dynamic")), Code::kUnsupported, "dynamic");
  ExpectError(key("llama.attention.causal", {GgufType::kBool, {}, false, 0}), Code::kUnsupported,
              "llama.attention.causal");
  ExpectError(key("llama.attention.value_length", U32(8)), Code::kUnsupported, "unequal lengths");
  ExpectError(key("llama.logit_scale", Float(0.5)), Code::kUnsupported, "llama.logit_scale");
  ExpectError(
      key("llama.attention.head_count", {GgufType::kArray, GgufType::kU32, std::vector<uint64_t>{2, 4}, 0}),
      Code::kUnsupported, "differs between layers");
  EXPECT_TRUE(
      key("llama.attention.head_count", {GgufType::kArray, GgufType::kU32, std::vector<uint64_t>{2, 2}, 0})
          .ok());
  // A window is no reason to refuse a file: it limits how many positions are computed.
  for (auto [window, limit] : {std::pair<uint32_t, int64_t>{64, 0}, {16, 16}}) {
    auto model = key("llama.attention.sliding_window", U32(window));
    ASSERT_TRUE(model.ok());
    EXPECT_EQ((*model)->params().longest, limit);
  }
  EXPECT_TRUE(key("llama.expert_count", U32(0)).ok());
  for (const char* name :
       {"blk.0.attn_norm.bias", "blk.0.ffn_gate_inp.weight", "blk.0.attn_q.scale", "blk.1.attn_q.weight"}) {
    ExpectError(Load(Edited(base, "", {}, name, {8})), Code::kUnsupported, name);
  }
  // A type with a known layout that nothing here decodes.
  GgufFile file = GgufFile::Parse(base).value();
  GgufWriter out;
  for (const auto& [k, v] : file.metadata()) out.Add(k, v);
  for (const GgufTensor& t : file.tensors()) {
    if (t.name != "blk.0.attn_q.weight") {
      out.AddTensor(t.name, t.type_id, t.shape, {t.data.begin(), t.data.end()});
    } else {
      out.AddTensor(t.name, 9, t.shape, std::vector<std::byte>(32 * 36));
    }
  }
  ExpectError(Load(out.Serialise()), Code::kUnsupported,
              "weight type Q8_1 of blk.0.attn_q.weight is not supported");
}

TEST(Model, RefusesWhatDoesNotFitTogether) {
  auto base = SmallFile();
  auto key = [&](const char* k, GgufValue v) { return Load(Edited(base, k, std::move(v))); };
  ExpectError(key("llama.block_count", U32(2)), Code::kMalformed, "layers are declared");
  ExpectError(key("llama.block_count", U32(0)), Code::kMalformed, "llama.block_count");
  ExpectError(key("llama.block_count", U32(1u << 31)), Code::kMalformed, "llama.block_count");
  ExpectError(key("llama.feed_forward_length", U32(32)), Code::kMalformed, "blk.0.ffn_gate.weight has shape");
  ExpectError(key("llama.embedding_length", U32(33)), Code::kMalformed, "33");
  ExpectError(key("llama.attention.head_count_kv", U32(3)), Code::kMalformed, "multiple");
  ExpectError(key("llama.rope.dimension_count", U32(8)), Code::kMalformed, "rope.dimension_count");
  ExpectError(key("llama.rope.freq_base", Float(NAN)), Code::kMalformed, "rope.freq_base");
  ExpectError(key("llama.rope.freq_base", Float(0)), Code::kMalformed, "rope.freq_base");
  ExpectError(key("llama.attention.layer_norm_rms_epsilon", Float(-1)), Code::kMalformed, "epsilon");
  ExpectError(key("llama.attention.layer_norm_rms_epsilon", U32(1)), Code::kMalformed, "epsilon");
  ExpectError(
      key("tokenizer.ggml.tokens", {GgufType::kArray, GgufType::kString, std::vector<std::string>{"a"}, 0}),
      Code::kMalformed, "tokenizer.ggml.tokens has 1");
  EXPECT_EQ((*key("llama.vocab_size", U32(7)))->doubts().size(), 1u);
}

TEST(Model, ReadsTheExtraScalesOfBitNetFiles) {
  auto m = Load(Edited(SmallFile("bitnet"), "", {}, "blk.0.ffn_down.scale", {1}));
  ASSERT_TRUE(m.ok()) << m.error().message;
  EXPECT_EQ((*m)->weights(PB_STAGE_DOWN_PROJ, 0).scale, 2.0f);
  EXPECT_EQ((*m)->weights(PB_STAGE_UP_PROJ, 0).scale, 1.0f);
}

TEST(Model, RefusesI2SWithCode3OrABadScale) {
  GenerateSpec spec = SmallSpec("bitnet-b1.58");
  spec.d_model = spec.d_ff = 128;
  spec.weights = BlockType::kI2_S;
  auto bytes = Generate(spec).value().gguf.Serialise();
  auto offset = GgufFile::Parse(bytes).value().FindTensor("blk.0.attn_q.weight")->offset;
  ASSERT_TRUE(Load(bytes).ok());
  auto bad = bytes;
  bad[offset + 5] = std::byte{0x0c};
  ExpectError(Load(bad), Code::kMalformed,
              fmt::format("byte {}: tensor blk.0.attn_q.weight: code 3 occurs 1 times", offset + 5));
  bad = bytes;
  StoreLe(bad.data() + offset + 128 * 128 / 4, INFINITY);
  ExpectError(Load(bad), Code::kMalformed, "scale is not finite");
}

TEST(Model, EveryCutOfASmallModelIsMalformed) {
  auto bytes = SmallFile();
  GgufFile whole = GgufFile::Parse(bytes).value();
  EXPECT_LE(whole.FindTensor("token_embd.weight")->offset, 4096u);
  for (size_t n = 0; n < bytes.size(); ++n) {
    auto cut = Load({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n)});
    ASSERT_FALSE(cut.ok()) << n;
    ASSERT_EQ(cut.error().code, Code::kMalformed) << n << cut.error().message;
  }
}

TEST(Model, EveryBitFlipOfTheHeaderLoadsOrErrors) {
  auto bytes = SmallFile("bitnet");
  auto header = GgufFile::Parse(bytes).value().FindTensor("token_embd.weight")->offset;
  ASSERT_LE(header, 4096u);
  int loaded = 0, refused = 0;
  for (size_t bit = 0; bit < 8 * header; ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    auto m = Load(bytes);
    m.ok() ? ++loaded : ++refused;
    if (m.ok()) {
      // What loads can be read to its end.
      std::vector<float> row(static_cast<size_t>((*m)->params().d_model));
      DecodeRow((*m)->token_embedding(), (*m)->params().n_vocab - 1, row.data());
    }
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  EXPECT_GT(loaded, 1000);   // flips inside texts
  EXPECT_GT(refused, 1000);  // flips in structure
}

// exp(-104) is less than half the least float32, 1.4e-45.
TEST(Router, DoesNotTellApartWhatFloat32DoesNot) {
  EXPECT_TRUE(RouterTies(-104, -300, 0));
  EXPECT_TRUE(RouterTies(7000, 7100, 8000));
  EXPECT_FALSE(RouterTies(-80, -300, 0));
  EXPECT_TRUE(RouterTies(1, 1 + 0x1p-23, 1));  // neighbours in float32
  EXPECT_FALSE(RouterTies(1, 1.00001, 1));
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(RouterTies(1, kNaN, 1));
  EXPECT_TRUE(RouterTies(1, 2, kNaN));
}

TEST(Activation, Names) {
  for (const char* name :
       {"relu2", "relu^2", "ReLU2", "relu_squared", "squared_relu", "relu_sqr", "relu-squared"})
    EXPECT_EQ(ParseActivation(name).value(), Activation::kRelu2) << name;
  for (const char* name : {"silu", "swish", "SiLU", "swiglu"})
    EXPECT_EQ(ParseActivation(name).value(), Activation::kSilu) << name;
  EXPECT_EQ(ParseActivation("gelu_python").value(), Activation::kGelu);
  // Its approximation by tanh is another function, and what is only near to either a third.
  for (const char* name : {"gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_tanh"})
    EXPECT_EQ(ParseActivation(name).value(), Activation::kGeluTanh) << name;
  for (const char* name : {"quick_gelu", "geglu", "gelu_10"})
    EXPECT_EQ(ParseActivation(name).error().code, Code::kUnsupported) << name;
  EXPECT_EQ(ParseActivation("mish").error().code, Code::kUnsupported);
  EXPECT_STREQ(ActivationName(Activation::kGelu), "gelu");
  EXPECT_STREQ(ActivationName(Activation::kGeluTanh), "gelu_tanh");
  EXPECT_STREQ(OriginName(Origin::kConfigJson), "config.json");
}

}  // namespace
}  // namespace pb

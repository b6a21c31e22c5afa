// Generated models: they load, equal seeds give equal bytes, weights have the distribution asked
// for.
#include "model/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/file.h"
#include "base/sha256.h"
#include "tests/paths.h"

namespace pb {
namespace {

class Folder {
 public:
  Folder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() / fmt::format("pb-generate-{}-{}", ::getpid(), count++);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::vector<float> DecodeAll(const GgufTensor& t) {
  std::vector<float> out(t.n_elements());
  float scale = t.type_id == static_cast<uint32_t>(BlockType::kI2_S) ? ScanI2S(t.data).scale : 1;
  FindBlockFormat(t.type_id)->decode(t.data.data(), out.data(), static_cast<int64_t>(out.size()), scale);
  return out;
}

void ExpectEqualWeights(const GgufFile& a, const GgufFile& b) {
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const GgufTensor& t : a.tensors()) {
    const GgufTensor* other = b.FindTensor(t.name);
    ASSERT_NE(other, nullptr) << t.name;
    ASSERT_EQ(t.shape, other->shape);
    ASSERT_EQ(DecodeAll(t), DecodeAll(*other)) << t.name;
  }
}

GgufFile Parsed(const GenerateSpec& spec) {
  auto model = Generate(spec);
  EXPECT_TRUE(model.ok()) << model.error().message;
  return GgufFile::Parse(model->gguf.Serialise()).value();
}

TEST(Generate, AwkwardShapesLoad) {
  struct Shape {
    const char* architecture;
    int64_t d_model, d_ff, n_heads, n_kv_heads, head_dim;
    BlockType type;
  };
  const Shape shapes[] = {
      {"llama", 768, 1280, 12, 4, 0, BlockType::kTQ2_0},
      {"llama", 576, 1500, 9, 3, 0, BlockType::kF16},
      {"llama", 320, 736, 5, 1, 32, BlockType::kQ8_0},
      {"bitnet", 448, 1000, 7, 7, 0, BlockType::kF32},
      {"bitnet", 768, 256, 12, 4, 0, BlockType::kTQ1_0},
      {"bitnet-b1.58", 384, 896, 6, 2, 0, BlockType::kI2_S},
      {"bitnet-25", 96, 160, 3, 3, 0, BlockType::kQ4_1},
  };
  for (const Shape& s : shapes) {
    for (Distribution distribution : {Distribution::kTernary, Distribution::kGaussian}) {
      GenerateSpec spec;
      spec.architecture = s.architecture;
      spec.d_model = s.d_model;
      spec.d_ff = s.d_ff;
      spec.n_heads = s.n_heads;
      spec.n_kv_heads = s.n_kv_heads;
      spec.head_dim = s.head_dim;
      spec.weights = s.type;
      spec.distribution = distribution;
      spec.n_layers = 1;
      spec.n_vocab = 300;
      spec.activation = s.architecture == std::string("llama") ? Activation::kSilu : Activation::kRelu2;
      Folder folder;
      ASSERT_TRUE(GenerateFile(spec, folder / "m.gguf").ok());
      auto m = Model::Open(folder / "m.gguf");
      ASSERT_TRUE(m.ok()) << m.error().message;
      EXPECT_TRUE((*m)->doubts().empty()) << (*m)->doubts()[0].text;
      EXPECT_EQ((*m)->params().ffn_activation->value, spec.activation);
      EXPECT_EQ((*m)->weights(PB_STAGE_Q_PROJ, 0).matrix.type, s.type);
      EXPECT_EQ((*m)->params().n_heads, s.n_heads);
    }
  }
}

TEST(Generate, EqualSpecificationsGiveEqualBytes) {
  GenerateSpec spec;
  spec.d_model = 64;
  spec.d_ff = 96;
  spec.n_layers = 1;
  spec.distribution = Distribution::kGaussian;
  auto bytes = Generate(spec)->gguf.Serialise();
  EXPECT_EQ(bytes, Generate(spec)->gguf.Serialise());
  spec.seed = 2;
  EXPECT_NE(bytes, Generate(spec)->gguf.Serialise());
}

TEST(Generate, TernaryWeightsAreTheSameInEveryFormat) {
  GenerateSpec spec;
  spec.architecture = "bitnet";
  spec.n_layers = 1;
  spec.weights = BlockType::kF16;
  GgufFile f16 = Parsed(spec);
  for (BlockType type : {BlockType::kTQ1_0, BlockType::kTQ2_0, BlockType::kI2_S}) {
    spec.weights = type;
    ExpectEqualWeights(f16, Parsed(spec));
  }
  std::set<float> values;
  for (float v : DecodeAll(*f16.FindTensor("blk.0.attn_q.weight"))) values.insert(v);
  EXPECT_EQ(values.size(), 3u);
}

TEST(Generate, GaussianWeightsHaveTheMomentsAskedFor) {
  GenerateSpec spec;
  spec.n_layers = 1;
  spec.weights = BlockType::kF32;
  spec.distribution = Distribution::kGaussian;
  GgufFile file = Parsed(spec);
  double sum = 0, squares = 0, fourth = 0;
  auto w = DecodeAll(*file.FindTensor("blk.0.ffn_up.weight"));
  for (float v : w) {
    double x = v * std::sqrt(256.0);  // 1/sqrt(d_model) is the deviation asked for
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  double n = static_cast<double>(w.size());
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2 / n));
  EXPECT_NEAR(fourth / n, 3 - 1.2 / 12, 5 * std::sqrt(96 / n));  // kurtosis of twelve uniforms
}

TEST(Generate, RefusesImpossibleShapes) {
  auto error = [](auto&& change) {
    GenerateSpec spec;
    change(spec);
    auto model = Generate(spec);
    return model.ok() ? "generated" : model.error().message;
  };
  EXPECT_EQ(error([](GenerateSpec&) {}), "generated");
  EXPECT_NE(error([](GenerateSpec& s) {
              s.weights = BlockType::kTQ2_0;
              s.d_ff = 500;
            }).find("d_ff 500"),
            std::string::npos);
  EXPECT_NE(error([](GenerateSpec& s) { s.n_kv_heads = 3; }).find("multiple of 3"), std::string::npos);
  EXPECT_NE(error([](GenerateSpec& s) { s.n_heads = s.n_kv_heads = 3; }).find("head_dim"), std::string::npos);
  EXPECT_NE(error([](GenerateSpec& s) { s.d_model = 252; }).find("odd"), std::string::npos);
  EXPECT_NE(error([](GenerateSpec& s) { s.d_model = 0; }).find("d_model is 0"), std::string::npos);
  EXPECT_NE(error([](GenerateSpec& s) { s.n_vocab = 3; }).find("n_vocab"), std::string::npos);
  EXPECT_NE(error([](GenerateSpec& s) { s.architecture = "mamba"; }).find("mamba"), std::string::npos);
  EXPECT_NE(error([](GenerateSpec& s) { s.activation = Activation::kRelu2; }).find("relu2"),
            std::string::npos);
  EXPECT_NE(error([](GenerateSpec& s) {
              s.architecture = "bitnet";
              s.head_dim = 32;
            }).find("head_dim"),
            std::string::npos);
  EXPECT_NE(error([](GenerateSpec& s) {
              s.d_model = s.d_ff = 1 << 24;
              s.n_layers = 512;
            }).find("at most"),
            std::string::npos);
}

TEST(Generate, VocabularyIsABytePairEncoding) {
  Vocabulary v = MakeVocabulary(2048);
  ASSERT_EQ(v.tokens.size(), 2048u);
  ASSERT_EQ(v.types.size(), 2048u);
  EXPECT_EQ(v.merges.size(), 2048u - 256 - 2);
  std::set<std::string> known(v.tokens.begin(), v.tokens.begin() + 256);
  EXPECT_EQ(known.size(), 256u);
  // U+0120 stands for the space, U+010A for the newline (GPT-2)
  EXPECT_TRUE(known.count("\xc4\xa0"));
  EXPECT_TRUE(known.count("\xc4\x8a"));
  // Every merge joins two known tokens into the next one.
  for (size_t i = 0; i < v.merges.size(); ++i) {
    size_t space = v.merges[i].find(' ');
    std::string left = v.merges[i].substr(0, space), right = v.merges[i].substr(space + 1);
    ASSERT_TRUE(known.count(left) && known.count(right)) << v.merges[i];
    ASSERT_EQ(v.tokens[256 + i], left + right);
    ASSERT_TRUE(known.insert(left + right).second);
  }
  EXPECT_TRUE(known.count("\xc4\xa0the"));
  EXPECT_EQ(v.types[2046], 3);
  EXPECT_EQ(v.tokens[2046], "<|begin_of_text|>");
  EXPECT_EQ(MakeVocabulary(100).tokens.size(), 100u);
}

TEST(Generate, RefusesAFolderOfAnotherModel) {
  Folder folder;
  GenerateSpec spec;
  spec.d_model = 64;
  spec.d_ff = 96;
  spec.n_layers = 1;
  ASSERT_TRUE(GenerateFile(spec, folder / "a.gguf").ok());
  ASSERT_TRUE(GenerateFile(spec, folder / "b.gguf").ok());
  spec.d_ff = 128;
  auto status = GenerateFile(spec, folder / "c.gguf");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, Code::kUsage);
  EXPECT_FALSE(std::filesystem::exists(folder / "c.gguf"));
}

TEST(Convert, BundledModelsKeepEveryWeight) {
  for (std::string name : {"tiny-bitnet-relu2", "tiny-bitnet-silu"}) {
    auto source = [&](const char* format) { return ModelPath(name, format); };
    GgufFile original = GgufFile::Open(source("tq2_0")).value();
    Folder folder;
    for (auto [type, text] :
         {std::pair{BlockType::kF16, "f16"}, {BlockType::kI2_S, "i2_s"}, {BlockType::kTQ1_0, "tq1_0"}}) {
      auto out = folder / (std::string(text) + ".gguf");
      auto report = Convert(source("tq2_0"), type, std::nullopt, out);
      ASSERT_TRUE(report.ok()) << report.error().message;
      EXPECT_EQ(report->n_converted, 42);
      EXPECT_EQ(report->n_inexact, 0);
      auto model = Model::Open(out);
      ASSERT_TRUE(model.ok()) << model.error().message;
      EXPECT_EQ((*model)->params().architecture, type == BlockType::kI2_S ? "bitnet-b1.58" : "bitnet");
      EXPECT_TRUE((*model)->params().ffn_activation);  // the config.json came along
      ExpectEqualWeights(original, (*model)->file());
    }
    // The bundled I2_S file was packed by another program: ours is equal in every byte of every
    // tensor.
    GgufFile ours = GgufFile::Open(folder / "i2_s.gguf").value(),
             theirs = GgufFile::Open(source("i2_s")).value();
    for (const GgufTensor& t : theirs.tensors()) {
      const GgufTensor* o = ours.FindTensor(t.name);
      ASSERT_TRUE(o && std::equal(t.data.begin(), t.data.end(), o->data.begin(), o->data.end())) << t.name;
    }
    EXPECT_EQ(ours.Uint("general.file_type").value(), theirs.Uint("general.file_type").value());
  }
}

TEST(Convert, SaysWhatChanged) {
  Folder folder;
  GenerateSpec spec;
  spec.n_layers = 1;
  spec.distribution = Distribution::kGaussian;
  ASSERT_TRUE(GenerateFile(spec, folder / "m.gguf").ok());
  auto report = Convert(folder / "m.gguf", BlockType::kQ8_0, std::nullopt, folder / "q8.gguf");
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->n_converted, 7);
  EXPECT_EQ(report->n_inexact, 7);
  EXPECT_GT(report->max_change, 0);
  EXPECT_LT(report->max_change, 0.01f);
  spec.d_ff = 352;
  Folder other;
  ASSERT_TRUE(GenerateFile(spec, other / "m.gguf").ok());
  auto refused = Convert(other / "m.gguf", BlockType::kTQ2_0, std::nullopt, other / "tq2.gguf");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kUsage);
  EXPECT_NE(refused.error().message.find("blk.0.ffn_down.weight"), std::string::npos);
}

}  // namespace
}  // namespace pb

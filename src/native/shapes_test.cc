// Generated models of awkward shapes: every weight type, rows that are no multiple of a vector, odd
// head counts and lengths.
#include <cmath>

#include "model/generate.h"
#include "native/harness_for_tests.h"

namespace pb::native {
namespace {

GenerateSpec Spec(const char* architecture, BlockType weights, int64_t d_model, int64_t d_ff, int64_t n_heads,
                  int64_t n_kv_heads, int64_t head_dim = 0) {
  GenerateSpec spec;
  spec.architecture = architecture, spec.weights = weights;
  spec.d_model = d_model, spec.d_ff = d_ff, spec.n_heads = n_heads, spec.n_kv_heads = n_kv_heads,
  spec.head_dim = head_dim;
  bool ternary = weights == BlockType::kTQ2_0 || weights == BlockType::kTQ1_0 || weights == BlockType::kI2_S;
  spec.distribution = ternary ? Distribution::kTernary : Distribution::kGaussian;
  return spec;
}

Harness Generated(const GenerateSpec& spec) {
  auto made = Generate(spec);
  if (!made.ok()) return Harness(std::move(made).error());
  auto file = GgufFile::Parse(made->gguf.Serialise());
  if (!file.ok()) return Harness(std::move(file).error());
  return Harness(Model::FromFile(std::move(file).value()));
}

std::vector<int32_t> Tokens(int n) {
  std::vector<int32_t> ids = SomeTokens(n);
  for (int32_t& id : ids) id %= 500;
  return ids;
}

class Shapes : public testing::TestWithParam<GenerateSpec> {};

TEST_P(Shapes, GiveTheSameBitsHoweverTheyAreComputed) {
  const GenerateSpec& spec = GetParam();
  Harness harness = Generated(spec);
  Config config;
  const auto tokens = Tokens(37);
  const std::vector<float> want = harness.Logits(config, tokens, {37});
  ASSERT_EQ(want.size(), 37u * static_cast<size_t>(spec.n_vocab));
  for (float v : want) ASSERT_TRUE(std::isfinite(v));
  const std::string digest = Digest(want);
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (!IsaAvailable(isa)) continue;
    Config other = config;
    other.isa = isa, other.threads = 2, other.ubatch = 5;
    EXPECT_EQ(Digest(harness.Logits(other, tokens, {19, 1})), digest) << IsaName(isa);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Shapes,
                         testing::Values(Spec("llama", BlockType::kQ4_1, 96, 160, 3, 1),
                                         Spec("llama", BlockType::kQ8_0, 160, 224, 5, 5),
                                         Spec("llama", BlockType::kF16, 90, 77, 5, 1, 18),
                                         Spec("llama", BlockType::kF32, 72, 100, 3, 3, 24),
                                         Spec("bitnet", BlockType::kTQ1_0, 768, 512, 12, 4),
                                         Spec("bitnet", BlockType::kTQ2_0, 768, 1280, 6, 2),
                                         Spec("bitnet-b1.58", BlockType::kI2_S, 384, 640, 3, 1)),
                         [](const auto& info) {
                           return fmt::format("{}_{}", GetBlockFormat(info.param.weights).name,
                                              info.param.d_model);
                         });

// The same ternary weights in every type that can hold them, met by the same activations.
TEST(Types, SameWeightsSameActivationsSameBits) {
  const auto tokens = Tokens(21);
  auto digest = [&](const char* architecture, BlockType type, ActQuant quant) {
    GenerateSpec spec = Spec(architecture, type, 256, 512, 4, 2);
    spec.distribution = Distribution::kTernary;
    Config config;
    config.act_quant = quant;
    return Digest(Generated(spec).Logits(config, tokens, {21}));
  };
  EXPECT_EQ(digest("bitnet", BlockType::kTQ2_0, ActQuant{ActScheme::kF16, {}}),
            digest("bitnet", BlockType::kF16, ActQuant{}));
  EXPECT_EQ(digest("bitnet", BlockType::kTQ2_0, ActQuant{ActScheme::kNone, {}}),
            digest("bitnet", BlockType::kF16, ActQuant{ActScheme::kNone, {}}));
  EXPECT_EQ(digest("bitnet", BlockType::kTQ2_0, ActQuant{ActScheme::kQ8_K, {}}),
            digest("bitnet", BlockType::kTQ1_0, ActQuant{ActScheme::kQ8_K, {}}));
}

TEST(Types, ASchemeThatDoesNotFitIsNamed) {
  Harness harness = Generated(Spec("llama", BlockType::kQ8_0, 96, 160, 3, 1));
  Config config;
  config.act_quant = ActQuant{ActScheme::kQ8_K, {}};
  auto session = harness.Open(config);
  std::vector<float> logits;
  Status status = Harness::Eval(*session, {1, 2}, &logits);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, Code::kUnsupported);
  EXPECT_NE(status.error().message.find("256"), std::string::npos);
}

}  // namespace
}  // namespace pb::native

// The promise of the engine: same model, same tokens, same bits, whatever threads, batch,
// instruction set and taps.
#include <cmath>

#include "native/harness_for_tests.h"

namespace pb::native {
namespace {

struct Case {
  const char* model;
  const char* type;
  ActQuant quant;
  bool kv_f16;
};

class Bits : public testing::TestWithParam<Case> {};

TEST_P(Bits, AreTheSameForThreadsBatchesTargetsAndTaps) {
  const Case& c = GetParam();
  Harness harness(Harness::Path(c.model, c.type));
  Config config;
  config.act_quant = c.quant, config.kv_f16 = c.kv_f16, config.n_ctx = 64;
  const auto tokens = SomeTokens(41);
  const std::vector<float> want = harness.Logits(config, tokens, {41});
  ASSERT_EQ(want.size(), 41u * 2048u);
  const std::string digest = Digest(want);
  for (int threads : {2, 3}) {
    Config other = config;
    other.threads = threads;
    EXPECT_EQ(Digest(harness.Logits(other, tokens, {41})), digest) << threads << " threads";
  }
  for (int64_t ubatch : {1, 7}) {
    Config other = config;
    other.ubatch = ubatch;
    EXPECT_EQ(Digest(harness.Logits(other, tokens, {41})), digest) << "ubatch " << ubatch;
  }
  EXPECT_EQ(Digest(harness.Logits(config, tokens, {1})), digest) << "decode";
  EXPECT_EQ(Digest(harness.Logits(config, tokens, {20, 3, 1})), digest) << "prefill, then decode";
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (!IsaAvailable(isa)) continue;
    Config other = config;
    other.isa = isa;
    EXPECT_EQ(Digest(harness.Logits(other, tokens, {41})), digest) << IsaName(isa);
  }
  int n_points = 0;
  auto look = [&](const pb_point&, pb_tensor&) { return n_points++, PB_CONTINUE; };
  EXPECT_EQ(Digest(harness.Logits(config, tokens, {20, 21}, look)), digest) << "tapped";
  EXPECT_EQ(n_points, 2 * (6 * 20 + 3));
}

INSTANTIATE_TEST_SUITE_P(
    Tiny, Bits,
    testing::Values(Case{"tiny-bitnet-silu", "tq2_0", ActQuant{}, true},
                    Case{"tiny-bitnet-silu", "tq1_0", ActQuant{ActScheme::kBitnet, {}}, false},
                    Case{"tiny-bitnet-relu2", "i2_s", ActQuant{}, true},
                    Case{"tiny-bitnet-relu2", "i2_s", ActQuant{ActScheme::kQ8_K, {}}, true},
                    Case{"tiny-bitnet-relu2", "tq2_0", ActQuant{ActScheme::kNone, {}}, false},
                    Case{"tiny-bitnet-silu", "tq2_0", ActQuant{ActScheme::kF16, {}}, true}),
    [](const auto& info) {
      return fmt::format("{}_{}_{}", info.index, info.param.type,
                         info.param.quant.all ? ActSchemeName(*info.param.quant.all) : "ggml");
    });

// The same weights in different types meet the same activations: equal bits.
TEST(Types, TernaryTypesAgree) {
  Config config;
  config.act_quant = ActQuant{ActScheme::kQ8_K, {}};
  const auto tokens = SomeTokens(30);
  Harness tq2(Harness::Path("tiny-bitnet-silu", "tq2_0")), tq1(Harness::Path("tiny-bitnet-silu", "tq1_0"));
  EXPECT_EQ(Digest(tq2.Logits(config, tokens, {30})), Digest(tq1.Logits(config, tokens, {30})));
}

// Random rounding depends on seed and place alone.
TEST(Noise, IsTheSameForThreadsAndBatchesAndSparesTheLogits) {
  Harness harness(Harness::Path("tiny-bitnet-silu", "tq2_0"));
  const auto tokens = SomeTokens(30);
  Config config;
  const std::vector<float> calm = harness.Logits(config, tokens, {30});
  config.noise_seed = 7;
  const std::vector<float> noisy = harness.Logits(config, tokens, {30});
  Config other = config;
  other.threads = 3, other.ubatch = 7;
  EXPECT_EQ(Digest(harness.Logits(other, tokens, {11, 1})), Digest(noisy));
  other.noise_seed = 8;
  EXPECT_NE(Digest(harness.Logits(other, tokens, {30})), Digest(noisy));
  double error = 0, norm = 0;
  for (size_t i = 0; i < calm.size(); i++) {
    error += std::pow(static_cast<double>(noisy[i]) - calm[i], 2),
        norm += std::pow(static_cast<double>(calm[i]), 2);
  }
  EXPECT_GT(error, 0);
  EXPECT_LT(std::sqrt(error / norm), 2e-2);  // the model's floor is 3e-3 (docs/experiments.md)
  std::vector<float> logits;
  Points points = harness.Record(config, tokens, &logits);
  auto session = harness.Open(config);
  auto replayed = ReplayOn(*session, PB_STAGE_LOGITS, -1, {&points.at({PB_STAGE_FINAL_NORM, -1})});
  ASSERT_TRUE(replayed.ok());
  EXPECT_EQ(Digest(*replayed), Digest(logits));
}

}  // namespace
}  // namespace pb::native

// The oracle against an implementation that nobody here wrote: Hugging Face transformers, float32
// (models/golden).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "formats/safetensors.h"
#include "model/generate.h"
#include "oracle/forward.h"
#include "tests/paths.h"

namespace pb::oracle {
namespace {

// Recorded tensors as fp64 rows.
class Golden {
 public:
  explicit Golden(const std::string& file) {
    auto opened = SafetensorsFile::Open(SourcePath("models/golden/" + file));
    if (!opened.ok()) ADD_FAILURE() << opened.error().message;
    file_.emplace(std::move(opened).value());
    const std::string& ids = file_->metadata().at("ids");
    for (const char* p = ids.c_str() + 1; *p;) {
      char* end = nullptr;
      tokens_.push_back(static_cast<int32_t>(std::strtol(p, &end, 10)));
      p = end + 1;
    }
  }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const Rows& operator[](const std::string& name) {
    auto [entry, fresh] = rows_.try_emplace(name);
    if (fresh) {
      const SafeTensor* t = file_->Find(name);
      EXPECT_NE(t, nullptr) << name;
      auto values = t->Floats();
      EXPECT_TRUE(values.ok());
      entry->second = Rows(static_cast<int64_t>(t->shape[0]), static_cast<int64_t>(t->shape[1]));
      entry->second.v.assign(values->begin(), values->end());
    }
    return entry->second;
  }
  const Rows& At(const char* stage, int64_t layer) { return (*this)[fmt::format("{}.{}", stage, layer)]; }

 private:
  std::optional<SafetensorsFile> file_;
  std::vector<int32_t> tokens_;
  std::map<std::string, Rows> rows_;
};

// The largest rel-L2 of any token row.
double WorstRow(const Rows& a, const Rows& b) {
  EXPECT_EQ(a.n, b.n);
  EXPECT_EQ(a.width, b.width);
  double worst = 0;
  for (int64_t i = 0; i < a.n; i++) {
    double error = 0, norm = 0;
    for (int64_t k = 0; k < a.width; k++) {
      error += std::pow(a.row(i)[k] - b.row(i)[k], 2);
      norm += std::pow(b.row(i)[k], 2);
    }
    const double rel = std::sqrt(error / norm);
    if (!(rel <= worst)) worst = rel;
  }
  return worst;
}

class GoldenBitnet : public testing::TestWithParam<const char*> {};

TEST_P(GoldenBitnet, EveryRecordedPointFollowsFromItsRecordedInputs) {
  const std::string name = GetParam();
  Golden golden(name + ".safetensors");
  auto model = Model::Open(ModelPath(name, "tq2_0"));
  ASSERT_TRUE(model.ok()) << model.error().message;
  Ops ops(*model, OpConfig::Declare((*model)->params(), ActQuant{ActScheme::kBitnet, {}}, false), 2);
  int n_points = 0;
  auto check = [&](pb_stage stage, int32_t l, std::initializer_list<const Rows*> inputs, const Rows& expected,
                   double limit) {
    auto y = ops.Compute(stage, l, 0, {inputs.begin(), inputs.size()}, ops.config(), nullptr);
    ASSERT_TRUE(y.ok()) << y.error().message;
    EXPECT_LE(WorstRow(*y, expected), limit) << pb_vocabulary[stage].name << " of layer " << l;
    n_points++;
  };
  auto compute = [&](pb_stage stage, int32_t l, std::initializer_list<const Rows*> inputs) {
    return std::move(ops.Compute(stage, l, 0, {inputs.begin(), inputs.size()}, ops.config(), nullptr))
        .value();
  };
  Rows x = std::move(ops.Embeddings(golden.tokens())).value();
  for (int32_t l = 0; l < 6; l++) {
    auto at = [&](const char* stage) { return &golden.At(stage, l); };
    check(PB_STAGE_ATTN_NORM, l, {&x}, *at("attn_norm"), 1e-5);
    check(PB_STAGE_Q_PROJ, l, {at("attn_norm")}, *at("q_proj"), 1e-5);
    check(PB_STAGE_K_PROJ, l, {at("attn_norm")}, *at("k_proj"), 1e-5);
    check(PB_STAGE_V_PROJ, l, {at("attn_norm")}, *at("v_proj"), 1e-5);
    const Rows q = compute(PB_STAGE_Q_ROPE, l, {at("q_proj")}),
               k = compute(PB_STAGE_K_ROPE, l, {at("k_proj")});
    const Rows scores = compute(PB_STAGE_ATTN_SCORES, l, {&q, &k});
    const Rows weights = compute(PB_STAGE_ATTN_SCORES_SOFTMAX, l, {&scores});
    check(PB_STAGE_ATTN_CONTEXT, l, {&weights, at("v_proj")}, *at("attn_context"), 1e-5);
    check(PB_STAGE_ATTN_SUB_NORM, l, {at("attn_context")}, *at("attn_sub_norm"), 1e-5);
    check(PB_STAGE_ATTN_OUT, l, {at("attn_sub_norm")}, *at("attn_out"), 1e-5);
    check(PB_STAGE_ATTN_RESIDUAL, l, {at("attn_out"), &x}, *at("attn_residual"), 1e-5);
    check(PB_STAGE_FFN_NORM, l, {at("attn_residual")}, *at("ffn_norm"), 1e-5);
    check(PB_STAGE_GATE_PROJ, l, {at("ffn_norm")}, *at("gate_proj"), 1e-5);
    check(PB_STAGE_UP_PROJ, l, {at("ffn_norm")}, *at("up_proj"), 1e-5);
    check(PB_STAGE_FFN_ACT, l, {at("gate_proj")}, *at("ffn_act"), 1e-5);
    check(PB_STAGE_FFN_GATED, l, {at("ffn_act"), at("up_proj")}, *at("ffn_gated"), 1e-5);
    check(PB_STAGE_FFN_SUB_NORM, l, {at("ffn_gated")}, *at("ffn_sub_norm"), 1e-5);
    check(PB_STAGE_DOWN_PROJ, l, {at("ffn_sub_norm")}, *at("down_proj"), 1e-5);
    check(PB_STAGE_LAYER_OUT, l, {at("down_proj"), at("attn_residual")}, *at("layer_out"), 1e-5);
    x = *at("layer_out");
  }
  check(PB_STAGE_FINAL_NORM, -1, {&x}, golden["final_norm"], 1e-5);
  check(PB_STAGE_LOGITS, -1, {&golden["final_norm"]}, golden["logits"], 1e-6);
  EXPECT_EQ(n_points, 6 * 16 + 2);
}

INSTANTIATE_TEST_SUITE_P(Tiny, GoldenBitnet, testing::Values("tiny-bitnet-silu", "tiny-bitnet-relu2"),
                         [](const auto& info) { return std::string(info.index ? "relu2" : "silu"); });

// Of small random models of each architecture (models/golden/arch_golden.py): what transformers
// computed in float32 is what follows from the file, after every layer.
struct RandomModel {
  const char* name;
  int64_t n_layers = 2, head_dim = 16;
  const char* architecture = nullptr;  // null: as it is called
  const char* rope_scaling = "";
  double rope_factor = 4;
  bool long_rope = false;  // the long factors count
  int64_t n_experts = 0;
  bool parallel = false;
  bool input_norms = false;
};

class GoldenArchitecture : public testing::TestWithParam<RandomModel> {};

TEST_P(GoldenArchitecture, EveryLayerAndTheLogits) {
  GenerateSpec spec;
  const RandomModel& m = GetParam();
  spec.architecture = m.architecture ? m.architecture : m.name, spec.weights = BlockType::kF32;
  spec.distribution = Distribution::kGaussian;
  spec.n_vocab = 96, spec.d_model = 64, spec.d_ff = 96, spec.n_heads = 4, spec.n_kv_heads = 2;
  spec.n_ctx = 64, spec.seed = 7, spec.n_layers = m.n_layers, spec.head_dim = m.head_dim;
  spec.rope_scaling = m.rope_scaling, spec.rope_factor = m.rope_factor;
  spec.n_experts = m.n_experts, spec.parallel = m.parallel, spec.input_norms = m.input_norms;
  auto made = Generate(spec);
  ASSERT_TRUE(made.ok()) << made.error().message;
  auto file = GgufFile::Parse(made->gguf.Serialise());
  ASSERT_TRUE(file.ok()) << file.error().message;
  auto model = Model::FromFile(std::move(file).value());
  ASSERT_TRUE(model.ok()) << model.error().message;
  Golden golden(m.name + std::string(".safetensors"));
  Ops ops(*model, OpConfig::Declare((*model)->params(), ActQuant{ActScheme::kNone, {}}, false, m.long_rope),
          2);
  Sequence sequence(ops);
  int64_t n_layers = 0;
  auto logits = sequence.Forward(golden.tokens(), [&](int32_t stage, int32_t layer, const Rows& y) -> Status {
    if (stage != PB_STAGE_LAYER_OUT) return {};
    EXPECT_LE(WorstRow(y, golden.At("layer_out", layer)), 1e-5) << "layer " << layer;
    n_layers++;
    return {};
  });
  ASSERT_TRUE(logits.ok()) << logits.error().message;
  EXPECT_LE(WorstRow(*logits, golden["logits"]), 1e-5);
  EXPECT_EQ(n_layers, spec.n_layers);
}

INSTANTIATE_TEST_SUITE_P(
    Transformers, GoldenArchitecture,
    testing::Values(RandomModel{"llama"}, RandomModel{"qwen2"}, RandomModel{"qwen3", 2, 32},
                    RandomModel{"phi3"}, RandomModel{"gemma2", 2, 32}, RandomModel{"gemma3", 7, 32},
                    RandomModel{"olmo2"}, RandomModel{"granite"}, RandomModel{"smollm3", 5},
                    RandomModel{"mixtral", 2, 16, "llama", "", 4, false, 4}, RandomModel{"qwen2moe"},
                    RandomModel{"qwen3moe", 2, 32}, RandomModel{"gpt-oss", 2, 32, nullptr, "yarn"},
                    RandomModel{"stablelm"},
                    RandomModel{"stablelm-parallel", 2, 16, "stablelm", "", 4, false, 0, true},
                    RandomModel{"qwen3-input-norms", 2, 32, "qwen3", "", 4, false, 0, false, true},
                    RandomModel{"gemma3-input-norms", 7, 32, "gemma3", "", 4, false, 0, false, true},
                    RandomModel{"mistral3", 2, 16, nullptr, "yarn"},
                    RandomModel{"llama-linear", 2, 16, "llama", "linear"},
                    RandomModel{"qwen2-yarn", 2, 16, "qwen2", "yarn"},
                    RandomModel{"phi3-long", 2, 16, "phi3", "longrope", 4, true},
                    RandomModel{"phi3-short", 2, 16, "phi3", "longrope", 2}),
    [](const auto& info) {
      std::string name = info.param.name;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

}  // namespace
}  // namespace pb::oracle

// Against an implementation that nobody here wrote: Hugging Face transformers, float32
// (models/golden): every recorded point of both tiny BitNets, computed from the recorded inputs of
// its op.
#include <cmath>

#include "formats/safetensors.h"
#include "native/harness_for_tests.h"
#include "tests/paths.h"

namespace pb::native {
namespace {

class Golden {
 public:
  explicit Golden(const std::string& file) {
    auto opened = SafetensorsFile::Open(SourcePath("models/golden/" + file));
    if (!opened.ok()) ADD_FAILURE() << opened.error().message;
    file_.emplace(std::move(opened).value());
  }
  const Recorded& operator[](const std::string& name) {
    auto [entry, fresh] = tensors_.try_emplace(name);
    if (!fresh) return entry->second;
    const SafeTensor* t = file_->Find(name);
    EXPECT_NE(t, nullptr) << name;
    if (!t) return entry->second;
    entry->second.values = std::move(t->Floats()).value();
    entry->second.shape.assign(t->shape.begin(), t->shape.end());
    return entry->second;
  }
  const Recorded& At(const char* stage, int64_t layer) { return (*this)[fmt::format("{}.{}", stage, layer)]; }
  std::vector<int32_t> Tokens() const {
    std::vector<int32_t> ids;
    const std::string& text = file_->metadata().at("ids");
    for (const char* p = text.c_str() + 1; *p;) {
      char* end = nullptr;
      ids.push_back(static_cast<int32_t>(std::strtol(p, &end, 10)));
      p = end + 1;
    }
    return ids;
  }

 private:
  std::optional<SafetensorsFile> file_;
  std::map<std::string, Recorded> tensors_;
};

double WorstRow(const std::vector<float>& a, const Recorded& b) {
  EXPECT_EQ(a.size(), b.values.size());
  const size_t n = static_cast<size_t>(b.shape[0]), width = b.values.size() / n;
  double worst = 0;
  for (size_t i = 0; i < n && a.size() == b.values.size(); i++) {
    double error = 0, norm = 0;
    for (size_t k = i * width; k < (i + 1) * width; k++) {
      error += std::pow(static_cast<double>(a[k]) - b.values[k], 2),
          norm += std::pow(static_cast<double>(b.values[k]), 2);
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
  Harness harness(Harness::Path(name, "tq2_0"));
  Config config;
  config.act_quant = ActQuant{ActScheme::kBitnet, {}}, config.kv_f16 = false;
  auto session = harness.Open(config);
  int n_points = 0;
  auto compute = [&](pb_stage stage, int32_t layer, std::vector<const Recorded*> inputs) {
    auto got = ReplayOn(*session, stage, layer, inputs);
    EXPECT_TRUE(got.ok()) << got.error().message;
    return got.ok() ? Recorded{{32, static_cast<int64_t>(got->size()) / 32}, *got} : Recorded{};
  };
  auto check = [&](pb_stage stage, int32_t layer, std::vector<const Recorded*> inputs, const Recorded& want,
                   double limit) {
    EXPECT_LE(WorstRow(compute(stage, layer, inputs).values, want), limit)
        << pb_vocabulary[stage].name << " of layer " << layer;
    n_points++;
  };
  Points own = harness.Record(config, golden.Tokens());
  const Recorded* x = &own.at({PB_STAGE_EMBEDDINGS, -1});
  for (int32_t l = 0; l < 6; l++) {
    auto at = [&](const char* stage) { return &golden.At(stage, l); };
    check(PB_STAGE_ATTN_NORM, l, {x}, *at("attn_norm"), 1e-5);
    check(PB_STAGE_Q_PROJ, l, {at("attn_norm")}, *at("q_proj"), 1e-5);
    check(PB_STAGE_K_PROJ, l, {at("attn_norm")}, *at("k_proj"), 1e-5);
    check(PB_STAGE_V_PROJ, l, {at("attn_norm")}, *at("v_proj"), 1e-5);
    const Recorded q = compute(PB_STAGE_Q_ROPE, l, {at("q_proj")}),
                   k = compute(PB_STAGE_K_ROPE, l, {at("k_proj")});
    const Recorded scores = compute(PB_STAGE_ATTN_SCORES, l, {&q, &k});
    const Recorded weights = compute(PB_STAGE_ATTN_SCORES_SOFTMAX, l, {&scores});
    check(PB_STAGE_ATTN_CONTEXT, l, {&weights, at("v_proj")}, *at("attn_context"), 1e-5);
    check(PB_STAGE_ATTN_SUB_NORM, l, {at("attn_context")}, *at("attn_sub_norm"), 1e-5);
    check(PB_STAGE_ATTN_OUT, l, {at("attn_sub_norm")}, *at("attn_out"), 1e-5);
    check(PB_STAGE_ATTN_RESIDUAL, l, {at("attn_out"), x}, *at("attn_residual"), 1e-5);
    check(PB_STAGE_FFN_NORM, l, {at("attn_residual")}, *at("ffn_norm"), 1e-5);
    check(PB_STAGE_GATE_PROJ, l, {at("ffn_norm")}, *at("gate_proj"), 1e-5);
    check(PB_STAGE_UP_PROJ, l, {at("ffn_norm")}, *at("up_proj"), 1e-5);
    check(PB_STAGE_FFN_ACT, l, {at("gate_proj")}, *at("ffn_act"), 1e-5);
    check(PB_STAGE_FFN_GATED, l, {at("ffn_act"), at("up_proj")}, *at("ffn_gated"), 1e-5);
    check(PB_STAGE_FFN_SUB_NORM, l, {at("ffn_gated")}, *at("ffn_sub_norm"), 1e-5);
    check(PB_STAGE_DOWN_PROJ, l, {at("ffn_sub_norm")}, *at("down_proj"), 1e-5);
    check(PB_STAGE_LAYER_OUT, l, {at("down_proj"), at("attn_residual")}, *at("layer_out"), 1e-5);
    x = at("layer_out");
  }
  check(PB_STAGE_FINAL_NORM, -1, {x}, golden["final_norm"], 1e-5);
  check(PB_STAGE_LOGITS, -1, {&golden["final_norm"]}, golden["logits"], 1e-6);
  EXPECT_EQ(n_points, 6 * 16 + 2);
}

INSTANTIATE_TEST_SUITE_P(Tiny, GoldenBitnet, testing::Values("tiny-bitnet-silu", "tiny-bitnet-relu2"),
                         [](const auto& info) { return std::string(info.index ? "relu2" : "silu"); });

}  // namespace
}  // namespace pb::native

// Taps, overwrites, replay, NaN, and every way to misuse a session.
#include <cmath>
#include <cstring>

#include "native/harness_for_tests.h"

namespace pb::native {
namespace {

constexpr int kTokens = 12;

class SessionTest : public testing::Test {
 protected:
  SessionTest() : harness(Harness::Path("tiny-bitnet-silu", "tq2_0")) {}
  Harness harness;
  Config config;
  std::vector<int32_t> tokens = SomeTokens(kTokens);
};

// What a replay takes, for an architecture of these ops.
std::vector<const Recorded*> ReplayInputs(const Points& points, stages::Set ops, pb_stage stage,
                                          int32_t layer) {
  std::vector<const Recorded*> inputs;
  for (const stages::Input& in : stages::InputsOf(stage, ops)) {
    const int32_t from = in.previous_layer ? in.Layer(layer, 6) : layer;
    inputs.push_back(&points.at({in.previous_layer && from < 0 ? PB_STAGE_EMBEDDINGS : in.stage, from}));
  }
  return inputs;
}

TEST_F(SessionTest, ReplayGivesTheBitsOfForward) {
  Points points = harness.Record(config, tokens);
  auto session = harness.Open(config);
  int n = 0;
  for (const auto& [key, want] : points) {
    auto [stage, layer] = key;
    if (stage == PB_STAGE_EMBEDDINGS) continue;
    auto inputs =
        ReplayInputs(points, harness.weights->model->params().ops, static_cast<pb_stage>(stage), layer);
    auto got = ReplayOn(*session, static_cast<pb_stage>(stage), layer, inputs);
    ASSERT_TRUE(got.ok()) << got.error().message;
    EXPECT_EQ(Digest(*got), Digest(want.values)) << pb_vocabulary[stage].name << " of layer " << layer;
    n++;
  }
  EXPECT_EQ(n, 6 * 20 + 2);
}

TEST_F(SessionTest, ReplayRefusesWhatDoesNotFit) {
  Points points = harness.Record(config, tokens);
  auto session = harness.Open(config);
  const Recorded& norm = points.at({PB_STAGE_ATTN_NORM, 0});
  EXPECT_FALSE(ReplayOn(*session, PB_STAGE_Q_PROJ, 0, {}).ok());
  EXPECT_FALSE(ReplayOn(*session, PB_STAGE_Q_PROJ, 6, {&norm}).ok());
  EXPECT_FALSE(ReplayOn(*session, PB_STAGE_Q_NORM, 0, {&norm}).ok());
  EXPECT_FALSE(ReplayOn(*session, PB_STAGE_DOWN_PROJ, 0, {&norm}).ok());
  EXPECT_FALSE(ReplayOn(*session, PB_STAGE_Q_PROJ, 0, {&norm}, "no.such=1").ok());
  EXPECT_TRUE(ReplayOn(*session, PB_STAGE_Q_PROJ, 0, {&norm}).ok());
}

TEST_F(SessionTest, VariationsChangeTheOpByTheirDefinition) {
  Points points = harness.Record(config, tokens);
  auto session = harness.Open(config);
  const Recorded& gate = points.at({PB_STAGE_GATE_PROJ, 0});
  auto relu2 = ReplayOn(*session, PB_STAGE_FFN_ACT, 0, {&gate}, "ffn.activation=relu2");
  ASSERT_TRUE(relu2.ok());
  for (size_t i = 0; i < gate.values.size(); i++) {
    float r = std::max(gate.values[i], 0.0f);
    ASSERT_EQ((*relu2)[i], r * r);
  }
  const Recorded& q = points.at({PB_STAGE_Q_PROJ, 0});
  auto base = ReplayOn(*session, PB_STAGE_Q_ROPE, 0, {&q}, "rope.base=500000");
  ASSERT_TRUE(base.ok());
  // Halves of 64: pair 1 of head 0 at position 3 turns by 3 * base^(-2/64).
  const double angle = 3 * std::pow(500000.0, -2.0 / 64);
  const double x0 = q.values[3 * 256 + 1], x1 = q.values[3 * 256 + 33];
  EXPECT_NEAR((*base)[3 * 256 + 1], x0 * std::cos(angle) - x1 * std::sin(angle),
              1e-5 * (std::fabs(x0) + std::fabs(x1)));
}

TEST_F(SessionTest, OverwritesAreWhatTheRestIsComputedFrom) {
  const std::vector<float> want = harness.Logits(config, tokens, {kTokens});
  for (int stage = 0; stage < PB_STAGE_LOGITS; stage++) {
    if (!harness.weights->model->params().ops.Contains(stage)) continue;
    int32_t layer = pb_vocabulary[stage].per_layer ? 2 : -1;
    auto scale = [&](const pb_point& p, pb_tensor& t) {
      if (p.stage != stage || p.layer != layer) return PB_CONTINUE;
      float* values = static_cast<float*>(t.data);
      for (int64_t i = 0; i < t.shape[0] * t.shape[1] * t.shape[2]; i++)
        values[i] *= i % 3 == 0 ? 1.5f : 1.0f;
      return PB_OVERWRITTEN;
    };
    EXPECT_NE(Digest(harness.Logits(config, tokens, {kTokens}, scale)), Digest(want))
        << pb_vocabulary[stage].name;
  }
  // The last layer's output of other tokens: their logits.
  auto others = SomeTokens(kTokens + 5);
  others.erase(others.begin(), others.begin() + 5);
  std::vector<float> other_logits;
  Points points = harness.Record(config, others, &other_logits);
  auto replace = [&](const pb_point& p, pb_tensor& t) {
    if (p.stage != PB_STAGE_LAYER_OUT || p.layer != 5) return PB_CONTINUE;
    const auto& values = points.at({p.stage, p.layer}).values;
    std::memcpy(t.data, values.data(), values.size() * sizeof(float));
    return PB_OVERWRITTEN;
  };
  EXPECT_EQ(Digest(harness.Logits(config, tokens, {kTokens}, replace)), Digest(other_logits));
}

TEST_F(SessionTest, TheCacheHoldsOverwrittenKeysAndValues) {
  auto session = harness.Open(config);
  std::vector<float> logits;
  Status prefill = Harness::Eval(*session, tokens, &logits, [](const pb_point& p, pb_tensor& t) {
    if (p.stage != PB_STAGE_V_PROJ && p.stage != PB_STAGE_K_ROPE) return PB_CONTINUE;
    float* values = static_cast<float*>(t.data);
    for (int64_t i = 0; i < t.shape[0] * t.shape[1] * t.shape[2]; i++)
      values[i] = p.stage == PB_STAGE_V_PROJ ? 0.25f : 0.0f;
    return PB_OVERWRITTEN;
  });
  ASSERT_TRUE(prefill.ok());
  // A decode step shows attention's inputs: all positions but its own hold what was written.
  struct Seen {
    int n = 0;
    bool right = true;
  } seen;
  pb_tap tap{sizeof(pb_tap), &seen,
             [](void*, const pb_point* p) -> uint32_t {
               return p->stage == PB_STAGE_ATTN_SCORES || p->stage == PB_STAGE_ATTN_CONTEXT ? PB_WANT_INPUTS
                                                                                            : 0;
             },
             [](void* ctx, const pb_point* p, const pb_tensor* inputs, size_t n) {
               auto* s = static_cast<Seen*>(ctx);
               s->n++;
               const float want = p->stage == PB_STAGE_ATTN_CONTEXT ? 0.25f : 0.0f;
               const auto* rows = static_cast<const float*>(inputs[1].data);
               s->right = s->right && n == 2 && inputs[1].shape[0] == kTokens + 1;
               for (int64_t i = 0; i < kTokens * 128; i++) s->right = s->right && rows[i] == want;
             },
             nullptr};
  int32_t token = 5;
  pb_eval eval{};
  eval.struct_size = sizeof eval, eval.tokens = &token, eval.n_tokens = 1, eval.first_position = kTokens,
  eval.logits_from = 1;
  eval.tap = &tap;
  ASSERT_TRUE(session->Eval(eval).ok());
  EXPECT_EQ(seen.n, 12);
  EXPECT_TRUE(seen.right);
}

TEST_F(SessionTest, NanReachesEveryLaterRowAndNoEarlierOne) {
  const std::vector<float> want = harness.Logits(config, tokens, {kTokens});
  auto spoil = [](const pb_point& p, pb_tensor& t) {
    if (p.stage != PB_STAGE_EMBEDDINGS) return PB_CONTINUE;
    static_cast<float*>(t.data)[4 * 256 + 7] = std::nanf("");
    return PB_OVERWRITTEN;
  };
  const std::vector<float> got = harness.Logits(config, tokens, {kTokens}, spoil);
  ASSERT_EQ(got.size(), want.size());
  EXPECT_EQ(std::memcmp(got.data(), want.data(), 4 * 2048 * sizeof(float)), 0);
  for (size_t i = 4 * 2048; i < got.size(); i++) ASSERT_TRUE(std::isnan(got[i])) << i;
}

TEST_F(SessionTest, MisuseIsAnErrorAndLosesNothing) {
  config.n_ctx = 16;
  auto session = harness.Open(config);
  std::vector<float> logits;
  ASSERT_TRUE(Harness::Eval(*session, tokens, &logits).ok());
  EXPECT_FALSE(Harness::Eval(*session, {}, &logits).ok());
  EXPECT_FALSE(Harness::Eval(*session, {1, 2, 3, 4, 5}, &logits).ok());  // 12 + 5 > 16
  EXPECT_FALSE(Harness::Eval(*session, {2048}, &logits).ok());
  EXPECT_FALSE(Harness::Eval(*session, {-1}, &logits).ok());
  Status stopped = Harness::Eval(*session, {1, 2}, &logits, [](const pb_point& p, pb_tensor&) {
    return p.layer == 3 ? PB_STOP : PB_CONTINUE;
  });
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code, Code::kInterrupted);
  EXPECT_EQ(session->n_positions(), kTokens);
  EXPECT_FALSE(session->Reset(13).ok());
  EXPECT_FALSE(session->Reset(-1).ok());
  // What follows is as if none of it had happened.
  std::vector<float> step;
  ASSERT_TRUE(Harness::Eval(*session, {9}, &step).ok());
  auto all = tokens;
  all.push_back(9);
  std::vector<float> whole = harness.Logits(config, all, {kTokens + 1});
  EXPECT_EQ(Digest(step), Digest({whole.end() - 2048, whole.end()}));
  // Reset keeps a prefix.
  ASSERT_TRUE(session->Reset(4).ok());
  step.clear();
  ASSERT_TRUE(Harness::Eval(*session, {tokens.begin() + 4, tokens.end()}, &step).ok());
  EXPECT_EQ(Digest(step), Digest({whole.begin() + 4 * 2048, whole.end() - 2048}));
}

TEST(Settings, AreUnderstoodOrRefusedByName) {
  Config c;
  for (auto [key, value] : {std::pair("act.quant", "q8_k"),
                            {"kv.type", "f32"},
                            {"threads", "2"},
                            {"ubatch", "7"},
                            {"n_ctx", "100"},
                            {"noise.seed", "3"},
                            {"cpu.library", "scalar"},
                            {"attn.flash", "off"}}) {
    EXPECT_TRUE(ApplySetting(key, value, c).ok()) << key;
  }
  EXPECT_EQ(c.act_quant, (ActQuant{ActScheme::kQ8_K, {}}));
  EXPECT_FALSE(c.kv_f16);
  EXPECT_EQ(c.threads, 2);
  EXPECT_EQ(c.isa, Isa::kScalar);
  auto flash = ApplySetting("attn.flash", "on", c);
  ASSERT_FALSE(flash.ok());
  EXPECT_EQ(flash.error().code, Code::kUnsupported);
  for (auto [key, value] : {std::pair("threads", "0"),
                            {"threads", "2x"},
                            {"ubatch", "-1"},
                            {"act.quant", "q9"},
                            {"kv.type", "q8_0"},
                            {"noise.seed", "x"},
                            {"cpu.library", "mmx"},
                            {"thread", "1"}}) {
    auto refused = ApplySetting(key, value, c);
    ASSERT_FALSE(refused.ok()) << key;
    EXPECT_NE(refused.error().message.find(value == std::string("mmx") ? "mmx" : key), std::string::npos);
  }
}

TEST(Settings, AnAbsurdContextIsAnErrorNotAnAllocation) {
  Harness harness(Harness::Path("tiny-bitnet-silu", "tq2_0"));
  auto cache = KvCache::Create({1 << 20, 1 << 20, 1 << 20, 1 << 20}, true);
  EXPECT_FALSE(cache.ok());
}

}  // namespace
}  // namespace pb::native

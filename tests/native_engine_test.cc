// The native engine against others on SmolLM2 and the tiny BitNets: Hugging Face's hidden states,
// and llama.cpp op by op on equal inputs. Fails where model or reference is missing: `paritybit
// setup-crossval` fetches both.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "formats/safetensors.h"
#include "host/engine.h"
#include "native/harness_for_tests.h"
#include "setup/setup.h"
#include "tests/paths.h"

namespace pb {
namespace {

using native::Harness;
using native::Points;
using native::Recorded;

struct Errors {
  double tensor = 0, row = 0;
};

Errors RelL2(const std::vector<float>& a, const float* b, size_t n_rows) {
  const size_t width = a.size() / n_rows;
  double all_error = 0, all_norm = 0;
  Errors e;
  for (size_t r = 0; r < n_rows; r++) {
    double error = 0, norm = 0;
    for (size_t i = r * width; i < (r + 1) * width; i++) {
      if (std::isinf(b[i]) && a[i] == b[i]) continue;  // masked scores
      error += std::pow(static_cast<double>(a[i]) - b[i], 2), norm += std::pow(static_cast<double>(b[i]), 2);
    }
    const double rel = std::sqrt(error / norm);
    if (!(rel <= e.row)) e.row = rel;
    all_error += error, all_norm += norm;
  }
  e.tensor = std::sqrt(all_error / all_norm);
  return e;
}

TEST(SmolLM2, HiddenStatesAndLogitsAreHuggingFaces) {
  auto path = setup::FindModel("smollm2");
  ASSERT_TRUE(path.ok()) << path.error().message;
  auto golden = SafetensorsFile::Open(SourcePath("models/golden/smollm2-135m-q4_1.safetensors"));
  ASSERT_TRUE(golden.ok()) << golden.error().message;
  std::vector<int32_t> tokens;
  const std::string ids = golden->metadata().at("ids");
  for (char* p = const_cast<char*>(ids.c_str()) + 1; *p; p++)
    tokens.push_back(static_cast<int32_t>(std::strtol(p, &p, 10)));
  ASSERT_EQ(tokens.size(), 24u);
  Harness harness(path->string());
  native::Config config;
  config.act_quant = ActQuant{ActScheme::kNone, {}}, config.kv_f16 = false, config.threads = 2;
  std::vector<float> logits;
  Points points = harness.Record(config, tokens, &logits);
  auto check = [&](const std::string& name, const std::vector<float>& got) {
    const SafeTensor* t = golden->Find(name);
    ASSERT_NE(t, nullptr) << name;
    const std::vector<float> want = std::move(t->Floats()).value();
    ASSERT_EQ(got.size(), want.size()) << name;
    EXPECT_LE(RelL2(got, want.data(), t->shape[0]).row, 1e-5) << name;
  };
  check("embeddings", points.at({PB_STAGE_EMBEDDINGS, -1}).values);
  for (int32_t l = 0; l < 30; l++)
    check(fmt::format("layer_out.{}", l), points.at({PB_STAGE_LAYER_OUT, l}).values);
  check("final_norm", points.at({PB_STAGE_FINAL_NORM, -1}).values);
  check("logits_last8", {logits.end() - 8 * 49152, logits.end()});
}

// All canonical points of one prefill of the reference, in a process of its own.
Result<Points> RecordReference(const setup::Reference& reference, const std::string& model,
                               const std::vector<int32_t>& tokens) {
  host::Settings settings = reference.settings;
  settings.emplace_back("threads", "1");
  settings.emplace_back("cpu.library", "haswell");  // the AVX2 one, whatever else this machine has
  PB_ASSIGN(auto engine, host::Engine::Start(reference.plugin, settings, {}));
  PB_TRY(engine->OpenModel(model));
  PB_TRY(engine->OpenSession({}));
  host::EvalRequest request;
  request.tokens = tokens;
  request.tap.outputs = true;
  Points points;
  PB_TRY(engine->Eval(request, [&](const host::Event& e) -> Status {
    if (e.kind != host::Event::kPoint) return {};
    Recorded& to = points[{e.point.stage, e.point.layer}];
    const bool first = to.shape.empty();
    if (first) {
      to.shape = e.tensor.shape;
    } else {
      to.shape[0] += e.tensor.shape[0];  // points may come in pieces of rows
    }
    to.values.insert(to.values.end(), e.tensor.data.begin(), e.tensor.data.end());
    return {};
  }));
  return points;
}

// The recorded inputs of a stage, in the vocabulary's order; empty where one was not observed.
std::vector<const Recorded*> InputsOf(const Points& points, int32_t stage, int32_t layer,
                                      int32_t last_layer) {
  stages::Set shown;
  for (const auto& [key, recorded] : points)
    if (stages::IsStage(key.first)) shown |= static_cast<pb_stage>(key.first);
  std::vector<const Recorded*> inputs;
  for (const stages::Input& in : stages::InputsOf(static_cast<pb_stage>(stage), shown)) {
    const int32_t from = in.previous_layer ? in.Layer(layer, last_layer + 1) : layer;
    auto found = points.find({in.previous_layer && from < 0 ? PB_STAGE_EMBEDDINGS : in.stage, from});
    if (found == points.end()) return {};
    inputs.push_back(&found->second);
  }
  return inputs;
}

// Products of quantised weights, norms and sums give llama.cpp's very bits; what rounds in another
// order stays below 1e-6.
void CompareOpByOp(const std::string& path, int n_tokens, bool quantised_output) {
  auto reference = setup::FindReference("llama.cpp");
  ASSERT_TRUE(reference.ok()) << reference.error().message;
  Harness harness(path);
  const int32_t last = static_cast<int32_t>(harness.weights->layers.size()) - 1;
  std::vector<int32_t> tokens;
  for (int i = 0; i < n_tokens; i++) tokens.push_back((i * 389 + 71) % 2000);
  auto points = RecordReference(*reference, path, tokens);
  ASSERT_TRUE(points.ok()) << points.error().message;
  auto session = harness.Open({});
  int n_exact = 0, n_close = 0;
  for (const auto& [key, want] : *points) {
    const auto [stage, layer] = key;
    if (stage <= PB_STAGE_EMBEDDINGS) continue;
    auto inputs = InputsOf(*points, stage, layer, last);
    if (inputs.empty()) continue;  // SwiGLU is one node there
    auto got = native::ReplayOn(*session, static_cast<pb_stage>(stage), layer, inputs);
    ASSERT_TRUE(got.ok()) << got.error().message;
    const bool rounds_otherwise = stage == PB_STAGE_Q_ROPE || stage == PB_STAGE_K_ROPE ||
                                  stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_SCORES_SOFTMAX ||
                                  stage == PB_STAGE_ATTN_CONTEXT ||
                                  (stage == PB_STAGE_LOGITS && !quantised_output);
    ASSERT_EQ(got->size(), want.values.size());
    const Errors e = RelL2(*got, want.values.data(), static_cast<size_t>(want.shape[0]));
    EXPECT_LE(e.row, rounds_otherwise ? 1e-6 : 0.0) << pb_vocabulary[stage].name << " of layer " << layer;
    (rounds_otherwise ? n_close : n_exact)++;
  }
  EXPECT_GE(n_exact, 11 * (last + 1));
  EXPECT_GE(n_close, 5 * (last + 1));
}

TEST(SmolLM2, OpsAreLlamaCppsOnEqualInputs) {
  auto path = setup::FindModel("smollm2");
  ASSERT_TRUE(path.ok()) << path.error().message;
  CompareOpByOp(path->string(), 64, true);
}

TEST(TinyBitnet, OpsAreLlamaCppsOnEqualInputs) {
  CompareOpByOp(Harness::Path("tiny-bitnet-silu", "tq2_0"), 100, false);
  CompareOpByOp(Harness::Path("tiny-bitnet-silu", "tq1_0"), 100, false);
}

// The native plugin in a process of its own.
Result<std::unique_ptr<host::Engine>> StartNative(const host::Settings& settings) {
  return host::Engine::Start(PluginPath("native"), settings, {});
}

class TemporaryDir {
 public:
  TemporaryDir()
      : path(std::filesystem::temp_directory_path() / fmt::format("native_engine_test.{}", getpid())) {
    std::filesystem::create_directories(path);
  }
  ~TemporaryDir() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

TEST(Plugin, AnUndeclaredActivationOpensAndIsSaidToBeUndeclared) {
  TemporaryDir dir;
  const auto alone = dir.path / "model.gguf";
  std::filesystem::copy_file(Harness::Path("tiny-bitnet-silu", "tq2_0"), alone);
  std::vector<std::vector<float>> logits;
  for (const host::Settings& settings : {host::Settings{}, host::Settings{{"ffn.activation", "silu"}}}) {
    auto engine = StartNative(settings);
    ASSERT_TRUE(engine.ok()) << engine.error().message;
    auto facts = (*engine)->OpenModel(alone);
    ASSERT_TRUE(facts.ok()) << facts.error().message;
    const host::Fact* activation = host::FindFact(*facts, "ffn.activation");
    ASSERT_NE(activation, nullptr);
    EXPECT_EQ(activation->value, settings.empty() ? "undeclared" : "silu");
    EXPECT_EQ(activation->origin, settings.empty() ? "default" : "set");
    ASSERT_TRUE((*engine)->OpenSession({}).ok());
    host::EvalRequest request;
    request.tokens = {2046, 116, 46, 299};
    logits.emplace_back();
    Status status = (*engine)->Eval(request, [&](const host::Event& e) -> Status {
      if (e.kind == host::Event::kLogits)
        logits.back().insert(logits.back().end(), e.tensor.data.begin(), e.tensor.data.end());
      return {};
    });
    ASSERT_TRUE(status.ok()) << status.error().message;
    EXPECT_EQ(logits.back().size(), 4u * 2048u);
  }
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(Plugin, RefusesByName) {
  auto flash = StartNative({{"attn.flash", "on"}});
  ASSERT_FALSE(flash.ok());
  EXPECT_NE(flash.error().message.find("attn.flash"), std::string::npos);
  auto engine = StartNative({});
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  ASSERT_TRUE((*engine)->OpenModel(Harness::Path("tiny-bitnet-silu", "tq2_0")).ok());
  auto late = (*engine)->OpenSession({{"ffn.activation", "relu2"}});
  ASSERT_FALSE(late.ok());
  EXPECT_NE(late.error().message.find("ffn.activation"), std::string::npos);
}

}  // namespace
}  // namespace pb

// Injection on real engines: the set of ops whose exchange restores agreement is the set of ops
// that really differ: an activation that llama.cpp does not run, and weights that were spoilt on
// purpose. Fails, never skips, where the reference is missing.
#include "inject/injection.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/file.h"
#include "base/half.h"
#include "formats/block.h"
#include "formats/gguf.h"
#include "host/engine.h"
#include "report/injection_report.h"
#include "setup/setup.h"
#include "tests/paths.h"
#include "trace/writer.h"

namespace pb::inject {
namespace {

namespace fs = std::filesystem;
using Outcome = InjectionResult::Outcome;
using report::DescribePoints, report::InjectionJson, report::InjectionSentence;
using Points = std::vector<InjectionPoint>;

constexpr const char* kPrompt = "And God said, Let there be light";

template <typename T>
T Must(Result<T> result) {
  if (!result.ok()) {
    ADD_FAILURE() << result.error().message;
    std::exit(1);
  }
  return std::move(result).value();
}

void Must(Status status) { ASSERT_TRUE(status.ok()) << status.error().message; }

fs::path Tiny(const std::string& activation) { return ModelPath("tiny-bitnet-" + activation, "tq2_0"); }

drive::EngineSpec Native() { return {"native", PluginPath("native"), {}}; }
drive::EngineSpec Oracle() { return {"oracle", PluginPath("oracle"), {}}; }
drive::EngineSpec LlamaCpp() {
  setup::Reference found = Must(setup::FindReference("llama.cpp"));
  return {"llama.cpp", found.plugin, found.settings};
}

class Injection : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("paritybit-injection-{}", getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  InjectionRequest Request(const fs::path& model) {
    InjectionRequest request;
    request.candidate = Native(), request.reference = LlamaCpp();
    request.model = model;
    auto engine = Must(host::Engine::Start(PluginPath("native"), {}, {}));
    Must(engine->OpenModel(model));
    request.tokens = Must(engine->Tokenize(kPrompt, PB_ADD_SPECIAL));
    request.calibration = Must(ReadFile(SourcePath("models/calibration.txt")));
    return request;
  }

  // A copy of the SiLU model with matrices of TQ2_0 blocks multiplied by a factor.
  fs::path Spoilt(const std::vector<std::pair<std::string, float>>& factors) {
    std::string bytes = Must(ReadFile(Tiny("silu")));
    const GgufFile file = Must(GgufFile::Open(Tiny("silu")));
    for (const auto& [name, factor] : factors) {
      const GgufTensor* tensor = file.FindTensor(name);
      EXPECT_TRUE(tensor && tensor->type_id == static_cast<uint32_t>(BlockType::kTQ2_0)) << name;
      for (uint64_t at = tensor->offset + offsetof(BlockTQ2_0, d); at < tensor->offset + tensor->data.size();
           at += sizeof(BlockTQ2_0)) {
        const float scale = F16ToF32(LoadLe<uint16_t>(bytes.data() + at));
        StoreLe(bytes.data() + at, F32ToF16(scale * factor));
      }
    }
    fs::copy_file(Tiny("silu").parent_path() / "config.json", folder_ / "config.json",
                  fs::copy_options::overwrite_existing);
    const fs::path path = folder_ / "spoilt.gguf";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  static Points InAllLayers(pb_stage stage) {
    Points points;
    for (int32_t layer = 0; layer < 6; layer++) points.push_back({stage, layer});
    return points;
  }

  // Found, within the limits it names, and every point seen to be needed.
  static void ExpectFound(const InjectionResult& r, const Points& points) {
    ASSERT_EQ(r.outcome, Outcome::kFound) << InjectionJson(r).dump(1);
    EXPECT_EQ(r.found.points, points) << InjectionSentence(r);
    EXPECT_FALSE(r.before.restores);
    EXPECT_TRUE(r.found.restores);
    ASSERT_EQ(r.limits.size(), 3u);
    EXPECT_LE(r.found.mean_kl, r.limits[0].value);
    EXPECT_GT(r.before.mean_kl, r.limits[0].value);
    EXPECT_EQ(r.without.size(), points.size() > 1 ? points.size() : 0);
    for (const InjectionTrial& trial : r.without) EXPECT_FALSE(trial.restores);
    EXPECT_NE(InjectionSentence(r).find(DescribePoints(points, 6)), std::string::npos);
  }

  fs::path folder_;
};

TEST_F(Injection, TheActivationOfAllLayersIsFoundInBothDirections) {
  InjectionRequest request = Request(Tiny("relu2"));
  for (bool into_reference : {false, true}) {
    request.into_reference = into_reference;
    const InjectionResult r = Must(SearchInjection(request));
    ExpectFound(r, InAllLayers(PB_STAGE_FFN_GATED));
    EXPECT_TRUE(r.everything.restores);
    std::printf("%s\n  %zu trials\n", InjectionSentence(r).c_str(), r.tried.size());
  }
}

TEST_F(Injection, SuspectsAreTriedFirst) {
  InjectionRequest request = Request(Tiny("relu2"));
  request.suspects = InAllLayers(PB_STAGE_FFN_GATED);
  const InjectionResult r = Must(SearchInjection(request));
  ExpectFound(r, InAllLayers(PB_STAGE_FFN_GATED));
  EXPECT_LT(r.tried.size(), 25u);
  // Suspects that are innocent cost one trial, and what differs is found all the same.
  request.suspects = {{PB_STAGE_Q_PROJ, 3}};
  ExpectFound(Must(SearchInjection(request)), InAllLayers(PB_STAGE_FFN_GATED));
}

// The arbiter's ops bring the reference to what the candidate computes, and the candidate nowhere:
// the reference is wrong.
TEST_F(Injection, TheOracleRestoresTheEngineThatErrs) {
  InjectionRequest request = Request(Tiny("relu2"));
  request.oracle = Oracle();
  request.into_reference = true;
  const InjectionResult reference = Must(SearchInjection(request));
  ExpectFound(reference, InAllLayers(PB_STAGE_FFN_GATED));
  EXPECT_EQ(reference.donor, "oracle");
  request.into_reference = false;
  const InjectionResult candidate = Must(SearchInjection(request));
  EXPECT_EQ(candidate.outcome, Outcome::kNotRestorable) << InjectionSentence(candidate);
  EXPECT_FALSE(candidate.everything.restores);
}

TEST_F(Injection, OneSpoiltMatrixIsOnePoint) {
  InjectionRequest request = Request(Spoilt({{"blk.1.attn_output.weight", 1.5f}}));
  request.reference_model = Tiny("silu");
  ExpectFound(Must(SearchInjection(request)), {{PB_STAGE_ATTN_OUT, 1}});

  // Tensors of the free run: from the end of layer 1 on, and no earlier, the engines agree.
  request.kind = InjectionKind::kTensor;
  const InjectionResult r = Must(SearchInjection(request));
  ExpectFound(r, {{PB_STAGE_ATTN_OUT, 1}});
  ASSERT_EQ(r.cuts.size(), 8u);  // embeddings, six layers, final_norm
  for (size_t i = 0; i < r.cuts.size(); i++) EXPECT_EQ(r.cuts[i].restores, i >= 2) << i;
}

TEST_F(Injection, TwoSpoiltMatricesNeedBoth) {
  InjectionRequest request =
      Request(Spoilt({{"blk.1.attn_output.weight", 1.5f}, {"blk.3.ffn_gate.weight", 1.5f}}));
  request.reference_model = Tiny("silu");
  ExpectFound(Must(SearchInjection(request)), {{PB_STAGE_ATTN_OUT, 1}, {PB_STAGE_GATE_PROJ, 3}});
}

TEST_F(Injection, EnginesThatAgreeHaveNothingToRestore) {
  const InjectionResult r = Must(SearchInjection(Request(Tiny("silu"))));
  EXPECT_EQ(r.outcome, Outcome::kAgrees);
  EXPECT_TRUE(r.found.points.empty());
  EXPECT_EQ(r.tried.size(), 1u);
}

// The reference's free run on disk stands for the reference.
TEST_F(Injection, AStoredTraceIsAsGoodAsTheEngine) {
  InjectionRequest request = Request(Tiny("relu2"));
  trace::Manifest manifest;
  manifest.level = trace::Level::kFull;
  auto writer = Must(trace::Writer::Create(folder_ / "trace", manifest));
  auto engine = Must(host::Engine::Start(LlamaCpp().plugin, LlamaCpp().settings, {}));
  Must(engine->OpenModel(request.model));
  Must(engine->OpenSession({{"threads", "1"}, {"kv.type", "f16"}, {"attn.flash", "off"}}));
  Must(writer->BeginStep(0, request.tokens));
  host::EvalRequest eval{request.tokens, 0, 0, {}};
  eval.tap.outputs = true;
  Must(engine->Eval(eval, [&](const host::Event& e) -> Status {
    if (e.kind != host::Event::kPoint) return {};
    return writer->Append({e.point.stage, e.point.native_name, e.point.layer, e.point.first_position},
                          e.tensor.shape, e.tensor.data);
  }));
  Must(writer->Finish("", ""));

  request.trace = folder_ / "trace";
  request.reference = {};
  request.tokens.clear();
  request.kind = InjectionKind::kTensor;
  const InjectionResult tensors = Must(SearchInjection(request));
  ExpectFound(tensors, InAllLayers(PB_STAGE_FFN_GATED));
  auto ops = SearchInjection([&] {
    InjectionRequest by_trace = request;
    by_trace.kind = InjectionKind::kOp;
    return by_trace;
  }());
  ASSERT_FALSE(ops.ok());
  EXPECT_EQ(ops.error().code, Code::kUsage);
}

TEST_F(Injection, ABudgetThatRunsOutIsSaid) {
  InjectionRequest request = Request(Tiny("relu2"));
  request.max_trials = 4;
  const InjectionResult r = Must(SearchInjection(request));
  EXPECT_EQ(r.outcome, Outcome::kGaveUp);
  EXPECT_LE(r.tried.size(), 4u);
}

TEST(DescribePoints, NamesStagesAndLayers) {
  EXPECT_EQ(DescribePoints({{PB_STAGE_Q_PROJ, 0}}, 6), "q_proj in layer 0");
  EXPECT_EQ(DescribePoints({{PB_STAGE_FINAL_NORM, -1}}, 6), "final_norm");
  EXPECT_EQ(DescribePoints(
                {{PB_STAGE_K_PROJ, 2}, {PB_STAGE_K_PROJ, 0}, {PB_STAGE_K_PROJ, 1}, {PB_STAGE_K_PROJ, 5}}, 6),
            "k_proj in layers 0-2 and 5");
  EXPECT_EQ(DescribePoints({{PB_STAGE_K_PROJ, 0}, {PB_STAGE_V_PROJ, 0}, {PB_STAGE_LOGITS, -1}}, 6),
            "logits; k_proj and v_proj in layer 0");
}

}  // namespace
}  // namespace pb::inject

// Rotations at positions up to 16384, scaled in each way that a model file may declare: the native
// engine's and llama.cpp's, each against the arbiter's within what float32 rounding of angle, cosine
// and sine may move them by. Fails where the reference is not set up.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <memory>

#include "base/random.h"
#include "compare/local.h"
#include "host/engine.h"
#include "model/generate.h"
#include "setup/setup.h"
#include "tests/paths.h"

namespace pb {
namespace {

constexpr int64_t kPositions = 16384, kRows = 64, kHeads = 2, kHeadDim = 32;

struct Rotation {
  const char *name, *architecture, *scaling;
  bool llama3 = false;
  int64_t dims = 0;
};

void PrintTo(const Rotation& r, std::ostream* out) { *out << r.name; }

class LongPositions : public testing::TestWithParam<Rotation> {
 protected:
  void SetUp() override {
    const Rotation& r = GetParam();
    folder_ =
        std::filesystem::temp_directory_path() / fmt::format("paritybit-rotations-{}-{}", r.name, getpid());
    std::filesystem::create_directories(folder_);
    GenerateSpec spec;
    spec.architecture = r.architecture, spec.rope_scaling = r.scaling, spec.llama3_rope = r.llama3;
    spec.rope_dims = r.dims, spec.rope_factor = 4;
    spec.n_layers = 1, spec.d_model = 64, spec.d_ff = 64, spec.n_heads = kHeads, spec.n_kv_heads = 1;
    spec.head_dim = kHeadDim, spec.n_vocab = 300, spec.n_ctx = kPositions, spec.weights = BlockType::kF32;
    const Status made = GenerateFile(spec, folder_ / "model.gguf");
    ASSERT_TRUE(made.ok()) << made.error().message;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<host::Engine> Start(const std::filesystem::path& plugin, host::Settings settings) const {
    settings.emplace_back("threads", "1");
    auto engine = host::Engine::Start(plugin, settings, {});
    EXPECT_TRUE(engine.ok()) << engine.error().message;
    const host::Settings room = {{"n_ctx", std::to_string(kPositions)}};
    for (auto opened : {(*engine)->OpenModel(folder_ / "model.gguf"), (*engine)->OpenSession(room)})
      EXPECT_TRUE(opened.ok()) << opened.error().message;
    return std::move(engine).value();
  }

  std::filesystem::path folder_;
};

// The AVX2 library, whatever else this machine has.
host::Settings OnHaswell(host::Settings settings) {
  settings.emplace_back("cpu.library", "haswell");
  return settings;
}

struct Rotated {
  std::vector<float> values, units;
};

Rotated Rotate(host::Engine& engine, int32_t first, const std::vector<float>& x, bool units) {
  host::ReplayRequest request;
  request.stage = PB_STAGE_Q_ROPE, request.layer = 0, request.first_position = first;
  request.units = units;
  request.inputs = {{{kRows, kHeads, kHeadDim}, x}};
  auto out = engine.Replay(request);
  EXPECT_TRUE(out.ok()) << out.error().message;
  if (!out.ok()) return {};
  return {{out->data.begin(), out->data.end()}, {out->units.begin(), out->units.end()}};
}

TEST_P(LongPositions, EnginesRotateAsTheFileDeclares) {
  auto reference = setup::FindReference("llama.cpp");
  ASSERT_TRUE(reference.ok()) << reference.error().message;
  auto oracle = Start(PluginPath("oracle"), {}), native = Start(PluginPath("native"), {}),
       llama = Start(reference->plugin, OnHaswell(reference->settings));
  Random random(3);
  std::vector<float> x(static_cast<size_t>(kRows * kHeads * kHeadDim));
  for (float& v : x) v = static_cast<float>(random.Normal());
  for (const int32_t first : {0, 4000, static_cast<int32_t>(kPositions - kRows)}) {
    const Rotated expected = Rotate(*oracle, first, x, true);
    ASSERT_EQ(expected.values.size(), x.size());
    for (auto [engine, who] : {std::pair{native.get(), "native"}, {llama.get(), "llama.cpp"}}) {
      const Rotated got = Rotate(*engine, first, x, false);
      ASSERT_EQ(got.values.size(), x.size()) << who;
      const auto row = compare::ComparePoint(
          {got.values, kRows, kHeads * kHeadDim}, {expected.values, kRows, kHeads * kHeadDim},
          {0, 0, PB_STAGE_Q_ROPE, 0, first}, compare::BoundFromUnits(PB_STAGE_Q_ROPE, expected.units));
      ASSERT_TRUE(row.ok());
      EXPECT_LE(row->bound_ratio, 1) << who << " from position " << first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Declared, LongPositions,
    testing::Values(Rotation{"plain", "llama", ""}, Rotation{"halves", "qwen2", ""},
                    Rotation{"part", "stablelm", "", false, 8}, Rotation{"llama3", "llama", "", true},
                    Rotation{"linear", "llama", "linear"}, Rotation{"yarn", "qwen2", "yarn"},
                    Rotation{"yarn_of_pairs", "mistral3", "yarn"}, Rotation{"longrope", "phi3", "longrope"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace pb

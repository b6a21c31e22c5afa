// Activation codes as the engines tell them: the native engine's own and those of llama.cpp's type
// traits, on equal real inputs, held against each other and against the block definitions that ggml
// publishes (ggml-common.h, and the reference quantisers' formulas), read here once more in double.
// Fails where reference or model is missing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "host/engine.h"
#include "setup/setup.h"
#include "tests/paths.h"

namespace pb {
namespace {

constexpr double kBoundary =
    1e-4;  // of a code: closer to a half than float32 can tell in any order of its operations

struct Case {
  const char* name;
  std::string model;  // "@smollm2": one that is set up
  const char* scheme;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

struct Product {
  int32_t stage, layer;
  std::vector<int64_t> shape;
  std::vector<float> input, output;
};

std::unique_ptr<host::Engine> Start(const std::filesystem::path& plugin, host::Settings settings,
                                    const std::string& model) {
  settings.emplace_back("threads", "1");
  auto engine = host::Engine::Start(plugin, settings, {});
  EXPECT_TRUE(engine.ok()) << engine.error().message;
  for (auto opened : {(*engine)->OpenModel(model), (*engine)->OpenSession({{"n_ctx", "64"}})})
    EXPECT_TRUE(opened.ok()) << opened.error().message;
  return std::move(engine).value();
}

// Every product of the first two layers and the logits, with the input that the engine itself had.
std::vector<Product> Record(host::Engine& engine) {
  host::EvalRequest request;
  for (int32_t i = 0; i < 9; i++) request.tokens.push_back((i * 389 + 71) % 700);
  request.tap.outputs = request.tap.inputs = true;
  std::vector<Product> products;
  Status status = engine.Eval(request, [&](const host::Event& e) -> Status {
    constexpr int32_t kProducts[] = {PB_STAGE_Q_PROJ,    PB_STAGE_K_PROJ,    PB_STAGE_V_PROJ,
                                     PB_STAGE_ATTN_OUT,  PB_STAGE_GATE_PROJ, PB_STAGE_UP_PROJ,
                                     PB_STAGE_DOWN_PROJ, PB_STAGE_LOGITS};
    if (e.kind != host::Event::kPoint || e.point.layer > 1 ||
        std::find(std::begin(kProducts), std::end(kProducts), e.point.stage) == std::end(kProducts))
      return {};
    const host::TensorRef& in = e.inputs.at(0);
    products.push_back({e.point.stage,
                        e.point.layer,
                        in.shape,
                        {in.data.begin(), in.data.end()},
                        {e.tensor.data.begin(), e.tensor.data.end()}});
    return {};
  });
  EXPECT_TRUE(status.ok()) << status.error().message;
  return products;
}

Result<host::TensorRef> Replay(host::Engine& engine, const Product& p) {
  host::ReplayRequest request;
  request.stage = p.stage, request.layer = p.layer, request.codes = true;
  request.inputs = {{p.shape, p.input}};
  return engine.Replay(request);
}

// A block by its definition: the code that a value comes to lies within half a step of it.
void ExpectBlock(const host::Codes& c, size_t block, const std::vector<float>& x) {
  const size_t begin = block * static_cast<size_t>(c.block), n = static_cast<size_t>(c.block);
  double largest = 0;
  for (size_t k = begin; k < begin + n; k++)
    if (std::fabs(x[k]) > std::fabs(largest)) largest = x[k];
  const bool q8_k = c.scheme == "q8_k";
  const double d = q8_k ? -largest / 127 : std::fabs(largest) / 127;
  // Q8_K keeps d in float32, the others in f16.
  ASSERT_NEAR(c.scales[block], d, std::fabs(d) * (q8_k ? 0x1p-22 : 0x1.01p-11))
      << c.maker << ", block " << block;
  int sum = 0;
  for (size_t k = begin; k < begin + n; k++) {
    ASSERT_LE(std::fabs(c.codes[k] - (d != 0 ? x[k] / d : 0)), 0.5 + kBoundary) << c.maker << ", value " << k;
    sum += c.codes[k];
  }
  if (c.scheme != "q8_1") return;
  ASSERT_NEAR(c.sums[block], d * sum, std::fabs(d * sum) * 0x1.01p-11 + 0x1p-24)
      << c.maker << ", block " << block;
}

// How many codes differ; each of them must lie on a boundary.
int64_t CountDifferent(const host::Codes& a, const host::Codes& b, const std::vector<float>& x) {
  int64_t n = 0;
  for (size_t k = 0; k < x.size(); k++) {
    if (a.codes[k] == b.codes[k]) continue;
    n++;
    const size_t begin = k / static_cast<size_t>(a.block) * static_cast<size_t>(a.block);
    double largest = 0;
    for (size_t i = begin; i < begin + static_cast<size_t>(a.block); i++)
      largest = std::max(largest, std::fabs(double(x[i])));
    const double code = std::fabs(x[k]) * 127 / largest;
    EXPECT_LE(std::fabs(code - std::floor(code) - 0.5), kBoundary) << "value " << k << " of " << a.maker;
  }
  return n;
}

double RelL2(std::span<const float> a, std::span<const float> b) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < b.size(); i++)
    error += std::pow(double(a[i]) - b[i], 2), norm += std::pow(double(b[i]), 2);
  return std::sqrt(error / norm);
}

class ActivationCodes : public ::testing::TestWithParam<Case> {};

TEST_P(ActivationCodes, AreThoseOfTheDefinitionInBothEngines) {
  auto reference = setup::FindReference("llama.cpp");
  ASSERT_TRUE(reference.ok()) << reference.error().message;
  std::string model = GetParam().model;
  if (model[0] == '@') {
    auto found = setup::FindModel(model.substr(1));
    ASSERT_TRUE(found.ok()) << found.error().message;
    model = found->string();
  }
  auto native = Start(PluginPath("native"), {}, model);
  const std::vector<Product> products = Record(*native);
  ASSERT_GE(products.size(), 15u);
  for (const char* library : {"haswell", "x64"}) {
    host::Settings settings = reference->settings;
    settings.emplace_back("cpu.library", library);
    auto llama = Start(reference->plugin, settings, model);
    int64_t n_codes = 0, n_differ = 0, n_products = 0;
    for (const Product& p : products) {
      SCOPED_TRACE(fmt::format("{} {} of layer {}", library, pb_vocabulary[p.stage].name, p.layer));
      auto theirs = Replay(*llama, p);
      if (!theirs.ok()) {  // an output matrix of F16 multiplies no codes
        EXPECT_EQ(p.stage, PB_STAGE_LOGITS);
        EXPECT_NE(theirs.error().message.find("not quantised"), std::string::npos) << theirs.error().message;
        EXPECT_FALSE(Replay(*native, p).ok());
        continue;
      }
      auto ours = Replay(*native, p);
      ASSERT_TRUE(ours.ok()) << ours.error().message;
      const host::Codes &a = *ours->codes, &b = *theirs->codes;
      if (p.stage != PB_STAGE_LOGITS) {
        EXPECT_EQ(b.scheme, GetParam().scheme);
      }
      EXPECT_EQ(a.scheme, b.scheme);
      EXPECT_NE(b.maker.find("type traits (libggml-cpu-" + std::string(library)), std::string::npos)
          << b.maker;
      ASSERT_EQ(a.block, b.block);
      EXPECT_TRUE(a.scales == b.scales);
      for (size_t block = 0; block < a.scales.size(); block++) {
        ExpectBlock(a, block, p.input);
        ExpectBlock(b, block, p.input);
      }
      n_codes += static_cast<int64_t>(a.codes.size());
      n_differ += CountDifferent(a, b, p.input);
      // The engine's matrix kernel against its own scalar product; and both against what the native
      // engine computed.
      ASSERT_EQ(b.products.size(), p.output.size());
      EXPECT_LE(RelL2(theirs->data, b.products), 1e-6);
      n_products += static_cast<int64_t>(b.products.size());
    }
    EXPECT_GT(n_codes, 0);
    EXPECT_GT(n_products, 0);
    EXPECT_LT(n_differ, n_codes / 100);
    std::printf("           %s: %ld of %ld codes differ, all on boundaries; %ld scalar products\n", library,
                static_cast<long>(n_differ), static_cast<long>(n_codes), static_cast<long>(n_products));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ActivationCodes,
                         ::testing::Values(Case{"TQ2_0", ModelPath("tiny-bitnet-silu", "tq2_0"), "q8_k"},
                                           Case{"TQ1_0", BuildPath("tests/codes/codes-tq1_0.gguf"), "q8_k"},
                                           Case{"Q8_0", BuildPath("tests/codes/codes-q8_0.gguf"), "q8_0"},
                                           Case{"Q4_1", "@smollm2", "q8_1"}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace pb

// Evaluates the bundled model and compares its logits with recorded values and with the oracle.
#include "setup/golden_pass.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "base/file.h"
#include "model/generate.h"
#include "setup/adapter_build.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

// A token, and the largest logit that follows it (its id and value).
struct Golden {
  int32_t token, top;
  float logit;
};

// From models/golden/tiny-bitnet-silu.safetensors: transformers 5.23.0, float32, BitNetForCausalLM,
// the f16 file.
constexpr std::array<Golden, 32> kGolden = {{
    {2046, 1060, 9.5511f}, {116, 258, 5.2991f},  {46, 299, 10.6015f},   {299, 258, 8.3959f},
    {258, 342, 7.7694f},   {554, 291, 9.0209f},  {291, 268, 7.2362f},   {267, 258, 8.3111f},
    {258, 274, 5.6211f},   {1369, 375, 8.4516f}, {427, 1244, 4.5587f},  {258, 342, 5.6468f},
    {806, 432, 6.1369f},   {432, 268, 8.7345f},  {46, 299, 12.8281f},   {299, 258, 8.7563f},
    {389, 391, 7.6645f},   {391, 322, 11.3108f}, {44, 296, 8.6048f},    {963, 531, 9.1811f},
    {384, 295, 8.8659f},   {295, 259, 6.0026f},  {259, 402, 6.9122f},   {274, 680, 9.9807f},
    {337, 268, 6.2209f},   {109, 268, 6.6102f},  {346, 360, 7.9605f},   {360, 268, 6.0070f},
    {287, 258, 8.1417f},   {258, 432, 6.0006f},  {1018, 268, 10.7064f}, {268, 258, 9.0907f},
}};
// Transformers quantises activations per token, ggml per block of 256: 0.075 with the zen4 library.
// A wrong activation, scale or mask moves logits by whole units.
constexpr float kLimit = 0.5f;
// The oracle rounds as ggml does: 5.9e-3 at the worst of these positions with zen4. Another rounding of activations gives 1e-2, one wrong op some tenths.
constexpr double kOracleLimit = 0.05;

// What an engine computes for the golden tokens, row by row: (32, n_vocab).
struct Logits {
  size_t n_rows = 0, n_vocab = 0;
  std::vector<float> values;

  Status Add(const host::Event& event) {
    if (event.kind != host::Event::kLogits || event.tensor.shape.size() != 2) return {};
    n_rows += static_cast<size_t>(event.tensor.shape[0]);
    n_vocab = static_cast<size_t>(event.tensor.shape[1]);
    values.insert(values.end(), event.tensor.data.begin(), event.tensor.data.end());
    if (n_rows <= kGolden.size() && n_vocab > 2047 && values.size() == n_rows * n_vocab) return {};
    return MakeError(Code::kEngine, "more rows, or fewer columns, than asked");
  }
};

std::filesystem::path GoldenModel() {
  return ShareDir() / "models/tiny-bitnet-silu/tiny-bitnet-silu-tq2_0.gguf";
}

// Of the model that is open.
Result<Logits> Evaluate(host::Engine& engine) {
  PB_ASSIGN(const host::Facts session, engine.OpenSession({}));
  host::EvalRequest request;
  for (const Golden& golden : kGolden) request.tokens.push_back(golden.token);
  Logits logits;
  PB_TRY(engine.Eval(request, [&](const host::Event& event) { return logits.Add(event); }));
  if (logits.n_rows == kGolden.size()) return logits;
  return MakeError(Code::kEngine, "the golden forward pass gave {} of {} positions", logits.n_rows,
                   kGolden.size());
}

float LargestDeviation(const Logits& logits) {
  float largest = 0;
  for (size_t r = 0; r < kGolden.size(); ++r) {
    const float distance = std::abs(logits.values[r * logits.n_vocab + kGolden[r].top] - kGolden[r].logit);
    largest = std::isfinite(distance) ? std::max(largest, distance) : INFINITY;
  }
  return largest;
}

// The worst row's.
double RelL2(const Logits& logits, const Logits& oracle) {
  double worst = 0;
  for (size_t r = 0; r < logits.n_rows; ++r) {
    double difference = 0, norm = 0;
    for (size_t i = r * logits.n_vocab; i < (r + 1) * logits.n_vocab; ++i) {
      const double d = double{logits.values[i]} - oracle.values[i];
      difference += d * d, norm += double{oracle.values[i]} * oracle.values[i];
    }
    const double row = std::sqrt(difference / norm);
    worst = std::isfinite(row) ? std::max(worst, row) : INFINITY;
  }
  return worst;
}

// The same mathematics in fp64, rounded as ggml rounds: computed on the spot, of all logits.
Result<Logits> OracleLogits(const std::filesystem::path& model) {
  const std::filesystem::path plugin = ExecutableDir().parent_path() / "lib/paritybit/oracle.so";
  PB_ASSIGN(auto oracle, host::Engine::Start(plugin, {{"act.quant", "ggml"}}, {}));
  PB_TRY(oracle->OpenModel(model));
  return Evaluate(*oracle);
}

// Another library of the same name must not stand in for the one that is to be proved.
Status CheckLoaded(const host::Facts& facts, const std::filesystem::path& library_dir) {
  const host::Fact* loaded = host::FindFact(facts, "path.libllama");
  std::error_code error;
  if (!loaded) return {};
  const std::filesystem::path dir = std::filesystem::canonical(loaded->value, error).parent_path();
  if (!error && dir == std::filesystem::canonical(library_dir, error)) return {};
  return MakeError(Code::kEngine, "{} was loaded instead of the library in {}", loaded->value,
                   library_dir.string());
}

}  // namespace

Result<Proof> GoldenPass(const Reference& reference) {
  PB_ASSIGN(auto engine, host::Engine::Start(reference.plugin, reference.settings, {}));
  PB_TRY(CheckLoaded(engine->description(), reference.library_dir));
  std::filesystem::path model = GoldenModel();
  std::optional<WorkDir> in_f16;
  std::string why_f16;
  if (const auto opened = engine->OpenModel(model); !opened.ok()) {
    // A fork may lack TQ2_0. In F16 the weights are the same to the bit.
    PB_ASSIGN(WorkDir made, WorkDir::Create(CacheDir()));
    in_f16.emplace(std::move(made));
    model = in_f16->path() / "golden-f16.gguf";
    PB_TRY(Convert(GoldenModel(), BlockType::kF16, std::nullopt, model));
    PB_ASSIGN(engine, host::Engine::Start(reference.plugin, reference.settings, {}));
    if (const auto again = engine->OpenModel(model); !again.ok()) return opened.error();
    why_f16 = fmt::format(" in F16, as it opens no TQ2_0 ({})", opened.error().message);
  }
  PB_ASSIGN(const Logits logits, Evaluate(*engine));
  const float deviation = LargestDeviation(logits);
  if (!(deviation <= kLimit))
    return MakeError(
        Code::kEngine,
        "the golden forward pass is wrong: a logit differs by {:.3g} from the recorded value (limit {})",
        deviation, kLimit);
  PB_ASSIGN(const Logits oracle, OracleLogits(model));
  const double rel_l2 = oracle.n_vocab == logits.n_vocab ? RelL2(logits, oracle) : INFINITY;
  if (!(rel_l2 <= kOracleLimit))
    return MakeError(
        Code::kEngine,
        "the golden forward pass is wrong: rel-L2 of its logits against the oracle's {:.1e} (limit {})",
        rel_l2, kOracleLimit);
  Proof proof;
  proof.text = fmt::format(
      "golden forward pass of {} positions{}, largest deviation of a logit {:.3f} (limit {}), rel-L2 against "
      "the oracle {:.1e} (limit {})",
      kGolden.size(), why_f16, deviation, kLimit, rel_l2, kOracleLimit);
  proof.version = host::FactText(engine->description(), "version");
  proof.commit = host::FactText(engine->description(), "commit");
  return proof;
}

}  // namespace pb::setup

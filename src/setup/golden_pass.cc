// Evaluates the bundled model and compares its logits with recorded values.
#include "setup/golden_pass.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "setup/adapter_build.h"

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

// Largest |logit - golden| over the positions that arrive, -1 before any has; counts them.
struct Deviation {
  float largest = -1;
  size_t n_rows = 0;

  Status Add(const host::Event& event) {
    if (event.kind != host::Event::kLogits || event.tensor.shape.size() != 2) return {};
    const size_t n_vocab = static_cast<size_t>(event.tensor.shape[1]);
    for (int64_t r = 0; r < event.tensor.shape[0]; ++r, ++n_rows) {
      if (n_rows >= kGolden.size() || n_vocab <= 2047)
        return MakeError(Code::kEngine, "more rows, or fewer columns, than asked");
      const Golden& golden = kGolden[n_rows];
      const float distance = std::abs(event.tensor.data[r * n_vocab + golden.top] - golden.logit);
      largest = std::isfinite(distance) ? std::max(largest, distance) : INFINITY;
    }
    return {};
  }
};

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
  const std::filesystem::path model = ShareDir() / "models/tiny-bitnet-silu/tiny-bitnet-silu-tq2_0.gguf";
  PB_ASSIGN(auto engine, host::Engine::Start(reference.plugin, reference.settings, {}));
  PB_TRY(CheckLoaded(engine->description(), reference.library_dir));
  PB_ASSIGN(const host::Facts facts, engine->OpenModel(model));
  PB_ASSIGN(const host::Facts session, engine->OpenSession({}));
  host::EvalRequest request;
  for (const Golden& golden : kGolden) request.tokens.push_back(golden.token);
  Deviation deviation;
  PB_TRY(engine->Eval(request, [&](const host::Event& event) { return deviation.Add(event); }));
  if (deviation.n_rows != kGolden.size()) {
    return MakeError(Code::kEngine, "the golden forward pass gave {} of {} positions", deviation.n_rows,
                     kGolden.size());
  }
  if (!(deviation.largest <= kLimit)) {
    return MakeError(
        Code::kEngine,
        "the golden forward pass is wrong: a logit differs by {:.3g} from the recorded value (limit {})",
        deviation.largest, kLimit);
  }
  Proof proof;
  proof.text =
      fmt::format("golden forward pass of {} positions, largest deviation of a logit {:.3f} (limit {})",
                  kGolden.size(), deviation.largest, kLimit);
  proof.version = host::FactText(engine->description(), "version");
  proof.commit = host::FactText(engine->description(), "commit");
  return proof;
}

}  // namespace pb::setup

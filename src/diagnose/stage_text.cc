#include "diagnose/stage_text.h"

#include <fmt/core.h>

#include "abi/vocabulary.h"

namespace pb::diagnose {
namespace {

// By stage.
constexpr const char* kTexts[] = {
    "embeddings",        "attention norm",    "query projection",   "key projection",    "value projection",
    "query norm",        "key norm",          "rotated queries",    "rotated keys",      "attention scores",
    "attention softmax", "attention context", "attention sub-norm", "output projection", "attention residual",
    "FFN norm",          "gate projection",   "up projection",      "activation",        "GLU output",
    "FFN sub-norm",      "down projection",   "layer output",       "final norm",        "logits"};
static_assert(std::size(kTexts) == PB_STAGE_COUNT);

}  // namespace

const char* StageText(int32_t stage) {
  return stage >= 0 && stage < PB_STAGE_COUNT ? kTexts[stage] : "unmapped op";
}

std::string PlaceText(int32_t layer, int32_t stage, std::optional<int64_t> feature) {
  std::string text = layer >= 0 ? fmt::format("layer {}, ", layer) : "";
  text += StageText(stage);
  const bool named_alike =
      stage < 0 || stage >= PB_STAGE_COUNT || pb_vocabulary[stage].name == std::string(StageText(stage));
  if (!named_alike) text += fmt::format(" ({})", pb_vocabulary[stage].name);
  if (feature) text += fmt::format(", feature {}", *feature);
  return text;
}

}  // namespace pb::diagnose

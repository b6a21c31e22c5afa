// Names of ops for people.
#include "diagnose/stage_text.h"

#include <fmt/core.h>

#include "stages/stages.h"

namespace pb::diagnose {

const char* StageText(int32_t stage) {
  return stages::IsStage(stage) ? stages::Of(stage).text : "unmapped op";
}

std::string PlaceText(int32_t layer, int32_t stage, std::optional<int64_t> feature) {
  std::string text = layer >= 0 ? fmt::format("layer {}, ", layer) : "";
  text += StageText(stage);
  const bool named_alike = !stages::IsStage(stage) || stages::Of(stage).name == std::string(StageText(stage));
  if (!named_alike) text += fmt::format(" ({})", stages::Of(stage).name);
  if (feature) text += fmt::format(", feature {}", *feature);
  return text;
}

}  // namespace pb::diagnose

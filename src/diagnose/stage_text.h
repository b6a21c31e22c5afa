// Names of ops for people.
#ifndef PARITYBIT_DIAGNOSE_STAGE_TEXT_H_
#define PARITYBIT_DIAGNOSE_STAGE_TEXT_H_

#include <cstdint>
#include <optional>
#include <string>

namespace pb::diagnose {

// "gated product" of ffn_gated.
const char* StageText(int32_t stage);
// "layer 0, gated product (ffn_gated), feature 3".
std::string PlaceText(int32_t layer, int32_t stage, std::optional<int64_t> feature);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_STAGE_TEXT_H_

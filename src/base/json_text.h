// JSON from files that anyone may have written or damaged: parsed with limits, and no exception
// gets out.
#ifndef PARITYBIT_BASE_JSON_TEXT_H_
#define PARITYBIT_BASE_JSON_TEXT_H_

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/result.h"

namespace pb {

inline constexpr int kMaxJsonDepth = 32;

// The value that a text holds. kMalformed: it is no JSON, a number of it is out of range, or it is
// nested deeper than max_depth (which is found before anything is built); the message tells the
// byte, counted from 0.
Result<nlohmann::json> ParseJson(std::string_view text, int max_depth = kMaxJsonDepth);

}  // namespace pb

#endif  // PARITYBIT_BASE_JSON_TEXT_H_

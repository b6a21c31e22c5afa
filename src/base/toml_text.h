// TOML from files that people write, as JSON values; what is wrong is told with its line.
#ifndef PARITYBIT_BASE_TOML_TEXT_H_
#define PARITYBIT_BASE_TOML_TEXT_H_

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/result.h"

namespace pb {

// The table that a text holds: tables as objects, arrays, strings, whole numbers, floats, booleans.
// Dates and times are refused. kMalformed: it is no TOML; the message has line and column.
Result<nlohmann::json> ParseToml(std::string_view text);

}  // namespace pb

#endif  // PARITYBIT_BASE_TOML_TEXT_H_

// The one text of a JSON value (RFC 8785).
#ifndef PARITYBIT_RECEIPT_CANONICAL_H_
#define PARITYBIT_RECEIPT_CANONICAL_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace pb::receipt {

// Keys sorted by their UTF-16 code units, no white space, numbers as ECMAScript writes them.
// kInternal: a number that is not finite, or a whole one that no double holds.
Result<std::string> Canonical(const nlohmann::json& value);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_CANONICAL_H_

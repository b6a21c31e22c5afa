// Reading of receipts that the schema has accepted.
#ifndef PARITYBIT_RECEIPT_FIELDS_H_
#define PARITYBIT_RECEIPT_FIELDS_H_

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace pb::receipt {

// A figure; none where it is null, which stands for one that is not finite.
std::optional<double> Number(const nlohmann::json& value);
// A fact's value, of one of the three lists of an engine; empty: it was not told.
std::string FactOf(const nlohmann::json& engine, const char* list, std::string_view key);
// Whether one engine computes attention as one op and the other does not, as far as both tell.
bool AttentionDiffers(const nlohmann::json& receipt);
// Seconds since 1970 of "2026-11-30T09:01:08Z"; none: no such time.
std::optional<int64_t> SecondsOf(std::string_view time);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_FIELDS_H_

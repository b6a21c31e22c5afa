// Figures, facts and times of a receipt.
#include "receipt/fields.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace pb::receipt {

using Json = nlohmann::json;

std::optional<double> Number(const Json& value) {
  if (!value.is_number() || !std::isfinite(value.get<double>())) return std::nullopt;
  return value.get<double>();
}

std::string FactOf(const Json& engine, const char* list, std::string_view key) {
  const Json& facts = engine[list];
  const auto fact = facts.find(std::string(key));
  return fact == facts.end() ? "" : (*fact)["value"].get<std::string>();
}

bool AttentionDiffers(const Json& receipt) {
  const Json& engines = receipt["engines"];
  if (engines.size() < 2) return false;
  std::string flash[2];
  for (size_t side : {0u, 1u})
    for (const char* list : {"model_facts", "session_facts"})
      if (std::string value = FactOf(engines[side], list, "attn.flash"); !value.empty()) flash[side] = value;
  return !flash[0].empty() && !flash[1].empty() && flash[0] != flash[1];
}

namespace {

// Days from 1970-01-01 of a date of the Gregorian calendar.
int64_t Days(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2;
  const int64_t era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
  const int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

}  // namespace

std::optional<int64_t> SecondsOf(std::string_view time) {
  constexpr size_t kLength = 20;
  if (time.size() != kLength) return std::nullopt;
  const auto field = [&](size_t at, size_t n) {
    int64_t value = -1;
    std::from_chars(time.data() + at, time.data() + at + n, value);
    return value;
  };
  const int64_t month = field(5, 2), day = field(8, 2), hour = field(11, 2), minute = field(14, 2),
                second = field(17, 2);
  if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60)
    return std::nullopt;
  return Days(field(0, 4), month, day) * 86400 + hour * 3600 + minute * 60 + second;
}

}  // namespace pb::receipt

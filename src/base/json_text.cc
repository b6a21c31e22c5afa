// Parses JSON within limits: depth is measured on the text, because building and destroying a deep
// value takes stack.
#include "base/json_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace pb {
namespace {

// Where brackets, strings left out, first stand deeper than max_depth.
std::optional<size_t> TooDeepAt(std::string_view text, int max_depth) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth) return i;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return std::nullopt;
}

}  // namespace

Result<nlohmann::json> ParseJson(std::string_view text, int max_depth) {
  if (const auto at = TooDeepAt(text, max_depth))
    return MakeError(Code::kMalformed, "byte {}: nested deeper than {} levels", *at, max_depth);
  try {
    std::vector<std::set<std::string>> names;  // of the objects around
    std::string twice;
    auto watch = [&](int, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
      using Event = nlohmann::json::parse_event_t;
      if (event == Event::object_start) names.emplace_back();
      if (event == Event::object_end && !names.empty()) names.pop_back();
      if (event == Event::key && twice.empty() && !names.empty() &&
          !names.back().insert(parsed.get<std::string>()).second)
        twice = parsed.get<std::string>();
      return true;
    };
    nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), watch);
    if (twice.empty()) return json;
    return MakeError(Code::kMalformed, "\"{:.64}\" occurs twice in one object", twice);
  } catch (const nlohmann::json::parse_error& error) {
    // The library counts from 1, and from 0 where there is nothing.
    return MakeError(Code::kMalformed, "byte {}: not valid JSON", error.byte > 0 ? error.byte - 1 : 0);
  } catch (const nlohmann::json::exception&) {
    return MakeError(Code::kMalformed, "a number is out of range");
  }
}

}  // namespace pb

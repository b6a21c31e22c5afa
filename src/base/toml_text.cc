// Parses TOML by toml++ and hands it on as JSON; the only file that sees that library.
#include "base/toml_text.h"

#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <nlohmann/json.hpp>

#include "base/json_text.h"

namespace pb {
namespace {

using Json = nlohmann::json;

Error At(const toml::source_region& source, std::string_view what) {
  return MakeError(Code::kMalformed, "line {}, column {}: {}", source.begin.line, source.begin.column, what);
}

Result<Json> ToJson(const toml::node& node) {
  if (const auto* table = node.as_table()) {
    Json out = Json::object();
    for (const auto& [key, value] : *table) {
      PB_ASSIGN(out[std::string(key.str())], ToJson(value));
    }
    return out;
  }
  if (const auto* array = node.as_array()) {
    Json out = Json::array();
    for (const toml::node& value : *array) {
      PB_ASSIGN(Json item, ToJson(value));
      out.push_back(std::move(item));
    }
    return out;
  }
  if (const auto* text = node.as_string()) return Json(text->get());
  if (const auto* whole = node.as_integer()) return Json(whole->get());
  if (const auto* number = node.as_floating_point()) return Json(number->get());
  if (const auto* truth = node.as_boolean()) return Json(truth->get());
  return At(node.source(), "dates and times have no meaning here");
}

// The library takes a deep value by recursion: brackets are counted before. Those in strings and
// comments count too, which nobody has so many of.
bool IsDeep(std::string_view text) {
  int depth = 0;
  for (const char c : text) {
    depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
    if (depth > kMaxJsonDepth) return true;
  }
  return false;
}

}  // namespace

Result<Json> ParseToml(std::string_view text) {
  if (IsDeep(text)) return MakeError(Code::kMalformed, "nested deeper than {} levels", kMaxJsonDepth);
  toml::parse_result parsed = toml::parse(text);
  if (parsed.failed()) return At(parsed.error().source(), parsed.error().description());
  return ToJson(parsed.table());
}

}  // namespace pb

// Reads the keys of a TOML table and tells what is wrong with them.
#include "base/toml_table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/suggest.h"

namespace pb {

using Json = nlohmann::json;

TomlTable::TomlTable(const Json& table, std::string where) : table_(table), where_(std::move(where)) {}

const Json* TomlTable::Find(const char* key) {
  known_.emplace_back(key);
  const auto found = table_.find(key);
  return found == table_.end() || error_ ? nullptr : &*found;
}

void TomlTable::Fail(const char* key, const std::string& what) {
  error_ = MakeError(Code::kMalformed, "{}: {} {}", where_, key, what);
}

void TomlTable::Text(const char* key, std::string* target) {
  const Json* value = Find(key);
  if (!value) return;
  if (!value->is_string()) return Fail(key, "is no text in quotes");
  value->get_to(*target);
}

void TomlTable::Truth(const char* key, bool* target) {
  const Json* value = Find(key);
  if (!value) return;
  if (!value->is_boolean()) return Fail(key, "is no true or false");
  value->get_to(*target);
}

void TomlTable::Number(const char* key, std::optional<double>* target) {
  const Json* value = Find(key);
  if (!value) return;
  if (!value->is_number()) return Fail(key, "is no number");
  if (!(value->get<double>() >= 0)) return Fail(key, "is below 0");
  *target = value->get<double>();
}

void TomlTable::Whole(const char* key, int64_t least, int64_t most, int64_t* target) {
  const Json* value = Find(key);
  if (!value) return;
  if (!value->is_number_integer()) return Fail(key, "is no whole number");
  const auto number = value->get<int64_t>();
  if (number < least || number > most) return Fail(key, fmt::format("is not from {} to {}", least, most));
  *target = number;
}

void TomlTable::Words(const char* key, const char* example, std::vector<std::string>* target) {
  const Json* value = Find(key);
  if (!value) return;
  const bool list = value->is_array() && std::all_of(value->begin(), value->end(),
                                                     [](const Json& word) { return word.is_string(); });
  if (!list || value->empty()) return Fail(key, fmt::format("is no list of words, as {}", example));
  value->get_to(*target);
}

void TomlTable::Numbers(const char* key, std::map<std::string, double>* target) {
  const Json* value = Find(key);
  if (!value) return;
  if (!value->is_object() ||
      !std::all_of(value->begin(), value->end(), [](const Json& v) { return v.is_number(); }))
    return Fail(key, "is no table of numbers, as { \"kl.worst\" = 1e-3 }");
  for (const auto& [name, number] : value->items()) target->emplace(name, number.get<double>());
}

void TomlTable::Skip(const char* key) { known_.emplace_back(key); }

Status TomlTable::End() {
  if (error_) return *std::move(error_);
  for (const auto& [key, value] : table_.items())
    if (std::find(known_.begin(), known_.end(), key) == known_.end())
      return MakeError(Code::kMalformed, "{}: `{}` is not known{}", where_, key, DidYouMean(key, known_));
  return {};
}

bool IsFileName(std::string_view name) {
  return !name.empty() && name[0] != '.' && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

}  // namespace pb

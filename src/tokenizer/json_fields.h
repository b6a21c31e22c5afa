// A value of a tokenizer.json with its path, so that whatever is wrong or unknown is told by name.
#ifndef PARITYBIT_TOKENIZER_JSON_FIELDS_H_
#define PARITYBIT_TOKENIZER_JSON_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb {

class JsonField {
 public:
  // `value` outlives this; null: it is missing.
  JsonField(const nlohmann::json* value, std::string path) : value_(value), path_(std::move(path)) {}

  // Missing, or null.
  bool none() const { return value_ == nullptr || value_->is_null(); }
  const std::string& path() const { return path_; }
  const nlohmann::json& value() const { return *value_; }
  // A member of an object; of anything else, a missing value.
  JsonField operator[](const char* key) const;
  JsonField At(size_t index) const;  // of an array that is long enough

  Result<std::string> Text() const;
  Result<std::string> TextOr(std::string_view otherwise) const;
  Result<bool> FlagOr(bool otherwise) const;
  Result<uint64_t> Number(uint64_t most) const;
  Result<std::vector<JsonField>> Items() const;
  // One code point.
  Result<uint32_t> Character() const;
  // Only these members are known; another is refused by name, so that no setting goes unheard.
  Status Knows(std::initializer_list<std::string_view> keys) const;

  Error Refuse(std::string_view what) const {
    return MakeError(Code::kUnsupported, "{}: {} is not supported", path_, what);
  }
  Error Wrong(std::string_view what) const { return MakeError(Code::kMalformed, "{}: {}", path_, what); }

 private:
  const nlohmann::json* value_;
  std::string path_;
};

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_JSON_FIELDS_H_

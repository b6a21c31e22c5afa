// Typed access to values that anyone may have written.
#include "tokenizer/json_fields.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace pb {

JsonField JsonField::operator[](const char* key) const {
  const nlohmann::json* member = nullptr;
  if (value_ != nullptr && value_->is_object())
    if (const auto found = value_->find(key); found != value_->end()) member = &*found;
  return {member, path_.empty() ? key : path_ + "." + key};
}

JsonField JsonField::At(size_t index) const {
  return {&(*value_)[index], fmt::format("{}[{}]", path_, index)};
}

Result<std::string> JsonField::Text() const {
  if (none() || !value_->is_string()) return Wrong("there is no string");
  return value_->get<std::string>();
}

Result<std::string> JsonField::TextOr(std::string_view otherwise) const {
  if (none()) return std::string(otherwise);
  return Text();
}

Result<bool> JsonField::FlagOr(bool otherwise) const {
  if (none()) return otherwise;
  if (!value_->is_boolean()) return Wrong("it is neither true nor false");
  return value_->get<bool>();
}

Result<uint64_t> JsonField::Number(uint64_t most) const {
  if (none() || !value_->is_number_unsigned() || value_->get<uint64_t>() > most)
    return Wrong(fmt::format("there is no whole number up to {}", most));
  return value_->get<uint64_t>();
}

Result<std::vector<JsonField>> JsonField::Items() const {
  if (none() || !value_->is_array()) return Wrong("there is no array");
  std::vector<JsonField> items;
  items.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) items.push_back(At(i));
  return items;
}

Result<uint32_t> JsonField::Character() const {
  const Result<std::string> text = Text();
  if (!text.ok()) return text.error();
  const CodePoint c = text->empty() ? CodePoint{0, 0} : ReadCodePoint(*text);
  if (c.bytes == 0 || c.bytes != text->size()) return Wrong("it is no single character");
  return c.value;
}

Status JsonField::Knows(std::initializer_list<std::string_view> keys) const {
  if (none() || !value_->is_object()) return Wrong("there is no object");
  for (const auto& item : value_->items())
    if (std::find(keys.begin(), keys.end(), item.key()) == keys.end())
      return MakeError(Code::kUnsupported, "{}.{:.64} is not supported", path_, item.key());
  return {};
}

}  // namespace pb

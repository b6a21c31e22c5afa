// Writes numbers, strings and objects as RFC 8785 wants them.
#include "receipt/canonical.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/text.h"

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

// ECMAScript's Number::toString: the fewest digits that give the number back, without an exponent
// from 1e-6 to below 1e21.
std::string NumberText(double value) {
  if (value == 0) return "0";  // -0 too
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, std::fabs(value), std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  std::string digits(1, text[0]);
  if (e > 1) digits += text.substr(2, e - 2);
  int exponent = 0;
  const char* first = text.data() + e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(first, text.data() + text.size(), exponent);
  const int n_digits = static_cast<int>(digits.size()), point = exponent + 1;
  constexpr int kLargest = 21, kSmallest = -6;
  std::string out = value < 0 ? "-" : "";
  if (point > 0 && point <= kLargest) {
    if (n_digits <= point) return out + digits + std::string(static_cast<size_t>(point - n_digits), '0');
    return out + digits.substr(0, static_cast<size_t>(point)) + "." +
           digits.substr(static_cast<size_t>(point));
  }
  if (point > kSmallest && point <= 0)
    return out + "0." + std::string(static_cast<size_t>(-point), '0') + digits;
  out += digits[0];
  if (n_digits > 1) out += "." + digits.substr(1);
  return out + fmt::format("e{}{}", exponent < 0 ? '-' : '+', std::abs(exponent));
}

void AppendString(std::string_view text, std::string* out) {
  *out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\b':
        *out += "\\b";
        break;
      case '\f':
        *out += "\\f";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          *out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        else
          *out += c;
    }
  }
  *out += '"';
}

std::u16string Utf16(std::string_view text) {
  std::u16string out;
  while (!text.empty()) {
    const Utf8 c = DecodeUtf8(text);
    if (c.n_bytes == 0) {  // a JSON parser lets none of these through
      out += static_cast<char16_t>(static_cast<unsigned char>(text[0]));
      text.remove_prefix(1);
      continue;
    }
    if (c.code_point < 0x10000) {
      out += static_cast<char16_t>(c.code_point);
    } else {
      out += static_cast<char16_t>(0xd800 + ((c.code_point - 0x10000) >> 10));
      out += static_cast<char16_t>(0xdc00 + ((c.code_point - 0x10000) & 0x3ff));
    }
    text.remove_prefix(c.n_bytes);
  }
  return out;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// Members in order; of ASCII the map's own order is that of UTF-16.
std::vector<Json::const_iterator> Members(const Json& object) {
  std::vector<Json::const_iterator> members;
  bool ascii = true;
  for (auto it = object.begin(); it != object.end(); ++it) {
    members.push_back(it);
    ascii = ascii && IsAscii(it.key());
  }
  if (!ascii)
    std::stable_sort(members.begin(), members.end(),
                     [](const auto& a, const auto& b) { return Utf16(a.key()) < Utf16(b.key()); });
  return members;
}

Status AppendNumber(const Json& value, std::string* out) {
  const double number = value.get<double>();
  if (!std::isfinite(number)) return MakeError(Code::kInternal, "a number is not finite");
  // From 2^63 and 2^64 on the way back would overflow.
  const bool exact =
      value.is_number_unsigned()  ? number < 0x1p64 && value.get<uint64_t>() == static_cast<uint64_t>(number)
      : value.is_number_integer() ? number < 0x1p63 && value.get<int64_t>() == static_cast<int64_t>(number)
                                  : true;
  if (!exact) return MakeError(Code::kInternal, "{} is no number that a double holds", value.dump());
  *out += NumberText(number);
  return {};
}

Status Append(const Json& value, std::string* out) {
  if (value.is_null()) {
    *out += "null";
  } else if (value.is_boolean()) {
    *out += value.get<bool>() ? "true" : "false";
  } else if (value.is_number()) {
    return AppendNumber(value, out);
  } else if (value.is_string()) {
    AppendString(value.get_ref<const std::string&>(), out);
  } else if (value.is_array()) {
    *out += '[';
    for (size_t i = 0; i < value.size(); ++i) {
      if (i > 0) *out += ',';
      PB_TRY(Append(value[i], out));
    }
    *out += ']';
  } else {
    *out += '{';
    bool first = true;
    for (const auto& member : Members(value)) {
      if (!first) *out += ',';
      first = false;
      AppendString(member.key(), out);
      *out += ':';
      PB_TRY(Append(member.value(), out));
    }
    *out += '}';
  }
  return {};
}

}  // namespace

Result<std::string> Canonical(const Json& value) {
  std::string out;
  PB_TRY(Append(value, &out));
  return out;
}

}  // namespace pb::receipt

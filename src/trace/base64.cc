// Encodes and decodes, and refuses what is no canonical encoding.
#include "trace/base64.h"

#include <array>

namespace pb::trace {
namespace {

constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<int8_t, 256> kValues = [] {
  std::array<int8_t, 256> values{};
  for (auto& v : values) v = -1;
  for (int i = 0; i < 64; ++i) values[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
  return values;
}();

}  // namespace

std::string Base64(std::span<const uint8_t> bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t bits = bytes[i] << 16 | (n > 1 ? bytes[i + 1] << 8 : 0) | (n > 2 ? bytes[i + 2] : 0);
    text += kDigits[bits >> 18];
    text += kDigits[bits >> 12 & 63];
    text += n > 1 ? kDigits[bits >> 6 & 63] : '=';
    text += n > 2 ? kDigits[bits & 63] : '=';
  }
  return text;
}

std::optional<std::vector<uint8_t>> FromBase64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::vector<uint8_t> bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    bool last = i + 4 == text.size();
    int n = 3;  // bytes in this group
    if (last && text[i + 3] == '=') n = text[i + 2] == '=' ? 1 : 2;
    uint32_t bits = 0;
    for (int k = 0; k < 4; ++k) {
      int value = k <= n ? kValues[static_cast<uint8_t>(text[i + k])] : 0;
      if (value < 0) return std::nullopt;
      bits = bits << 6 | static_cast<uint32_t>(value);
    }
    if (n < 3 && (bits & ((1u << (8 * (3 - n))) - 1)) != 0) return std::nullopt;  // bits that mean nothing
    for (int k = 0; k < n; ++k) bytes.push_back(static_cast<uint8_t>(bits >> (16 - 8 * k)));
  }
  return bytes;
}

}  // namespace pb::trace

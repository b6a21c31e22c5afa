// One decoder of UTF-8 and one idea of what a terminal must not see serve every form of escape.
#include "base/text.h"

#include <fmt/format.h>

#include <algorithm>

namespace pb {
namespace {

// Calls bytes(text) for each run that is no UTF-8, one byte at a time, and character(code point,
// text) for each character.
template <typename Bytes, typename Character>
void Walk(std::string_view text, const Bytes& bytes, const Character& character) {
  while (!text.empty()) {
    const Utf8 c = DecodeUtf8(text);
    const std::string_view taken = text.substr(0, std::max<size_t>(c.n_bytes, 1));
    if (c.n_bytes == 0) {
      bytes(taken);
    } else {
      character(c.code_point, taken);
    }
    text.remove_prefix(taken.size());
  }
}

void AppendHex(std::string_view byte, std::string* out) {
  *out += fmt::format("\\x{:02x}", static_cast<uint8_t>(byte[0]));
}

void AppendOctal(std::string_view bytes, std::string* out) {
  for (char c : bytes) *out += fmt::format("\\{:03o}", static_cast<uint8_t>(c));
}

bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("_-./=,:+@%").find(c) != std::string_view::npos;
}

// Octal, because a shell may read more than two digits after \x.
std::string QuoteWithEscapes(std::string_view text) {
  std::string out = "$'";
  Walk(
      text, [&](std::string_view byte) { AppendOctal(byte, &out); },
      [&](uint32_t c, std::string_view as_is) {
        if (c == '\n' || c == '\t') {
          out += c == '\n' ? "\\n" : "\\t";
        } else if (IsUnsafe(c)) {
          AppendOctal(as_is, &out);
        } else {
          if (c == '\'' || c == '\\') out += '\\';
          out += as_is;
        }
      });
  return out + "'";
}

}  // namespace

Utf8 DecodeUtf8(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < n) return {0, 0};
  uint32_t code = lead & (0x7fu >> n);
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {0, 0};
    code = code << 6 | (byte(i) & 0x3fu);
  }
  const bool overlong = (n == 3 && code < 0x800) || (n == 4 && code < 0x10000);
  if (overlong || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff) return {0, 0};
  return {code, n};
}

bool IsUnsafe(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
         (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f || c == 0x061c || c == 0x2028 ||
         c == 0x2029 || c == 0xfeff;
}

std::string EscapeInvalid(std::string_view text) {
  std::string out;
  Walk(
      text, [&](std::string_view byte) { AppendHex(byte, &out); },
      [&](uint32_t, std::string_view as_is) { out += as_is; });
  return out;
}

std::string EscapeUnsafe(std::string_view text) {
  std::string out;
  Walk(
      text, [&](std::string_view byte) { AppendHex(byte, &out); },
      [&](uint32_t c, std::string_view as_is) {
        if (!IsUnsafe(c) || c == '\n' || c == '\t') {
          out += as_is;
        } else {
          out += c < 0x100 ? fmt::format("\\x{:02x}", c) : fmt::format("\\u{:04x}", c);
        }
      });
  return out;
}

std::string ShellQuote(std::string_view text) {
  if (!text.empty() && std::all_of(text.begin(), text.end(), IsPlain)) return std::string(text);
  if (EscapeUnsafe(text) != text || text.find_first_of("\n\t") != std::string_view::npos)
    return QuoteWithEscapes(text);
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

}  // namespace pb

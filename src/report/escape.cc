#include "report/escape.h"

#include <fmt/core.h>

#include <cstdint>

namespace pb::report {
namespace {

struct Decoded {
  uint32_t code_point;
  size_t n_bytes;  // 0: no valid UTF-8 here
};

// RFC 3629: no overlong forms, no surrogates, nothing beyond U+10FFFF.
Decoded Decode(std::string_view s) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(s[i]); };
  uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  size_t n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || s.size() < n) return {0, 0};
  uint32_t code = lead & (0x7fu >> n);
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {0, 0};
    code = code << 6 | (byte(i) & 0x3fu);
  }
  bool overlong = (n == 3 && code < 0x800) || (n == 4 && code < 0x10000);
  if (overlong || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff) return {0, 0};
  return {code, n};
}

bool IsControl(uint32_t c) { return c < 0x20 || (c >= 0x7f && c < 0xa0); }

// Characters that reorder what a terminal shows, or that break its lines.
bool IsDeceptive(uint32_t c) {
  return (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x2028 || c == 0x2029 ||
         c == 0xfeff;
}

std::string EscapeOne(uint32_t c) {
  switch (c) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
  }
  return c < 0x100 ? fmt::format("\\x{:02x}", c) : fmt::format("\\u{:04x}", c);
}

}  // namespace

std::string Escape(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    Decoded d = Decode(text);
    if (d.n_bytes == 0) {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(text[0]));
      text.remove_prefix(1);
      continue;
    }
    bool escape =
        IsControl(d.code_point) || IsDeceptive(d.code_point) || d.code_point == '"' || d.code_point == '\\';
    if (escape)
      out += EscapeOne(d.code_point);
    else
      out += text.substr(0, d.n_bytes);
    text.remove_prefix(d.n_bytes);
  }
  return out;
}

size_t Columns(std::string_view text) {
  size_t n = 0;
  for (char c : text) n += (static_cast<uint8_t>(c) & 0xc0) != 0x80;
  return n;
}

std::string Fit(std::string_view text, size_t columns) {
  size_t n = Columns(text);
  if (n <= columns) return std::string(text) + std::string(columns - n, ' ');
  size_t end = 0;
  for (size_t kept = 0; kept + 2 < columns; ++kept) end += Decode(text.substr(end)).n_bytes;
  return std::string(text.substr(0, end)) + std::string(columns < 2 ? columns : 2, '.');
}

std::string Wrap(std::string_view text, size_t width, size_t indent) {
  std::string out;
  size_t column = indent;
  while (!text.empty()) {
    size_t blank = std::min(text.find(' '), text.size());
    std::string_view word = text.substr(0, blank);
    text.remove_prefix(std::min(blank + 1, text.size()));
    size_t n = Columns(word);
    bool first = out.empty();
    if (!first && column + 1 + n > width) {
      out += '\n';
      out.append(indent, ' ');
      column = indent;
    } else if (!first) {
      out += ' ';
      ++column;
    }
    out += word;
    column += n;
  }
  return out;
}

}  // namespace pb::report

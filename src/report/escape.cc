// Escapes, wraps and cuts text, counting columns.
#include "report/escape.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>

#include "base/text.h"

namespace pb::report {
namespace {

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
    const Utf8 d = DecodeUtf8(text);
    if (d.n_bytes == 0) {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(text[0]));
      text.remove_prefix(1);
      continue;
    }
    bool escape = IsUnsafe(d.code_point) || d.code_point == '"' || d.code_point == '\\';
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
  for (size_t kept = 0; kept + 2 < columns; ++kept) end += DecodeUtf8(text.substr(end)).n_bytes;
  return std::string(text.substr(0, end)) + std::string(columns < 2 ? columns : 2, '.');
}

std::string Together(std::string_view text) {
  std::string out;
  for (char c : text) out += c == ' ' ? std::string(kNoBreak) : std::string(1, c);
  return out;
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
      out.resize(out.find_last_not_of(' ') + 1);
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
  for (size_t at = 0; (at = out.find(kNoBreak, at)) != std::string::npos; ++at)
    out.replace(at, kNoBreak.size(), " ");
  return out;
}

}  // namespace pb::report

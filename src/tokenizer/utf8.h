// Reading and writing single code points in UTF-8.
#ifndef PARITYBIT_TOKENIZER_UTF8_H_
#define PARITYBIT_TOKENIZER_UTF8_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace pb {

struct CodePoint {
  uint32_t value;
  size_t bytes;  // taken from the text; 0: not UTF-8
};

// The first code point of a text that is not empty. As lenient as llama.cpp: surrogates, overlong
// forms and values up to 0x1FFFFF pass.
inline CodePoint ReadCodePoint(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  size_t n = lead < 0xC0 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF8 ? 4 : 0;
  if (n == 0 || n > text.size()) return {0, 0};
  uint32_t value = lead & (0x7Fu >> n);
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {0, 0};
    value = value << 6 | (byte(i) & 0x3Fu);
  }
  return {value, n};
}

// Bytes of the character that begins with this one, by its upper half; damaged UTF-8 is cut likewise.
inline size_t CharacterBytes(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Up to U+10FFFF, in the shortest form.
inline void AppendUtf8(uint32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
    return;
  }
  if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
  } else {
    if (c < 0x10000) {
      out->push_back(static_cast<char>(0xE0 | c >> 12));
    } else {
      out->push_back(static_cast<char>(0xF0 | c >> 18));
      out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    }
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
  }
  out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
}

// The first byte that is no part of strict UTF-8 (shortest form, no surrogates, up to U+10FFFF); the
// size of the text where all are.
inline size_t FirstInvalidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = ReadCodePoint(text.substr(at));
    static constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool valid = c.bytes > 0 && c.value >= kLeast[c.bytes] && c.value < 0x110000 &&
                       (c.value < 0xD800 || c.value > 0xDFFF);
    if (!valid) return at;
    at += c.bytes;
  }
  return text.size();
}

// At most eight hexadecimal digits and nothing else.
inline bool ParseHex(std::string_view digits, uint32_t* value) {
  *value = 0;
  for (char c : digits) {
    char lower = static_cast<char>(c | 0x20);
    bool letter = lower >= 'a' && lower <= 'f';
    if (!letter && (c < '0' || c > '9')) return false;
    *value = *value << 4 | static_cast<uint32_t>(letter ? lower - 'a' + 10 : c - '0');
  }
  return true;
}

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_UTF8_H_

// Text that comes from outside - names of files, prompts, what engines say - made fit for a
// terminal, for JSON and for a shell.
#ifndef PARITYBIT_BASE_TEXT_H_
#define PARITYBIT_BASE_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace pb {

struct Utf8 {
  uint32_t code_point;
  size_t n_bytes;  // 0: no valid UTF-8 here
};
// The first code point of a text that is not empty, after RFC 3629: no overlong forms, no
// surrogates, nothing beyond U+10FFFF.
Utf8 DecodeUtf8(std::string_view text);

// Whether a terminal would do something else than show it: control characters (C0, DEL, C1), and
// what reorders or breaks lines.
bool IsUnsafe(uint32_t code_point);

// Bytes that are no UTF-8 as \xff, the rest as it is: what JSON can hold.
std::string EscapeInvalid(std::string_view text);
// For a terminal, several lines: as EscapeInvalid, and what is unsafe but newline and tab as \x1b
// or \u202e.
std::string EscapeUnsafe(std::string_view text);
// One word of a POSIX shell: as it is, in '..', or with escapes in $'..' where it holds what is
// unsafe or no UTF-8.
std::string ShellQuote(std::string_view text);

template <typename Json>
Json EscapeInvalidIn(const Json& json) {
  if (json.is_string()) return EscapeInvalid(json.template get_ref<const std::string&>());
  Json out = json;
  if (json.is_array()) {
    for (Json& item : out) item = EscapeInvalidIn(std::as_const(item));
  } else if (json.is_object()) {
    out = Json::object();
    for (const auto& [key, value] : json.items()) out[EscapeInvalid(key)] = EscapeInvalidIn(value);
  }
  return out;
}

// Writes JSON of any nlohmann type. Bytes that are no UTF-8 are escaped as in EscapeInvalid; ascii:
// all beyond ASCII as \u.
template <typename Json>
std::string DumpJson(const Json& json, int indent = -1, bool ascii = false) {
  // Strings that are no UTF-8 are rare: the copy that holds them escaped is made where the writer
  // refuses.
  try {
    return json.dump(indent, ' ', ascii);
  } catch (const typename Json::type_error&) {
    return EscapeInvalidIn(json).dump(indent, ' ', ascii);
  }
}

}  // namespace pb

#endif  // PARITYBIT_BASE_TEXT_H_

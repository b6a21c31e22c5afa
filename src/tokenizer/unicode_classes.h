// What kind of character a code point is, after Unicode 15.1 (the version llama.cpp v0.5.0 carries)
// and 16.0 (that of the `tokenizers` package), whatever the versions of the Unicode libraries on
// this machine.
#ifndef PARITYBIT_TOKENIZER_UNICODE_CLASSES_H_
#define PARITYBIT_TOKENIZER_UNICODE_CLASSES_H_

#include <cstdint>
#include <string_view>

namespace pb {

inline constexpr uint32_t kCodePointLimit = 0x110000;

enum class UnicodeVersion { k15_1, k16 };

// General categories: the index of one is half the offset of its two letters.
inline constexpr std::string_view kCategoryNames =
    "LuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCoCn";

// The index of each code point's category, kCodePointLimit of them.
const uint8_t* Categories(UnicodeVersion version);

// A set of categories, one bit for each. `name`: two letters, or the first of them ("L": Lu to Lo);
// 0: no such category.
constexpr uint32_t CategoryMask(std::string_view name) {
  uint32_t mask = 0;
  for (size_t i = 0; !name.empty() && i < kCategoryNames.size(); i += 2)
    if (kCategoryNames.substr(i, 2).starts_with(name)) mask |= 1u << i / 2;
  return mask;
}

// White_Space of PropList.txt, unchanged since Unicode 6.3.
constexpr bool IsWhiteSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

}  // namespace pb

#endif  // PARITYBIT_TOKENIZER_UNICODE_CLASSES_H_

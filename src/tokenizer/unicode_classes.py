"""Writes unicode_classes.cc: the classes of all code points after Unicode 15.1 (general category, White_Space).

pip install unicodedata2==15.1.0 && python3 unicode_classes.py > unicode_classes.cc
"""
import unicodedata2

assert unicodedata2.unidata_version == "15.1.0"
# White_Space of PropList.txt, unchanged since Unicode 6.3.
SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def unicode_class(c):
    if c in SPACE:
        return "W"
    category = unicodedata2.category(chr(c))[0]
    return category if category in "LNPSM" else "O"


HEAD = """\
// The classes of all code points after Unicode 15.1; written by unicode_classes.py from the Unicode Character Database.
#include "tokenizer/unicode_classes.h"

#include <string>

namespace pb {
namespace {

constexpr auto L = CharClass::kLetter, N = CharClass::kNumber, P = CharClass::kPunctuation, S = CharClass::kSymbol,
               M = CharClass::kMark, W = CharClass::kSpace, O = CharClass::kOther;

struct Range {
  uint32_t first;  // up to the next range
  CharClass value;
};

// clang-format off
constexpr Range kRanges[] = {"""

TAIL = """\
};
// clang-format on

std::string ExpandRanges() {
  std::string table(kCodePointLimit, static_cast<char>(O));
  for (size_t i = 0; i < std::size(kRanges); ++i) {
    uint32_t end = i + 1 < std::size(kRanges) ? kRanges[i + 1].first : kCodePointLimit;
    for (uint32_t c = kRanges[i].first; c < end; ++c) table[c] = static_cast<char>(kRanges[i].value);
  }
  return table;
}

}  // namespace

CharClass ClassOf(uint32_t code_point) {
  static const std::string table = ExpandRanges();
  return code_point < kCodePointLimit ? static_cast<CharClass>(table[code_point]) : O;
}

}  // namespace pb"""

print(HEAD)
line, previous = " ", None
for c in range(0x110000):
    now = unicode_class(c)
    if now != previous:
        item = " {0x%X,%s}," % (c, now)
        if len(line) + len(item) > 120:
            print(line)
            line = " "
        line += item
        previous = now
print(line)
print(TAIL)

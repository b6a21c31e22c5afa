"""Writes unicode_classes.cc: the general categories of all code points after Unicode 15.1 and 16.0.

pip install --target A unicodedata2==15.1.0; pip install --target B unicodedata2==16.0.0
python3 unicode_classes.py A B > unicode_classes.cc
"""
import json
import subprocess
import sys

ASK = ("import json, unicodedata2 as u; "
       "print(json.dumps([u.unidata_version] + [u.category(chr(c)) for c in range(0x110000)]))")


def categories(folder, version):
    told = json.loads(subprocess.check_output([sys.executable, "-c", ASK], env={"PYTHONPATH": folder}))
    assert told[0] == version, told[0]
    return told[1:]


old, new = categories(sys.argv[1], "15.1.0"), categories(sys.argv[2], "16.0.0")
# What was assigned before keeps its category, but for a few that the table names by both.
changed = [c for c in range(0x110000) if old[c] != new[c] and old[c] != "Cn"]
assert len(changed) < 40, len(changed)

HEAD = """\
// The general categories of all code points after Unicode 15.1 and 16.0; written by unicode_classes.py
// from the Unicode Character Database.
#include "tokenizer/unicode_classes.h"

#include <string>
#include <string_view>

namespace pb {
namespace {

struct Range {
  uint32_t first;  // up to the next range
  // two letters of the category; two more where Unicode 15.1 has another
  std::string_view category;
};

// clang-format off
constexpr Range kRanges[] = {"""

TAIL = """\
};
// clang-format on

uint8_t IndexOf(std::string_view letters) {
  return static_cast<uint8_t>(kCategoryNames.find(letters) / 2);
}

struct Tables {
  std::string of[2];

  Tables() {
    for (std::string& table : of) table.resize(kCodePointLimit);
    for (size_t i = 0; i < std::size(kRanges); ++i) {
      const std::string_view both = kRanges[i].category;
      const uint32_t end = i + 1 < std::size(kRanges) ? kRanges[i + 1].first : kCodePointLimit;
      const auto now = static_cast<char>(IndexOf(both.substr(0, 2)));
      const auto before = both.size() > 2 ? static_cast<char>(IndexOf(both.substr(2))) : now;
      for (uint32_t c = kRanges[i].first; c < end; ++c) of[0][c] = before, of[1][c] = now;
    }
  }
};

}  // namespace

const uint8_t* Categories(UnicodeVersion version) {
  static const Tables tables;
  return reinterpret_cast<const uint8_t*>(tables.of[static_cast<size_t>(version)].data());
}

}  // namespace pb"""

print(HEAD)
line, previous = " ", None
for c in range(0x110000):
    now = new[c] if new[c] == old[c] else new[c] + old[c]
    if now != previous:
        item = ' {0x%X,"%s"},' % (c, now)
        if len(line) + len(item) > 99:
            print(line)
            line = " "
        line += item
        previous = now
print(line)
print(TAIL)

// Our table of categories against utf8proc, which has its own copy of the Unicode Character
// Database.
#include "tokenizer/unicode_classes.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <string>

namespace pb {
namespace {

std::string_view NameOf(uint8_t category) { return kCategoryNames.substr(category * 2u, 2); }

// Categories of assigned characters hardly ever change between Unicode versions; the handful
// allowed here is for a utf8proc of another version.
TEST(UnicodeClasses, AgreeWithUtf8procOnAssignedCodePoints) {
  int compared = 0, different = 0, spaces = 0;
  for (uint32_t c = 0; c < kCodePointLimit; ++c) {
    spaces += IsWhiteSpace(c);
    const std::string theirs = utf8proc_category_string(static_cast<utf8proc_int32_t>(c));
    for (UnicodeVersion version : {UnicodeVersion::k15_1, UnicodeVersion::k16}) {
      const std::string_view ours = NameOf(Categories(version)[c]);
      if (theirs == "Cn" || ours == "Cn") continue;
      ++compared;
      different += ours != theirs;
    }
  }
  EXPECT_EQ(spaces, 25);  // White_Space of PropList.txt
  EXPECT_GT(compared, 500'000);
  EXPECT_LE(different, 10);
}

TEST(UnicodeClasses, AssignedNowHereUnassignedBefore) {
  const uint8_t *before = Categories(UnicodeVersion::k15_1), *now = Categories(UnicodeVersion::k16);
  EXPECT_EQ(NameOf(before[0x2EBF0]), "Lo");  // CJK Extension I, new in Unicode 15.1
  EXPECT_EQ(NameOf(before[0x1C89]), "Cn");
  EXPECT_EQ(NameOf(now[0x1C89]), "Lu");   // Cyrillic Tje, new in Unicode 16
  EXPECT_EQ(NameOf(now[0x323B0]), "Cn");  // new in Unicode 17
  EXPECT_EQ(NameOf(now[kCodePointLimit - 1]), "Cn");
}

TEST(UnicodeClasses, MasksOfNames) {
  EXPECT_EQ(CategoryMask("Lu"), 1u);
  EXPECT_EQ(CategoryMask("L"), 0x1Fu);
  EXPECT_EQ(CategoryMask("N"), CategoryMask("Nd") | CategoryMask("Nl") | CategoryMask("No"));
  EXPECT_EQ(CategoryMask("X"), 0u);
  EXPECT_EQ(CategoryMask(""), 0u);
}

}  // namespace
}  // namespace pb

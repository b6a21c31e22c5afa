// Our table of character classes against utf8proc, which has its own copy of the Unicode Character
// Database.
#include "tokenizer/unicode_classes.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

namespace pb {
namespace {

CharClass ClassOfCategory(utf8proc_category_t category) {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return CharClass::kPunctuation;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
      return CharClass::kSymbol;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return CharClass::kMark;
    default:
      return CharClass::kOther;
  }
}

// Categories of assigned characters hardly ever change between Unicode versions; the handful
// allowed here is for a utf8proc newer than 15.1.
TEST(UnicodeClasses, AgreeWithUtf8procOnAssignedCodePoints) {
  int compared = 0, different = 0, spaces = 0;
  for (uint32_t c = 0; c < kCodePointLimit; ++c) {
    CharClass ours = ClassOf(c);
    if (ours == CharClass::kSpace) {
      ++spaces;
      auto bidi = utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->bidi_class;
      bool separates = bidi == UTF8PROC_BIDI_CLASS_WS || bidi == UTF8PROC_BIDI_CLASS_B ||
                       bidi == UTF8PROC_BIDI_CLASS_S || bidi == UTF8PROC_BIDI_CLASS_CS;  // U+00A0, U+202F
      EXPECT_TRUE(separates) << std::hex << c;
      continue;
    }
    utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
    if (category == UTF8PROC_CATEGORY_CN || ours == CharClass::kOther) continue;
    ++compared;
    different += ours != ClassOfCategory(category);
  }
  EXPECT_EQ(spaces, 25);  // White_Space of PropList.txt
  EXPECT_GT(compared, 140000);
  EXPECT_LE(different, 5);
}

TEST(UnicodeClasses, AssignedNowHereUnassignedBefore) {
  EXPECT_EQ(ClassOf(0x2EBF0), CharClass::kLetter);  // CJK Extension I, new in Unicode 15.1
  EXPECT_EQ(ClassOf(0x1C89), CharClass::kOther);    // new in Unicode 16
  EXPECT_EQ(ClassOf(0x110000), CharClass::kOther);
}

}  // namespace
}  // namespace pb

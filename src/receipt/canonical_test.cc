// Numbers: RFC 8785, appendix B. Strings and keys: its sections 3.2.2 and 3.2.3.
#include "receipt/canonical.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <nlohmann/json.hpp>

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

TEST(Canonical, NumbersAreThoseOfAppendixB) {
  const std::pair<uint64_t, const char*> kSamples[] = {
      {0x0000000000000000, "0"},
      {0x8000000000000000, "0"},
      {0x0000000000000001, "5e-324"},
      {0x8000000000000001, "-5e-324"},
      {0x7fefffffffffffff, "1.7976931348623157e+308"},
      {0xffefffffffffffff, "-1.7976931348623157e+308"},
      {0x4340000000000000, "9007199254740992"},
      {0xc340000000000000, "-9007199254740992"},
      {0x4430000000000000, "295147905179352830000"},
      {0x44b52d02c7e14af5, "9.999999999999997e+22"},
      {0x44b52d02c7e14af6, "1e+23"},
      {0x44b52d02c7e14af7, "1.0000000000000001e+23"},
      {0x444b1ae4d6e2ef4e, "999999999999999700000"},
      {0x444b1ae4d6e2ef4f, "999999999999999900000"},
      {0x444b1ae4d6e2ef50, "1e+21"},
      {0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
      {0x3eb0c6f7a0b5ed8d, "0.000001"},
      {0x41b3de4355555553, "333333333.3333332"},
      {0x41b3de4355555554, "333333333.33333325"},
      {0x41b3de4355555555, "333333333.3333333"},
      {0x41b3de4355555556, "333333333.3333334"},
      {0x41b3de4355555557, "333333333.33333343"},
      {0xbecbf647612f3696, "-0.0000033333333333333333"},
      {0x43143ff3c1cb0959, "1424953923781206.2"},
  };
  for (const auto& [bits, text] : kSamples) {
    auto written = Canonical(Json(std::bit_cast<double>(bits)));
    ASSERT_TRUE(written.ok()) << text;
    EXPECT_EQ(*written, text);
    // A reader that takes it for a whole number writes the same.
    EXPECT_EQ(*Canonical(Json::parse(*written)), text);
  }
}

TEST(Canonical, WhatNoDoubleHoldsIsRefused) {
  EXPECT_FALSE(Canonical(Json(std::numeric_limits<double>::quiet_NaN())).ok());
  EXPECT_FALSE(Canonical(Json(std::numeric_limits<double>::infinity())).ok());
  EXPECT_FALSE(Canonical(Json(9007199254740993)).ok());
  EXPECT_FALSE(Canonical(Json(std::numeric_limits<uint64_t>::max())).ok());
  EXPECT_FALSE(Canonical(Json(std::numeric_limits<int64_t>::max())).ok());
  EXPECT_EQ(*Canonical(Json(std::numeric_limits<int64_t>::min())), "-9223372036854776000");
}

// Section 3.2.3's example; its keys are sorted by their UTF-16 code units.
TEST(Canonical, KeysAreSortedByUtf16) {
  const Json object = Json::parse(
      R"({"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",)"
      R"("\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"})");
  EXPECT_EQ(*Canonical(object),
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\xc2\x80\":\"Control\",\"\xc3\xb6\":\"Latin Small "
            "Letter O With Diaeresis\",\"\xe2\x82\xac\":\"Euro Sign\",\"\xf0\x9f\x98\x80\":\"Emoji: Grinning "
            "Face\",\"\xef\xac\xb3\":\"Hebrew Letter Dalet With Dagesh\"}");
}

TEST(Canonical, StringsEscapeWhatTheyMustAndNothingElse) {
  EXPECT_EQ(*Canonical(Json::parse(
                R"({"s":"\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\/","l":[null,true,false]})")),
            "{\"l\":[null,true,false],\"s\":\"\xe2\x82\xac$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}");
}

}  // namespace
}  // namespace pb::receipt

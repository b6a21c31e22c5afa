// Untrusted JSON: depth is limited before anything is built, and damage is an error, never an
// exception.
#include "base/json_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace pb {
namespace {

std::string ErrorOf(std::string_view text, int depth = kMaxJsonDepth) {
  auto json = ParseJson(text, depth);
  if (json.ok()) return "";
  EXPECT_EQ(json.error().code, Code::kMalformed);
  return json.error().message;
}

std::string Nested(int n) {
  return std::string(static_cast<size_t>(n), '[') + std::string(static_cast<size_t>(n), ']');
}

TEST(JsonText, ReadsWhatIsJson) {
  auto json = ParseJson(R"({"a":[1,{"b":"]]]]\"[[[["}]})");
  ASSERT_TRUE(json.ok()) << json.error().message;
  EXPECT_EQ(json->at("a").at(1).at("b"), "]]]]\"[[[[");
}

TEST(JsonText, ANameStandsOnceInAnObject) {
  EXPECT_EQ(ErrorOf(R"({"a": 1, "b": {"a": 1}, "c": [{"a": 1}, {"a": 2}]})"), "");
  EXPECT_EQ(ErrorOf(R"({"a": 1, "a": 1})"), "\"a\" occurs twice in one object");
  EXPECT_EQ(ErrorOf(R"({"x": [{"b": {}}, {"b": 1, "c": 2, "b": 3}]})"), "\"b\" occurs twice in one object");
}

TEST(JsonText, DepthIsLimitedBeforeAnythingIsBuilt) {
  EXPECT_EQ(ErrorOf(Nested(kMaxJsonDepth)), "");
  EXPECT_EQ(ErrorOf(Nested(kMaxJsonDepth + 1)), "byte 32: nested deeper than 32 levels");
  EXPECT_NE(ErrorOf(std::string(10'000'000, '[')), "");
  EXPECT_NE(ErrorOf("{\"a\":" + Nested(200'000) + "}"), "");
  EXPECT_EQ(ErrorOf("[[1],[[2]]]", 3), "");
  EXPECT_EQ(ErrorOf("[[1],[[2]]]", 2), "byte 6: nested deeper than 2 levels");
  // Brackets within strings nest nothing, whatever is escaped there; nor do those that were closed.
  EXPECT_EQ(ErrorOf("[\"" + std::string(100, '[') + "\\\\\\\"" + std::string(100, '{') + "\"]", 1), "");
  std::string many = "[1";
  for (int i = 0; i < 1000; ++i) many += ",[]";
  EXPECT_EQ(ErrorOf(many + "]", 2), "");
}

TEST(JsonText, DamageIsAnErrorAndNeverAnException) {
  EXPECT_EQ(ErrorOf(""), "byte 0: not valid JSON");
  EXPECT_EQ(ErrorOf("{\"a\":1,}"), "byte 7: not valid JSON");
  EXPECT_NE(ErrorOf("\"\xff\""), "");
  EXPECT_NE(ErrorOf("{} {}"), "");
  EXPECT_NE(ErrorOf("\""), "");
  EXPECT_NE(ErrorOf("\"\\"), "");
  EXPECT_EQ(ErrorOf("[1e999]"), "a number is out of range");
}

}  // namespace
}  // namespace pb

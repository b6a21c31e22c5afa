// TOML as JSON values: the examples of the TOML 1.0 specification, and what is refused.
#include "base/toml_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace pb {
namespace {

using Json = nlohmann::json;

TEST(ParseToml, TablesArraysAndScalars) {
  auto read = ParseToml(
      "title = \"TOML\"\nlimit = 1e-3\nn = 0x10\non = true\n[owner]\nlist = [1, 2, 3]\n[[gate]]\na = 1\n"
      "[[gate]]\nb.c = 'x'\n");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, Json::parse(R"({"title":"TOML","limit":0.001,"n":16,"on":true,"owner":{"list":[1,2,3]},)"
                               R"("gate":[{"a":1},{"b":{"c":"x"}}]})"));
}

TEST(ParseToml, WhatIsWrongIsToldWithItsPlace) {
  const auto says = [](const std::string& text, const char* what) {
    auto read = ParseToml(text);
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_NE(read.error().message.find(what), std::string::npos) << read.error().message;
  };
  says("a = 1\nb = \n", "line 2");
  says("a = 1\na = 2\n", "line 2");
  says("a = 2026-11-30\n", "line 1, column 5: dates");
  says("a = " + std::string(100000, '['), "nested");
  says("a = \"\xff\"\n", "line 1");
  EXPECT_TRUE(ParseToml("").ok());
}

}  // namespace
}  // namespace pb

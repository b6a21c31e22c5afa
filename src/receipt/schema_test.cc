// The subset of JSON Schema: each keyword can fail, and what is not understood is refused.
#include "receipt/schema.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

size_t Count(const char* schema, const char* value) {
  return Violations(Json::parse(schema), Json::parse(value)).value().size();
}

TEST(Schema, EachKeywordFailsForWhatItForbids) {
  const struct {
    const char *schema, *good, *bad;
  } kCases[] = {
      {R"({"type":"integer"})", "3", "3.5"},
      {R"({"type":["string","null"]})", "null", "1"},
      {R"({"enum":["a",null]})", "null", "\"b\""},
      {R"({"const":1})", "1", "2"},
      {R"({"minimum":0})", "0", "-1"},
      {R"({"maximum":255})", "255", "256"},
      {R"({"minItems":1})", "[1]", "[]"},
      {R"({"maxItems":1})", "[1]", "[1,2]"},
      {R"({"minLength":1})", "\"a\"", "\"\""},
      {R"({"items":{"type":"null"}})", "[null]", "[null,0]"},
      {R"({"required":["a"]})", R"({"a":1})", "{}"},
      {R"({"properties":{"a":{"type":"null"}}})", R"({"b":1})", R"({"a":1})"},
      {R"({"properties":{"a":{}},"additionalProperties":false})", R"({"a":1})", R"({"a":1,"b":1})"},
      {R"({"additionalProperties":{"type":"string"}})", R"({"a":"x"})", R"({"a":1})"},
      {R"({"anyOf":[{"type":"null"},{"type":"string"}]})", "\"x\"", "1"},
      {R"({"allOf":[{"minimum":0},{"maximum":1}]})", "1", "2"},
      {R"({"if":{"properties":{"a":{"const":1}}},"then":{"required":["b"]}})", R"({"a":2})", R"({"a":1})"},
      {R"({"$ref":"#/$defs/x","$defs":{"x":{"type":"null"}}})", "null", "1"},
      {R"({"pattern":"^[0-9a-f]{64}$"})",
       "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"", "\"0123\""},
      {R"({"pattern":"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"})",
       "\"2026-11-30T09:43:09Z\"", "\"2026-11-30 09:43:09Z\""},
  };
  for (const auto& c : kCases) {
    EXPECT_EQ(Count(c.schema, c.good), 0u) << c.schema << " " << c.good;
    EXPECT_EQ(Count(c.schema, c.bad), 1u) << c.schema << " " << c.bad;
  }
}

TEST(Schema, AViolationSaysWhere) {
  const auto violations = Violations(Json::parse(R"({"properties":{"a":{"items":{"type":"string"}}}})"),
                                     Json::parse(R"({"a":["x",1]})"))
                              .value();
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0], "/a/1: is of type number, not \"string\"");
}

TEST(Schema, WhatIsNotUnderstoodIsRefused) {
  for (const char* schema : {R"({"not":{}})", R"({"pattern":"x"})", R"({"$ref":"other.json"})"})
    EXPECT_FALSE(Violations(Json::parse(schema), Json("text")).ok()) << schema;
}

// Applies every part of it, whatever is missing.
TEST(Schema, ThatOfReceiptsIsUnderstoodAndRefusesAnEmptyObject) {
  EXPECT_FALSE(ReceiptViolations(Json::object()).empty());
  for (const char* command : {"crossval", "audit", "trace-diff", "benchmark"}) {
    const auto violations = ReceiptViolations(Json{{"command", command}});
    EXPECT_GT(violations.size(), 3u) << command;
  }
}

}  // namespace
}  // namespace pb::receipt

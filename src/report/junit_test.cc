// JUnit's XML of results, in which nothing that a name or a message holds can break out.
#include "report/junit.h"

#include <gtest/gtest.h>

namespace pb::report {
namespace {

TEST(RenderJunit, ACaseEachAndAFailureWithItsSentence) {
  EXPECT_EQ(RenderJunit("policy.toml", {{"a", 1.5, "", ""}, {"b", 0.25, "it is stale", "line 1\nline 2"}}),
            R"(<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="1" errors="0" time="1.750">
  <testsuite name="policy.toml" tests="2" failures="1" errors="0" time="1.750" skipped="0">
    <testcase name="a" classname="policy.toml" time="1.500"/>
    <testcase name="b" classname="policy.toml" time="0.250">
      <failure message="it is stale">line 1&#10;line 2</failure>
    </testcase>
  </testsuite>
</testsuites>
)");
}

TEST(RenderJunit, WhatXmlDoesNotHaveIsReplaced) {
  const std::string xml = RenderJunit("s", {{"<a b=\"&\">", 0, "\x1b[0m\xff ]]> \xc3\xb6", ""}});
  EXPECT_NE(xml.find("name=\"&lt;a b=&quot;&amp;&quot;&gt;\""), std::string::npos) << xml;
  EXPECT_NE(xml.find("message=\"\xef\xbf\xbd[0m\xef\xbf\xbd ]]&gt; \xc3\xb6\""), std::string::npos) << xml;
}

}  // namespace
}  // namespace pb::report

// Which points rules select, and which rules are refused.
#include "trace/filter.h"

#include <gtest/gtest.h>

namespace pb::trace {
namespace {

PointFilter Filter(std::initializer_list<const char*> rules) {
  PointFilter filter;
  for (const char* rule : rules) EXPECT_TRUE(filter.Add(rule).ok()) << rule;
  return filter;
}

TEST(PointFilter, WithoutRulesTakesAll) {
  PointFilter filter;
  EXPECT_TRUE(filter.Wants("q_proj", 3, 0, 7));
  EXPECT_TRUE(filter.Wants("an op of another engine", -2, 9, -1));
}

TEST(PointFilter, AllFieldsOfARuleMustMatch) {
  PointFilter filter = Filter({"stage=q_*|k_rope,layer=0-3,step=0,position=5-"});
  EXPECT_TRUE(filter.Wants("q_proj", 0, 0, 5));
  EXPECT_TRUE(filter.Wants("k_rope", 3, 0, 500));
  EXPECT_FALSE(filter.Wants("k_proj", 0, 0, 5));
  EXPECT_FALSE(filter.Wants("q_proj", 4, 0, 5));
  EXPECT_FALSE(filter.Wants("q_proj", -1, 0, 5));
  EXPECT_FALSE(filter.Wants("q_proj", 0, 1, 5));
  EXPECT_FALSE(filter.Wants("q_proj", 0, 0, 4));
}

TEST(PointFilter, OneOfSeveralRulesIsEnough) {
  PointFilter filter = Filter({"layer=-1", "stage=layer_out,layer=1*|2"});
  EXPECT_TRUE(filter.Wants("logits", -1, 0, 0));
  EXPECT_TRUE(filter.Wants("layer_out", 17, 0, 0));
  EXPECT_TRUE(filter.Wants("layer_out", 2, 4, 9));
  EXPECT_FALSE(filter.Wants("layer_out", 21, 0, 0));
  EXPECT_FALSE(filter.Wants("q_proj", 1, 0, 0));
  EXPECT_TRUE(filter.MayWantStage("layer_out", 0));
  EXPECT_TRUE(filter.MayWantStage("q_proj", 0));  // layer -1 of any stage
  EXPECT_FALSE(filter.MayWantLayer(3, 0));
  EXPECT_EQ(filter.text(), "layer=-1; stage=layer_out,layer=1*|2");
}

TEST(PointFilter, AStepThatNoRuleNamesWantsNothing) {
  PointFilter filter = Filter({"step=2-4"});
  EXPECT_FALSE(filter.MayWantStage("q_proj", 1));
  EXPECT_TRUE(filter.MayWantStage("q_proj", 4));
}

TEST(PointFilter, WhatIsNotUnderstoodIsNamed) {
  for (const char* bad : {"", "q_proj", "stages=q", "layer=", "layer=x", "layer=3-1", "layer=1-2-3",
                          "layer=--1", "step=1|", "stage=a,stage=b", "position=5-x", "layer=99999999999"}) {
    PointFilter filter;
    Status status = filter.Add(bad);
    ASSERT_FALSE(status.ok()) << bad;
    EXPECT_EQ(status.error().code, Code::kUsage);
    EXPECT_TRUE(filter.empty());
  }
}

}  // namespace
}  // namespace pb::trace

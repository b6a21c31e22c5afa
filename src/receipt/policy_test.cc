// Policies: what is read of them, and that nothing in them is misunderstood in silence.
#include "receipt/policy.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace pb::receipt {
namespace {

using Json = nlohmann::json;

Json One(const char* gate) { return Json{{"gate", Json::array({Json::parse(gate)})}}; }

TEST(ReadPolicy, AGateWithItsDefaults) {
  auto policy = ReadPolicy(Json::parse(
      R"({"max_age_days":30,"gate":[{"name":"a","run":["audit","--model","m"]},{"name":"b","receipt":"r.json",)"
      R"("verdict":["match"],"scope":"logits-only","limits":{"kl.worst":0.001},"max_age_days":7,"baseline":true}]})"));
  ASSERT_TRUE(policy.ok());
  EXPECT_EQ(policy->baselines, "baselines");
  ASSERT_EQ(policy->gates.size(), 2u);
  EXPECT_EQ(policy->gates[0].max_age_days, 30);
  EXPECT_FALSE(policy->gates[0].logits_only);
  EXPECT_EQ(policy->gates[1].max_age_days, 7);
  EXPECT_TRUE(policy->gates[1].logits_only);
  EXPECT_TRUE(policy->gates[1].baseline);
  EXPECT_EQ(policy->gates[1].verdicts, std::vector<std::string>{"match"});
}

TEST(ReadPolicy, WhatIsNotUnderstoodIsRefused) {
  const auto says = [](const Json& toml, const char* what) {
    auto policy = ReadPolicy(toml);
    ASSERT_FALSE(policy.ok()) << toml;
    EXPECT_NE(policy.error().message.find(what), std::string::npos) << policy.error().message;
  };
  says(Json::object(), "nothing would be checked");
  says(Json{{"gate", Json::array()}}, "nothing would be checked");
  says(Json{{"gates", Json::array()}}, "`gates` is not known, did you mean gate");
  says(One(R"({"name":"a","run":["audit"],"verdicts":["match"]})"),
       "`verdicts` is not known, did you mean verdict");
  says(One(R"({"name":"a"})"), "either run or receipt");
  says(One(R"({"name":"a","run":["audit"],"receipt":"r"})"), "either run or receipt");
  says(One(R"({"run":["audit"]})"), "needs a name");
  says(One(R"({"name":"../a","run":["audit"]})"), "needs a name");
  says(One(R"({"name":"a","run":["infer"]})"), "writes no receipt");
  says(One(R"({"name":"a","run":["audit","--receipt=x"]})"), "the gate's own");
  says(One(R"({"name":"a","run":"audit"})"), "no list of words");
  says(One(R"({"name":"a","run":["audit"],"verdict":["diverged"]})"), "is no pass");
  says(One(R"({"name":"a","run":["audit"],"scope":"all"})"), "scope is");
  says(One(R"({"name":"a","run":["audit"],"max_age_days":-1})"), "below 0");
  says(One(R"({"name":"a","run":["audit"],"limits":{"kl.worst":"1"}})"), "no table of numbers");
  says(Json::parse(R"({"gate":[{"name":"a","run":["audit"]},{"name":"a","run":["audit"]}]})"),
       "another gate named a");
}

Json Receipt(const char* verdict, double limit, int64_t compared, bool by_user = false) {
  return Json{{"command", "crossval"},
              {"verdict", verdict},
              {"scope", "local"},
              {"created", "2026-11-30T00:00:00Z"},
              {"model", {{"sha256", "m"}}},
              {"coverage", {{"unit", "points"}, {"compared", compared}}},
              {"reasons", {{{"text", "why"}}}},
              {"engines", Json::array()},
              {"prompts", {{{"tokens", {1, 2}}}}},
              {"limits", {{{"name", "kl.worst"}, {"value", limit}, {"by_user", by_user}, {"window", 0}}}}};
}

bool Passes(const std::vector<Gate>& gates) {
  for (const Gate& gate : gates)
    if (!gate.passed) return false;
  return true;
}

TEST(CheckBaseline, NothingMayFallBehindIt) {
  const Json before = Receipt("match", 1e-3, 100);
  EXPECT_TRUE(Passes(CheckBaseline(before, before)));
  EXPECT_TRUE(Passes(CheckBaseline(Receipt("match", 1e-4, 120), before)));
  EXPECT_FALSE(Passes(CheckBaseline(Receipt("drift", 1e-3, 100), before)));
  EXPECT_FALSE(Passes(CheckBaseline(Receipt("match", 2e-3, 100), before)));
  EXPECT_FALSE(Passes(CheckBaseline(Receipt("match", 1e-3, 99), before)));
  Json other = before;
  other["model"]["sha256"] = "n";
  EXPECT_FALSE(Passes(CheckBaseline(other, before)));
  other = before;
  other["prompts"][0]["tokens"] = {1, 3};
  EXPECT_FALSE(Passes(CheckBaseline(other, before)));
  other = before;
  other["limits"] = Json::array();
  EXPECT_FALSE(Passes(CheckBaseline(other, before)));
}

TEST(CheckPolicy, VerdictScopeAndLimits) {
  GatePolicy policy;
  EXPECT_TRUE(Passes(CheckPolicy(Receipt("drift", 1e-3, 1), policy, false)));
  EXPECT_FALSE(Passes(CheckPolicy(Receipt("drift", 1e-3, 1), policy, true)));  // no C++ reference
  policy.verdicts = {"match"};
  EXPECT_FALSE(Passes(CheckPolicy(Receipt("drift", 1e-3, 1), policy, false)));
  policy.limits = {{"kl.worst", 1e-4}};
  EXPECT_FALSE(Passes(CheckPolicy(Receipt("match", 1e-3, 1), policy, false)));
  policy.limits = {{"cosine.min", 0.9}};
  EXPECT_FALSE(Passes(CheckPolicy(Receipt("match", 1e-3, 1), policy, false)));  // it is not there
  policy.limits = {};
  EXPECT_FALSE(Passes(CheckPolicy(Receipt("match", 1e-3, 1, true), policy, false)));
  policy.user_limits = true;
  EXPECT_TRUE(Passes(CheckPolicy(Receipt("match", 1e-3, 1, true), policy, false)));
  Json logits = Receipt("match", 1e-3, 1, true);
  logits["scope"] = "logits-only";
  EXPECT_FALSE(Passes(CheckPolicy(logits, policy, false)));
  policy.logits_only = true;
  EXPECT_TRUE(Passes(CheckPolicy(logits, policy, false)));
}

}  // namespace
}  // namespace pb::receipt

// What a self-check's results count as; each goal is seen broken.
#include "selfcheck/self_check.h"

#include <gtest/gtest.h>

#include <cmath>

#include "selfcheck/store.h"

namespace pb::selfcheck {
namespace {

SelfResult Seen(const std::string& key) {
  SelfResult r;
  r.key = key, r.kind = "norm", r.defect = "norm_missing", r.verdict = "diverged", r.blame = "candidate";
  r.detected = r.exact = r.within_one = r.blamed = r.named = true;
  return r;
}

SelfResult Harmless(const std::string& key) {
  SelfResult r;
  r.key = key, r.kind = r.defect = "benign", r.benign = true, r.verdict = "match";
  return r;
}

std::vector<SelfResult> Hundred() {
  std::vector<SelfResult> results;
  for (int i = 0; i < 100; i++) results.push_back(Seen(std::to_string(i)));
  return results;
}

TEST(SelfCheckMatrix, AllSeenHolds) {
  std::vector<SelfResult> results = Hundred();
  results.push_back(Harmless("h"));
  const SelfMatrix m = CountSelfCheck(results, false);
  EXPECT_TRUE(m.broken_goals.empty());
  EXPECT_TRUE(m.misses.empty());
  EXPECT_EQ(m.total.n, 100);
  EXPECT_EQ(m.n_names, 1);
  EXPECT_EQ(m.n_benign, 1);
}

TEST(SelfCheckMatrix, NothingIsNoPass) {
  EXPECT_EQ(CountSelfCheck({}, false).broken_goals, std::vector<std::string>{"nothing was checked"});
  SelfResult tiny = Seen("too small");
  tiny.skipped = "small";
  const SelfMatrix m = CountSelfCheck({tiny}, false);
  EXPECT_EQ(m.broken_goals, std::vector<std::string>{"nothing was checked"});
  EXPECT_EQ(m.unseen.at("norm_missing: small"), 1);
}

TEST(SelfCheckMatrix, OneUndetectedDefectBreaksTheGoal) {
  std::vector<SelfResult> results = Hundred();
  results[7].detected = false;
  const SelfMatrix m = CountSelfCheck(results, false);
  ASSERT_EQ(m.broken_goals.size(), 1u);
  EXPECT_EQ(m.broken_goals[0], "99 of 100 defects are detected, the goal is 100 %");
  ASSERT_EQ(m.misses.size(), 1u);
  EXPECT_EQ(m.misses[0]->key, "7");
}

// The goal is 98 of 100; a row or head that is wrong counts as not placed.
TEST(SelfCheckMatrix, ThreeMisplacedOfAHundredBreakTheGoalAndTwoDoNot) {
  std::vector<SelfResult> results = Hundred();
  results[0].exact = false;
  results[1].spot = false;
  EXPECT_TRUE(CountSelfCheck(results, false).broken_goals.empty());
  results[2].exact = false;
  EXPECT_EQ(CountSelfCheck(results, false).broken_goals.size(), 1u);
  EXPECT_EQ(CountSelfCheck(results, false).total.exact, 97);
}

TEST(SelfCheckMatrix, SixBlamedWrongOfAHundredBreakTheGoal) {
  std::vector<SelfResult> results = Hundred();
  for (size_t i = 0; i < 6; i++) results[i].blamed = false;
  EXPECT_EQ(CountSelfCheck(results, false).broken_goals.size(), 1u);
  results[0].blamed = true;
  EXPECT_TRUE(CountSelfCheck(results, false).broken_goals.empty());
}

TEST(SelfCheckMatrix, OneFalseAlarmAndOneCaseThatDidNotRunBreakIt) {
  std::vector<SelfResult> results = Hundred();
  results.push_back(Harmless("alarm"));
  results.back().detected = true, results.back().skipped = "changes no bit";
  EXPECT_EQ(CountSelfCheck(results, false).n_alarms, 1);
  EXPECT_EQ(CountSelfCheck(results, false).broken_goals.size(), 1u);
  results.back() = Harmless("died");
  results.back().error = "it died";
  EXPECT_EQ(CountSelfCheck(results, false).broken_goals,
            std::vector<std::string>{"1 cases could not be run"});
}

TEST(SelfCheckMatrix, AWholeRunNeedsItsCatalogue) {
  EXPECT_EQ(CountSelfCheck(Hundred(), true).broken_goals.size(),
            2u);  // one name of 60, no harmless change of 200
}

TEST(SelfCheckStore, GoesOnWhereItWasCut) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / "paritybit_self_check_store.jsonl";
  {
    auto store = SelfCheckStore::Open(path, "me", false);
    ASSERT_TRUE(store.ok()) << store.error().message;
    SelfResult r = Seen("a");
    r.bound_ratio = INFINITY, r.spot = false;
    ASSERT_TRUE((*store)->Add(r).ok());
    std::ofstream(path, std::ios::app) << "{\"key\": \"cut";
  }
  {
    auto store = SelfCheckStore::Open(path, "me", true);
    ASSERT_TRUE(store.ok()) << store.error().message;
    const SelfResult* a = (*store)->Find("a");
    ASSERT_TRUE(a);
    EXPECT_TRUE(std::isinf(a->bound_ratio));
    EXPECT_EQ(a->spot, std::optional<bool>(false));
    EXPECT_TRUE(a->named);
    ASSERT_TRUE((*store)->Add(Seen("b")).ok());
  }
  EXPECT_TRUE((*SelfCheckStore::Open(path, "me", true))->Find("b"));
  EXPECT_FALSE((*SelfCheckStore::Open(path, "another build", true))->Find("a"));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace pb::selfcheck

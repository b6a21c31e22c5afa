// When two engines first parted, and which of them had changed.
#include "receipt/history.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace pb::receipt {
namespace {

HistoryEntry RunAt(int64_t time, const char* verdict, const char* candidate_identity,
                   const char* reference_identity = "r") {
  HistoryEntry e;
  e.time = time, e.command = "crossval", e.verdict = verdict, e.model = "m.gguf", e.model_sha256 = "m";
  e.engines[0] = {"mine", "mine", "1", candidate_identity};
  e.engines[1] = {"llama.cpp", "llama.cpp", "2", reference_identity};
  return e;
}

TEST(PairsOf, FindsTheFirstRunThatPartedAndWhatHadChanged) {
  const std::vector<HistoryEntry> entries = {RunAt(1, "match", "a"),      RunAt(2, "drift", "a"),
                                             RunAt(3, "incomplete", "b"), RunAt(4, "diverged", "b"),
                                             RunAt(5, "match", "c"),      RunAt(6, "diverged", "d")};
  const auto pairs = PairsOf(entries);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].n_runs, 5);
  EXPECT_EQ(pairs[0].n_diverged, 2);
  EXPECT_EQ(pairs[0].first_parted->time, 4);
  EXPECT_EQ(pairs[0].last_agreed->time, 2);
  EXPECT_EQ(pairs[0].changed, "candidate");
  EXPECT_EQ(pairs[0].last->time, 6);
}

TEST(PairsOf, PairsAreOfEnginesAndModel) {
  auto other = RunAt(9, "match", "a");
  other.model_sha256 = "n";
  auto alone = RunAt(10, "match", "a");
  alone.engines[1] = {};
  const std::vector<HistoryEntry> entries = {RunAt(1, "diverged", "a"), other, alone,
                                             RunAt(11, "error", "a")};
  const auto pairs = PairsOf(entries);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].model_sha256, "n");  // the last that ran
  EXPECT_EQ(pairs[0].first_parted, nullptr);
  EXPECT_EQ(pairs[1].first_parted->time, 1);
  EXPECT_EQ(pairs[1].last_agreed, nullptr);
  EXPECT_EQ(pairs[1].changed, "");
}

TEST(History, EntriesComeBackAsTheyWere) {
  const HistoryEntry entry = RunAt(7, "match", "a");
  const auto back = EntryOf(ToJson(entry));
  ASSERT_TRUE(back);
  EXPECT_EQ(ToJson(*back), ToJson(entry));
  EXPECT_FALSE(EntryOf(nlohmann::json::parse("[]")));
  EXPECT_FALSE(EntryOf(nlohmann::json::parse(R"({"time":"1"})")));
}

}  // namespace
}  // namespace pb::receipt

#include "sweep/plan.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/toml_text.h"

namespace pb::sweep {
namespace {

Result<Plan> Read(const std::string& toml) {
  auto json = ParseToml(toml);
  EXPECT_TRUE(json.ok()) << toml;
  return ReadPlan(*json);
}

constexpr const char* kModel = "[[model]]\nname = \"m\"\npath = \"m.gguf\"\n";

// What the documented script ran (research: run_crossval_sweep.sh).
TEST(Plan, WhatIsNotListedIsTheDocumentedSweep) {
  auto plan = Read(kModel);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  const std::vector<Cell> cells = CellsOf(*plan, 3);
  ASSERT_EQ(cells.size(), 3u);
  const char* prompts[] = {"2+2=", "Hello", "Count: 1,2,3,"};
  const char* tokens[] = {"1", "2", "4"};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(cells[i].name, "scenario" + std::to_string(i + 1) + "+m");
    const std::vector<std::string> words{"crossval", "--model",      "m.gguf",    "--candidate",
                                         "native",   "--reference",  "llama.cpp", "--prompt",
                                         prompts[i], "--max-tokens", tokens[i],   "--threads",
                                         "3"};
    EXPECT_EQ(cells[i].words, words);
  }
}

TEST(Plan, EveryAxisIsMultipliedOutAndNamed) {
  auto plan = Read(std::string(kModel) + R"(
[[model]]
name = "n"
path = "n.gguf"
[[scenario]]
name = "s"
prompts = ["a", "b"]
[[engines]]
name = "x"
[[engines]]
name = "y"
candidate = "oracle"
set = ["act.quant=none"]
set_reference = ["threads=2"]
[[settings]]
name = "one"
[[settings]]
name = "two"
threads = 2
arguments = ["--scope", "logits-only"]
)");
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  const std::vector<Cell> cells = CellsOf(*plan, 1);
  ASSERT_EQ(cells.size(), 8u);
  std::set<std::string> names;
  for (const Cell& cell : cells) names.insert(cell.name);
  EXPECT_EQ(names.size(), 8u);
  const Cell& last = cells.back();
  EXPECT_EQ(last.name, "s+n+y+two");
  const std::vector<std::string> words{"crossval",
                                       "--model",
                                       "n.gguf",
                                       "--candidate",
                                       "oracle",
                                       "--reference",
                                       "llama.cpp",
                                       "--set",
                                       "act.quant=none",
                                       "--set-reference",
                                       "threads=2",
                                       "--prompt",
                                       "a",
                                       "--prompt",
                                       "b",
                                       "--max-tokens",
                                       "0",
                                       "--threads",
                                       "2",
                                       "--scope",
                                       "logits-only"};
  EXPECT_EQ(last.words, words);
  EXPECT_EQ(last.threads, 2);
  EXPECT_TRUE(last.trace_level.empty());  // where no op is watched there is no trace
  EXPECT_EQ(cells.front().trace_level, "sketch");
}

TEST(Plan, WhatIsWrongIsNamed) {
  const auto says = [](const std::string& toml, const char* what) {
    auto plan = Read(toml);
    ASSERT_FALSE(plan.ok()) << toml;
    EXPECT_EQ(plan.error().code, Code::kMalformed);
    EXPECT_NE(plan.error().message.find(what), std::string::npos) << plan.error().message;
  };
  const std::string model = kModel;
  says("", "no [[model]]");
  says("timout = 3\n" + model, "`timout` is not known, did you mean timeout");
  says("timeout = 0\n" + model, "timeout is not above 0");
  says("stall = \"long\"\n" + model, "stall is no number");
  says("trace_level = \"all\"\n" + model, "trace_level is one of");
  says(model + model, "there is another model of this name");
  says("[[model]]\nname = \"m\"\n", "needs a path");
  says("[[model]]\nname = \"a/b\"\npath = \"m\"\n", "needs a name of letters");
  says("[[model]]\nname = \"a+b\"\npath = \"m\"\n", "needs a name of letters");  // + joins names
  says(model + "[[scenario]]\nname = \"s\"\n", "needs one of prompt");
  says(model + "[[scenario]]\nname = \"s\"\nprompt = \"a\"\nprompts = [\"b\"]\n", "needs one of prompt");
  says(model + "[[scenario]]\nname = \"s\"\nprompt = \"a\"\nmax_tokens = -1\n", "max_tokens is not from 0");
  says(model + "[[settings]]\nname = \"t\"\nthreads = 0\n", "threads is not from 1");
  says(model + "[[settings]]\nname = \"t\"\narguments = [\"--receipt=x\"]\n", "--receipt is the sweep's own");
  says(model + "[[engines]]\nname = \"e\"\nset = \"a=b\"\n", "set is no list of words");
  says("model = 3\n", "is no list of tables");
}

TEST(Plan, ACellIsKeptAsItIs) {
  auto plan = Read(kModel);
  Cell cell = CellsOf(*plan, 2)[1];
  cell.key = "k", cell.memory_mib = 12.5;
  const auto again = CellOf(ToJson(cell));
  ASSERT_TRUE(again);
  EXPECT_EQ(ToJson(*again), ToJson(cell));
  EXPECT_FALSE(CellOf(nlohmann::json::object()));
}

}  // namespace
}  // namespace pb::sweep

// Programs that are no paritybit take its place: what they are given, how many run at once, and how
// they are ended.
#include "sweep/local.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "base/file.h"
#include "sweep/child.h"

namespace pb::sweep {
namespace {

namespace fs = std::filesystem;

// Dead is also what nobody has collected.
bool IsAlive(int pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::stringstream text;
  text << stat.rdbuf();
  return !text.str().empty() && text.str().find(") Z") == std::string::npos;
}

class Local : public ::testing::Test {
 protected:
  Local() {
    std::string name = (fs::temp_directory_path() / "paritybit-sweep-XXXXXX").string();
    runner_.folder.root = mkdtemp(name.data());
    runner_.program = runner_.folder.root / "program";
    runner_.limits = {20, 20};
  }
  ~Local() override { fs::remove_all(runner_.folder.root); }

  void Program(const std::string& script) {
    ASSERT_TRUE(WriteFileAtomic(runner_.program, "#!/bin/sh\n" + script).ok());
    fs::permissions(runner_.program, fs::perms::owner_all);
  }
  static Cell Named(const std::string& name, int64_t threads = 1, double memory_mib = 1) {
    Cell cell;
    cell.name = name, cell.key = "key", cell.words = {"crossval", name};
    cell.threads = threads, cell.memory_mib = memory_mib;
    return cell;
  }
  std::vector<CellResult> Run(const std::vector<Cell>& cells, Budget budget) {
    std::vector<CellResult> results;
    EXPECT_TRUE(RunLocally(runner_, cells, budget, [&](const CellResult& r) { results.push_back(r); }).ok());
    return results;
  }
  // The most cells that ran at once, by the lines that the program wrote.
  int MostAtOnce(const std::vector<Cell>& cells, Budget budget) {
    const fs::path log = runner_.folder.root / "log";
    fs::remove(log);
    Program("echo + >> " + log.string() + "; sleep 0.2; echo - >> " + log.string());
    EXPECT_EQ(Run(cells, budget).size(), cells.size());
    std::ifstream lines(log);
    int now = 0, most = 0;
    for (std::string line; std::getline(lines, line);) most = std::max(most, now += line == "+" ? 1 : -1);
    return most;
  }

  Runner runner_;
};

TEST_F(Local, TheBudgetHoldsHowManyRunAtOnce) {
  const std::vector<Cell> cells{Named("a"), Named("b"), Named("c"), Named("d")};
  EXPECT_EQ(MostAtOnce(cells, {0, 100, 100}), 4);
  EXPECT_EQ(MostAtOnce(cells, {2, 100, 100}), 2);
  EXPECT_EQ(MostAtOnce(cells, {0, 6, 100}), 3);  // two threads each, one an engine
  EXPECT_EQ(MostAtOnce(cells, {0, 100, 2}), 2);
  EXPECT_EQ(MostAtOnce({Named("large", 50, 50), Named("b", 50, 50)}, {0, 2, 2}), 1);
}

TEST_F(Local, ACellThatNoBudgetHoldsIsNamed) {
  const std::vector<Cell> cells{Named("a"), Named("b", 3, 500)};
  EXPECT_TRUE(CheckBudget(cells, {}).ok());
  EXPECT_TRUE(CheckBudget(cells, {0, 6, 500}).ok());
  EXPECT_NE(CheckBudget(cells, {0, 5, 0}).error().message.find("b takes 6"), std::string::npos);
  EXPECT_NE(CheckBudget(cells, {0, 0, 499}).error().message.find("b takes about 500 MiB"), std::string::npos);
}

TEST_F(Local, WhatEndsWithoutAReceiptIsNoPass) {
  const std::pair<const char*, const char*> ends[] = {{"exit 0", kError},
                                                      {"exit 2", kError},
                                                      {"exit 3", "incomplete"},
                                                      {"exit 4", "engine-failed"},
                                                      {"exit 5", kError},
                                                      {"kill -9 $$", kError},
                                                      {"echo {} > $6; exit 0", kError}};
  for (const auto& [script, state] : ends) {
    Program(std::string("echo 'error: why it is so' >&2\n") + script);
    const std::vector<CellResult> results = Run({Named("a")}, {0, 2, 1});
    ASSERT_EQ(results.size(), 1u);
    EXPECT_EQ(results[0].state, state) << script;
    EXPECT_NE(results[0].exit_code, 0) << script;
    EXPECT_FALSE(results[0].why.empty()) << script;
  }
}

TEST_F(Local, TheTimeOfACellIsUp) {
  Program("while :; do echo on and on; sleep 0.05; done");
  runner_.limits = {0.5, 60};
  const CellResult result = Run({Named("a")}, {0, 2, 1})[0];
  EXPECT_EQ(result.state, kTimedOut);
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_LT(result.wall_seconds, 10);
}

TEST_F(Local, ResultsAreWhereAResumedSweepFindsThem) {
  Program("exit 4");
  Run({Named("a")}, {0, 2, 1});
  EXPECT_TRUE(ReadResult(runner_.folder, Named("a"), 20, 20));
  Cell other = Named("a");
  other.key = "other";
  EXPECT_FALSE(ReadResult(runner_.folder, other, 20, 20));
}

// Ends within its limits, however long the program would go on, and so does what it started.
TEST_F(Local, MemoryIsThatOfTheLargestProcess) {
  // tail keeps what it is to print: 64 MiB.
  Program("head -c 67108864 /dev/zero | tail -c 67108864 >/dev/null");
  auto child = Child::Start({runner_.program.string()}, runner_.folder.root / "out",
                            runner_.folder.root / "err", {100, 100});
  ASSERT_TRUE(child.ok());
  std::optional<ChildEnd> end;
  while (!(end = child->Poll())) {
    const Child* one = &*child;
    Child::Wait({&one, 1});
  }
  EXPECT_EQ(end->how, ChildEnd::kExited);
  EXPECT_GT(end->peak_mib, 64);
  EXPECT_LT(end->peak_mib, 256);
}

TEST_F(Local, SilenceIsALimitOfItsOwn) {
  Program("echo once; sleep 1000 & echo $! > " + (runner_.folder.root / "pid").string() + "; wait");
  auto child = Child::Start({runner_.program.string()}, runner_.folder.root / "out",
                            runner_.folder.root / "err", {100, 0.7});
  ASSERT_TRUE(child.ok());
  std::optional<ChildEnd> end;
  while (!(end = child->Poll())) {
    const Child* one = &*child;
    Child::Wait({&one, 1});
  }
  EXPECT_EQ(end->how, ChildEnd::kSilent);
  EXPECT_LT(end->wall_seconds, 10);
  const int pid = std::atoi(ReadFile(runner_.folder.root / "pid")->c_str());
  ASSERT_GT(pid, 0);
  for (int i = 0; i < 100 && IsAlive(pid); ++i) usleep(50'000);
  EXPECT_FALSE(IsAlive(pid));
}

}  // namespace
}  // namespace pb::sweep

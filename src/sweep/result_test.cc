#include "sweep/result.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

#include "base/file.h"
#include "base/sha256.h"

namespace pb::sweep {
namespace {

namespace fs = std::filesystem;

class Results : public ::testing::Test {
 protected:
  Results() {
    std::string name = (fs::temp_directory_path() / "paritybit-sweep-XXXXXX").string();
    folder_.root = mkdtemp(name.data());
    cell_.name = "c", cell_.key = "key";
    result_.name = "c", result_.key = "key", result_.state = "match", result_.why = "why";
    result_.timeout = 10, result_.stall = 5;
    fs::create_directories(folder_.cell("c"));
    EXPECT_TRUE(WriteFileAtomic(folder_.cell("c") / kReportFile, "text").ok());
    result_.files[kReportFile] = Sha256Hex("text");
  }
  ~Results() override { fs::remove_all(folder_.root); }
  std::optional<CellResult> Read(double timeout = 10, double stall = 5) {
    return ReadResult(folder_, cell_, timeout, stall);
  }

  Folder folder_;
  Cell cell_;
  CellResult result_;
};

TEST_F(Results, AreReadForTheSameInputsAlone) {
  EXPECT_FALSE(Read());
  ASSERT_TRUE(WriteResult(folder_, result_).ok());
  ASSERT_TRUE(Read());
  EXPECT_EQ(Read()->why, "why");
  cell_.key = "other";
  EXPECT_FALSE(Read());
}

TEST_F(Results, AByteThatChangedIsNoResult) {
  ASSERT_TRUE(WriteResult(folder_, result_).ok());
  const std::string text = *ReadFile(folder_.result("c"));
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    std::string changed = text;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    std::ofstream(folder_.result("c")) << changed;
    EXPECT_FALSE(Read()) << "byte " << i;
  }
}

TEST_F(Results, AFileOfTheFolderThatChangedIsNoResult) {
  ASSERT_TRUE(WriteResult(folder_, result_).ok());
  ASSERT_TRUE(WriteFileAtomic(folder_.cell("c") / kReportFile, "texT").ok());
  EXPECT_FALSE(Read());
  fs::remove(folder_.cell("c") / kReportFile);
  EXPECT_FALSE(Read());
}

TEST_F(Results, ALimitHoldsUntilItIsLarger) {
  result_.state = kTimedOut;
  ASSERT_TRUE(WriteResult(folder_, result_).ok());
  EXPECT_TRUE(Read(10, 50));
  EXPECT_TRUE(Read(9));
  EXPECT_FALSE(Read(11));
  result_.state = kStalled;
  ASSERT_TRUE(WriteResult(folder_, result_).ok());
  EXPECT_TRUE(Read(50, 5));
  EXPECT_FALSE(Read(10, 6));
}

// ARCHITECTURE.md's table.
TEST(States, HaveTheExitCodesOfTheTable) {
  EXPECT_EQ(ExitCodeOfState("match", 0), 0);
  EXPECT_EQ(ExitCodeOfState("drift", 0), 0);
  EXPECT_EQ(ExitCodeOfState("diverged", 0), 1);
  EXPECT_EQ(ExitCodeOfState("incomplete", 0), 3);
  EXPECT_EQ(ExitCodeOfState("invalid", 0), 3);
  EXPECT_EQ(ExitCodeOfState("engine-failed", 0), 4);
  EXPECT_EQ(ExitCodeOfState(kTimedOut, 0), 3);
  EXPECT_EQ(ExitCodeOfState(kNotRun, 0), 3);
  EXPECT_EQ(ExitCodeOfState(kStalled, 0), 4);
  EXPECT_EQ(ExitCodeOfState(kError, 5), 5);
}

TEST(States, TheWorstDecides) {
  const auto worst = [](std::vector<std::string> states) {
    std::vector<CellResult> results;
    for (std::string& state : states) {
      results.emplace_back();
      results.back().state = std::move(state);
    }
    return Worst(results)->state;
  };
  EXPECT_EQ(worst({"match", "drift", "near-tie"}), "drift");
  EXPECT_EQ(worst({"diverged", "incomplete", kTimedOut, kNotRun}), "diverged");
  EXPECT_EQ(worst({"diverged", "engine-failed"}), "engine-failed");
  EXPECT_EQ(worst({"match", kNotRun}), kNotRun);
  EXPECT_EQ(worst({"match", kError, kTimedOut}), kError);
  EXPECT_EQ(worst({"engine-failed", "invalid"}), "invalid");
  EXPECT_EQ(worst({"match", "a state of a later version"}), "a state of a later version");
}

}  // namespace
}  // namespace pb::sweep

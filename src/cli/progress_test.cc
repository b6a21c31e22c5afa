// The words of progress; what is drawn where is tested from outside (tests/progress_test.py).
#include "cli/progress.h"

#include <gtest/gtest.h>

namespace pb::cli {
namespace {

TEST(Progress, SaysHowFarHowFastAndHowLong) {
  const Advance runs{"noise floor", 1, 3, 8, 4.0};  // 2 in 4 seconds, 5 are left
  EXPECT_EQ(ProgressLine(runs, 80), "[######..........] 3/8 noise floor, 0.5/s, 10 s left");
  EXPECT_EQ(ProgressText(runs), "noise floor: 3 of 8, 0.5/s, 10 s left");
}

TEST(Progress, OfWorkWithoutPartsSaysHowLongItTakes) {
  EXPECT_EQ(ProgressLine({"loading", 0, 0, 0, 75}, 80), "loading, 1 min 15 s");
  EXPECT_EQ(ProgressText({"loading", 0, 0, 1, 75}), "loading");
}

TEST(Progress, NothingIsSaidOfARateThatNobodyKnows) {
  EXPECT_EQ(ProgressText({"prefill", 0, 0, 500, 9}), "prefill: 0 of 500");
  EXPECT_EQ(ProgressText({"prefill", 100, 100, 500, 9}), "prefill: 100 of 500");
}

TEST(Progress, NeverWrapsAndNeverSteers) {
  for (int width : {0, 1, 10, 40, 60, 80})
    for (const char* what : {"noise floor: runs of random rounding of the reference", "x\x1b[31m\n", ""})
      for (int64_t total : {int64_t{0}, int64_t{1}, int64_t{1000000}}) {
        const std::string line = ProgressLine({what, 0, total / 2, total, 1e6}, width);
        EXPECT_LE(line.size(), static_cast<size_t>(std::max(width - 1, 0))) << line;
        EXPECT_EQ(line.find('\x1b'), std::string::npos);
      }
}

}  // namespace
}  // namespace pb::cli

// Quotas and lists of processors as the kernel writes them.
#include "base/processors.h"

#include <gtest/gtest.h>

namespace pb {
namespace {

// cgroup v2, "cpu.max": $MAX $PERIOD in microseconds, MAX may be the word max.
TEST(Processors, OfAQuota) {
  EXPECT_EQ(ProcessorsOfQuota("max 100000\n"), 0);
  EXPECT_EQ(ProcessorsOfQuota("200000 100000\n"), 2);
  EXPECT_EQ(ProcessorsOfQuota("150000 100000\n"), 2);
  EXPECT_EQ(ProcessorsOfQuota("50000 100000"), 1);
  for (const char* text : {"", "100000", "-1 100000", "100000 0", "100000 x", "x"})
    EXPECT_EQ(ProcessorsOfQuota(text), 0) << text;
}

TEST(Processors, ThereIsOne) { EXPECT_GE(ProcessorCount(), 1); }

}  // namespace
}  // namespace pb

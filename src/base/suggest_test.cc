// Slips that are named, and words that are none.
#include "base/suggest.h"

#include <gtest/gtest.h>

namespace pb {
namespace {

TEST(Suggest, SlipsOfTheFingersAreNamed) {
  const std::vector<std::string> known{"--prompt", "--prompt-file", "--prompts", "--set"};
  EXPECT_EQ(DidYouMean("--promt", known), ", did you mean --prompt?");
  EXPECT_EQ(DidYouMean("--porompt-flie", known), ", did you mean --prompt-file?");
  EXPECT_EQ(DidYouMean("--ste", known), ", did you mean --set?");  // two letters exchanged are one slip
  for (const char* far : {"--model", "--sxy", "", "x"}) EXPECT_EQ(DidYouMean(far, known), "") << far;
  EXPECT_EQ(DidYouMean(std::string(1 << 20, 'p'), known), "");
}

}  // namespace
}  // namespace pb

// The vocabulary of conclusions: its words are read back, and a truth is met or not.
#include "diagnose/conclusion.h"

#include <gtest/gtest.h>

namespace pb::diagnose {
namespace {

Conclusion Read(const char* text) {
  auto conclusion = ParseConclusion(text);
  EXPECT_TRUE(conclusion.ok()) << text;
  return conclusion.ok() ? *conclusion : Conclusion{};
}

Match Against(const char* said, const char* truth) { return Compare(Read(said), Read(truth)); }

TEST(Conclusion, IsReadBackAsItIsWritten) {
  for (const char* text :
       {"unknown", "where=product", "where=product part=columns:60-63/64 when=decode what=absent",
        "part=columns:3-63%4/64", "part=all when=always", "where=codes part=code:31/32 what=saturation:63",
        "when=from-batch:32", "when=from-position:512 what=factor:1.05", "part=heads:2 what=other-part",
        "where=formula part=all when=always what=variation:ffn.activation=silu"})
    EXPECT_EQ(ConclusionText(Read(text)), text);
}

TEST(Conclusion, OtherWordsAreRefused) {
  for (const char* text : {"where=there", "why=product", "part=columns", "part=columns:x", "part=columns:5-3",
                           "part=columns:60-64/64", "part=columns:0-8%0", "when=from-batch",
                           "what=factor:big", "where=product  part=all", "part=columns:-1"})
    EXPECT_FALSE(ParseConclusion(text).ok()) << text;
}

TEST(Conclusion, IsRightOnlyWithAllMembers) {
  const char* truth = "where=product part=columns:60-63/64 when=decode what=absent";
  EXPECT_EQ(Against(truth, truth), Match::kRight);
  EXPECT_EQ(Against("where=product part=columns:60-63 when=decode what=absent", truth), Match::kRight);
  EXPECT_EQ(Against("where=product part=columns:60-63/64", truth), Match::kPartial);
  EXPECT_EQ(Against("where=product part=columns:60-63/64 what=absent", truth), Match::kPartial);
  EXPECT_EQ(Against("where=product when=decode what=absent", truth), Match::kNothing);
  EXPECT_EQ(Against("unknown", truth), Match::kNothing);
}

TEST(Conclusion, OneFalseMemberIsWrong) {
  const char* truth = "where=product part=columns:60-63/64 when=decode what=factor:0.5";
  for (const char* said :
       {"where=weights part=columns:60-63/64 when=decode what=factor:0.5",
        "where=product part=columns:61-63/64 when=decode what=factor:0.5", "part=features:60-63/64",
        "where=product part=columns:60-63/64 when=always what=factor:0.5", "what=factor:0.51",
        "where=product part=columns:60-63/64 when=decode what=absent"})
    EXPECT_EQ(Against(said, truth), Match::kWrong) << said;
  EXPECT_EQ(Against("where=product part=columns:60-63/64 when=decode what=factor:0.5001", truth),
            Match::kRight);
}

// The last of 3 heads of 32 are values 64 to 95 of 96.
TEST(Conclusion, HeadsAreTheirFeatures) {
  EXPECT_EQ(Against("part=heads:2/3", "part=features:64-95/96"), Match::kRight);
  EXPECT_EQ(Against("part=features:0-63/96", "part=heads:0-1/3"), Match::kRight);
  for (const char* said : {"part=heads:1/3", "part=heads:1-2/3", "part=heads:2/4", "part=heads:2"})
    EXPECT_EQ(Against(said, "part=features:64-95/96"), Match::kWrong) << said;
  EXPECT_EQ(Against("part=heads:2/3", "part=features:64-94/96"), Match::kWrong);
}

TEST(Conclusion, TruthsUnknownMembersAcceptWhatIsSaid) {
  EXPECT_EQ(Against("where=formula part=all when=always what=factor:2", "where=formula part=all"),
            Match::kRight);
  EXPECT_EQ(Against("where=formula part=all what=factor:2", "where=formula part=all what=factor"),
            Match::kRight);
}

}  // namespace
}  // namespace pb::diagnose

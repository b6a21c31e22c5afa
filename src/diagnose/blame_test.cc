// Blame from both errors; how token ids part.
#include "diagnose/blame.h"

#include <gtest/gtest.h>

namespace pb::diagnose {
namespace {

TEST(Blame, FollowsFromBothErrors) {
  using compare::Blame;
  auto blame = [](bool candidate, bool reference, bool files, bool equal) {
    return FindBlame({candidate, reference, files, equal}).blame;
  };
  for (bool files : {false, true}) {  // two files excuse nobody who is wrong by his own
    EXPECT_EQ(blame(false, true, files, false), Blame::kCandidate);
    EXPECT_EQ(blame(true, false, files, false), Blame::kReference);
    EXPECT_EQ(blame(false, false, files, false), Blame::kBoth);
    EXPECT_EQ(blame(false, false, files, true), Blame::kBoth);  // the same mistake
  }
  EXPECT_EQ(blame(true, true, true, false), Blame::kModelFile);
  EXPECT_EQ(blame(true, true, false, false), Blame::kUndetermined);
  EXPECT_FALSE(FindBlame({true, true, false, false}).why_undetermined.empty());
  EXPECT_EQ(blame(true, true, true, true), Blame::kNone);
}

TEST(Blame, OfNaNIsTheFilesWhereTheEnginesGiveWhatItSays) {
  using compare::Blame;
  auto blame = [](bool candidate, bool reference, bool candidate_file, bool reference_file,
                  bool settings_apart = false) {
    return FindBlame({candidate, reference, candidate_file != reference_file && !settings_apart,
                      candidate_file == reference_file, candidate_file, reference_file})
        .blame;
  };
  EXPECT_EQ(blame(true, true, true, true), Blame::kModelFile);
  // one file, two kinds of cache
  EXPECT_EQ(blame(true, true, true, false, true), Blame::kUndetermined);
  EXPECT_EQ(blame(true, true, true, false), Blame::kModelFile);
  // the reference makes numbers of NaN
  EXPECT_EQ(blame(true, false, true, true), Blame::kUndetermined);
  EXPECT_EQ(blame(false, true, true, false), Blame::kUndetermined);
  EXPECT_EQ(blame(true, false, true, false), Blame::kReference);  // wrong by a good file
  EXPECT_EQ(blame(false, true, false, false), Blame::kCandidate);
}

TEST(Tokens, PartAtTheirBeginningOrWithin) {
  constexpr int32_t kBos = 9;
  auto name = [](const std::vector<int32_t>& ids, const std::vector<int32_t>& expected) {
    std::string kind;
    EXPECT_FALSE(HowTokensPart(ids, expected, kBos, &kind).empty());
    return kind;
  };
  EXPECT_EQ(name({9, 9, 1, 2}, {9, 1, 2}), "bos=doubled");
  EXPECT_EQ(name({1, 2}, {9, 1, 2}), "bos=missing");
  EXPECT_EQ(name({9, 1, 2}, {1, 2}), "bos=added");
  EXPECT_EQ(name({9, 1, 3}, {9, 1, 2}), "tokens");
  EXPECT_EQ(name({}, {1}), "tokens");
  std::string ignored;
  EXPECT_EQ(HowTokensPart({9, 1, 3}, {9, 1, 2}, kBos, &ignored),
            "gives id 3 at place 2, the model's rules 2");
  EXPECT_EQ(HowTokensPart({9, 1}, {9, 1, 2}, kBos, &ignored),
            "gives 2 ids, the model's rules 3; the first 2 are equal");
}

}  // namespace
}  // namespace pb::diagnose

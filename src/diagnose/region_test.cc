// Which region members make that are marked by hand.
#include "diagnose/region.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace pb::diagnose {
namespace {

// '.' right, 'x' wrong, '?' open.
std::string Region(std::string_view marks,
                   AxisLayout layout = {Axis::kColumns, 8, Axis::kBlocks, Axis::kCode}) {
  std::vector<Mark> members;
  for (char c : marks) members.push_back(c == 'x' ? Mark::kWrong : c == '?' ? Mark::kOpen : Mark::kRight);
  const auto found = FindRegion(members, layout);
  return found ? PartText(*found) : "none";
}

TEST(Holds, TakesStepsAndAll) {
  const pb::diagnose::Region part{Axis::kColumns, 3, 11, 4, 16};
  EXPECT_TRUE(Holds(part, 3));
  EXPECT_TRUE(Holds(part, 11));
  EXPECT_FALSE(Holds(part, 4));
  EXPECT_FALSE(Holds(part, 15));
  EXPECT_TRUE(Holds({Axis::kAll}, 100));
  EXPECT_FALSE(Holds({}, 0)) << "nothing is known";
}

TEST(FindRegion, TellsRangesBlocksAndOrders) {
  EXPECT_EQ(Region("................"), "none");
  EXPECT_EQ(Region("xxxxxxxxxxxxxxxx"), "all");
  EXPECT_EQ(Region(".............xxx"), "columns:13-15/16");
  EXPECT_EQ(Region("..xxx..........."), "columns:2-4/16");
  EXPECT_EQ(Region(".....x.........."), "columns:5/16");
  EXPECT_EQ(Region("........xxxxxxxx"), "columns:8-15/16");  // the last 8
  EXPECT_EQ(Region("xxxxxxxx................"), "blocks:0/3");
  EXPECT_EQ(Region("........xxxxxxxx........"), "blocks:1/3");
  EXPECT_EQ(Region(".x...x...x...x.."), "columns:1-13%4/16");
  EXPECT_EQ(Region("...x.......x.......x...."), "code:3/8");
  EXPECT_EQ(Region("....xxxx....xxxx....xxxx"), "code:4-7/8");
  EXPECT_EQ(Region("..x.....x..x...."), "none");
}

TEST(FindRegion, OpenMembersAreEither) {
  EXPECT_EQ(Region("............?x??"), "columns:13-15/16");
  EXPECT_EQ(Region("........?x?xxx??........"), "blocks:1/3");
  EXPECT_EQ(Region(".x.?.x...?...x.."), "columns:1-13%4/16");
  EXPECT_EQ(Region("??x?????????????"), "columns:2/16") << "too few to be all";
}

TEST(FindRegion, HeadsAreBlocksOfFeatures) {
  const AxisLayout heads{Axis::kFeatures, 4, Axis::kHeads, Axis::kUnknown};
  EXPECT_EQ(Region("....xxxx........", heads), "heads:1/4");
  EXPECT_EQ(Region("............xxxx", heads), "heads:3/4");
  EXPECT_EQ(Region("..............xx", heads), "features:14-15/16");
}

TEST(RegionWords, SaysThem) {
  const auto words = [](Axis axis, int64_t first, int64_t last, int64_t every, int64_t of) {
    return RegionWords({axis, first, last, every, of});
  };
  EXPECT_EQ(words(Axis::kColumns, 253, 255, 1, 256), "the last 3 of 256 columns of K");
  EXPECT_EQ(words(Axis::kColumns, 255, 255, 1, 256), "the last of 256 columns of K");
  EXPECT_EQ(words(Axis::kColumns, 3, 255, 4, 256), "every 4th of 256 columns of K (from 3 on)");
  EXPECT_EQ(words(Axis::kFeatures, 296, 299, 1, 1024), "features 296 to 299 of 1024");
  EXPECT_EQ(words(Axis::kCode, 7, 7, 1, 32), "code 7 of each block of 32");
  EXPECT_EQ(words(Axis::kBlocks, 2, 2, 1, 8), "block 2 of 8 of its input");
}

}  // namespace
}  // namespace pb::diagnose

// Borders of passes, as the definition of prefill and decode gives them.
#include "drive/passes.h"

#include <gtest/gtest.h>

namespace pb::drive {
namespace {

struct Seen {
  int32_t step, position;
  std::vector<int32_t> tokens;
  bool operator==(const Seen&) const = default;
};

std::vector<Seen> Walk(const std::vector<int32_t>& prefill, int64_t rows, const NextToken& next) {
  std::vector<Seen> seen;
  EXPECT_TRUE(ForEachPass(prefill, rows, next, [&](const Pass& p) -> Status {
                seen.push_back({p.step, p.position, {p.tokens.begin(), p.tokens.end()}});
                return {};
              }).ok());
  return seen;
}

TEST(Passes, APrefillIsCutAndStepsComeOneByOne) {
  const std::vector<int32_t> decoded = {7, 8};
  EXPECT_EQ(Walk({1, 2, 3, 4, 5}, 2, StepsOf(decoded)),
            (std::vector<Seen>{{0, 0, {1, 2}}, {0, 2, {3, 4}}, {0, 4, {5}}, {1, 5, {7}}, {2, 6, {8}}}));
  EXPECT_EQ(Walk({1, 2}, kWholePrefill, StepsOf(decoded, 1)),
            (std::vector<Seen>{{0, 0, {1, 2}}, {1, 2, {8}}}));
  EXPECT_TRUE(Walk({}, 512, NoSteps()).empty());
}

TEST(Passes, TokensThatAreChosenOnTheWayAreSteps) {
  std::vector<int32_t> all = {4, 5};
  std::vector<int32_t> positions;
  const std::vector<int32_t> prefill = all;
  ASSERT_TRUE(ForEachPass(prefill, 512, StepsOf(all, 2), [&](const Pass& p) -> Status {
                positions.push_back(p.position);
                if (all.size() < 40) all.push_back(p.position);  // grows, and moves, under the walk
                return {};
              }).ok());
  EXPECT_EQ(positions.size(), 39u);
  EXPECT_EQ(positions.back(), 39);
}

TEST(Passes, TheSmallestBatchOfAllEnginesDecides) {
  EngineRecord one, two, silent;
  one.session = {{"ubatch", "64", "set"}};
  two.session = {{"ubatch", "2048", "default"}};
  EXPECT_EQ(PassRows({&one, &two}), 64);
  EXPECT_EQ(PassRows({&two, &silent}), 512);
}

TEST(Passes, AnErrorEndsTheWalk) {
  int n = 0;
  const std::vector<int32_t> prefill = {1, 2, 3};
  const Status status = ForEachPass(prefill, 1, NoSteps(), [&](const Pass&) -> Status {
    return ++n == 2 ? Status(Error{Code::kEngine, "stop"}) : Status();
  });
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(n, 2);
}

}  // namespace
}  // namespace pb::drive

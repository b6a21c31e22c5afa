// Minimisation of sets whose smallest part is known.
#include "inject/minimise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace pb::inject {
namespace {

Subset Range(size_t n) {
  Subset all(n);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

bool Contains(const Subset& set, const Subset& part) {
  return std::includes(set.begin(), set.end(), part.begin(), part.end());
}

// Every set tried, in order; the test holds where all of `needed` are there.
struct Needs {
  Subset needed;
  std::set<Subset> tried;
  Result<bool> operator()(const Subset& set) {
    EXPECT_TRUE(std::is_sorted(set.begin(), set.end()));
    tried.insert(set);
    return Contains(set, needed);
  }
};

TEST(Minimise, FindsWhatIsNeededAndProvesEachElement) {
  for (const Subset& needed : {Subset{0}, Subset{29}, Subset{3, 17}, Subset{0, 1, 2, 28, 29}, Range(30)}) {
    Needs test{needed, {}};
    auto found = Minimise(Range(30), std::ref(test));
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(*found, needed);
    for (size_t left_out : needed) {
      Subset rest;
      std::remove_copy(needed.begin(), needed.end(), std::back_inserter(rest), left_out);
      EXPECT_TRUE(rest.empty() || test.tried.contains(rest)) << "never seen to fail without " << left_out;
    }
  }
}

TEST(Minimise, OneElementTakesFewTests) {
  Needs test{{21}, {}};
  ASSERT_TRUE(Minimise(Range(32), std::ref(test)).ok());
  EXPECT_LE(test.tried.size(), 10u);
}

// More is not better: two wrong ops may cancel, and putting one of them right alone makes things
// worse.
TEST(Minimise, DoesNotAssumeThatMoreIsBetter) {
  auto test = [](const Subset& s) -> Result<bool> {
    const bool both = Contains(s, {4, 9}), neither = !Contains(s, {4}) && !Contains(s, {9});
    return Contains(s, {2}) && (both || neither);
  };
  auto found = Minimise(Range(12), test);
  ASSERT_TRUE(found.ok());
  ASSERT_TRUE(*test(*found));
  for (size_t i = 0; i < found->size(); i++) {
    Subset rest = *found;
    rest.erase(rest.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_FALSE(!rest.empty() && *test(rest));
  }
}

TEST(Minimise, AnErrorEndsTheSearch) {
  int n = 0;
  auto found = Minimise(Range(8), [&](const Subset&) -> Result<bool> {
    if (++n == 3) return MakeError(Code::kEngine, "gone");
    return false;
  });
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(n, 3);
}

TEST(Minimise, OneAndNoneAreAsSmallAsTheyAre) {
  auto never = [](const Subset&) -> Result<bool> { return MakeError(Code::kInternal, "not to be asked"); };
  EXPECT_EQ(*Minimise({7}, never), Subset{7});
  EXPECT_EQ(*Minimise({}, never), Subset{});
}

}  // namespace
}  // namespace pb::inject

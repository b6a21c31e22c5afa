// Noise floors against values derived by hand: limits, their origins, and floors that are
// refused.
#include "compare/noise_floor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/random.h"

namespace pb::compare {
namespace {

NoiseRun MakeRun(std::vector<double> kl) {
  NoiseRun run;
  run.gap_change = kl;
  run.kl = std::move(kl);
  return run;
}

TEST(LargestWindowMean, ByHand) {
  std::vector<double> v{0, 3, 0, 0, 4, 5, 0};
  EXPECT_EQ(LargestWindowMean(v, 1), 5);
  EXPECT_EQ(LargestWindowMean(v, 2), 4.5);
  EXPECT_EQ(LargestWindowMean(v, 3), 3);
  EXPECT_EQ(LargestWindowMean(v, 5), 12.0 / 5);
  EXPECT_EQ(LargestWindowMean(v, 7), 12.0 / 7);
  EXPECT_EQ(LargestWindowMean(v, 1000), 12.0 / 7);  // more than there are: all of them
}

TEST(LargestWindowMean, AgreesWithTheDefinition) {
  Random random(4);
  std::vector<double> v(317);
  for (double& x : v) x = std::exp(10 * random.Normal() - 20);  // heavy tail, as noise is
  for (int64_t n : {1, 2, 9, 64, 316, 317}) {
    double largest = 0;
    for (size_t begin = 0; begin + static_cast<size_t>(n) <= v.size(); ++begin) {
      double sum = 0;
      for (size_t i = 0; i < static_cast<size_t>(n); ++i) sum += v[begin + i];
      largest = std::max(largest, sum / static_cast<double>(n));
    }
    EXPECT_NEAR(LargestWindowMean(v, n), largest, 1e-12 * largest) << n;
  }
}

TEST(NoiseFloor, LimitsByHand) {
  NoiseFloor floor;
  floor.engine = "an engine";
  floor.runs = {MakeRun({0, 1, 0, 2}), MakeRun({0, 0, 3, 0})};
  ASSERT_TRUE(CheckNoiseFloor(floor).ok());
  EXPECT_EQ(floor.MeanKl(), 6.0 / 8);
  EXPECT_EQ(floor.WorstKl(), 3);
  EXPECT_EQ(WorstKlLimit(floor).value, 9);
  EXPECT_EQ(GapLimit(floor).value, 9);
  EXPECT_EQ(MeanKlLimit(floor, 1, "m").value, 6);
  EXPECT_EQ(MeanKlLimit(floor, 2, "m").value, 3);  // {3, 0} in the second run
  EXPECT_EQ(MeanKlLimit(floor, 4, "m").value, 1.5);
  EXPECT_EQ(MeanKlLimit(floor, 99, "m").value, 1.5);
  EXPECT_FALSE(WorstKlLimit(floor).by_user);
}

// Noise of rare events, as another expert for a token: a mean may have one more of them, which may be
// as large as a single position.
TEST(NoiseFloor, AMeanMayHaveOnePositionMoreAtItsLimit) {
  NoiseFloor floor;
  std::vector<double> kl(100, 0);
  kl[5] = 10;
  floor.runs = {MakeRun(kl), MakeRun(kl)};
  EXPECT_EQ(MeanKlLimit(floor, 50, "m").value, 0.2 + 3 * 10.0 / 50);
  EXPECT_NE(MeanKlLimit(floor, 50, "m").origin.find("one position more"), std::string::npos);
  EXPECT_EQ(MeanKlLimit(floor, 50, "m", false).value, 0.4);
  EXPECT_EQ(MeanKlLimit(floor, 31, "m").value, 2 * 10.0 / 31);
  // Where every position makes as much noise it adds nothing.
  floor.runs = {MakeRun(std::vector<double>(100, 1))};
  EXPECT_EQ(MeanKlLimit(floor, 50, "m").value, 2);
}

// A window of any run may be the largest, so a run more never lowers a limit.
TEST(NoiseFloor, AnotherRunNeverLowersALimit) {
  Random random(8);
  NoiseFloor floor;
  double previous[3] = {0, 0, 0};
  for (int r = 0; r < 12; ++r) {
    std::vector<double> kl(50);
    for (double& v : kl) v = std::abs(random.Normal());
    floor.runs.push_back(MakeRun(kl));
    double now[3] = {MeanKlLimit(floor, 9, "m").value, WorstKlLimit(floor).value, GapLimit(floor).value};
    for (int i = 0; i < 3; ++i) {
      EXPECT_GE(now[i], previous[i]);
      previous[i] = now[i];
    }
  }
}

// Heavy-tailed, as noise is.
NoiseFloor RandomFloor(size_t n_runs, size_t n_positions, uint64_t seed) {
  Random random(seed);
  NoiseFloor floor;
  for (size_t r = 0; r < n_runs; ++r) {
    NoiseRun run;
    for (size_t i = 0; i < n_positions; ++i) {
      run.kl.push_back(std::exp(8 * random.Normal() - 20));
      run.gap_change.push_back(std::exp(3 * random.Normal() - 5));
    }
    floor.runs.push_back(std::move(run));
  }
  return floor;
}

NoiseFloor PartOf(const NoiseFloor& whole, size_t n_runs, size_t n_positions) {
  NoiseFloor part = whole;
  part.partial = true;
  part.runs.resize(n_runs);
  for (NoiseRun& run : part.runs) run.kl.resize(n_positions), run.gap_change.resize(n_positions);
  return part;
}

// So what a part finds within its limits the whole does too, of as many positions as there may be.
TEST(NoiseFloor, APartNeverAllowsMoreThanTheWhole) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const NoiseFloor whole = RandomFloor(8, 90, seed);
    for (size_t n_runs : {1, 3, 8}) {
      for (size_t n_positions : {1, 9, 60, 90}) {
        const NoiseFloor part = PartOf(whole, n_runs, n_positions);
        EXPECT_LE(WorstKlLimit(part).value, WorstKlLimit(whole).value);
        EXPECT_LE(GapLimit(part).value, GapLimit(whole).value);
        for (int64_t n : {1, 9, 50, 90, 91, 400})
          EXPECT_LE(MeanKlLimit(part, n, "m").value, MeanKlLimit(whole, n, "m").value)
              << "seed " << seed << ", " << n_runs << " runs of " << n_positions << ", mean of " << n;
      }
    }
  }
}

// Positions that were not measured count as zeros, and a part is not weak: it only allows less.
TEST(NoiseFloor, APartByHand) {
  NoiseFloor part;
  part.engine = "E 1";
  part.runs = {MakeRun({0, 1, 0, 2})};
  part.partial = true;
  EXPECT_EQ(MeanKlLimit(part, 2, "m").value, 2);
  EXPECT_EQ(MeanKlLimit(part, 4, "m").value, 1.5);
  EXPECT_EQ(MeanKlLimit(part, 12, "m").value, 0.5);
  EXPECT_EQ(WeaknessOf(part), "");
  EXPECT_EQ(WorstKlLimit(part).origin,
            "3 x the largest single value in 1 run of random rounding of E 1 over 4 positions, which the "
            "rest of the floor could only widen");
}

TEST(NoiseFloor, OriginSaysWhatIsWeaker) {
  NoiseFloor floor;
  floor.engine = "E 1";
  floor.runs.assign(8, MakeRun(std::vector<double>(400, 1e-3)));
  EXPECT_EQ(WeaknessOf(floor), "");
  EXPECT_EQ(WorstKlLimit(floor).origin,
            "3 x the largest single value in 8 runs of random rounding of E 1 over 400 positions");
  EXPECT_EQ(
      MeanKlLimit(floor, 9, "m").origin,
      "2 x the largest mean of any 9-position window in 8 runs of random rounding of E 1 over 400 positions");
  floor.runs.pop_back();
  EXPECT_EQ(WeaknessOf(floor), "fewer than 8 runs");
  floor.runs.assign(8, MakeRun(std::vector<double>(399, 1e-3)));
  EXPECT_EQ(WeaknessOf(floor), "fewer than 400 positions");
  floor.method = NoiseFloor::Method::kVariations;
  EXPECT_NE(WorstKlLimit(floor).origin.find("weaker: the engine cannot be disturbed"), std::string::npos);
}

TEST(NoiseFloor, UnusableFloorsAreRefused) {
  NoiseFloor floor;
  EXPECT_FALSE(CheckNoiseFloor(floor).ok());
  floor.runs = {MakeRun({})};
  EXPECT_FALSE(CheckNoiseFloor(floor).ok());
  floor.runs = {MakeRun({1, 2}), MakeRun({1})};
  EXPECT_FALSE(CheckNoiseFloor(floor).ok());
  floor.runs = {MakeRun({1, 2}), MakeRun({1, std::numeric_limits<double>::quiet_NaN()})};
  EXPECT_FALSE(CheckNoiseFloor(floor).ok());
  floor.runs = {MakeRun({1, 2}), MakeRun({1, std::numeric_limits<double>::infinity()})};
  EXPECT_FALSE(CheckNoiseFloor(floor).ok());
  floor.runs = {MakeRun({1, -1})};
  EXPECT_FALSE(CheckNoiseFloor(floor).ok());
  floor.runs = {MakeRun({0, 0})};
  EXPECT_TRUE(CheckNoiseFloor(floor).ok());
  EXPECT_TRUE(floor.IsZero());
}

}  // namespace
}  // namespace pb::compare

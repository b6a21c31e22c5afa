// The rank test against values derived by hand, and its level and power in simulation.
#include "compare/noise_rank.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/random.h"

namespace pb::compare {
namespace {

using Series = std::vector<double>;

Result<NoiseRank> Rank(const Series& candidate, const std::vector<Series>& runs, double confidence = 0.95) {
  const std::vector<std::span<const double>> spans(runs.begin(), runs.end());
  return RankAmongNoise(candidate, spans, confidence);
}

TEST(NoiseRank, ByHand) {
  // Ranks of (candidate, run, run): 3 1 2, then 2.5 2.5 1: sums 5.5, 3.5, 3.
  auto rank = Rank({3, 1}, {{1, 1}, {2, 0}});
  ASSERT_TRUE(rank.ok());
  EXPECT_EQ(rank->n_as_far, 0);
  EXPECT_DOUBLE_EQ(rank->p, 1.0 / 3);
  EXPECT_EQ(rank->mean_kl, 2);
  EXPECT_EQ(rank->mean_kl_noise, 1);
  EXPECT_FALSE(rank->decidable());  // two runs reach a level of 2/3
  EXPECT_FALSE(rank->distinguishable());
  EXPECT_TRUE(Rank({3, 1}, {{1, 1}, {2, 0}}, 0.6)->distinguishable());
  // 2 3 1, then 1 2 3: sums 3, 5, 4.
  EXPECT_EQ(Rank({2, 0}, {{3, 1}, {1, 2}})->n_as_far, 2);
}

// Equal values take no side, and a sum as large counts as far as the candidate.
TEST(NoiseRank, TiesSpeakForTheCandidate) {
  const auto rank = Rank({0, 0}, {{0, 0}, {0, 0}, {0, 0}}, 0.5);
  EXPECT_EQ(rank->n_as_far, 3);
  EXPECT_EQ(rank->p, 1);
  EXPECT_FALSE(rank->needed);
}

// Which of two distances below the resolution is the larger one says nothing; beyond it every
// difference counts.
TEST(NoiseRank, DistancesBelowTheResolutionAreTies) {
  const std::vector<Series> runs{{0, 1e-15}, {2e-15, 0}, {-1e-17, 3e-14}};
  const auto below = Rank({2.6e-14, 9e-13}, runs, 0.75);
  EXPECT_EQ(below->n_as_far, 3);
  EXPECT_EQ(below->p, 1);
  EXPECT_FALSE(below->needed);
  EXPECT_EQ(below->mean_kl, (2.6e-14 + 9e-13) / 2);  // the figure is told as it is
  const auto beyond = Rank({2.6e-14, 1.1e-12}, runs, 0.75);
  EXPECT_EQ(beyond->n_as_far, 0);
  EXPECT_TRUE(beyond->distinguishable());
}

TEST(NoiseRank, TellsSinceWhen) {
  // With 3 runs at level 1/4 the candidate must be ahead of all. Ahead after 1 position, behind
  // after 2, level after 3.
  const std::vector<Series> runs{{1, 9, 1, 1}, {2, 5, 2, 2}, {3, 6, 3, 3}};
  const auto rank = Rank({4, 4, 4, 4}, runs, 0.75);
  // Sums: 4 1 2 3; 5 5 4 6; 9 6 6 9; 13 7 8 12.
  EXPECT_EQ(rank->since, 4);
  EXPECT_EQ(rank->p, 0.25);
  EXPECT_FALSE(Rank({4, 4, 4}, {{1, 9, 1}, {2, 5, 2}, {3, 6, 3}}, 0.75)->since);
}

TEST(NoiseRank, EstimatesWhatWouldBeNeeded) {
  // Doubled ranks 4 2 8 6 | 6 2 4 8: the candidate's sum is 10, the runs' 4, 12, 14: mean 10. Not
  // ahead.
  EXPECT_FALSE(Rank({2, 3}, {{1, 1}, {4, 2}, {3, 4}})->needed);
  // 6 2 4 8 | 6 2 8 4 | 6 4 2 8: 18 against 8, 14, 20: mean 14, variance 36. z(5 %) = 1.6448536: 3
  // z^2 36 / 4^2.
  const auto rank = Rank({3, 3, 3}, {{1, 1, 2}, {2, 4, 1}, {4, 2, 4}});
  ASSERT_TRUE(rank->needed);
  EXPECT_NEAR(*rank->needed, 3 * 1.6448536269514722 * 1.6448536269514722 * 36 / 16, 1e-9);
}

TEST(NoiseRank, RunsForALevel) {
  EXPECT_EQ(RunsFor(0.95), 19);
  EXPECT_EQ(RunsFor(0.99), 99);
  EXPECT_EQ(RunsFor(0.9), 9);
  EXPECT_EQ(RunsFor(0.5), 1);
  EXPECT_EQ(RunsFor(0.94), 16);  // 1/17 <= 0.06 < 1/16
}

TEST(NoiseRank, RefusesWhatCannotBeRanked) {
  EXPECT_FALSE(Rank({}, {{}}).ok());
  EXPECT_FALSE(Rank({1}, {}).ok());
  EXPECT_FALSE(Rank({1}, {{1, 2}}).ok());
  EXPECT_FALSE(Rank({1, std::nan("")}, {{1, 2}}).ok());
  EXPECT_FALSE(Rank({1, 2}, {{1, std::numeric_limits<double>::infinity()}}).ok());
}

// A series as noise is: heavy tails, neighbours that depend on each other, positions of very
// different sensitivity.
Series Noise(Random* random, const Series& sensitivity, double factor) {
  Series series;
  double state = random->Normal();
  for (double s : sensitivity) {
    state = 0.9 * state + std::sqrt(1 - 0.81) * random->Normal();
    series.push_back(factor * s * std::exp(2 * state));
  }
  return series;
}

double Alarms(double factor, int n_trials) {
  Random random(11);
  constexpr int kPositions = 60, kRuns = 19;
  int n_alarms = 0;
  for (int trial = 0; trial < n_trials; ++trial) {
    Series sensitivity;
    for (int i = 0; i < kPositions; ++i) sensitivity.push_back(std::exp(3 * random.Normal()));
    std::vector<Series> runs;
    for (int j = 0; j < kRuns; ++j) runs.push_back(Noise(&random, sensitivity, 1));
    n_alarms += Rank(Noise(&random, sensitivity, factor), runs)->distinguishable();
  }
  return static_cast<double>(n_alarms) / n_trials;
}

// The level is kept whatever the noise looks like: 5 % of 4000 within four standard errors. And the
// test sees something.
TEST(NoiseRank, KeepsItsLevelAndHasPower) {
  EXPECT_NEAR(Alarms(1, 4000), 0.05, 4 * std::sqrt(0.05 * 0.95 / 4000));
  EXPECT_GT(Alarms(100, 400), 0.9);
}

}  // namespace
}  // namespace pb::compare

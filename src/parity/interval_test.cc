// Quantiles from published tables, batch means by hand, and coverage on series whose true mean is
// known.
#include "parity/interval.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"

namespace pb::parity {
namespace {

TEST(Student, TablesOfQuantiles) {
  // Abramowitz, Stegun, table 26.10, and every textbook since.
  const struct {
    double p, degrees, t;
  } kTable[] = {{0.975, 1, 12.706},  {0.975, 2, 4.303},   {0.975, 5, 2.571}, {0.975, 10, 2.228},
                {0.975, 30, 2.042},  {0.975, 120, 1.980}, {0.95, 7, 1.895},  {0.995, 20, 2.845},
                {0.9995, 15, 4.073}, {0.025, 10, -2.228}};
  for (const auto& row : kTable) EXPECT_NEAR(StudentQuantile(row.p, row.degrees), row.t, 6e-4) << row.degrees;
  // One degree of freedom is Cauchy's distribution, whose function is known in closed form.
  EXPECT_NEAR(StudentCdf(1, 1), 0.75, 1e-13);
  EXPECT_NEAR(StudentCdf(-std::sqrt(3.0), 1), 1.0 / 6, 1e-13);
  EXPECT_EQ(StudentQuantile(0.5, 9), 0);
}

TEST(BatchMeans, ByHand) {
  // 64 values: 8 batches of 8. Batch k holds k eight times, so means are 0..7: mean 3.5, sum of
  // squares 42, variance 8 * 42 / 7 = 48, of the mean 48 / 64.
  std::vector<double> values;
  for (int i = 0; i < 64; ++i) values.push_back(i / 8);
  const auto interval = BatchMeans(values, 0.95);
  ASSERT_TRUE(interval);
  EXPECT_EQ(interval->batch, 8);
  EXPECT_EQ(interval->n_batches, 8);
  EXPECT_DOUBLE_EQ(interval->mean, 3.5);
  EXPECT_NEAR(interval->standard_error, std::sqrt(0.75), 1e-12);
  EXPECT_NEAR(interval->high - interval->mean, 2.365 * std::sqrt(0.75), 1e-3);  // t of 7 degrees
}

TEST(BatchMeans, TooFewValuesMakeNone) {
  EXPECT_FALSE(BatchMeans({}, 0.95));
  EXPECT_FALSE(BatchMeans(std::vector<double>(49, 1.0), 0.95));  // 7 batches of 7
  EXPECT_TRUE(BatchMeans(std::vector<double>(48, 1.0), 0.95));   // 8 of 6
}

TEST(BatchMeans, EqualValuesHaveNoWidth) {
  const auto interval = BatchMeans(std::vector<double>(100, 0.25), 0.99);
  ASSERT_TRUE(interval);
  EXPECT_EQ(interval->low, 0.25);
  EXPECT_EQ(interval->high, 0.25);
}

// x_i = 0.6 x_{i-1} + noise has mean 0: intervals that took values for independent would cover it in
// two thirds of all cases, batch means nearly as often as they say.
TEST(BatchMeans, CoversTheMeanOfACorrelatedSeries) {
  Random random(7);
  int covered = 0, naive = 0;
  constexpr int kTrials = 400, kLength = 1600;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> series;
    double x = 0, sum = 0, squares = 0;
    for (int i = 0; i < kLength; ++i) {
      series.push_back(x = 0.6 * x + random.Normal());
      sum += x, squares += x * x;
    }
    const auto interval = BatchMeans(series, 0.95);
    covered += interval->low <= 0 && interval->high >= 0;
    const double mean = sum / kLength, error = std::sqrt((squares / kLength - mean * mean) / kLength);
    naive += std::abs(mean) <= 1.96 * error;
  }
  EXPECT_GE(covered, kTrials * 0.91);
  EXPECT_LE(naive, kTrials * 0.75);
}

}  // namespace
}  // namespace pb::parity

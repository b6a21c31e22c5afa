// The loops over a pair of rows against their definition, in every form that this machine runs.
#include "compare/pair_sums.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "base/random.h"

namespace pb::compare {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> Values(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(random.Normal());
  return values;
}

TEST(PairSums, AreTheirDefinitionBitByBit) {
  for (const PairSumsTarget* target : PairSumsTargets()) {
    for (size_t n : {0, 1, 7, 8, 9, 63, 64, 65, 200}) {
      std::vector<float> x = Values(n, 1), y = Values(n, 2);
      for (size_t i = 64; i < std::min<size_t>(n, 128); ++i) x[i] = 0, y[i] = i % 2 ? 0.0f : -0.0f;
      PairLanes found{}, expected{};
      float largest = 0;
      std::vector<double> error(n, 0.5), norm(n, 0.25), expected_error = error, expected_norm = norm;
      for (int row = 0; row < 3; ++row) {  // sums go on
        EXPECT_EQ(target->add_finite(x.data(), y.data(), n, &found, error.data(), norm.data(), &largest), n);
        for (size_t i = 0; i < n; ++i) {
          const double p = x[i], q = y[i], e = p - q;
          const size_t lane = i % kPairLanes;
          expected.ee[lane] += e * e, expected.qq[lane] += q * q, expected.pp[lane] += p * p;
          expected.p[lane] += p, expected.q[lane] += q;
          expected.max_ee[lane] = std::max(expected.max_ee[lane], e * e);
          expected_error[i] += e * e, expected_norm[i] += q * q;
        }
      }
      for (auto member :
           {&PairLanes::ee, &PairLanes::qq, &PairLanes::pp, &PairLanes::p, &PairLanes::q, &PairLanes::max_ee})
        EXPECT_TRUE(std::ranges::equal(found.*member, expected.*member)) << target->name << ' ' << n;
      EXPECT_EQ(error, expected_error) << target->name << ' ' << n;
      EXPECT_EQ(norm, expected_norm) << target->name << ' ' << n;
    }
  }
}

TEST(PairSums, RunsEndAtTheFirstValueThatIsNotFinite) {
  for (const PairSumsTarget* target : PairSumsTargets()) {
    for (size_t at : {0, 1, 63, 64, 100, 130}) {
      for (float broken : {kInf, -kInf, kNan, -kNan}) {
        for (bool first : {true, false}) {
          std::vector<float> x(131, -2.0f), y(131, 1.0f);
          x[at == 0 ? 1 : 0] = -std::numeric_limits<float>::max();
          x[130] = 5;  // behind the run, but for the last
          (first ? x : y)[at] = broken;
          float largest = 0;
          PairLanes row{};
          std::vector<double> error(x.size()), norm(x.size());
          EXPECT_EQ(
              target->add_finite(x.data(), y.data(), x.size(), &row, error.data(), norm.data(), &largest), at)
              << target->name;
          EXPECT_TRUE(std::all_of(error.begin() + static_cast<ptrdiff_t>(at), error.end(),
                                  [](double e) { return e == 0; }));
          EXPECT_EQ(largest, at == 0 ? 0 : std::numeric_limits<float>::max()) << target->name;
        }
      }
    }
    const std::vector<float> small(70, 0.5f), none(70, 0.0f);
    float largest = 3;
    PairLanes row{};
    std::vector<double> error(70), norm(70);
    EXPECT_EQ(target->add_finite(small.data(), none.data(), 70, &row, error.data(), norm.data(), &largest),
              70u);
    EXPECT_EQ(largest, 3);
  }
}

TEST(PairSums, MaskedRunsEndWhereEitherRowHoldsAnythingElse) {
  for (const PairSumsTarget* target : PairSumsTargets()) {
    for (size_t at : {0, 1, 15, 16, 40}) {
      for (float other : {0.0f, kInf, kNan}) {
        for (bool first : {true, false}) {
          std::vector<float> x(41, -kInf), y(41, -kInf);
          (first ? x : y)[at] = other;
          EXPECT_EQ(target->masked_run(x.data(), y.data(), x.size()), at) << target->name;
        }
      }
    }
    const std::vector<float> all(41, -kInf);
    EXPECT_EQ(target->masked_run(all.data(), all.data(), 41), 41u);
  }
}

}  // namespace
}  // namespace pb::compare

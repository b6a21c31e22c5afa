// What each filter leaves, against probabilities worked by hand in fp64; equality with llama.cpp's own
// samplers is tested in tests/sampler_reference_test.cc.
#include "drive/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace pb::drive {
namespace {

using Ids = std::vector<int32_t>;

// Logits of these probabilities: 0.5, 0.2, 0.15, 0.1, 0.05, in another order of ids.
const std::vector<double> kChances = {0.1, 0.5, 0.05, 0.2, 0.15};

std::vector<float> Row() {
  std::vector<float> row;
  for (double p : kChances) row.push_back(static_cast<float>(std::log(p)));
  return row;
}

Ids Left(const Sampling& sampling, const Ids& history = {}) {
  Sampler sampler(sampling);
  for (int32_t id : history) sampler.Accept(id);
  Ids ids;
  for (const auto& c : sampler.Candidates(Row())) ids.push_back(c.id);
  return ids;
}

TEST(Sampling, NothingIsLeftOutByDefault) { EXPECT_EQ(Left({}), (Ids{1, 3, 4, 0, 2})); }

TEST(Sampling, TopP) {
  EXPECT_EQ(Left({.top_p = 0.45}), (Ids{1}));
  EXPECT_EQ(Left({.top_p = 0.69}), (Ids{1, 3}));
  EXPECT_EQ(Left({.top_p = 0.71}), (Ids{1, 3, 4}));
  EXPECT_EQ(Left({.top_p = 0}), (Ids{1}));  // never nothing
  // Over the softmax of what top-k left: 0.5 / 0.7 is more than 0.71.
  EXPECT_EQ(Left({.top_k = 2, .top_p = 0.71}), (Ids{1}));
}

TEST(Sampling, MinP) {
  EXPECT_EQ(Left({.min_p = 0.35}), (Ids{1, 3}));
  EXPECT_EQ(Left({.min_p = 0.25}), (Ids{1, 3, 4}));
  EXPECT_EQ(Left({.min_p = 1}), (Ids{1}));
}

// -log p: 0.69, 1.61, 1.90, 2.30, 3.00; the entropy is 0.5*0.693 + 0.2*1.609 + 0.15*1.897 + 0.1*2.303 +
// 0.05*2.996 = 1.333. Distances: 0.640, 0.276, 0.564, 0.970, 1.663: the order is 3, 4, 1, 0, 2.
TEST(Sampling, Typical) {
  EXPECT_EQ(Left({.typical_p = 0.1}), (Ids{3}));
  EXPECT_EQ(Left({.typical_p = 0.3}), (Ids{3, 4}));
  EXPECT_EQ(Left({.typical_p = 0.5}), (Ids{3, 4, 1}));
  EXPECT_EQ(Left({.typical_p = 0.9}), (Ids{3, 4, 1, 0}));
  // Before top-p, whose probabilities are those of the three that are left: 1 has 0.59 of them.
  EXPECT_EQ(Left({.typical_p = 0.5, .top_p = 0.55}), (Ids{1}));
}

TEST(Sampling, Penalties) {
  auto logit = [](const Sampling& sampling, const Ids& history, int32_t id) {
    Sampler sampler(sampling);
    for (int32_t token : history) sampler.Accept(token);
    for (const auto& c : sampler.Candidates(std::vector<float>{2, -2, 0.5f}))
      if (c.id == id) return c.logit;
    return std::numeric_limits<double>::quiet_NaN();
  };
  EXPECT_EQ(logit({.repetition = 2}, {0, 1}, 0), 1);    // divided
  EXPECT_EQ(logit({.repetition = 2}, {0, 1}, 1), -4);   // multiplied
  EXPECT_EQ(logit({.repetition = 2}, {0, 1}, 2), 0.5);  // was not there
  EXPECT_EQ(logit({.frequency = 0.25, .presence = 0.5}, {0, 0, 0, 1}, 0), 2 - 0.75 - 0.5);
  EXPECT_EQ(logit({.repetition = 2, .penalty_window = 2}, {0, 1, 2}, 0), 2);  // too long ago
  EXPECT_EQ(logit({.repetition = 2, .penalty_window = 0}, {0}, 0), 2);
  EXPECT_EQ(logit({.repetition = 2, .penalty_window = -1}, Ids(500, 0), 0), 1);
  // Greedy heeds them.
  Sampler sampler({.repetition = 1.5});
  EXPECT_EQ(sampler.Choose(std::vector<float>{1, 0.9f}), 0);
  sampler.Accept(0);
  EXPECT_EQ(sampler.Choose(std::vector<float>{1, 0.9f}), 1);
}

// Shares of draws against exp(logit / temperature) normalised; five standard deviations of a binomial.
TEST(Sampling, DrawsInProportionToWhatIsLeft) {
  const int n = 20'000;
  const double temperature = 0.7;
  double z = 0;
  for (double p : {0.5, 0.2, 0.15}) z += std::pow(p, 1 / temperature);
  Sampler sampler({.top_p = 0.71, .temperature = temperature, .seed = 42});
  std::vector<int> drawn(5);
  for (int i = 0; i < n; ++i) ++drawn[static_cast<size_t>(sampler.Choose(Row()))];
  EXPECT_EQ(drawn[0] + drawn[2], 0);
  for (int32_t id : {1, 3, 4}) {
    const double p = std::pow(kChances[static_cast<size_t>(id)], 1 / temperature) / z;
    EXPECT_NEAR(drawn[static_cast<size_t>(id)], n * p, 5 * std::sqrt(n * p * (1 - p))) << id;
  }
}

TEST(Sampling, TopKLeavesOutTheRestAndOneIsGreedy) {
  Sampler two({.top_k = 2, .temperature = 5, .seed = 7}), one({.top_k = 1, .temperature = 5}), cold({});
  for (int i = 0; i < 100; ++i) {
    const int32_t id = two.Choose(Row());
    EXPECT_TRUE(id == 1 || id == 3);
    EXPECT_EQ(one.Choose(Row()), 1);
    EXPECT_EQ(cold.Choose(Row()), 1);
  }
}

TEST(Sampling, WhatIsNotFiniteIsNeverChosen) {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Sampler(Sampling{}).Choose(std::vector<float>{nan, inf, -3, -inf}), 2);
  EXPECT_EQ(Sampler(Sampling{}).Choose(std::vector<float>{nan, -inf}), -1);
  EXPECT_EQ(Sampler({.temperature = 1}).Choose({}), -1);
}

TEST(Sampling, SameSeedSameDraws) {
  Sampler a({.temperature = 1, .seed = 3}), b({.temperature = 1, .seed = 3}),
      c({.temperature = 1, .seed = 4});
  int differ = 0;
  for (int i = 0; i < 200; ++i) {
    const int32_t id = a.Choose(Row());
    EXPECT_EQ(id, b.Choose(Row()));
    differ += id != c.Choose(Row());
  }
  EXPECT_GT(differ, 20);
}

}  // namespace
}  // namespace pb::drive

// Kernels that a compiler was allowed to reorder (-ffast-math, which this file alone is built with:
// sums in any order, reciprocals and roots by approximation, products and sums fused) lie within the
// bounds of single values against the exact result. Units as docs/numerics.md defines them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "compare/local.h"

namespace pb::compare {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// Of partial sums in order, and on average over all orders.
double SumUnit(const Doubles& terms) {
  double sum = 0, squares = 0, own = 0;
  for (double t : terms) sum += t, squares += sum * sum, own += t * t;
  return std::sqrt(squares + static_cast<double>(terms.size() + 1) * (own / 6 + sum * sum / 3));
}

// The largest error of a value over its own bound.
double WorstValue(pb_stage stage, const Floats& given, const Doubles& expected, const Doubles& units) {
  const double c = BoundFromUnits(stage, {}).c;
  double worst = 0;
  for (size_t i = 0; i < given.size(); i++)
    worst =
        std::max(worst, std::fabs(double(given[i]) - expected[i]) / (c * 0x1p-24 * units[i] + c * 0x1p-126));
  return worst;
}

Floats Normal(Random& random, int64_t n, double scale = 1) {
  Floats x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(scale * random.Normal());
  return x;
}

TEST(FastMath, Silu) {
  Floats x, y;
  for (int i = 0; i < 200000; i++) x.push_back(static_cast<float>(-30 + 3e-4 * i));
  y.resize(x.size());
  for (size_t i = 0; i < x.size(); i++) y[i] = x[i] / (1.0f + std::exp(-x[i]));
  Doubles expected, units;
  for (float v : x)
    expected.push_back(double(v) / (1 + std::exp(-double(v)))), units.push_back(std::fabs(expected.back()));
  EXPECT_LT(WorstValue(PB_STAGE_FFN_ACT, y, expected, units), 1);
}

TEST(FastMath, Gelu) {
  Floats x, y;
  for (int i = 0; i < 200000; i++) x.push_back(static_cast<float>(-10 + 1e-4 * i));
  y.resize(x.size());
  for (size_t i = 0; i < x.size(); i++) y[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.70710678f));
  Doubles expected, units;
  for (float v : x) {
    expected.push_back(0.5 * double(v) * (1 + std::erf(double(v) * std::sqrt(0.5))));
    units.push_back(std::fabs(expected.back()) + 0.5 * std::fabs(double(v)));
  }
  EXPECT_LT(WorstValue(PB_STAGE_FFN_ACT, y, expected, units), 1);
}

TEST(FastMath, RmsNorm) {
  Random random(5);
  for (int64_t n : {16, 64, 576}) {
    for (int trial = 0; trial < (n < 32 ? 40000 : 1000); trial++) {
      const Floats x = Normal(random, n, std::exp(3 * random.Normal())), w = Normal(random, n);
      Floats y(x.size());
      float sum = 0;
      for (float v : x) sum += v * v;
      const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(n) + 1e-6f);
      for (size_t i = 0; i < x.size(); i++) y[i] = x[i] * inverse * w[i];
      Doubles squares, expected, units;
      double exact = 0;
      for (float v : x) squares.push_back(double(v) * double(v)), exact += squares.back();
      const double unit = 1 + SumUnit(squares) / (2 * exact);
      for (size_t i = 0; i < x.size(); i++) {
        expected.push_back(double(x[i]) * double(w[i]) /
                           std::sqrt(exact / static_cast<double>(n) + double(1e-6f)));
        units.push_back(std::fabs(expected.back()) * unit);
      }
      EXPECT_LT(WorstValue(PB_STAGE_ATTN_NORM, y, expected, units), 1) << n;
    }
  }
}

TEST(FastMath, Softmax) {
  Random random(6);
  for (int64_t n : {2, 64, 512}) {
    for (int trial = 0; trial < 500; trial++) {
      const Floats x = Normal(random, n, 4);
      const float largest = *std::max_element(x.begin(), x.end());
      Floats y(x.size());
      float sum = 0;
      for (size_t i = 0; i < x.size(); i++) y[i] = std::exp(x[i] - largest), sum += y[i];
      for (float& v : y) v /= sum;
      Doubles powers, expected, units;
      double exact = 0;
      for (float v : x) powers.push_back(std::exp(double(v) - double(largest))), exact += powers.back();
      const double unit = 1 + std::fabs(double(largest)) + SumUnit(powers) / exact;
      for (size_t i = 0; i < x.size(); i++) {
        expected.push_back(powers[i] / exact);
        units.push_back(expected.back() * (unit + std::fabs(double(x[i]))));
      }
      EXPECT_LT(WorstValue(PB_STAGE_ATTN_SCORES_SOFTMAX, y, expected, units), 1) << n;
    }
  }
}

TEST(FastMath, Product) {
  Random random(7);
  for (int64_t n : {32, 576, 1536}) {
    for (int trial = 0; trial < 500; trial++) {
      const Floats x = Normal(random, n), w = Normal(random, n);
      float sum = 0;
      for (size_t i = 0; i < x.size(); i++) sum += x[i] * w[i];
      Doubles terms;
      double exact = 0;
      for (size_t i = 0; i < x.size(); i++)
        terms.push_back(double(x[i]) * double(w[i])), exact += terms.back();
      EXPECT_LT(WorstValue(PB_STAGE_Q_PROJ, {sum}, {exact}, {SumUnit(terms)}), 1) << n;
    }
  }
}

TEST(FastMath, Rotation) {
  Random random(8);
  constexpr int64_t kDims = 64;
  for (int position = 0; position < 2000; position++) {
    const Floats x = Normal(random, kDims);
    Floats y(x.size());
    Doubles expected(x.size()), units(x.size());
    const float scale = std::pow(10000.0f, -2.0f / kDims);
    float angle = static_cast<float>(position);
    double exact = position;
    for (size_t i = 0; i < kDims / 2; i++, angle *= scale, exact *= double(scale)) {
      const size_t j = i + kDims / 2;
      y[i] = x[i] * std::cos(angle) - x[j] * std::sin(angle);
      y[j] = x[i] * std::sin(angle) + x[j] * std::cos(angle);
      expected[i] = double(x[i]) * std::cos(exact) - double(x[j]) * std::sin(exact);
      expected[j] = double(x[i]) * std::sin(exact) + double(x[j]) * std::cos(exact);
      units[i] = units[j] =
          std::hypot(double(x[i]), double(x[j])) * (1 + exact * (1 + static_cast<double>(i)));
    }
    EXPECT_LT(WorstValue(PB_STAGE_Q_ROPE, y, expected, units), 1) << position;
  }
}

}  // namespace
}  // namespace pb::compare

// Both sides of every constant: two correct ways to compute an op stay within the bound, and the
// bound is no more than 30 times what they need.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/random.h"
#include "compare/local.h"

namespace pb::compare {
namespace {

using Floats = std::vector<float>;

constexpr int64_t kPositions = 64;

stages::ModelShape ShapeOf(int64_t d_model) { return {d_model, d_model, 4, 4, 64, 0}; }

// The largest error over its bound in many trials; each trial fills candidate and reference of
// `n_rows` rows.
double WorstRatio(pb_stage stage, int64_t d_model, int64_t n_rows, int trials,
                  const std::function<void(Random&, Floats&, Floats&)>& trial) {
  Random random(11);
  double worst = 0;
  LocalBound bound = BoundOf(stage, ShapeOf(d_model), kPositions);
  for (int t = 0; t < trials; ++t) {
    Floats c, r;
    trial(random, c, r);
    auto n_features = static_cast<int64_t>(c.size()) / n_rows;
    PointPlace place{0, 0, stage, 0, 0};
    worst = std::max(
        worst,
        ComparePoint({c, n_rows, n_features}, {r, n_rows, n_features}, place, bound).value().bound_ratio);
  }
  return worst;
}

void ExpectBothSides(double worst_ratio) {
  EXPECT_LT(worst_ratio, 1);
  EXPECT_GT(worst_ratio, 1.0 / 30);
}

TEST(Bounds, Product) {
  for (int64_t k : {64, 256, 1536, 6912})
    ExpectBothSides(WorstRatio(PB_STAGE_Q_PROJ, k, 8, 3, [k](Random& random, Floats& c, Floats& r) {
      std::vector<Floats> x(8, Floats(static_cast<size_t>(k)));
      for (Floats& row : x)
        for (float& v : row) v = static_cast<float>(random.Normal());
      for (int j = 0; j < 64 * 8; ++j) {
        const Floats& row = x[static_cast<size_t>(j / 64)];
        float serial = 0, lanes[8] = {};
        for (size_t i = 0; i < row.size(); ++i) {
          float w = static_cast<float>(random.Normal());
          serial += row[i] * w;
          lanes[i % 8] = std::fma(row[i], w, lanes[i % 8]);
        }
        c.push_back(serial);
        r.push_back(((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
                    ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7])));
      }
    }));
}

TEST(Bounds, Norm) {
  for (int64_t d : {256, 1536, 6912})
    ExpectBothSides(WorstRatio(PB_STAGE_ATTN_NORM, d, 1, 40, [d](Random& random, Floats& c, Floats& r) {
      Floats x(static_cast<size_t>(d));
      float serial = 0;
      double exact = 0;
      for (float& v : x) {
        v = static_cast<float>(random.Normal());
        serial += v * v;
        exact += static_cast<double>(v) * v;
      }
      float n = static_cast<float>(d);
      float a = 1.f / std::sqrt(serial / n + 1e-5f),
            b = 1.f / std::sqrt(static_cast<float>(exact) / n + 1e-5f);
      for (float v : x) {
        float weight = static_cast<float>(random.Uniform()) + 0.5f;
        c.push_back(v * a * weight);
        r.push_back(v * (b * weight));
      }
    }));
}

// Angles by repeated multiplication against powers of the base.
TEST(Bounds, Rotation) {
  for (int32_t base : {10000, 500000})
    ExpectBothSides(WorstRatio(PB_STAGE_Q_ROPE, 256, 512, 1, [base](Random& random, Floats& c, Floats& r) {
      constexpr int kDims = 128;
      float step = std::pow(static_cast<float>(base), -2.f / kDims);
      for (int p = 0; p < 512; ++p) {
        float theta = static_cast<float>(p);
        for (int i = 0; i < kDims / 2; ++i, theta *= step) {
          float other = static_cast<float>(p) *
                        std::pow(static_cast<float>(base), -2.f * static_cast<float>(i) / kDims);
          float x = static_cast<float>(random.Normal()), y = static_cast<float>(random.Normal());
          c.insert(c.end(),
                   {x * std::cos(theta) - y * std::sin(theta), x * std::sin(theta) + y * std::cos(theta)});
          r.insert(r.end(),
                   {x * std::cos(other) - y * std::sin(other), x * std::sin(other) + y * std::cos(other)});
        }
      }
    }));
}

// Scores scaled before or inside the exponential; sums in float against double.
TEST(Bounds, Softmax) {
  ExpectBothSides(
      WorstRatio(PB_STAGE_ATTN_SCORES_SOFTMAX, 256, 64, 20, [](Random& random, Floats& c, Floats& r) {
        for (size_t p = 0; p < 64; ++p) {
          Floats s(p + 1);
          float max = -1e30f;
          for (float& v : s) max = std::max(max, v = static_cast<float>(4 * random.Normal()));
          float sum = 0;
          double exact = 0;
          for (float v : s) sum += std::exp(v - max), exact += std::exp(static_cast<double>(v) - max);
          for (size_t j = 0; j < 64; ++j) {
            c.push_back(j <= p ? std::exp(s[j] - max) * (1.f / sum) : 0.f);
            r.push_back(j <= p ? static_cast<float>(std::exp(static_cast<double>(s[j]) - max) / exact) : 0.f);
          }
        }
      }));
}

TEST(Bounds, Activation) {
  ExpectBothSides(WorstRatio(PB_STAGE_FFN_GATED, 256, 8, 20, [](Random& random, Floats& c, Floats& r) {
    for (int i = 0; i < 8 * 512; ++i) {
      float g = static_cast<float>(2 * random.Normal()), u = static_cast<float>(random.Normal());
      c.push_back(g / (1.f + std::exp(-g)) * u);
      r.push_back(static_cast<float>(g / (1.0 + std::exp(-static_cast<double>(g))) * u));
    }
  }));
}

// Two terms, added before or after rounding to float.
TEST(Bounds, Sum) {
  ExpectBothSides(WorstRatio(PB_STAGE_LAYER_OUT, 256, 8, 20, [](Random& random, Floats& c, Floats& r) {
    for (int i = 0; i < 8 * 512; ++i) {
      double a = random.Normal(), b = random.Normal();
      c.push_back(static_cast<float>(a) + static_cast<float>(b));
      r.push_back(static_cast<float>(a + b));
    }
  }));
}

// A code times two scales, rounded after each or once. (A code times one scale of few bits is
// exact.)
TEST(Bounds, Copy) {
  ExpectBothSides(WorstRatio(PB_STAGE_EMBEDDINGS, 256, 8, 20, [](Random& random, Floats& c, Floats& r) {
    for (int i = 0; i < 8 * 512; ++i) {
      auto scale = static_cast<float>(random.Uniform()), outer = static_cast<float>(random.Uniform());
      float code = static_cast<float>(random.Below(255)) - 127.f;
      c.push_back(code * scale * outer);
      r.push_back(static_cast<float>(static_cast<double>(code) * scale * outer));
    }
  }));
}

}  // namespace
}  // namespace pb::compare

// Sketches against the true distances of random tensors; base64 against published vectors.
#include "trace/sketch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "abi/vocabulary.h"
#include "base/random.h"
#include "trace/base64.h"
#include "trace/measure.h"

namespace pb::trace {
namespace {

using Tensor = std::vector<float>;

Sketch SketchRows(const Tensor& x, int64_t n_rows, int64_t first = 0) {
  static Sketcher sketcher;
  return SketchOf(sketcher, x, n_rows, 1, first);
}

double Norm(const Tensor& x) {
  double sum = 0;
  for (float v : x) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}

// Student's t with `freedom` degrees: 1 is Cauchy's distribution.
double HeavyTail(Random& random, int freedom) {
  double chi = 0;
  for (int i = 0; i < freedom; ++i) {
    double g = random.Normal();
    chi += g * g;
  }
  return random.Normal() / std::sqrt(chi / freedom + 1e-12);
}

// Activations as language models have them: heavy tails, and a few channels that are large in every
// row.
Tensor Activations(Random& random, int64_t n_rows, int64_t width) {
  Tensor x(static_cast<size_t>(n_rows * width));
  for (float& v : x) v = static_cast<float>(HeavyTail(random, 4));
  for (int k = 0; k < 3; ++k) {
    size_t channel = random.Below(static_cast<uint64_t>(width));
    for (size_t r = 0; r < static_cast<size_t>(n_rows); ++r)
      x[r * static_cast<size_t>(width) + channel] *= 40;
  }
  return x;
}

// Ways two tensors differ, each a direction before scaling.
using Change = std::function<double(Random&, const Tensor&, int64_t row, int64_t column, size_t i)>;
struct Family {
  std::string name;
  Change change;
};

int64_t Hidden(const Tensor& x, int64_t n) { return static_cast<int64_t>(std::abs(x[0]) * 1e4) % n; }

const std::vector<Family>& Families() {
  static const std::vector<Family> families = {
      {"dense noise", [](Random& r, const Tensor&, int64_t, int64_t, size_t) { return r.Normal(); }},
      {"noise in proportion",
       [](Random& r, const Tensor& x, int64_t, int64_t, size_t i) { return r.Normal() * x[i]; }},
      {"heavy tails", [](Random& r, const Tensor&, int64_t, int64_t, size_t) { return HeavyTail(r, 2); }},
      {"another scale", [](Random&, const Tensor& x, int64_t, int64_t, size_t i) { return double{x[i]}; }},
      {"one feature of every row", [](Random& r, const Tensor& x, int64_t, int64_t c,
                                      size_t) { return c == Hidden(x, 128) ? r.Normal() : 0.0; }},
      {"one feature, equal in every row",
       [](Random&, const Tensor& x, int64_t, int64_t c, size_t) { return c == Hidden(x, 128) ? 1.0 : 0.0; }},
      {"two features swapped",
       [](Random&, const Tensor& x, int64_t, int64_t c, size_t) {
         int64_t at = Hidden(x, 127);
         return c == at ? 1.0 : c == at + 1 ? -1.0 : 0.0;
       }},
      {"last 8 features",
       [](Random&, const Tensor& x, int64_t, int64_t c, size_t i) { return c >= 120 ? double{x[i]} : 0.0; }},
      {"one row",
       [](Random& r, const Tensor&, int64_t row, int64_t, size_t) { return row == 0 ? r.Normal() : 0.0; }},
      {"every row alike", [](Random&, const Tensor&, int64_t, int64_t c,
                             size_t) { return std::cos(0.7 * static_cast<double>(c)); }},
  };
  return families;
}

// The promise of sketch.h, for every family of differences and every distance: at most 1 % of the
// estimates lie outside +-25 %. The truth is the fp64 definition.
TEST(Sketch, TellsDistancesWithinAQuarterInNinetyNineOfAHundred) {
  constexpr int kTrials = 300;
  int n_all = 0, n_all_outside = 0;
  for (const Family& family : Families()) {
    for (int64_t n_rows : {1, 2, 3, 9}) {
      for (double distance : {1.05e-3, 1e-2, 0.5}) {
        Random random(11 + static_cast<uint64_t>(n_rows) + static_cast<uint64_t>(distance * 1e4) * 100);
        int n_outside = 0;
        for (int trial = 0; trial < kTrials; ++trial) {
          constexpr int64_t kWidth = 128;
          Tensor b = Activations(random, n_rows, kWidth), d(b.size());
          for (size_t i = 0; i < b.size(); ++i) {
            auto column = static_cast<int64_t>(i) % kWidth;
            d[i] = static_cast<float>(family.change(random, b, static_cast<int64_t>(i) / kWidth, column, i));
          }
          double factor = distance * Norm(b) / Norm(d);
          Tensor a(b.size()), real(b.size());
          for (size_t i = 0; i < b.size(); ++i) {
            a[i] = static_cast<float>(b[i] + factor * d[i]);
            real[i] = a[i] - b[i];
          }
          SketchSum sum;
          sum.Add(SketchRows(a, n_rows));
          sum.Add(SketchRows(b, n_rows), -1);
          double ratio = std::sqrt(sum.SquaredNorm()) / Norm(real);
          n_outside += std::abs(ratio - 1) > kSketchError;
        }
        EXPECT_LE(n_outside,
                  kTrials * (1 - kSketchConfidence) + 6)  // six more: 3.5 standard deviations of the count
            << family.name << ", " << n_rows << " rows, distance " << distance;
        n_all += kTrials;
        n_all_outside += n_outside;
      }
    }
  }
  EXPECT_LE(n_all_outside, static_cast<double>(n_all) * (1 - kSketchConfidence));
  RecordProperty("outside", n_all_outside);
  RecordProperty("trials", n_all);
}

TEST(Sketch, IsLinearInRowsSoThatDecodeStepsAddUpToAPrefill) {
  Random random(5);
  Tensor x = Activations(random, 7, 100);
  Sketch whole = SketchRows(x, 7, 3);
  SketchSum difference;
  difference.Add(whole);
  for (size_t r = 0; r < 7; ++r) {
    difference.Add(
        SketchRows(Tensor(x.begin() + r * 100, x.begin() + r * 100 + 100), 1, 3 + static_cast<int64_t>(r)),
        -1);
  }
  EXPECT_LT(std::sqrt(difference.SquaredNorm()), 3e-4 * Norm(x));  // rounding of eight sketches
}

// A prefill pads attention scores to the longest row, a decode step does not: the cut by heads
// makes them one.
TEST(Sketch, HiddenScoresDoNotCount) {
  float inf = std::numeric_limits<float>::infinity();
  Sketcher sketcher;
  Tensor padded = {1, 2, -inf, -inf, 3, 4, -inf, -inf}, bare = {1, 2, 3, 4};
  std::vector<int64_t> shape = {1, 2, 4};
  ASSERT_EQ(SketchHeads(PB_STAGE_ATTN_SCORES, shape), 2);
  ASSERT_EQ(SketchHeads(PB_STAGE_Q_PROJ, shape), 1);
  EXPECT_EQ(SketchOf(sketcher, padded, 1, 2, 5), SketchOf(sketcher, bare, 1, 2, 5));
  EXPECT_NE(SketchOf(sketcher, bare, 1, 2, 5), SketchOf(sketcher, bare, 1, 2, 6));
}

TEST(Sketch, ZeroAndUnrepresentableSumsAreTheEmptySketch) {
  EXPECT_EQ(SketchRows(Tensor(64, 0.0f), 1), Sketch());
  EXPECT_EQ(SketchRows(Tensor(64, std::nanf("")), 1), Sketch());
  SketchSum sum;
  sum.Add(Sketch());
  EXPECT_EQ(sum.SquaredNorm(), 0);
}

TEST(Sketch, BytesRoundTripAndAreChecked) {
  Random random(1);
  Sketch sketch = SketchRows(Activations(random, 2, 50), 2);
  auto bytes = sketch.Bytes();
  ASSERT_EQ(bytes.size(), 132u);
  EXPECT_EQ(SketchFromBytes(bytes).value(), sketch);
  bytes.pop_back();
  EXPECT_FALSE(SketchFromBytes(bytes).ok());
  bytes.push_back(0);
  bytes[3] = 0x7f, bytes[2] = 0xc0;  // a scale that is NaN
  EXPECT_FALSE(SketchFromBytes(bytes).ok());
}

// RFC 4648, section 10.
TEST(Base64, PublishedVectors) {
  const std::pair<std::string, std::string> kVectors[] = {{"", ""},
                                                          {"f", "Zg=="},
                                                          {"fo", "Zm8="},
                                                          {"foo", "Zm9v"},
                                                          {"foob", "Zm9vYg=="},
                                                          {"fooba", "Zm9vYmE="},
                                                          {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : kVectors) {
    std::vector<uint8_t> bytes(plain.begin(), plain.end());
    EXPECT_EQ(Base64(bytes), coded);
    EXPECT_EQ(FromBase64(coded), bytes);
  }
  for (const char* bad : {"Zg=", "Zg", "Z===", "====", "Zm9v!A==", "Zh==", "Zg==Zg==", "Zm8=Zm8="}) {
    EXPECT_FALSE(FromBase64(bad)) << bad;
  }
}

}  // namespace
}  // namespace pb::trace

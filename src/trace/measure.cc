#include "trace/measure.h"

#include <bit>
#include <cmath>

#include "abi/vocabulary.h"
#include "base/blake3.h"
#include "base/check.h"

namespace pb::trace {
namespace {

constexpr uint32_t kExponent = 0x7f800000u;

// Sum of squares of the finite values; counts the others.
double SumSquares(std::span<const float> row, int64_t* n_non_finite) {
  constexpr size_t kLanes = 8;
  double sums[kLanes] = {};
  int64_t bad = 0;
  size_t i = 0;
  for (; i + kLanes <= row.size(); i += kLanes) {
    int32_t n_bad = 0;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      uint32_t bits = std::bit_cast<uint32_t>(row[i + lane]);
      bool finite = (bits & kExponent) != kExponent;
      n_bad += !finite;
      double v = std::bit_cast<float>(finite ? bits : 0u);
      sums[lane] += v * v;
    }
    bad += n_bad;
  }
  for (; i < row.size(); ++i) {
    bool finite = std::isfinite(row[i]);
    bad += !finite;
    if (finite) sums[i % kLanes] += static_cast<double>(row[i]) * row[i];
  }
  *n_non_finite += bad;
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

double RootMean(double sum, int64_t n) { return n > 0 ? std::sqrt(sum / static_cast<double>(n)) : 0.0; }

}  // namespace

Measures Measure(std::span<const float> values, int64_t n_rows) {
  PB_CHECK(n_rows > 0 && values.size() % static_cast<size_t>(n_rows) == 0);
  Measures m;
  m.blake3 = ToHex(Blake3Of(std::as_bytes(values)));
  size_t width = values.size() / static_cast<size_t>(n_rows);
  double sum = 0;
  int64_t n_bad = 0;
  for (int64_t r = 0; r < n_rows; ++r) {
    int64_t before = n_bad;
    double row = SumSquares(values.subspan(static_cast<size_t>(r) * width, width), &n_bad);
    m.row_rms.push_back(static_cast<float>(RootMean(row, static_cast<int64_t>(width) - (n_bad - before))));
    sum += row;
  }
  m.rms = RootMean(sum, static_cast<int64_t>(values.size()) - n_bad);
  if (n_bad > 0) {
    for (float v : values) {
      m.n_nan += std::isnan(v);
      m.n_positive_inf += std::isinf(v) && v > 0;
      m.n_negative_inf += std::isinf(v) && v < 0;
    }
  }
  return m;
}

Sketch SketchOf(Sketcher& sketcher, std::span<const float> values, int64_t n_rows, int64_t n_heads,
                int64_t first_position) {
  PB_CHECK(n_rows > 0 && n_heads > 0 && values.size() % static_cast<size_t>(n_rows * n_heads) == 0);
  size_t width = values.size() / static_cast<size_t>(n_rows * n_heads);
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t h = 0; h < n_heads; ++h) {
      sketcher.Add(first_position + r, h,
                   values.subspan(static_cast<size_t>(r * n_heads + h) * width, width));
    }
  }
  return sketcher.Take();
}

int64_t SketchHeads(int32_t stage, std::span<const int64_t> shape) {
  bool by_head = stage == PB_STAGE_ATTN_SCORES || stage == PB_STAGE_ATTN_SCORES_SOFTMAX;
  return by_head && shape.size() == 3 ? shape[1] : 1;
}

}  // namespace pb::trace

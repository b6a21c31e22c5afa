// One pass over a tensor for all that a record holds of it.
#include "trace/measure.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/blake3.h"
#include "base/check.h"
#include "stages/stages.h"

namespace pb::trace {
namespace {

constexpr uint32_t kExponent = 0x7f800000u;

constexpr uint32_t kNegativeInfinity = 0xff800000u;
constexpr size_t kLanes = 8, kBlock = 64;

// Of a row: squares summed by lane, value i in lane i mod 8, over finite values; the others
// counted.
struct Sums {
  double squares[kLanes] = {};
  int64_t n_nan = 0, n_positive_inf = 0, n_negative_inf = 0;

  int64_t n_bad() const { return n_nan + n_positive_inf + n_negative_inf; }
  double Total() const {
    const double* s = squares;
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  }

  void AddFinite(const float* values, size_t n) {
    for (size_t i = 0; i < n; i += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const double v = values[i + lane];
        squares[lane] += v * v;
      }
    }
  }

  void AddAny(const float* values, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      const float v = values[i];
      if (std::isfinite(v)) {
        squares[i % kLanes] += static_cast<double>(v) * v;
      } else {
        ++(std::isnan(v) ? n_nan : v > 0 ? n_positive_inf : n_negative_inf);
      }
    }
  }
};

// Most blocks are finite, and most others are hidden attention scores.
Sums SumRow(std::span<const float> row) {
  Sums sums;
  size_t i = 0;
  for (; i + kBlock <= row.size(); i += kBlock) {
    uint32_t n_bad = 0, n_hidden = 0;
    for (size_t j = i; j < i + kBlock; ++j) {
      const uint32_t bits = std::bit_cast<uint32_t>(row[j]);
      n_bad += (bits & kExponent) == kExponent;
      n_hidden += bits == kNegativeInfinity;
    }
    if (n_bad == 0) {
      sums.AddFinite(&row[i], kBlock);
    } else if (n_hidden == kBlock) {
      sums.n_negative_inf += kBlock;
    } else {
      sums.AddAny(&row[i], kBlock);
    }
  }
  if (i < row.size()) sums.AddAny(&row[i], row.size() - i);
  return sums;
}

double RootMean(double sum, int64_t n) { return n > 0 ? std::sqrt(sum / static_cast<double>(n)) : 0.0; }

}  // namespace

Measures Measure(std::span<const float> values, int64_t n_rows) {
  PB_CHECK(n_rows > 0 && values.size() % static_cast<size_t>(n_rows) == 0);
  Measures m;
  m.blake3 = ToHex(Blake3Of(std::as_bytes(values)));
  size_t width = values.size() / static_cast<size_t>(n_rows);
  double sum = 0;
  for (int64_t r = 0; r < n_rows; ++r) {
    const Sums row = SumRow(values.subspan(static_cast<size_t>(r) * width, width));
    m.row_rms.push_back(static_cast<float>(RootMean(row.Total(), static_cast<int64_t>(width) - row.n_bad())));
    sum += row.Total();
    m.n_nan += row.n_nan;
    m.n_positive_inf += row.n_positive_inf;
    m.n_negative_inf += row.n_negative_inf;
  }
  const int64_t n_bad = m.n_nan + m.n_positive_inf + m.n_negative_inf;
  m.rms = RootMean(sum, static_cast<int64_t>(values.size()) - n_bad);
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
  bool by_head = stages::kOverPositions.Contains(stage);
  return by_head && shape.size() == 3 ? shape[1] : 1;
}

TopTokens TopTokensOf(std::span<const float> logits) {
  TopTokens top;
  const size_t k = std::min(kTopTokens, logits.size());
  const bool finite = std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); });
  if (!finite || k == 0) {
    top.rest = std::nanf("");
    top.tokens.assign(k, {-1, std::nanf("")});
    return top;
  }
  for (size_t i = 0; i < logits.size(); ++i) {
    const bool full = top.tokens.size() == k;
    if (full && !(logits[i] > top.tokens.back().second)) continue;
    if (full) top.tokens.pop_back();
    const auto place = std::find_if(top.tokens.begin(), top.tokens.end(),
                                    [&](const auto& token) { return logits[i] > token.second; });
    top.tokens.insert(place, {static_cast<int32_t>(i), logits[i]});
  }
  double rest = 0;
  const double largest = top.tokens[0].second;
  const float least = top.tokens.back().second;
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const bool among =
        logits[i] >= least && std::any_of(top.tokens.begin(), top.tokens.end(),
                                          [&](const auto& token) { return token.first == id; });
    if (!among) rest += std::exp(logits[i] - largest);
  }
  top.rest = static_cast<float>(rest);
  return top;
}

}  // namespace pb::trace

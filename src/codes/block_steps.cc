// How far the float32 arithmetic of correct quantisers may move a block's scale and its stored sum,
// and which two f16 that may come to.
#include "codes/block_steps.h"

#include <cmath>

#include "base/half.h"

namespace pb::codes {
namespace {

// The roundings of two correct quantisers, each by its own way to a scale: a product, a quotient, a
// reciprocal of the vector units (2 ulp).
constexpr double kRoundings = 8 * 0x1p-24;

double RoundF16(double x) { return F16ToF32(F32ToF16(static_cast<float>(x))); }

// A value that is rounded to f16, and by how much other arithmetic may move it before.
struct Rounded {
  double value, noise;
  // Another f16 than `taken` that it may come to.
  std::optional<double> Other(double taken) const {
    for (double other : {RoundF16(value - noise), RoundF16(value + noise)})
      if (other != taken && std::isfinite(other)) return other;
    return std::nullopt;
  }
  bool MayBe(double stored) const {
    return RoundF16(value - noise) <= stored && stored <= RoundF16(value + noise);
  }
};

// What adding up d x code term by term, in any order, may move the sum by: the bound of a product
// (docs/numerics.md, "Units").
double SumNoise(const ActBlock& b, std::span<const float> x) {
  double sum = 0, squares = 0, terms = 0;
  for (float v : x) {
    const double term = b.sum_scale * std::nearbyint(v * b.to_code);
    sum += term, squares += sum * sum, terms += term * term;
  }
  squares += static_cast<double>(x.size() + 1) * (terms / 6 + sum * sum / 3);
  return 6 * 0x1p-24 * std::sqrt(squares);
}

// Q8_K and BitNet keep theirs in float32.
bool IsFloatScale(const ActBlock& b) { return b.sum_scale == 0; }

Rounded ScaleOf(const ActBlock& b) { return {b.sum_scale, kRoundings * b.sum_scale}; }

Rounded SumOf(const ActBlock& b, std::span<const float> x, int sum) {
  const double value = b.sum_scale * sum;
  return {value, kRoundings * std::fabs(value) + SumNoise(b, x)};
}

}  // namespace

std::optional<double> OtherScale(const ActBlock& b) {
  return IsFloatScale(b) ? std::nullopt : ScaleOf(b).Other(b.from_code);
}

std::optional<double> OtherSum(const ActBlock& b, std::span<const float> x, int sum) {
  return SumOf(b, x, sum).Other(StoredSum(b, sum));
}

bool MayBeScale(const ActBlock& b, float scale) {
  if (IsFloatScale(b)) return std::fabs(double(scale) - b.from_code) <= kRoundings * std::fabs(b.from_code);
  return ScaleOf(b).MayBe(scale);
}

bool MayBeSum(const ActBlock& b, std::span<const float> x, int sum, float stored) {
  return SumOf(b, x, sum).MayBe(stored);
}

}  // namespace pb::codes

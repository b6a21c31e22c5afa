// Batch means, and Student's t by the continued fraction of the incomplete beta function.
#include "parity/interval.h"

#include <cmath>

namespace pb::parity {
namespace {

// I_x(a, b), the regularised incomplete beta function, by its continued fraction (Abramowitz, Stegun
// 26.5.8) after Lentz; converges fast where x < (a + 1) / (a + b + 2).
double BetaFraction(double x, double a, double b) {
  constexpr double kTiny = 1e-300, kClose = 1e-16;
  constexpr int kMost = 10'000;
  const auto away = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / away(1 - (a + b) * x / (a + 1)), f = d;
  for (int m = 1; m <= kMost; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away(1 + even * d), c = away(1 + even / c), f *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away(1 + odd * d), c = away(1 + odd / c);
    const double step = d * c;
    f *= step;
    if (std::abs(step - 1) < kClose) break;
  }
  return f;
}

double IncompleteBeta(double x, double a, double b) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * BetaFraction(x, a, b) / a;
  return 1 - front * BetaFraction(1 - x, b, a) / b;
}

double MeanOf(std::span<const double> values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

}  // namespace

double StudentCdf(double t, double degrees) {
  // P(|T| > |t|) = I_{v / (v + t^2)}(v / 2, 1 / 2), Abramowitz, Stegun 26.7.1.
  const double beyond = IncompleteBeta(degrees / (degrees + t * t), degrees / 2, 0.5);
  return t > 0 ? 1 - beyond / 2 : beyond / 2;
}

double StudentQuantile(double p, double degrees) {
  if (p == 0.5) return 0;
  double low = -1, high = 1;
  while (StudentCdf(low, degrees) > p) low *= 2;
  while (StudentCdf(high, degrees) < p) high *= 2;
  constexpr int kHalvings = 200;
  for (int i = 0; i < kHalvings && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    (StudentCdf(middle, degrees) < p ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

std::optional<Interval> BatchMeans(std::span<const double> values, double confidence) {
  const auto n = static_cast<int64_t>(values.size());
  Interval interval;
  interval.batch = static_cast<int64_t>(std::sqrt(static_cast<double>(n)));
  interval.n_batches = interval.batch > 0 ? n / interval.batch : 0;
  if (interval.n_batches < kMinBatches) return std::nullopt;
  interval.mean = MeanOf(values);
  double squares = 0;
  for (int64_t i = 0; i < interval.n_batches; ++i) {
    const double of_batch =
        MeanOf(values.subspan(static_cast<size_t>(i * interval.batch), static_cast<size_t>(interval.batch)));
    squares += (of_batch - interval.mean) * (of_batch - interval.mean);
  }
  const auto batches = static_cast<double>(interval.n_batches);
  // The variance of one value, neighbours heard: b / (a - 1) * sum; of the mean of n: that over n.
  interval.standard_error =
      std::sqrt(static_cast<double>(interval.batch) * squares / (batches - 1) / static_cast<double>(n));
  const double half = StudentQuantile(0.5 + confidence / 2, batches - 1) * interval.standard_error;
  interval.low = interval.mean - half, interval.high = interval.mean + half;
  return interval;
}

}  // namespace pb::parity

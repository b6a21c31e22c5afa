// A confidence interval for the mean of a series whose values depend on their neighbours, as the
// tokens of a text do: batch means (docs/numerics.md, "Difference of the NLL").
#ifndef PARITYBIT_PARITY_INTERVAL_H_
#define PARITYBIT_PARITY_INTERVAL_H_

#include <cstdint>
#include <optional>
#include <span>

namespace pb::parity {

struct Interval {
  double mean = 0, low = 0, high = 0;
  double standard_error = 0;
  int64_t batch = 0, n_batches = 0;  // values in a batch, whole batches
};

// The fewest batches that an interval is made of.
inline constexpr int64_t kMinBatches = 8;

// Of n values in order: batches of floor(sqrt(n)) values (Flegal, Jones 2010), the variance of the
// mean from that of the batches' means, Student's t for as many batches less one. None: fewer than
// kMinBatches batches. `confidence` in (0, 1).
std::optional<Interval> BatchMeans(std::span<const double> values, double confidence);

// Student's t with `degrees` of freedom: P(T <= t), and the t at which that is p, 0 < p < 1.
double StudentCdf(double t, double degrees);
double StudentQuantile(double p, double degrees);

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_INTERVAL_H_

// Whether a candidate's distance from the reference can be told from the reference's distance from
// itself: a rank test over runs of random rounding. It asks nothing of the shape of the noise, nor
// that positions be independent. docs/numerics.md, "Rank".
#ifndef PARITYBIT_COMPARE_NOISE_RANK_H_
#define PARITYBIT_COMPARE_NOISE_RANK_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"

namespace pb::compare {

inline constexpr double kDefaultConfidence = 0.95;

// The resolution of a KL in nats: of float32 logits a smaller one is the rounding of its own
// figures, and which of two such values is larger says nothing of the engines. They are equal.
inline constexpr double kKlResolution = 1e-12;

struct NoiseRank {
  int64_t n_positions = 0, n_runs = 0;
  int64_t n_as_far = 0;                    // runs that lie at least as far away as the candidate
  double p = 1;                            // (n_as_far + 1) / (n_runs + 1)
  double confidence = kDefaultConfidence;  // the level asked for
  double mean_kl = 0, mean_kl_noise = 0;   // of the candidate; of all runs together
  // Distinguishable: the number of positions from which on that was so, with every one more.
  std::optional<int64_t> since;
  // Not distinguishable, though further away than the runs on average: about how many positions
  // would show it.
  std::optional<double> needed;

  bool distinguishable() const { return p <= 1 - confidence + 1e-12; }
  // Whether as many runs could give the level at all.
  bool decidable() const { return 1.0 / static_cast<double>(n_runs + 1) <= 1 - confidence + 1e-12; }
};

// The fewest runs that can reach a level: 1 / (n + 1) <= 1 - confidence. 0 < confidence < 1.
int64_t RunsFor(double confidence);

// KL of the candidate and of each run, position by position, all of one length. kInternal: nothing
// to rank, unequal lengths, or values that are not finite.
Result<NoiseRank> RankAmongNoise(std::span<const double> candidate,
                                 std::span<const std::span<const double>> runs, double confidence);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_NOISE_RANK_H_

// Two measurements of speed against each other, judged by the spread of their repeats.
#ifndef PARITYBIT_RECEIPT_SPEEDS_H_
#define PARITYBIT_RECEIPT_SPEEDS_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

namespace pb::receipt {

// By how many percent the median may fall before it counts, where the repeats show that it fell;
// and rise before it is told.
struct SpeedThresholds {
  double prompt = 20, decode = 20, improvement = 5;
};

struct SpeedChange {
  std::string name;                  // "prompt", "decode"
  double baseline = 0, current = 0;  // medians, tokens a second
  double percent = 0;                // of the median: above 0 is faster
  double threshold = 0;
  // How likely repeats as slow as these would be, if nothing had changed (Mann and Whitney's U, one
  // side, exact).
  double p = 1;
  bool regression = false, improvement = false;
  std::string sentence;
};

struct SpeedComparison {
  std::vector<SpeedChange> changes;
  std::string why_not;  // why they are not to be compared; empty: they are
  std::vector<std::string> notes;
};

// The largest p that counts as a change.
inline constexpr double kSpeedP = 0.01;
// Of receipts of benchmarks, valid by the schema.
SpeedComparison CompareSpeeds(const nlohmann::json& current, const nlohmann::json& baseline,
                              const SpeedThresholds& thresholds);

// The probability that n values drawn from the same distribution as the others lie as far towards
// the large ones, by the ranks.
double RankP(std::span<const double> larger, std::span<const double> smaller);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_SPEEDS_H_

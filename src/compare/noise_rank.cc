// The rank test of a candidate's distances among the reference's own.
#include "compare/noise_rank.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pb::compare {
namespace {

// Ranks from 1, equal values share the mean of theirs; all below the resolution of a KL are equal.
// Doubled, so that they are whole.
std::vector<int64_t> DoubledRanks(std::vector<double> values) {
  for (double& value : values) value = std::max(value, kKlResolution);
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<int64_t> ranks(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<int64_t>(begin + 1 + end);
  }
  return ranks;
}

// z with P(N(0, 1) > z) = tail, by bisection.
double NormalQuantile(double tail) {
  double low = 0, high = 40;
  for (int i = 0; i < 100; ++i) {
    const double z = (low + high) / 2;
    (std::erfc(z / std::sqrt(2.0)) / 2 > tail ? low : high) = z;
  }
  return low;
}

Status CheckSeries(std::span<const double> candidate, std::span<const std::span<const double>> runs) {
  auto usable = [&](std::span<const double> series) {
    return series.size() == candidate.size() &&
           std::all_of(series.begin(), series.end(), [](double v) { return std::isfinite(v); });
  };
  if (candidate.empty() || runs.empty() || !usable(candidate) ||
      !std::all_of(runs.begin(), runs.end(), usable))
    return MakeError(Code::kInternal, "{} positions and {} runs cannot be ranked", candidate.size(),
                     runs.size());
  return {};
}

// How many positions would show the difference, if every n of them brought as much: the distance
// between the candidate's sum and the runs' grows with n, their spread with its root.
std::optional<double> Needed(const std::vector<int64_t>& sums, int64_t n_positions, double confidence) {
  const auto n_runs = static_cast<double>(sums.size() - 1);
  double mean = 0, variance = 0;
  for (size_t j = 1; j < sums.size(); ++j) mean += static_cast<double>(sums[j]) / n_runs;
  for (size_t j = 1; j < sums.size(); ++j)
    variance += (static_cast<double>(sums[j]) - mean) * (static_cast<double>(sums[j]) - mean) / (n_runs - 1);
  const double ahead = static_cast<double>(sums[0]) - mean;
  if (n_runs < 2 || ahead <= 0 || variance <= 0) return std::nullopt;
  const double z = NormalQuantile(1 - confidence);
  return std::max(static_cast<double>(n_positions + 1),
                  static_cast<double>(n_positions) * z * z * variance / (ahead * ahead));
}

}  // namespace

int64_t RunsFor(double confidence) {
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(1 / (1 - confidence) - 1e-9)) - 1);
}

Result<NoiseRank> RankAmongNoise(std::span<const double> candidate,
                                 std::span<const std::span<const double>> runs, double confidence) {
  PB_TRY(CheckSeries(candidate, runs));
  NoiseRank rank;
  rank.confidence = confidence;
  rank.n_positions = static_cast<int64_t>(candidate.size()), rank.n_runs = static_cast<int64_t>(runs.size());
  std::vector<int64_t> sums(runs.size() + 1);  // of ranks, the candidate's first
  std::vector<double> values(runs.size() + 1);
  for (size_t i = 0; i < candidate.size(); ++i) {
    values[0] = candidate[i];
    for (size_t j = 0; j < runs.size(); ++j) values[j + 1] = runs[j][i];
    const std::vector<int64_t> ranks = DoubledRanks(values);
    for (size_t j = 0; j < sums.size(); ++j) sums[j] += ranks[j];
    rank.mean_kl += values[0] / static_cast<double>(candidate.size());
    rank.mean_kl_noise += std::accumulate(values.begin() + 1, values.end(), 0.0) /
                          static_cast<double>(candidate.size() * runs.size());
    rank.n_as_far = std::count_if(sums.begin() + 1, sums.end(), [&](int64_t sum) { return sum >= sums[0]; });
    rank.p = static_cast<double>(rank.n_as_far + 1) / static_cast<double>(rank.n_runs + 1);
    if (!rank.distinguishable())
      rank.since.reset();
    else if (!rank.since)
      rank.since = static_cast<int64_t>(i) + 1;
  }
  if (!rank.distinguishable()) rank.needed = Needed(sums, rank.n_positions, confidence);
  return rank;
}

}  // namespace pb::compare

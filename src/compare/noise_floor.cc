// Means and worst cases of noise runs, and the limits that follow from them.
#include "compare/noise_floor.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/sha256.h"

static_assert(std::endian::native == std::endian::little, "digests are of little-endian numbers");

namespace pb::compare {
namespace {

template <typename Values>
double LargestOf(const NoiseFloor& floor, Values values) {
  double worst = 0;
  for (const NoiseRun& run : floor.runs)
    for (double v : values(run)) worst = std::max(worst, v);
  return worst;
}

// "8 runs of random rounding of llama.cpp v0.5.0 over 409 positions", and what makes it weaker.
std::string Describe(const NoiseFloor& floor) {
  bool rounding = floor.method == NoiseFloor::Method::kRandomRounding;
  std::string text = fmt::format("{} {} of {} over {} positions", floor.runs.size(),
                                 !rounding                ? "variations"
                                 : floor.runs.size() == 1 ? "run of random rounding"
                                                          : "runs of random rounding",
                                 floor.engine.empty() ? "the reference" : floor.engine, floor.n_positions());
  if (floor.partial) text += ", which the rest of the floor could only widen";
  std::string weakness = WeaknessOf(floor);
  return weakness.empty() ? text : fmt::format("{}; weaker: {}", text, weakness);
}

Status CheckRun(const NoiseRun& run, size_t n_positions) {
  if (run.kl.size() != n_positions || run.gap_change.size() != n_positions)
    return MakeError(Code::kInternal,
                     "noise run '{}' has {} KL values and {} gap changes, {} positions are expected",
                     run.variation, run.kl.size(), run.gap_change.size(), n_positions);
  for (size_t i = 0; i < n_positions; ++i)
    for (double v : {run.kl[i], run.gap_change[i]})
      if (!std::isfinite(v) || v < 0)
        return MakeError(Code::kEngine,
                         "noise run '{}' gives {} at position {}: the engine computes non-finite logits",
                         run.variation, v, i);
  return {};
}

}  // namespace

void NoiseRun::Add(const LogitsRow& row) {
  kl.push_back(row.kl);
  gap_change.push_back(row.gap_change);
}

double NoiseFloor::MeanKl() const {
  double sum = 0;
  for (const NoiseRun& run : runs)
    for (double v : run.kl) sum += v;
  return sum / (static_cast<double>(runs.size()) * static_cast<double>(n_positions()));
}

double NoiseFloor::WorstKl() const {
  return LargestOf(*this, [](const NoiseRun& run) -> const std::vector<double>& { return run.kl; });
}

double NoiseFloor::WorstGapChange() const {
  return LargestOf(*this, [](const NoiseRun& run) -> const std::vector<double>& { return run.gap_change; });
}

std::string NoiseFloor::Digest() const {
  Sha256 digest;
  const auto text = [&](std::string_view s) { digest.Update(std::as_bytes(std::span(s.data(), s.size()))); };
  const auto numbers = [&](std::span<const double> values) { digest.Update(std::as_bytes(values)); };
  for (const NoiseRun& run : runs) {
    text(fmt::format("run {} {} {}\n", run.variation, run.kl.size(), run.gap_change.size()));
    numbers(run.kl);
    numbers(run.gap_change);
    for (const PointNoise& p : run.points) {
      text(fmt::format("point {} {} {} {} {}\n", p.prompt, pb_vocabulary[p.stage].name, p.layer,
                       PositionClassName(p.positions), p.n_rows));
      numbers(std::array{p.error2, p.norm2, p.worst_row});
    }
  }
  return digest.Hex();
}

std::vector<PointFloor> NoiseFloor::Points() const {
  std::vector<std::span<const PointNoise>> points;
  for (const NoiseRun& run : runs) points.emplace_back(run.points);
  return PointFloors(points);
}

Status CheckNoiseFloor(const NoiseFloor& floor) {
  if (floor.runs.empty() || floor.n_positions() == 0)
    return MakeError(Code::kInternal, "the noise floor has {} runs over {} positions: nothing was measured",
                     floor.runs.size(), floor.n_positions());
  for (const NoiseRun& run : floor.runs) PB_TRY(CheckRun(run, static_cast<size_t>(floor.n_positions())));
  return {};
}

std::string WeaknessOf(const NoiseFloor& floor) {
  if (!floor.caveat.empty()) return floor.caveat;
  if (floor.partial) return {};
  if (floor.method == NoiseFloor::Method::kVariations)
    return "the engine cannot be disturbed, so only its settings were varied";
  if (floor.runs.size() < static_cast<size_t>(kMinNoiseRuns))
    return fmt::format("fewer than {} runs", kMinNoiseRuns);
  if (floor.n_positions() < kMinNoisePositions)
    return fmt::format("fewer than {} positions", kMinNoisePositions);
  return {};
}

double LargestWindowMean(std::span<const double> values, int64_t n) {
  PB_CHECK(!values.empty() && n > 0);
  size_t window = std::min<size_t>(values.size(), static_cast<size_t>(n));
  // Prefix sums in long double: the difference of two of them keeps the small windows' digits.
  std::vector<long double> prefix(values.size() + 1, 0);
  for (size_t i = 0; i < values.size(); ++i) prefix[i + 1] = prefix[i] + values[i];
  long double largest = 0;
  for (size_t end = window; end <= values.size(); ++end)
    largest = std::max(largest, prefix[end] - prefix[end - window]);
  return static_cast<double>(largest / static_cast<long double>(window));
}

Limit MeanKlLimit(const NoiseFloor& floor, int64_t n, const std::string& name, bool one_more) {
  const int64_t window = std::min(n, floor.n_positions());
  double largest = 0;
  for (const NoiseRun& run : floor.runs) largest = std::max(largest, LargestWindowMean(run.kl, n));
  if (floor.partial && n > window) largest *= static_cast<double>(window) / static_cast<double>(n);
  const double several = kMeanFactor * largest,
               with_one = !one_more || n < kOneMoreFrom
                              ? 0
                              : largest + kWorstFactor * floor.WorstKl() / static_cast<double>(n);
  const std::string of = fmt::format("the largest mean of any {}-position window", window);
  return {name,
          std::max(several, with_one),
          "nats",
          several >= with_one
              ? fmt::format("{:g} x {} in {}", kMeanFactor, of, Describe(floor))
              : fmt::format("{}, and one position more of {:g} x the largest single value, in {}", of,
                            kWorstFactor, Describe(floor)),
          false,
          window};
}

Limit WorstKlLimit(const NoiseFloor& floor) {
  return {"kl.worst", kWorstFactor * floor.WorstKl(), "nats",
          fmt::format("{:g} x the largest single value in {}", kWorstFactor, Describe(floor))};
}

Limit GapLimit(const NoiseFloor& floor) {
  return {
      "gap.change", kWorstFactor * floor.WorstGapChange(), "nats",
      fmt::format("{:g} x the largest change of the top-1/top-2 gap in {}", kWorstFactor, Describe(floor))};
}

}  // namespace pb::compare

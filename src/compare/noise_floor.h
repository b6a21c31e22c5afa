// The noise floor: how far an engine's logits move when nothing but rounding changes, and the
// limits that follow from it. Monte Carlo arithmetic (Parker 1997): docs/numerics.md. Statistics
// only; running, caching and JSON belong to room run.
#ifndef PARITYBIT_COMPARE_NOISE_FLOOR_H_
#define PARITYBIT_COMPARE_NOISE_FLOOR_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "compare/point_noise.h"
#include "compare/types.h"

namespace pb::compare {

inline constexpr int kMinNoiseRuns = 8;
inline constexpr int64_t kMinNoisePositions = 400;
inline constexpr double kMeanFactor = 2, kWorstFactor = 3;
// Two units in the last place of float32, as a rel-L2: logits that are closer to each other than that differ by the rounding of
// their own sums, which random rounding leaves out. They are no further apart than noise.
inline constexpr double kLogitsResolution = 0x1p-22;

// One disturbed run against the undisturbed one, position by position (the same positions in every
// run, in order).
struct NoiseRun {
  uint64_t seed = 0;
  std::string variation;           // "noise.seed=3", "threads=2"
  std::vector<double> kl;          // nats, >= 0
  std::vector<double> gap_change;  // LogitsRow::gap_change
  std::vector<PointNoise> points;  // empty: not measured
  // Appends a row of CompareLogits(disturbed, undisturbed).
  void Add(const LogitsRow& row);
};

struct NoiseFloor {
  enum class Method { kRandomRounding, kVariations };
  Method method = Method::kRandomRounding;
  // Provenance.
  std::string engine;         // "llama.cpp v0.5.0"
  std::string engine_digest;  // of the libraries
  std::string model_sha256;
  std::string calibration;  // what was read in addition to the tokens at hand, and its digest
  std::string isa, threads;
  int64_t n_calibration_positions = 0;
  // why limits from it are weaker than its method and size say; empty: they are not
  std::string caveat;
  // Only the first runs or positions of a floor. Every limit is then at most that of the whole one,
  // so what is within it is within that; what is beyond it is not judged yet.
  bool partial = false;
  std::vector<NoiseRun> runs;

  int64_t n_positions() const { return runs.empty() ? 0 : static_cast<int64_t>(runs[0].kl.size()); }
  // Over all runs and positions; the floor must be usable.
  double MeanKl() const;
  double WorstKl() const;
  double WorstGapChange() const;
  // SHA-256 of what was measured (docs/numerics.md, "The digest of a noise floor").
  std::string Digest() const;
  // The noise at each tracepoint; empty where it was not measured.
  std::vector<PointFloor> Points() const;
  bool IsZero() const {
    return WorstKl() == 0;
  }  // disturbing it changed nothing: it cannot tell noise from defect
};

// Whether limits may be derived: at least one run and one position, equal lengths, every value
// finite and not negative.
Status CheckNoiseFloor(const NoiseFloor& floor);
// Why this floor is weaker than random rounding over 8 runs and 400 positions; empty: it is not.
std::string WeaknessOf(const NoiseFloor& floor);

// The largest mean of any n contiguous values; of all of them where n is larger. O(size). Values
// not empty, n > 0.
double LargestWindowMean(std::span<const double> values, int64_t n);

// The limits in force; each prints its origin. The floor must have passed CheckNoiseFloor. Of a
// partial floor the positions that are missing count as zeros.
// Of the mean of n values: kMeanFactor x the largest n-window of any run; or, where `one_more` and of
// kOneMoreFrom values and more, that window and one position more at WorstKlLimit, if that is larger:
// noise may be rare events, as another expert for a token, of which one more or less makes or breaks a
// mean.
inline constexpr int64_t kOneMoreFrom = 32;
Limit MeanKlLimit(const NoiseFloor& floor, int64_t n, const std::string& name, bool one_more = true);
Limit WorstKlLimit(const NoiseFloor& floor);  // "kl.worst": kWorstFactor x largest value
Limit GapLimit(const NoiseFloor& floor);      // "gap.change": likewise

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_NOISE_FLOOR_H_

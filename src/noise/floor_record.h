// What a report says of a noise floor: pure data.
#ifndef PARITYBIT_NOISE_FLOOR_RECORD_H_
#define PARITYBIT_NOISE_FLOOR_RECORD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "compare/point_noise.h"

namespace pb::noise {

// Where the noise floor comes from.
struct FloorRecord {
  std::string side =
      "reference";      // whose it is: "candidate" where the reference can be neither disturbed nor varied
  std::string method;   // "random rounding" or what was varied instead
  bool weaker = false;  // the engine cannot be disturbed: natural variations only
  // no more of it than it took to find everything within its limits
  bool partial = false;
  int32_t n_runs = 0;
  int64_t n_positions = 0;  // of one run: prompts and calibration
  int64_t n_calibration = 0;
  int32_t n_cached = 0,
          n_measured = 0;  // runs taken from the cache and runs measured now, summed over sequences
  double mean_kl = 0, worst_kl = 0, worst_gap = 0;
  std::vector<compare::PointFloor> points;  // empty: it has none
  // cache folder, or the file that came with a recorded reference
  std::string provenance;
  std::string sha256;  // NoiseFloor::Digest
};

}  // namespace pb::noise

#endif  // PARITYBIT_NOISE_FLOOR_RECORD_H_

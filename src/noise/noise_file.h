// A noise floor on disk, beside the reference's trace, so that what was recorded elsewhere brings
// its own limits.
#ifndef PARITYBIT_NOISE_NOISE_FILE_H_
#define PARITYBIT_NOISE_NOISE_FILE_H_

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string_view>
#include <vector>

#include "compare/noise_floor.h"

namespace pb::noise {

inline constexpr std::string_view kNoiseFile = "noise_floor.json";

// An array of n numbers, finite and not negative: what a noise run may hold.
bool ReadSeries(const nlohmann::json& entry, const char* key, size_t n, std::vector<double>* out);

// The noise at each tracepoint, one array a point: stage, layer, class, rows, sums of squares,
// worst row.
nlohmann::json PointsJson(std::span<const compare::PointNoise> points);
// Reads such an array, a member of an entry, as points of `prompt`. False: there is none, or it is
// something else.
bool ReadPoints(const nlohmann::json& entry, const char* key, int32_t prompt,
                std::vector<compare::PointNoise>* out);

// The floor as it goes with the trace of `prompt`, which is prompt 0 of whoever reads it; the file
// ends with its own digest.
Status WriteNoiseFloor(const std::filesystem::path& path, const compare::NoiseFloor& floor, int32_t prompt,
                       const std::string& trace_logits_blake3);
struct RecordedFloor {
  compare::NoiseFloor floor;
  std::string trace_logits_blake3;  // of the trace that it was kept with
};
// kNotFound: there is none. kMalformed: it is not what it claims to be, or not what was written.
Result<RecordedFloor> ReadNoiseFloor(const std::filesystem::path& path);

}  // namespace pb::noise

#endif  // PARITYBIT_NOISE_NOISE_FILE_H_

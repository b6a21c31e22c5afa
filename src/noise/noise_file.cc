// Writes and reads floors as JSON with a digest.
#include "noise/noise_file.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/kept.h"

namespace pb::noise {
namespace {

using Json = nlohmann::json;
constexpr const char* kNoiseSchema = "paritybit.noise-floor/1";
constexpr uint64_t kMaxBytes = 256 << 20;
constexpr size_t kMaxRuns = 1000;

Error Malformed(const std::filesystem::path& path, std::string_view what) {
  return MakeError(Code::kMalformed, "{}: {}", path.string(), what);
}

std::string TextOf(const Json& json, const char* key) {
  auto at = json.find(key);
  return at != json.end() && at->is_string() ? at->get<std::string>() : "";
}

int64_t CountOf(const Json& json, const char* key) {
  auto at = json.find(key);
  return at != json.end() && at->is_number_unsigned() && at->get<uint64_t>() <= INT64_MAX ? at->get<int64_t>()
                                                                                          : -1;
}

}  // namespace

bool ReadSeries(const Json& entry, const char* key, size_t n, std::vector<double>* out) {
  auto found = entry.find(key);
  if (found == entry.end() || !found->is_array() || found->size() != n) return false;
  for (const Json& value : *found) {
    if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0) return false;
    out->push_back(value.get<double>());
  }
  return true;
}

Json PointsJson(std::span<const compare::PointNoise> points) {
  Json json = Json::array();
  for (const compare::PointNoise& p : points)
    json.push_back({pb_vocabulary[p.stage].name, p.layer, compare::PositionClassName(p.positions), p.n_rows,
                    p.error2, p.norm2, p.worst_row});
  return json;
}

bool ReadPoints(const Json& entry, const char* key, int32_t prompt, std::vector<compare::PointNoise>* out) {
  auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) return false;
  for (const Json& p : *found) {
    if (!p.is_array() || p.size() != 7 || !p[0].is_string() || !p[1].is_number_integer() ||
        !p[2].is_string() || !p[3].is_number_unsigned())
      return false;
    compare::PointNoise point;
    point.prompt = prompt, point.layer = p[1].get<int32_t>(), point.n_rows = p[3].get<int64_t>();
    auto stage = std::find_if(std::begin(pb_vocabulary), std::end(pb_vocabulary),
                              [&](const pb_stage_info& info) { return p[0] == info.name; });
    auto positions =
        std::find_if(std::begin(compare::kPositionClasses), std::end(compare::kPositionClasses),
                     [&](compare::PositionClass c) { return p[2] == compare::PositionClassName(c); });
    double* values[] = {&point.error2, &point.norm2, &point.worst_row};
    for (size_t i = 0; i < 3; ++i) {
      const Json& value = p[4 + i];
      if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0) return false;
      *values[i] = value.get<double>();
    }
    if (stage == std::end(pb_vocabulary) || positions == std::end(compare::kPositionClasses)) return false;
    point.stage = stage->stage, point.positions = *positions;
    out->push_back(point);
  }
  return true;
}

Status WriteNoiseFloor(const std::filesystem::path& path, const compare::NoiseFloor& floor, int32_t prompt,
                       const std::string& trace_logits_blake3) {
  Json runs = Json::array();
  for (const compare::NoiseRun& run : floor.runs) {
    runs.push_back(
        {{"seed", run.seed}, {"variation", run.variation}, {"kl", run.kl}, {"gap_change", run.gap_change}});
    std::vector<compare::PointNoise> of_prompt, calibration;
    for (const compare::PointNoise& p : run.points) {
      if (p.prompt == prompt) of_prompt.push_back(p);
      if (p.prompt == compare::kCalibration) calibration.push_back(p);
    }
    if (run.points.empty()) continue;
    runs.back()["points"] = PointsJson(of_prompt);
    runs.back()["points_of_calibration"] = PointsJson(calibration);
  }
  const Json json = {{"schema", kNoiseSchema},
                     {"random_rounding", floor.method == compare::NoiseFloor::Method::kRandomRounding},
                     {"engine", floor.engine},
                     {"engine_digest", floor.engine_digest},
                     {"model_sha256", floor.model_sha256},
                     {"trace_logits_blake3", trace_logits_blake3},
                     {"calibration", floor.calibration},
                     {"isa", floor.isa},
                     {"threads", floor.threads},
                     {"n_calibration_positions", floor.n_calibration_positions},
                     {"n_positions", floor.n_positions()},
                     {"runs", runs}};
  return WriteSealed(path, json);
}

Result<RecordedFloor> ReadNoiseFloor(const std::filesystem::path& path) {
  PB_ASSIGN(const Json json, ReadSealed(path, kMaxBytes));
  if (TextOf(json, "schema") != kNoiseSchema) return Malformed(path, "no noise floor of this version");
  compare::NoiseFloor floor;
  auto rounding = json.find("random_rounding"), runs = json.find("runs");
  const int64_t n = CountOf(json, "n_positions"), n_calibration = CountOf(json, "n_calibration_positions");
  if (rounding == json.end() || !rounding->is_boolean() || runs == json.end() || !runs->is_array() ||
      n <= 0 || n_calibration < 0 || n_calibration > n || runs->empty() || runs->size() > kMaxRuns)
    return Malformed(path, "a field of the noise floor is missing or out of range");
  floor.method = rounding->get<bool>() ? compare::NoiseFloor::Method::kRandomRounding
                                       : compare::NoiseFloor::Method::kVariations;
  floor.engine = TextOf(json, "engine"), floor.engine_digest = TextOf(json, "engine_digest");
  floor.model_sha256 = TextOf(json, "model_sha256"), floor.calibration = TextOf(json, "calibration");
  floor.isa = TextOf(json, "isa"), floor.threads = TextOf(json, "threads");
  floor.n_calibration_positions = n_calibration;
  for (const Json& entry : *runs) {
    compare::NoiseRun run;
    if (!entry.is_object()) return Malformed(path, "a run is no object");
    const int64_t seed = CountOf(entry, "seed");
    run.seed = seed < 0 ? 0 : static_cast<uint64_t>(seed);
    run.variation = TextOf(entry, "variation");
    if (!ReadSeries(entry, "kl", static_cast<size_t>(n), &run.kl) ||
        !ReadSeries(entry, "gap_change", static_cast<size_t>(n), &run.gap_change))
      return Malformed(path, fmt::format("run {} does not have {} values", floor.runs.size(), n));
    if (entry.contains("points") &&
        !(ReadPoints(entry, "points", 0, &run.points) &&
          ReadPoints(entry, "points_of_calibration", compare::kCalibration, &run.points)))
      return Malformed(path, fmt::format("the points of run {} are damaged", floor.runs.size()));
    floor.runs.push_back(std::move(run));
  }
  return RecordedFloor{std::move(floor), TextOf(json, "trace_logits_blake3")};
}

}  // namespace pb::noise

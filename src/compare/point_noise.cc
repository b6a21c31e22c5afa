// Sums the squares of differences by point, and takes their root mean square and maximum over
// runs.
#include "compare/point_noise.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include "base/check.h"

namespace pb::compare {
namespace {

using Key =
    std::tuple<std::optional<int32_t>, PositionClass, int32_t, int32_t>;  // prompt, class, stage, layer

double Ratio(double error2, double norm2) {
  if (error2 == 0) return 0;
  return norm2 > 0 ? std::sqrt(error2 / norm2) : std::numeric_limits<double>::infinity();
}

double Median(std::vector<double> values) {
  const size_t half = values.size() / 2;
  std::sort(values.begin(), values.end());
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace

const char* PositionClassName(PositionClass c) {
  switch (c) {
    case PositionClass::kFirst:
      return "first";
    case PositionClass::kPrefill:
      return "prefill";
    case PositionClass::kDecode:
      return "decode";
  }
  return "";
}

void PointNoise::AddRow(std::span<const float> disturbed, std::span<const float> undisturbed) {
  PB_CHECK(disturbed.size() == undisturbed.size());
  double error = 0, norm = 0;
  for (size_t i = 0; i < undisturbed.size(); ++i) {
    const double u = undisturbed[i], d = disturbed[i];
    if (u == d && std::isinf(u) && u < 0) continue;
    if (!std::isfinite(u) || !std::isfinite(d)) {
      error = std::numeric_limits<double>::infinity();
      break;
    }
    error += (d - u) * (d - u);
    norm += u * u;
  }
  ++n_rows;
  error2 += error, norm2 += norm;
  worst_row = std::max(worst_row, Ratio(error, norm));
}

double PointNoise::rel_l2() const { return Ratio(error2, norm2); }

std::vector<PointFloor> PointFloors(std::span<const std::span<const PointNoise>> runs) {
  std::map<Key, std::vector<PointNoise>> by_place;  // one of each run
  for (std::span<const PointNoise> run : runs) {
    std::map<Key, PointNoise> own;
    for (const PointNoise& point : run) {
      auto add = [&](std::optional<int32_t> prompt) {
        PointNoise& sum = own[{prompt, point.positions, point.stage, point.layer}];
        sum.n_rows += point.n_rows, sum.error2 += point.error2, sum.norm2 += point.norm2;
        sum.worst_row = std::max(sum.worst_row, point.worst_row);
      };
      add(point.prompt == kCalibration ? std::nullopt : std::optional(point.prompt));
    }
    for (const auto& [key, sum] : own) by_place[key].push_back(sum);
  }
  std::vector<PointFloor> floors;
  for (const auto& [key, sums] : by_place) {
    if (sums.size() != runs.size()) continue;
    PointFloor floor;
    std::tie(floor.prompt, floor.positions, floor.stage, floor.layer) = key;
    floor.n_runs = static_cast<int64_t>(sums.size()), floor.n_rows = sums[0].n_rows;
    std::vector<double> errors;
    for (const PointNoise& sum : sums) {
      errors.push_back(sum.rel_l2());
      floor.worst_row = std::max(floor.worst_row, sum.worst_row);
    }
    floor.largest = *std::max_element(errors.begin(), errors.end());
    floor.median = Median(std::move(errors));
    floors.push_back(floor);
  }
  return floors;
}

}  // namespace pb::compare

// Takes the worst error of each layer and draws it by decades.
#include "report/growth.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace pb::report {
namespace {

// NaN is the largest of all.
double Larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }

std::string Height(double v) {
  if (!std::isfinite(v)) return "?";
  if (v == 0) return "_";
  const int height = std::clamp(static_cast<int>(std::floor(std::log10(v))) + 8, 0, 7);
  return {'\xe2', '\x96',
          static_cast<char>('\x81' + height)};  // U+2581 .. U+2588, lower eighths to a full block
}

}  // namespace

std::vector<GrowthRow> GrowthOf(const run::Comparison& comparison) {
  std::map<int32_t, GrowthRow> by_layer;
  for (const compare::PointRow& p : comparison.accumulated) {
    if (p.stage != PB_STAGE_LAYER_OUT || p.step != 0) continue;
    GrowthRow& row = by_layer[p.layer];
    row.layer = p.layer;
    row.rel_l2 = Larger(p.rel_l2, row.rel_l2);
    row.worst_row = Larger(p.worst_row, row.worst_row);
  }
  for (const compare::PointFloor& p : comparison.floor.points) {
    auto row = by_layer.find(p.layer);
    if (p.stage != PB_STAGE_LAYER_OUT || p.positions != compare::PositionClass::kPrefill || !p.prompt ||
        row == by_layer.end())
      continue;
    std::optional<GrowthRow::Noise>& noise = row->second.noise;
    if (!noise) noise = GrowthRow::Noise{};
    noise->median = Larger(p.median, noise->median);
    noise->largest = Larger(p.largest, noise->largest);
  }
  std::vector<GrowthRow> rows;
  for (const auto& [layer, row] : by_layer) rows.push_back(row);
  return rows;
}

std::string GrowthCurve(std::span<const double> rows, size_t columns) {
  std::string curve;
  const size_t n = std::min(rows.size(), columns);
  for (size_t i = 0; i < n; ++i) {
    double largest = 0;
    for (size_t r = i * rows.size() / n; r < (i + 1) * rows.size() / n; ++r)
      largest = Larger(rows[r], largest);
    curve += Height(largest);
  }
  return curve;
}

}  // namespace pb::report

// Holds every column and every row of an output against its own bound.
#include "diagnose/wrong_part.h"

#include <algorithm>
#include <cmath>

namespace pb::diagnose {
namespace {

// Squared errors, norms and units of each column or row.
struct Sums {
  std::vector<double> error, norm, units;
  explicit Sums(size_t n) : error(n), norm(n), units(n) {}
};

std::vector<int64_t> Beyond(const Subject& s, const Sums& sums, double typical) {
  const compare::LocalBound own =
      s.units.empty() ? s.culprit->bound
                      : compare::BoundFromUnits(static_cast<pb_stage>(s.culprit->place.stage), s.units);
  const double relative = own.At(s.culprit->first_position + s.culprit->shape[0]);
  std::vector<int64_t> beyond;
  for (size_t i = 0; i < sums.error.size(); i++) {
    const double limit = s.units.empty() ? relative * relative * std::max(typical, sums.norm[i])
                                         : own.c * own.c * own.roundoff * own.roundoff * sums.units[i];
    if (!(sums.error[i] <= limit)) beyond.push_back(static_cast<int64_t>(i));
  }
  return beyond;
}

// How the features of a stage fall into heads, and what stands in a head's place.
AxisLayout LayoutOf(const Subject& s, int64_t n_features) {
  const HyperParameters& p = s.arbiter->model().params();
  const stages::Stage& stage = stages::Of(s.culprit->place.stage);
  const bool over_positions = stage.row.over_positions();
  // The outputs of a product are rows of its weight.
  const bool product = stages::kProducts.Contains(s.culprit->place.stage);
  const bool heads = over_positions || (!product && stage.row.heads() != stages::Dim::kOne);
  const int64_t block = over_positions ? n_features / std::max<int64_t>(p.n_heads, 1) : p.head_dim;
  AxisLayout layout;
  if (!heads || block <= 0 || n_features % block != 0) return layout;
  layout.block = block, layout.block_axis = Axis::kHeads;
  if (over_positions) layout.code_axis = Axis::kPositions;
  return layout;
}

std::vector<Mark> MarksOf(const std::vector<int64_t>& wrong, int64_t n) {
  std::vector<Mark> marks(static_cast<size_t>(n), Mark::kRight);
  for (int64_t i : wrong) marks[static_cast<size_t>(i)] = Mark::kWrong;
  return marks;
}

// Ops that nothing can be wrong with at position 0: it is not rotated, and a row that sees itself alone
// has the probability 1.
bool IsSilentAtFirst(int32_t stage) {
  return stages::kRotary.Contains(stage) || stage == PB_STAGE_ATTN_SCORES_SOFTMAX;
}

double ErrorAt(const Subject& s, size_t at) {
  return s.output[at] == s.declared[at] ? 0 : double(s.output[at]) - double(s.declared[at]);
}

// Of the token rows, in the wrong columns alone.
Sums RowsOf(const Subject& s, const WrongPart& part) {
  Sums rows(static_cast<size_t>(part.n_rows));
  for (size_t i = 0; i < rows.error.size(); i++)
    for (int64_t j : part.features) {
      const size_t at = i * static_cast<size_t>(part.n_features) + static_cast<size_t>(j);
      const double e = ErrorAt(s, at), unit = double(s.units[at]);
      rows.error[i] += e * e, rows.units[i] += unit * unit;
    }
  return rows;
}

}  // namespace

bool WrongPart::Holds(int64_t row, int64_t feature) const {
  return std::ranges::binary_search(rows, row) && std::ranges::binary_search(features, feature);
}

WrongPart FindWrongPart(const Subject& s) {
  WrongPart part;
  part.n_rows = s.culprit->shape[0];
  part.n_features = static_cast<int64_t>(s.output.size()) / part.n_rows;
  Sums columns(static_cast<size_t>(part.n_features)), rows(static_cast<size_t>(part.n_rows));
  double all = 0;
  for (size_t at = 0; at < s.output.size(); at++) {
    const size_t i = at / columns.error.size(), j = at % columns.error.size();
    const double y = s.declared[at], e = ErrorAt(s, at);
    const double unit = s.units.empty() ? 0 : double(s.units[at]), norm = std::isfinite(y) ? y * y : 0;
    columns.error[j] += e * e, columns.norm[j] += norm, columns.units[j] += unit * unit;
    rows.error[i] += e * e, rows.norm[i] += norm, rows.units[i] += unit * unit;
    all += norm;
  }
  part.features = Beyond(s, columns, all / static_cast<double>(part.n_features));
  // Where some columns are wrong, what rounding makes of the others hides no row's error.
  if (!s.units.empty() && !part.features.empty() && !part.all_features()) rows = RowsOf(s, part);
  part.rows = Beyond(s, rows, 0);
  const int64_t n = part.n_features;
  // Columns that happen to be near what they should be are no pattern: most being wrong, all are.
  if (2 * static_cast<int64_t>(part.features.size()) > n) {
    const auto order = FindRegion(MarksOf(part.features, n), LayoutOf(s, n));
    part.region = order.value_or(Region{Axis::kAll});
  } else {
    part.region = FindRegion(MarksOf(part.features, n), LayoutOf(s, n)).value_or(Region{});
  }
  if (part.n_rows > 1 && !part.rows.empty() && !part.all_rows())
    part.some_rows = FindRegion(MarksOf(part.rows, part.n_rows), {Axis::kRows}).value_or(Region{});
  const bool all_but_first = part.rows_are_last() && part.rows.front() == 1;
  const bool first_is_silent =
      all_but_first && s.culprit->first_position == 0 && IsSilentAtFirst(s.culprit->place.stage);
  if (part.region.axis == Axis::kAll && part.some_rows.axis == Axis::kRows && !first_is_silent)
    part.region = part.some_rows;
  return part;
}

Where WhereOfPart(int32_t stage, const WrongPart& part) {
  const Meaning whole = MeaningOf("", stage);
  if (whole.where != Where::kProduct || part.all_features() || part.features.empty()) return whole.where;
  const int64_t n = part.features.back() - part.features.front() + 1;
  const bool tail =
      part.features.back() == part.n_features - 1 && n == static_cast<int64_t>(part.features.size()) && n > 1;
  return tail || part.region.axis == Axis::kAll ? Where::kProduct : Where::kWeights;
}

std::vector<float> InRows(const Subject& s, const WrongPart& part, std::span<const float> values) {
  std::vector<float> out(s.declared.begin(), s.declared.end());
  for (int64_t i : part.rows) {
    const auto at = static_cast<ptrdiff_t>(i * part.n_features);
    std::copy_n(values.begin() + at, part.n_features, out.begin() + at);
  }
  return out;
}

std::vector<float> InPart(const Subject& s, const WrongPart& part, std::span<const float> values) {
  std::vector<float> out(s.declared.begin(), s.declared.end());
  for (int64_t i : part.rows)
    for (int64_t j : part.features) {
      const auto at = static_cast<size_t>(i * part.n_features + j);
      out[at] = values[at];
    }
  return out;
}

}  // namespace pb::diagnose

// Marks what differs in most rows, and looks for one region and one change that hold all of it.
#include "diagnose/code_part.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "diagnose/region.h"

namespace pb::diagnose {
namespace {

constexpr int kLeastValues = 4;        // that one change is told of
constexpr double kSameRatio = 2e-3;    // scales are kept in f16
constexpr double kLeastFactor = 1e-2;  // that differs from 1 by more than roundings of scales

// Of each member how many rows have another value there; a member is wrong where most have.
std::vector<Mark> MarksOf(const std::vector<int64_t>& n_differ, int64_t n_rows) {
  std::vector<Mark> marks;
  for (const int64_t n : n_differ)
    marks.push_back(2 * n > n_rows ? Mark::kWrong : n == 0 ? Mark::kRight : Mark::kOpen);
  return marks;
}

// The one value that all agree on.
class Common {
 public:
  void Add(double value, double tolerance) {
    ++n_;
    if (!value_) value_ = value;
    agrees_ &= std::fabs(value - *value_) <= tolerance;
  }
  std::optional<double> value() const { return agrees_ && n_ >= kLeastValues ? value_ : std::nullopt; }

 private:
  int64_t n_ = 0;
  bool agrees_ = true;
  std::optional<double> value_;
};

// The same places of every block. `marks`: of all columns.
std::vector<Mark> InEveryBlock(const std::vector<Mark>& marks, int64_t block) {
  std::vector<Mark> places(static_cast<size_t>(block), Mark::kOpen);
  for (size_t k = 0; k < marks.size(); k++) {
    Mark& place = places[k % static_cast<size_t>(block)];
    if (marks[k] == Mark::kOpen) continue;
    if (place != Mark::kOpen && place != marks[k]) return {};
    place = marks[k];
  }
  return places;
}

CodePart OfCodes(const host::Codes& wrong, const host::Codes& right) {
  std::vector<int64_t> n_differ(static_cast<size_t>(right.n_columns));
  Common offset;
  for (size_t at = 0; at < right.codes.size(); at++) {
    const int step = int{wrong.codes[at]} - int{right.codes[at]};
    if (step == 0) continue;
    ++n_differ[at % n_differ.size()];
    offset.Add(step, 0);
  }
  CodePart out;
  const std::vector<Mark> marks = MarksOf(n_differ, right.n_rows);
  auto part = FindRegion(marks, {Axis::kColumns, right.block, Axis::kBlocks, Axis::kCode});
  if (!part) {
    const std::vector<Mark> places = InEveryBlock(marks, right.block);
    if (!places.empty()) part = FindRegion(places, {Axis::kCode});
  }
  if (!part) return out;
  out.part = *part;
  if (const auto value = offset.value()) out.what = WhatKind::kOffset, out.value = *value;
  return out;
}

// Neighbouring blocks as the columns that they hold.
Region InColumns(const Region& part, int64_t block) {
  if (part.axis != Axis::kBlocks || part.every != 1) return part;
  return {Axis::kColumns, part.first * block, (part.last + 1) * block - 1, 1, part.of * block};
}

// Scales, or stored sums.
CodePart OfBlocks(const std::vector<float>& wrong, const std::vector<float>& right, int64_t n_rows,
                  int64_t block, bool sums) {
  std::vector<int64_t> n_differ(right.size() / static_cast<size_t>(n_rows));
  Common factor;
  bool absent = true;
  for (size_t at = 0; at < right.size(); at++) {
    if (wrong[at] == right[at]) continue;
    ++n_differ[at % n_differ.size()];
    absent &= wrong[at] == 0;
    if (right[at] != 0) factor.Add(double(wrong[at]) / double(right[at]), kSameRatio);
  }
  CodePart out;
  const std::vector<Mark> marks = MarksOf(n_differ, n_rows);
  const bool open = std::ranges::find(marks, Mark::kOpen) != marks.end();
  const auto part = open ? std::nullopt : FindRegion(marks, {Axis::kBlocks});
  if (part) out.part = InColumns(*part, block);
  if (absent) {
    out.what = WhatKind::kAbsent;
  } else if (const auto value = factor.value(); value && !sums && std::fabs(*value - 1) > kLeastFactor) {
    out.what = WhatKind::kFactor, out.value = *value;
  }
  return out;
}

}  // namespace

CodePart FindCodePart(const host::Codes& wrong, const host::Codes& right, Where where) {
  const bool comparable = wrong.block == right.block && wrong.codes.size() == right.codes.size() &&
                          wrong.scales.size() == right.scales.size() && right.n_rows > 0;
  if (!comparable) return {};
  if (where == Where::kCodes) return OfCodes(wrong, right);
  if (where == Where::kScales) return OfBlocks(wrong.scales, right.scales, right.n_rows, right.block, false);
  if (where == Where::kSums && !right.sums.empty() && wrong.sums.size() == right.sums.size())
    return OfBlocks(wrong.sums, right.sums, right.n_rows, right.block, true);
  return {};
}

}  // namespace pb::diagnose

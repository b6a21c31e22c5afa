// Marks what differs in most rows, and looks for one region and one change that hold all of it, or
// for another rule that gives every scale or sum.
#include "diagnose/code_part.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <vector>

#include "base/half.h"
#include "codes/act_scheme.h"
#include "diagnose/region.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kLeastValues = 4;    // that one change, or one rule, is told of
constexpr double kSameRatio = 2e-3;    // scales are kept in f16
constexpr double kLeastFactor = 2e-3;  // that differs from 1 by more than roundings of scales
constexpr double kHalfStep = 0x1p-10;  // of an f16, relative, and a little more
constexpr double kExact = 0x1p-21;     // relative: of float32 after a few roundings

bool Near(double a, double b, double relative) {
  return std::fabs(a - b) <= relative * std::max(std::fabs(a), std::fabs(b));
}

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
    ++n_, sum_ += value;
    if (!first_) first_ = value;
    agrees_ &= std::fabs(value - *first_) <= tolerance;
  }
  std::optional<double> value() const {
    if (!agrees_ || n_ < kLeastValues) return std::nullopt;
    return sum_ / static_cast<double>(n_);
  }

 private:
  int64_t n_ = 0;
  double sum_ = 0;
  bool agrees_ = true;
  std::optional<double> first_;
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

// Neighbouring blocks as the columns that they hold.
Region InColumns(const Region& part, int64_t block) {
  if (part.axis != Axis::kBlocks || part.every != 1) return part;
  return {Axis::kColumns, part.first * block, (part.last + 1) * block - 1, 1, part.of * block};
}

class Finder {
 public:
  Finder(const host::Codes& wrong, const host::Codes& right, std::span<const float> input, Where where)
      : wrong_(wrong), right_(right), input_(input), where_(where), n_blocks_(right.n_blocks()) {
    scheme_ = FindActScheme(right.scheme).value_or(ActScheme::kNone);
    for (int64_t i = 0; i < right.n_rows; i++)
      if (Differs(i)) rows_.push_back(i);
  }

  CodePart OfCodes() const {
    std::vector<int64_t> n_differ(static_cast<size_t>(right_.n_columns));
    Common offset;
    for (int64_t i : rows_)
      for (size_t k = 0; k < n_differ.size(); k++) {
        const size_t at = static_cast<size_t>(i) * n_differ.size() + k;
        const int step = int{wrong_.codes[at]} - int{right_.codes[at]};
        if (step == 0) continue;
        ++n_differ[k];
        offset.Add(step, 0);
      }
    if (const double most = Saturation(); most > 0) return {{Axis::kAll}, WhatKind::kSaturation, most};
    for (double (*cut)(double) :
         {+[](double x) { return std::trunc(x); }, +[](double x) { return std::floor(x); }})
      if (AreCut(cut)) return {{Axis::kAll}, WhatKind::kTruncation, 0};
    if (AreOfStoredScales()) return {{Axis::kAll}, WhatKind::kUnknown, 0};
    CodePart out;
    const std::vector<Mark> marks = MarksOf(n_differ, n_rows());
    auto part = FindRegion(marks, {Axis::kColumns, right_.block, Axis::kBlocks, Axis::kCode});
    if (!part) {
      const std::vector<Mark> places = InEveryBlock(marks, right_.block);
      if (!places.empty()) part = FindRegion(places, {Axis::kCode});
    }
    if (!part) return out;
    out.part = *part;
    if (const auto value = offset.value()) out.what = WhatKind::kOffset, out.value = *value;
    return out;
  }

  CodePart OfScales() const {
    CodePart out;
    const std::optional<double> factor = FactorOfScales();
    if (!factor && scheme_ != ActScheme::kNone) {
      if (AllScales(kExact, [](double d) { return TowardsZero(d); }))
        return {{Axis::kAll}, WhatKind::kTruncation, 0};
      if (AllScales(kExact, [](double d) { return d; })) return {{Axis::kAll}, WhatKind::kUnknown, 0};
      if (const auto places = PlacesOfLargest()) return {*places, WhatKind::kUnknown, 0};
    }
    out.part = OfBlocks(wrong_.scales, right_.scales);
    if (factor && std::fabs(*factor - 1) > kLeastFactor) out.what = WhatKind::kFactor, out.value = *factor;
    // Other scales here and there, of all blocks: by another rule, whichever it is.
    if (out.part.axis == Axis::kUnknown && EveryBlockDiffers(wrong_.scales, right_.scales))
      out.part = {Axis::kAll};
    return out;
  }

  CodePart OfSums() const {
    CodePart out;
    bool absent = true;
    for (size_t at = 0; at < right_.sums.size(); at++)
      absent &= wrong_.sums[at] == right_.sums[at] || wrong_.sums[at] == 0;
    if (absent) return {OfBlocks(wrong_.sums, right_.sums), WhatKind::kAbsent, 0};
    for (const int64_t by : {1, -1})
      if (AreShifted(by)) return {{Axis::kAll}, WhatKind::kOtherPart, 0};
    if (AreOfValues()) return {{Axis::kAll}, WhatKind::kUnknown, 0};
    if (const auto left_out = PlacesLeftOut()) return {*left_out, WhatKind::kAbsent, 0};
    // Some codes of each block may be what is wrong: of more than one block there is nothing to tell.
    const Region part = OfBlocks(wrong_.sums, right_.sums);
    if (part.axis != Axis::kAll) out.part = part;
    return out;
  }

 private:
  int64_t n_rows() const { return static_cast<int64_t>(rows_.size()); }
  size_t At(int64_t row, int64_t block) const { return static_cast<size_t>(row * n_blocks_ + block); }
  std::span<const float> Block(int64_t row, int64_t block) const {
    const int64_t begin = block * right_.block, n = std::min(right_.block, right_.n_columns - begin);
    return input_.subspan(static_cast<size_t>(row * right_.n_columns + begin), static_cast<size_t>(n));
  }
  int64_t n_values() const { return n_rows() * n_blocks_; }

  bool Differs(int64_t row) const {
    const auto part = [&](const auto& all, int64_t width) {
      return std::span(all).subspan(static_cast<size_t>(row * width), static_cast<size_t>(width));
    };
    if (where_ == Where::kCodes)
      return !std::ranges::equal(part(wrong_.codes, right_.n_columns), part(right_.codes, right_.n_columns));
    const bool sums = where_ == Where::kSums;
    return !std::ranges::equal(part(sums ? wrong_.sums : wrong_.scales, n_blocks_),
                               part(sums ? right_.sums : right_.scales, n_blocks_));
  }

  // The magnitude at which all codes end that are wrong, several of different ones; 0: there is none.
  double Saturation() const {
    int most = 0, n_at_most = 0, furthest = 0;
    for (int64_t i : rows_)
      for (int64_t k = 0; k < right_.n_columns; k++)
        most = std::max(most, std::abs(int{wrong_.codes[static_cast<size_t>(i * right_.n_columns + k)]}));
    for (int64_t i : rows_)
      for (int64_t k = 0; k < right_.n_columns; k++) {
        const auto at = static_cast<size_t>(i * right_.n_columns + k);
        const int w = wrong_.codes[at], r = right_.codes[at];
        if (w == r) continue;
        if (std::abs(w) != most || std::abs(r) <= most || (w < 0) != (r < 0)) return 0;
        ++n_at_most, furthest = std::max(furthest, std::abs(r) - most);
      }
    return n_at_most >= kLeastValues && furthest > 1 ? most : 0;
  }
  // Whether all codes are what the scale as it is stored, rounded itself, makes of the input.
  bool AreOfStoredScales() const {
    if (scheme_ != ActScheme::kQ8_0 && scheme_ != ActScheme::kQ8_1) return false;
    for (int64_t i : rows_)
      for (int64_t b = 0; b < n_blocks_; b++) {
        const std::span<const float> x = Block(i, b);
        const double scale = right_.scales[At(i, b)];
        if (wrong_.scales[At(i, b)] != right_.scales[At(i, b)]) return false;
        for (size_t k = 0; k < x.size() && scale != 0; k++) {
          const double code = wrong_.codes[static_cast<size_t>(i * right_.n_columns + b * right_.block) + k];
          const double scaled = std::clamp(double(x[k]) / scale, -127.0, 127.0);
          if (std::fabs(scaled - code) > 0.5 + 1e-5 * std::fabs(scaled)) return false;
        }
      }
    return true;
  }
  // Whether all codes are cut so from what the block's own scale makes of the input.
  bool AreCut(double (*cut)(double)) const {
    if (scheme_ == ActScheme::kNone) return false;
    for (int64_t i : rows_)
      for (int64_t b = 0; b < n_blocks_; b++) {
        const std::span<const float> x = Block(i, b);
        const float to_code = codes::ActBlockOf(x, scheme_).to_code;
        for (size_t k = 0; k < x.size(); k++) {
          const double scaled = double(x[k] * to_code),
                       code = wrong_.codes[static_cast<size_t>(i * right_.n_columns + b * right_.block) + k];
          // Near a whole number it may go either way.
          const double near = std::nearbyint(scaled);
          const bool either = std::fabs(scaled - near) <= 1e-5 * std::max(std::fabs(scaled), 1.0);
          if (cut(scaled) != code && !(either && std::fabs(code - near) <= 1)) return false;
        }
      }
    return true;
  }

  // Scales, or stored sums, that are wrong in the same blocks of most rows.
  Region OfBlocks(const std::vector<float>& wrong, const std::vector<float>& right) const {
    std::vector<int64_t> n_differ(static_cast<size_t>(n_blocks_));
    for (int64_t i : rows_)
      for (int64_t b = 0; b < n_blocks_; b++)
        n_differ[static_cast<size_t>(b)] += wrong[At(i, b)] != right[At(i, b)];
    const std::vector<Mark> marks = MarksOf(n_differ, n_rows());
    if (std::ranges::find(marks, Mark::kOpen) != marks.end()) return {};
    const auto part = FindRegion(marks, {Axis::kBlocks});
    return part ? InColumns(*part, right_.block) : Region{};
  }
  bool EveryBlockDiffers(const std::vector<float>& wrong, const std::vector<float>& right) const {
    for (int64_t b = 0; b < n_blocks_; b++)
      if (std::ranges::none_of(rows_, [&](int64_t i) { return wrong[At(i, b)] != right[At(i, b)]; }))
        return false;
    return true;
  }

  std::optional<double> FactorOfScales() const {
    Common factor;
    for (int64_t i : rows_)
      for (int64_t b = 0; b < n_blocks_; b++) {
        const double w = wrong_.scales[At(i, b)], r = right_.scales[At(i, b)];
        if (w != r && r != 0) factor.Add(w / r, kSameRatio * std::max(std::fabs(w / r), 1.0));
      }
    const auto value = factor.value();
    // Two roundings of one scale are no factor.
    return value && std::fabs(*value - 1) > kLeastFactor ? value : std::nullopt;
  }

  static double TowardsZero(double d) {
    const auto near = F32ToF16(static_cast<float>(d));
    return F16ToF32(std::fabs(F16ToF32(near)) <= std::fabs(d) ? near : static_cast<uint16_t>(near - 1));
  }
  // Whether every scale is this of the exact one, which is kept in f16.
  bool AllScales(double tolerance, const std::function<double(double)>& of) const {
    if ((scheme_ != ActScheme::kQ8_0 && scheme_ != ActScheme::kQ8_1) || n_values() < kLeastValues)
      return false;
    for (int64_t i : rows_)
      for (int64_t b = 0; b < n_blocks_; b++) {
        const double exact = codes::ActBlockOf(Block(i, b), scheme_).sum_scale;
        if (!Near(wrong_.scales[At(i, b)], of(exact), tolerance)) return false;
      }
    return true;
  }

  // What the scale of a block would be, were this its largest value.
  double ScaleBy(float x) const {
    if (scheme_ == ActScheme::kQ8_K) return -double(x) / 127;
    return double(std::fabs(x)) / 127;
  }
  // The places of each block that the largest value is taken of, where each scale is that of a value
  // of its block, and two at least of another than the largest; all, where these may be several runs of
  // places.
  std::optional<Region> PlacesOfLargest() const {
    const bool f16 = scheme_ == ActScheme::kQ8_0 || scheme_ == ActScheme::kQ8_1;
    const double tolerance = f16 ? kHalfStep : kExact;
    std::vector<Mark> places(static_cast<size_t>(right_.block), Mark::kOpen);
    int64_t n_other = 0;
    for (int64_t i : rows_)
      for (int64_t b = 0; b < n_blocks_; b++) {
        const std::span<const float> x = Block(i, b);
        const double scale = wrong_.scales[At(i, b)];
        int64_t at = -1, n_alike = 0;
        for (size_t k = 0; k < x.size(); k++) {
          if (Near(ScaleBy(x[k]), scale, tolerance)) {
            at = static_cast<int64_t>(k), ++n_alike;
          } else if (std::fabs(ScaleBy(x[k])) > std::fabs(scale)) {
            // Beyond the largest that is taken: these places are not.
            if (places[k] == Mark::kWrong) return std::nullopt;
            places[k] = Mark::kRight;
          }
        }
        if (n_alike == 0 && scale != 0) return std::nullopt;
        n_other += !Near(scale, right_.scales[At(i, b)], 2 * tolerance);
        if (n_alike != 1) continue;
        if (places[static_cast<size_t>(at)] == Mark::kRight) return std::nullopt;
        places[static_cast<size_t>(at)] = Mark::kWrong;
      }
    if (n_other < 2) return std::nullopt;
    return OnlyRun(places).value_or(Region{Axis::kAll});
  }
  // The run of all places that are wrong, where those beside it are right.
  std::optional<Region> OnlyRun(const std::vector<Mark>& places) const {
    const auto first = std::ranges::find(places, Mark::kWrong);
    auto end = places.end();
    while (end != first && *(end - 1) != Mark::kWrong) --end;
    if (first == places.end() || std::find(first, end, Mark::kRight) != end) return std::nullopt;
    const bool known = (first == places.begin() || *(first - 1) == Mark::kRight) &&
                       (end == places.end() || *end == Mark::kRight);
    if (!known) return std::nullopt;
    return Region{Axis::kCode, first - places.begin(), end - places.begin() - 1, 1, right_.block};
  }

  // Of a block's own codes without the places first to last.
  double SumWithout(int64_t row, int64_t block, int64_t first, int64_t last) const {
    const size_t begin = static_cast<size_t>(row * right_.n_columns + block * right_.block);
    int sum = 0;
    for (int64_t k = 0; k < right_.block; k++)
      if (k < first || k > last) sum += wrong_.codes[begin + static_cast<size_t>(k)];
    return codes::StoredSum(codes::ActBlockOf(Block(row, block), scheme_), sum);
  }
  bool AllSums(const std::function<double(int64_t, int64_t)>& of, double relative) const {
    if (scheme_ != ActScheme::kQ8_1 || n_values() < kLeastValues) return false;
    for (int64_t i : rows_)
      for (int64_t b = 0; b < n_blocks_; b++) {
        const double scale = right_.scales[At(i, b)];
        if (std::fabs(wrong_.sums[At(i, b)] - of(i, b)) > relative * std::fabs(of(i, b)) + 1e-3 * scale)
          return false;
      }
    return true;
  }
  bool AreShifted(int64_t by) const {
    if (n_blocks_ < 2) return false;
    for (int64_t i : rows_)
      for (int64_t b = 0; b < n_blocks_; b++) {
        const int64_t from = b - by;
        // What comes in at the end is another engine's own.
        if (from >= 0 && from < n_blocks_ &&
            !Near(wrong_.sums[At(i, b)], right_.sums[At(i, from)], kHalfStep))
          return false;
      }
    return true;
  }
  bool AreOfValues() const {
    return AllSums(
        [&](int64_t i, int64_t b) {
          double sum = 0;
          for (float x : Block(i, b)) sum += double(x);
          return sum;
        },
        kHalfStep);
  }
  // The one run of places without which all sums are as they are stored.
  std::optional<Region> PlacesLeftOut() const {
    std::optional<Region> found;
    for (int64_t first = 0; first < right_.block; first++)
      for (int64_t last = first; last < right_.block; last++) {
        if (last - first + 1 == right_.block) continue;
        if (!AllSums([&](int64_t i, int64_t b) { return SumWithout(i, b, first, last); }, kHalfStep))
          continue;
        if (found) return std::nullopt;
        found = Region{Axis::kCode, first, last, 1, right_.block};
      }
    return found;
  }

  const host::Codes &wrong_, &right_;
  std::span<const float> input_;
  Where where_;
  int64_t n_blocks_;
  ActScheme scheme_;
  std::vector<int64_t> rows_;
};

}  // namespace

CodePart FindCodePart(const host::Codes& wrong, const host::Codes& right, std::span<const float> input,
                      Where where) {
  const bool comparable = wrong.block == right.block && wrong.codes.size() == right.codes.size() &&
                          wrong.scales.size() == right.scales.size() && right.n_rows > 0 &&
                          input.size() == right.codes.size();
  if (!comparable) return {};
  const Finder finder(wrong, right, input, where);
  if (where == Where::kCodes) return finder.OfCodes();
  if (where == Where::kScales) return finder.OfScales();
  if (where == Where::kSums && !right.sums.empty() && wrong.sums.size() == right.sums.size())
    return finder.OfSums();
  return {};
}

}  // namespace pb::diagnose

// Finds the region of an axis that is wrong, and words it.
#include "diagnose/region.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace pb::diagnose {
namespace {

// A share of all members from which on, none being right, all are said to be wrong.
constexpr double kAllShare = 0.5;
// Open members at an end of the axis, or of a block, that count as wrong, for each wrong one.
constexpr int64_t kOpenForWrong = 3;
// Wrong members that an order of every nth has at least.
constexpr int64_t kLeastOfOrder = 3;

int64_t Count(std::span<const Mark> marks, Mark mark) { return std::ranges::count(marks, mark); }

// The range of wrong members with the open ones towards an end of the axis, or of a block.
Region Range(std::span<const Mark> marks, const AxisLayout& layout, int64_t first, int64_t last) {
  const auto n = static_cast<int64_t>(marks.size());
  auto open = [&](int64_t begin, int64_t end) {
    return Count(marks.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)), Mark::kOpen) ==
           end - begin;
  };
  const int64_t n_wrong = Count(marks, Mark::kWrong);
  if (open(last + 1, n) && n - 1 - last <= kOpenForWrong * n_wrong) last = n - 1;
  const int64_t block = layout.block;
  if (block > 1 && n > block && last < n - 1) {
    const int64_t begin = first / block * block, end = std::min((last / block + 1) * block, n);
    const bool enough = end - begin - (last - first + 1) <= kOpenForWrong * n_wrong;
    if (enough && open(begin, first) && open(last + 1, end) && layout.block_axis != Axis::kUnknown)
      return {layout.block_axis, begin / block, end / block - 1, 1, (n + block - 1) / block};
  }
  if (layout.block_axis == Axis::kHeads && block > 1 && last == n - 1 && first % block == 0)
    return {layout.block_axis, first / block, n / block - 1, 1, n / block};
  return {layout.axis, first, last, 1, n};
}

// Whether exactly the places first to last of each run of `period` are wrong.
bool Repeats(std::span<const Mark> marks, int64_t period, int64_t* first, int64_t* last) {
  std::vector<Mark> places(static_cast<size_t>(period), Mark::kOpen);
  for (size_t i = 0; i < marks.size(); i++) {
    Mark& place = places[i % static_cast<size_t>(period)];
    if (marks[i] == Mark::kOpen || marks[i] == place) continue;
    if (place != Mark::kOpen) return false;
    place = marks[i];
  }
  const auto wrong = [](Mark m) { return m == Mark::kWrong; };
  const auto from = std::ranges::find_if(places, wrong);
  auto to = places.end();
  while (to != from && !wrong(*(to - 1))) --to;
  if (from == places.end() || std::find(from, to, Mark::kRight) != to) return false;
  *first = from - places.begin(), *last = to - places.begin() - 1;
  return *last - *first + 1 < period;
}

std::optional<Region> Order(std::span<const Mark> marks, const AxisLayout& layout) {
  const auto n = static_cast<int64_t>(marks.size());
  if (Count(marks, Mark::kWrong) < kLeastOfOrder) return std::nullopt;
  int64_t first = 0, last = 0;
  for (int64_t period = 2; 2 * period <= n; period++) {
    const bool is_block = period == layout.block && layout.code_axis != Axis::kUnknown;
    const bool tried = period <= 64 || (period & (period - 1)) == 0 || period == layout.block;
    if (!tried || !Repeats(marks, period, &first, &last)) continue;
    if (is_block) return Region{layout.code_axis, first, last, 1, period};
    if (first == last)
      return Region{layout.axis, first, first + (n - 1 - first) / period * period, period, n};
  }
  return std::nullopt;
}

struct Noun {
  const char *one, *many, *tail;
};
Noun NounOf(Axis axis) {
  switch (axis) {
    case Axis::kColumns:
      return {"column", "columns", " of K"};
    case Axis::kBlocks:
      return {"block", "blocks", " of its input"};
    case Axis::kCode:
      return {"code", "codes", ""};
    case Axis::kHeads:
      return {"head", "heads", ""};
    case Axis::kRows:
      return {"token row", "token rows", ""};
    case Axis::kPositions:
      return {"position", "positions", " of the keys"};
    default:
      return {"feature", "features", ""};
  }
}

std::string Ordinal(int64_t n) {
  if (n == 2) return "second";
  if (n == 3) return "third";
  return fmt::format("{}th", n);
}

}  // namespace

std::optional<Region> FindRegion(std::span<const Mark> marks, const AxisLayout& layout) {
  const auto n = static_cast<int64_t>(marks.size());
  const int64_t n_wrong = Count(marks, Mark::kWrong), n_right = Count(marks, Mark::kRight);
  if (n_wrong == 0) return std::nullopt;
  if (n_right == 0 && static_cast<double>(n_wrong) >= kAllShare * static_cast<double>(n))
    return Region{Axis::kAll, 0, 0, 1, 0};
  const auto begin = std::ranges::find(marks, Mark::kWrong);
  auto end = marks.end();
  while (*(end - 1) != Mark::kWrong) --end;
  if (std::find(begin, end, Mark::kRight) == end)
    return Range(marks, layout, begin - marks.begin(), end - marks.begin() - 1);
  return Order(marks, layout);
}

bool Holds(const Region& part, int64_t at) {
  if (part.axis == Axis::kAll) return true;
  return part.axis != Axis::kUnknown && at >= part.first && at <= part.last &&
         (at - part.first) % part.every == 0;
}

std::string RegionWords(const Region& part) {
  const Noun noun = NounOf(part.axis);
  const std::string of = part.of > 0 ? fmt::format(" of {}", part.of) : "";
  const int64_t n = part.last - part.first + 1;
  switch (part.axis) {
    case Axis::kUnknown:
    case Axis::kAll:
      return "all values";
    case Axis::kCode:
      return part.first == part.last
                 ? fmt::format("code {} of each block{}", part.first, of)
                 : fmt::format("codes {} to {} of each block{}", part.first, part.last, of);
    default:
      break;
  }
  if (part.every > 1)
    return fmt::format("every {} of {} {}{} (from {} on)", Ordinal(part.every), part.of, noun.many, noun.tail,
                       part.first);
  if (n == 1 && part.last + 1 == part.of)
    return fmt::format("the last of {} {}{}", part.of, noun.many, noun.tail);
  if (n == 1) return fmt::format("{} {}{}{}", noun.one, part.first, of, noun.tail);
  if (part.of > 0 && part.last + 1 == part.of)
    return fmt::format("the last {}{} {}{}", n, of, noun.many, noun.tail);
  return fmt::format("{} {} to {}{}{}", noun.many, part.first, part.last, of, noun.tail);
}

}  // namespace pb::diagnose

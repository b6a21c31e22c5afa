// Separates wrong passes from right ones by their size, their positions and their threads.
#include "diagnose/when.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <set>

namespace pb::diagnose {
namespace {

// Sizes at which engines change their code. Of several between the largest right and the smallest
// wrong pass none is told.
constexpr int64_t kSteps[] = {2, 4, 8, 16, 32, 64, 128, 256, 512};

// Different sizes of several tokens that must all be wrong before a mistake is made always: even and
// odd ones, and multiples of the sizes above, are among them then.
constexpr size_t kEnoughSizes = 5;

// The one value of the list in (above, up_to]; 0: there are several, or none. Of neighbours it is
// known.
int64_t OneStep(int64_t above, int64_t up_to) {
  if (above + 1 == up_to) return up_to;
  int64_t found = 0;
  for (int64_t step : kSteps) {
    if (step <= above || step > up_to) continue;
    if (found > 0) return 0;
    found = step;
  }
  return found;
}

// Rows in which a mistake may not show, beside the position from which on it is made.
constexpr int64_t kNearPosition = 4;

struct Seen {
  int64_t least[2] = {LLONG_MAX, LLONG_MAX}, most[2] = {0, 0};  // tokens: of right, of wrong passes
  int64_t n_several[2] = {0, 0}, n_single[2] = {0, 0};
  int64_t least_threads[2] = {LLONG_MAX, LLONG_MAX}, most_threads[2] = {0, 0};
  std::set<int64_t> sizes[2];  // of passes of several tokens

  explicit Seen(std::span<const SeenPass> passes) {
    for (const SeenPass& p : passes) {
      const int w = p.wrong;
      ++(p.n_tokens > 1 ? n_several : n_single)[w];
      if (p.n_tokens > 1) sizes[w].insert(p.n_tokens);
      least[w] = std::min(least[w], p.n_tokens), most[w] = std::max(most[w], p.n_tokens);
      least_threads[w] = std::min(least_threads[w], p.threads);
      most_threads[w] = std::max(most_threads[w], p.threads);
    }
  }
  int64_t n(int w) const { return n_several[w] + n_single[w]; }
};

// Powers of two of which the right passes of more tokens are multiples and the wrong ones are not.
std::vector<int64_t> DivisorsOf(std::span<const SeenPass> passes) {
  std::vector<int64_t> found;
  for (int64_t n : {2, 4, 8, 16, 32}) {
    bool holds = true, both[2] = {false, false};
    for (const SeenPass& p : passes) {
      if (p.n_tokens <= n) continue;
      holds &= (p.n_tokens % n != 0) == p.wrong, both[p.wrong] = true;
    }
    if (holds && both[0] && both[1]) found.push_back(n);
  }
  return found;
}

int64_t LeastRightOfSeveral(std::span<const SeenPass> passes) {
  int64_t least = LLONG_MAX;
  for (const SeenPass& p : passes)
    if (!p.wrong && p.n_tokens > 1) least = std::min(least, p.n_tokens);
  return least;
}

// By the number of tokens alone.
When WhenOfSize(std::span<const SeenPass> passes, const Seen& s) {
  if (s.least[1] > s.most[0]) {
    const int64_t n = OneStep(s.most[0], s.least[1]);
    return n == 2 ? When{WhenKind::kPrefill} : n > 0 ? When{WhenKind::kFromBatch, n} : When{};
  }
  const int64_t least_right = LeastRightOfSeveral(passes);
  if (least_right < LLONG_MAX && s.most[1] < least_right && (s.n_several[1] > 0 || s.n_single[0] == 0)) {
    const int64_t n = OneStep(s.most[1], least_right);
    return n == 2 ? When{WhenKind::kDecode} : n > 0 ? When{WhenKind::kUpToBatch, n - 1} : When{};
  }
  const std::vector<int64_t> divisors = DivisorsOf(passes);
  return divisors.size() == 1 ? When{WhenKind::kOddBatch, divisors.front()} : When{};
}

// The position at which the first wrong pass begins to be, where the right pass before it is its
// neighbour and of its kind, of one token or of several: of two kinds it may be the kind. -1: none.
int64_t PositionBetween(std::span<const SeenPass> passes) {
  const SeenPass* wrong = nullptr;
  int64_t right_end[2] = {0, 0};
  for (const SeenPass& p : passes) {
    if (!p.wrong) right_end[p.n_tokens > 1] = std::max(right_end[p.n_tokens > 1], p.end());
    if (p.wrong && (!wrong || p.end() < wrong->end())) wrong = &p;
  }
  const int64_t end = std::max(right_end[0], right_end[1]);
  const bool neighbours = wrong && end + 1 == wrong->end() && right_end[wrong->n_tokens > 1] == end;
  return neighbours ? end : -1;
}

}  // namespace

void AddSeen(const compare::PointRow& row, bool further, std::vector<SeenPass>* passes) {
  if (!further || passes->empty()) passes->push_back({0, row.first_position});
  SeenPass& pass = passes->back();
  const int64_t first = row.first_row_above;
  if (pass.wrong && !row.is_defect()) pass.mixed = true;
  if (!pass.wrong && row.is_defect()) {
    pass.wrong = true, pass.first_wrong = first;
    if (first > pass.first_position) pass.last_right = first - 1;
  }
  pass.n_tokens += row.n_rows;
}

int64_t FirstWrongPosition(std::span<const SeenPass> passes) {
  int64_t from = LLONG_MAX;
  for (const SeenPass& p : passes)
    if (p.wrong) from = std::min(from, p.first_wrong);
  const auto agrees = [&](const SeenPass& p) {
    return p.wrong ? !p.mixed && p.last_right < from : p.end() <= from;
  };
  // Of several texts one may tell the last that is right, and another the first that is wrong.
  int64_t last_right = -1;
  for (const SeenPass& p : passes)
    if (p.wrong) last_right = std::max(last_right, p.last_right);
  return last_right == from - 1 && from > 1 && std::ranges::all_of(passes, agrees) ? from : -1;
}

std::optional<int64_t> NextSize(std::span<const SeenPass> passes) {
  const Seen s(passes);
  if (s.n(0) == 0 || s.n(1) == 0 || FirstWrongPosition(passes) >= 0) return std::nullopt;
  const auto between = [](int64_t below, int64_t above) -> std::optional<int64_t> {
    return above - below > 1 ? std::optional((below + above) / 2) : std::nullopt;
  };
  if (s.least[1] > s.most[0]) return between(s.most[0], s.least[1]);
  const int64_t least_right = LeastRightOfSeveral(passes);
  if (least_right < LLONG_MAX && s.most[1] < least_right) return between(s.most[1], least_right);
  const std::vector<int64_t> divisors = DivisorsOf(passes);
  // A multiple of the least that is none of the others.
  return divisors.size() > 1 ? std::optional(3 * divisors.front()) : std::nullopt;
}

When WhenOf(std::span<const SeenPass> passes, bool positions) {
  const Seen s(passes);
  if (s.n(1) == 0) return {};
  if (std::ranges::any_of(passes, &SeenPass::differs)) return {WhenKind::kNotRepeatable};
  const int64_t from = FirstWrongPosition(passes);
  const bool told = std::ranges::any_of(passes, [&](const SeenPass& p) {
    return p.other_tokens && p.wrong && p.first_wrong <= from + kNearPosition &&
           p.last_right + kNearPosition >= from - 1;
  });
  if (from >= 0 && (positions || told)) return {WhenKind::kFromPosition, from};
  if (s.n(0) == 0)
    return {s.n_single[1] > 0 && s.sizes[1].size() >= kEnoughSizes ? WhenKind::kAlways : WhenKind::kUnknown};
  if (s.most_threads[0] < s.least_threads[1]) return {WhenKind::kThreads, s.least_threads[1]};
  const When by_size = WhenOfSize(passes, s);
  const int64_t between = by_size.kind == WhenKind::kUnknown ? PositionBetween(passes) : -1;
  return between >= 0 ? When{WhenKind::kFromPosition, between} : by_size;
}

std::string WhenWords(const When& when) {
  switch (when.kind) {
    case WhenKind::kPrefill:
      return "in passes of several tokens only";
    case WhenKind::kDecode:
      return "in decode only";
    case WhenKind::kFromBatch:
      return fmt::format("with {} tokens at once and more only", when.n);
    case WhenKind::kUpToBatch:
      return fmt::format("with up to {} tokens at once only", when.n);
    case WhenKind::kOddBatch:
      return fmt::format("only where the tokens at once are no multiple of {}", when.n);
    case WhenKind::kFromPosition:
      return fmt::format("from position {} on", when.n);
    case WhenKind::kThreads:
      return fmt::format("with {} threads and more only", when.n);
    case WhenKind::kNotRepeatable:
      return "not the same twice";
    default:
      return "";
  }
}

}  // namespace pb::diagnose

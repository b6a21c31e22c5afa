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

struct Seen {
  int64_t least[2] = {LLONG_MAX, LLONG_MAX}, most[2] = {0, 0};  // tokens: of right, of wrong passes
  int64_t n_several[2] = {0, 0}, n_single[2] = {0, 0};
  int64_t least_threads[2] = {LLONG_MAX, LLONG_MAX}, most_threads[2] = {0, 0};
  int64_t right_end = 0, least_wrong_end = LLONG_MAX;  // of positions
  std::set<int64_t> sizes[2];                          // of passes of several tokens

  explicit Seen(std::span<const SeenPass> passes) {
    for (const SeenPass& p : passes) {
      const int w = p.wrong;
      ++(p.n_tokens > 1 ? n_several : n_single)[w];
      if (p.n_tokens > 1) sizes[w].insert(p.n_tokens);
      least[w] = std::min(least[w], p.n_tokens), most[w] = std::max(most[w], p.n_tokens);
      least_threads[w] = std::min(least_threads[w], p.threads);
      most_threads[w] = std::max(most_threads[w], p.threads);
      if (w) {
        least_wrong_end = std::min(least_wrong_end, p.end());
      } else {
        right_end = std::max(right_end, p.end());
      }
    }
  }
  int64_t n(int w) const { return n_several[w] + n_single[w]; }
};

// The position from which on rows are wrong, where every pass says so; -1: there is none.
int64_t FirstPosition(std::span<const SeenPass> passes) {
  int64_t from = LLONG_MAX;
  for (const SeenPass& p : passes)
    if (p.wrong) from = std::min(from, p.first_wrong);
  const auto agrees = [&](const SeenPass& p) {
    return p.wrong ? p.first_wrong == std::max(from, p.first_position) : p.end() <= from;
  };
  const bool within = std::ranges::any_of(
      passes, [&](const SeenPass& p) { return p.wrong && p.first_position < from && p.first_wrong == from; });
  return within && from > 1 && std::ranges::all_of(passes, agrees) ? from : -1;
}

// The one n, a power of two, of which the right passes of more tokens are multiples and the wrong
// ones are not; 0: there is none, or there are several.
int64_t OddOf(std::span<const SeenPass> passes) {
  int64_t found = 0;
  for (int64_t n : {2, 4, 8, 16, 32}) {
    bool holds = true, both[2] = {false, false};
    for (const SeenPass& p : passes) {
      if (p.n_tokens <= n) continue;
      holds &= (p.n_tokens % n != 0) == p.wrong, both[p.wrong] = true;
    }
    if (!holds || !both[0] || !both[1]) continue;
    if (found > 0) return 0;
    found = n;
  }
  return found;
}

}  // namespace

SeenPass SeenAs(const compare::PointRow& row) {
  return {row.n_rows, row.first_position, row.is_defect(), row.first_row_above, 1};
}

When WhenOf(std::span<const SeenPass> passes, bool positions) {
  const Seen s(passes);
  if (s.n(1) == 0) return {};
  if (positions)
    if (const int64_t from = FirstPosition(passes); from >= 0) return {WhenKind::kFromPosition, from};
  if (s.n(0) == 0)
    return {s.n_single[1] > 0 && s.sizes[1].size() >= kEnoughSizes ? WhenKind::kAlways : WhenKind::kUnknown};
  if (s.most_threads[0] < s.least_threads[1]) return {WhenKind::kThreads, s.least_threads[1]};
  if (s.n_single[1] == 0 && s.n_several[0] == 0) return {WhenKind::kPrefill};
  if (s.n_several[1] == 0 && s.n_single[0] == 0) return {WhenKind::kDecode};
  if (s.least[1] > s.most[0]) {
    const int64_t n = OneStep(s.most[0], s.least[1]);
    return n > 0 ? When{WhenKind::kFromBatch, n} : When{};
  }
  int64_t least_right_of_several = LLONG_MAX;
  for (const SeenPass& p : passes)
    if (!p.wrong && p.n_tokens > 1) least_right_of_several = std::min(least_right_of_several, p.n_tokens);
  if (s.n_several[1] > 0 && s.most[1] < least_right_of_several && least_right_of_several < LLONG_MAX) {
    const int64_t step = OneStep(s.most[1], least_right_of_several);
    return step > 0 ? When{WhenKind::kUpToBatch, step - 1} : When{};
  }
  if (const int64_t n = OddOf(passes); n > 0) return {WhenKind::kOddBatch, n};
  if (s.right_end + 1 == s.least_wrong_end) return {WhenKind::kFromPosition, s.right_end};
  return {};
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

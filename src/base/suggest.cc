// Finds the nearest name by the number of slips that lie between.
#include "base/suggest.h"

#include <fmt/core.h>

#include <algorithm>

namespace pb {
namespace {

// Letters that were typed, left out, doubled or exchanged with their neighbour to make one word of
// the other (optimal string alignment).
size_t Edits(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> n(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) n[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) n[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      n[i][j] =
          std::min({n[i - 1][j] + 1, n[i][j - 1] + 1, n[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        n[i][j] = std::min(n[i][j], n[i - 2][j - 2] + 1);
    }
  }
  return n[a.size()][b.size()];
}

}  // namespace

std::string DidYouMean(std::string_view typed, const std::vector<std::string>& known) {
  // A slip of the fingers is one or two letters, in a long word three.
  constexpr size_t kLongest = 64;
  if (typed.size() > kLongest) return "";
  const size_t most = std::clamp<size_t>(typed.size() / 4, 1, 3);
  const std::string* best = nullptr;
  size_t least = most + 1;
  for (const std::string& name : known) {
    const size_t n = Edits(typed, name);
    if (n >= least) continue;
    best = &name;
    least = n;
  }
  return best ? fmt::format(", did you mean {}?", *best) : "";
}

}  // namespace pb

// Delta debugging: halves, then quarters, down to single elements.
#include "inject/minimise.h"

#include <algorithm>

namespace pb::inject {
namespace {

// n parts of nearly equal length, in order.
std::vector<Subset> Split(const Subset& whole, size_t n) {
  std::vector<Subset> parts(n);
  for (size_t i = 0; i < n; i++)
    parts[i].assign(whole.begin() + static_cast<ptrdiff_t>(whole.size() * i / n),
                    whole.begin() + static_cast<ptrdiff_t>(whole.size() * (i + 1) / n));
  return parts;
}

Subset Without(const Subset& whole, const Subset& part) {
  Subset rest;
  std::set_difference(whole.begin(), whole.end(), part.begin(), part.end(), std::back_inserter(rest));
  return rest;
}

}  // namespace

Result<Subset> Minimise(Subset whole, const SubsetTest& test) {
  for (size_t n = 2; whole.size() >= 2;) {
    const std::vector<Subset> parts = Split(whole, n);
    bool smaller = false;
    for (size_t i = 0; i < n && !smaller; i++) {
      PB_ASSIGN(smaller, test(parts[i]));
      if (smaller) whole = parts[i], n = 2;
    }
    // of two parts the one is the other's complement
    for (size_t i = 0; n > 2 && i < n && !smaller; i++) {
      Subset rest = Without(whole, parts[i]);
      PB_ASSIGN(smaller, test(rest));
      if (smaller) whole = std::move(rest), n = std::max<size_t>(n - 1, 2);
    }
    if (smaller) continue;
    if (n >= whole.size()) break;
    n = std::min(2 * n, whole.size());
  }
  return whole;
}

}  // namespace pb::inject

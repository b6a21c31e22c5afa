// Counts pairs: unions of top k are small, so every pair is looked at.
#include "parity/kendall.h"

#include <algorithm>
#include <cmath>

#include "compare/logits.h"

namespace pb::parity {
namespace {

// -1, 0, 1: how a stands to b.
int Sign(double a, double b, double tie) {
  if (std::abs(a - b) <= tie) return 0;
  return a > b ? 1 : -1;
}

}  // namespace

std::optional<double> KendallTauB(std::span<const double> x, std::span<const double> y, double tie) {
  const auto finite = [](std::span<const double> v) {
    return std::all_of(v.begin(), v.end(), [](double value) { return std::isfinite(value); });
  };
  if (x.size() != y.size() || x.size() < 2 || !finite(x) || !finite(y)) return std::nullopt;
  int64_t difference = 0, n_x = 0, n_y = 0;  // C - D; pairs that are untied in x, in y
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = i + 1; j < x.size(); ++j) {
      const int in_x = Sign(x[i], x[j], tie), in_y = Sign(y[i], y[j], tie);
      difference += in_x * in_y;
      n_x += in_x != 0, n_y += in_y != 0;
    }
  }
  if (n_x == 0 || n_y == 0) return std::nullopt;
  return static_cast<double>(difference) / std::sqrt(static_cast<double>(n_x) * static_cast<double>(n_y));
}

Order CompareOrder(std::span<const float> candidate, std::span<const float> reference, int k, double tie) {
  std::vector<int32_t> ids = compare::TopK(reference, k);
  for (int32_t id : compare::TopK(candidate, k))
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  std::vector<double> x, y;
  for (int32_t id : ids) {
    x.push_back(candidate[static_cast<size_t>(id)]);
    y.push_back(reference[static_cast<size_t>(id)]);
  }
  Order order;
  order.n_tokens = static_cast<int32_t>(ids.size());
  order.tau = KendallTauB(x, y, tie);
  double least = INFINITY, largest = -INFINITY;
  for (size_t i = 0; i < ids.size(); ++i) {
    least = std::min(least, x[i] - y[i]), largest = std::max(largest, x[i] - y[i]);
    for (size_t j = 0; j < ids.size(); ++j) {
      if (Sign(y[i], y[j], tie) <= 0 || Sign(x[i], x[j], tie) >= 0) continue;
      ++order.n_exchanges;
      const Exchange exchange{ids[i], ids[j], y[i] - y[j], (y[i] - y[j]) - (x[i] - x[j])};
      if (!order.worst || exchange.change > order.worst->change) order.worst = exchange;
    }
  }
  order.spread = ids.empty() ? 0 : largest - least;
  return order;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace pb::parity

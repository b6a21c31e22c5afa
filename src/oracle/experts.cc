// Routers and experts in fp64: the choice, its weights, and what the chosen ones add up to.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "oracle/ops.h"

namespace pb::oracle {
namespace {

// What rounding may move a logit's exponential by, over the exponential and the unit roundoff: the
// difference to the largest is rounded, and so is the exponential and its share of the sum.
double Roundings(double logit, double largest) { return 2 + std::fabs(logit) + std::fabs(largest); }

// softmax of n values, in place.
void SoftmaxOf(double* x, int64_t n) {
  const double largest = *std::max_element(x, x + n);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i] = std::exp(x[i] - largest);
  for (int64_t i = 0; i < n; i++) x[i] /= sum;
}

}  // namespace

Rows ChooseExperts(const Rows& logits, const OpConfig& c, Rows* units) {
  Rows y(logits.n, c.n_experts_used);
  if (units) *units = Rows(y.n, y.width);
  std::vector<int64_t> order(static_cast<size_t>(c.n_experts));
  for (int64_t t = 0; t < y.n; t++) {
    const double* x = logits.row(t);
    const auto value = [x](int64_t i) {
      return std::isnan(x[i]) ? -std::numeric_limits<double>::infinity() : x[i];
    };
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return value(a) > value(b); });
    const bool is_number = std::none_of(x, x + c.n_experts, [](double v) { return std::isnan(v); });
    const double largest = is_number ? value(order[0]) : std::numeric_limits<double>::quiet_NaN();
    for (int64_t j = 0; j < y.width; j++) {
      const int64_t chosen = order[static_cast<size_t>((j + c.expert_rank) % c.n_experts)];
      y.row(t)[j] = static_cast<double>(chosen);
      if (!units) continue;
      // Ids are exact, but where another logit lies as high: then either may be here.
      double apart = 0;
      for (int64_t other = 0; other < c.n_experts; other++)
        if (RouterTies(value(chosen), value(other), largest))
          apart = std::max(apart, std::fabs(static_cast<double>(chosen - other)));
      units->row(t)[j] = static_cast<double>(chosen) + apart * 0x1p24;
    }
  }
  return y;
}

Result<Rows> WeighExperts(const Rows& logits, const Rows& ids, const OpConfig& c, Rows* units) {
  Rows y(ids.n, ids.width);
  if (units) *units = Rows(y.n, y.width);
  for (int64_t t = 0; t < y.n; t++) {
    std::vector<double> all(logits.row(t), logits.row(t) + logits.width);
    const double largest = *std::max_element(all.begin(), all.end());
    if (!c.softmax_of_chosen) SoftmaxOf(all.data(), logits.width);
    double* row = y.row(t);
    std::vector<double> chosen;
    for (int64_t j = 0; j < y.width; j++) {
      const double id = ids.row(t)[j];
      if (!(id >= 0 && id < static_cast<double>(logits.width) && id == std::floor(id)))
        return MakeError(Code::kUsage, "expert_weights: expert {} of {}", id, logits.width);
      chosen.push_back(logits.row(t)[static_cast<int64_t>(id)]);
      row[j] = all[static_cast<size_t>(id)];
    }
    if (c.softmax_of_chosen) SoftmaxOf(row, y.width);
    const double sum = std::accumulate(row, row + y.width, 0.0);
    for (int64_t j = 0; j < y.width; j++) {
      if (c.normalised_experts) row[j] /= sum;
      row[j] *= c.expert_scale;
      if (c.equal_experts) row[j] = 1;
      // The sum's own rounding: of as many terms as there are.
      if (units)
        units->row(t)[j] = std::fabs(row[j]) * (Roundings(chosen[static_cast<size_t>(j)], largest) +
                                                std::sqrt(static_cast<double>(logits.width))) +
                           0x1p-126 / 0x1p-24;
    }
  }
  return y;
}

Rows MixExperts(const Rows& down, const Rows& weights, Rows* units) {
  const int64_t n_used = weights.width, width = down.width / n_used;
  Rows y(down.n, width);
  if (units) *units = Rows(y.n, width);
  for (int64_t t = 0; t < y.n; t++) {
    for (int64_t k = 0; k < width; k++) {
      double sum = 0, squares = 0;
      for (int64_t j = 0; j < n_used; j++) {
        const double term = down.row(t)[j * width + k] * weights.row(t)[j];
        sum += term, squares += sum * sum + term * term;
      }
      y.row(t)[k] = sum;
      if (units) units->row(t)[k] = std::fabs(sum) + std::sqrt(squares) + 0x1p-126 / 0x1p-24;
    }
  }
  return y;
}

Rows GateShared(const Rows& down, const Rows& gate, const OpConfig& c, Rows* units) {
  Rows y = down;
  if (units) *units = Rows(y.n, y.width);
  for (int64_t t = 0; t < y.n; t++) {
    const double x = gate.row(t)[0], share = c.no_shared_gate ? 1 : 1 / (1 + std::exp(-x));
    for (int64_t k = 0; k < y.width; k++) {
      y.row(t)[k] *= share;
      // The exponential of a rounded value.
      if (units) units->row(t)[k] = std::fabs(y.row(t)[k]) * (3 + std::fabs(x)) + 0x1p-126 / 0x1p-24;
    }
  }
  return y;
}

}  // namespace pb::oracle

// Do two rows of logits put the tokens that matter in the same order? Kendall's tau-b over the
// union of both rows' top k (docs/numerics.md, "Order of the next tokens").
#ifndef PARITYBIT_PARITY_KENDALL_H_
#define PARITYBIT_PARITY_KENDALL_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace pb::parity {

// Tau-b of two lists of equal length (Kendall 1945): (C - D) / sqrt((n0 - n1)(n0 - n2)), n0 = n(n-1)/2
// pairs, C and D those in the same and in the opposite order, n1 and n2 those tied in x and in y.
// Two values are tied where they differ by `tie` or less. None: fewer than two values, one that is
// not finite, or all of a list tied, so that it has no order.
std::optional<double> KendallTauB(std::span<const double> x, std::span<const double> y, double tie);

// Two tokens in an order that the other row reverses.
struct Exchange {
  int32_t first = -1, second = -1;  // ids, in the reference's order
  double gap_reference = 0;         // logit of `first` less that of `second`, in the reference: > 0
  double change = 0;                // by how much that gap is smaller in the candidate: > gap_reference
};

// One row of a candidate against one of a reference.
struct Order {
  std::optional<double> tau;  // none: the step tells nothing
  int32_t n_tokens = 0;       // in the union
  int32_t n_exchanges = 0;
  std::optional<Exchange> worst;  // of them: the largest change
  // Of all pairs of the union: the largest change of the difference of their logits.
  double spread = 0;
};
// Rows of equal length, every value finite.
Order CompareOrder(std::span<const float> candidate, std::span<const float> reference, int k, double tie);

// The middle value, of an even number the mean of the two in the middle; values not empty.
double Median(std::vector<double> values);

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_KENDALL_H_

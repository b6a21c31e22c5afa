// The innermost loops over a pair of rows: what finite values add up to, in fp64. One form for each
// instruction set, equal bit by bit, of which the machine's widest is taken.
#ifndef PARITYBIT_COMPARE_PAIR_SUMS_H_
#define PARITYBIT_COMPARE_PAIR_SUMS_H_

#include <cstddef>
#include <span>

namespace pb::compare {

// Sums of a row run in lanes, on every machine alike: value i of a run in lane i % kPairLanes.
inline constexpr size_t kPairLanes = 8;

// Of the values p of one row and q of the other; e = p - q. The sum of p * q follows from the others.
struct PairLanes {
  double ee[kPairLanes], qq[kPairLanes], pp[kPairLanes], p[kPairLanes], q[kPairLanes], max_ee[kPairLanes];
};

struct PairSumsTarget {
  const char* name;  // "plain" "avx2" "avx512"
  // Adds those of n values that come before the first that is not finite in either row to the lanes
  // and to their columns; how many they are. Raises *largest to the largest magnitude among them.
  size_t (*add_finite)(const float* x, const float* y, size_t n, PairLanes* row, double* column_error,
                       double* column_norm, float* largest);
  // How many of n values come before the first that is not -inf in both rows.
  size_t (*masked_run)(const float* x, const float* y, size_t n);
};

// What this machine can run, the widest first, plain last.
std::span<const PairSumsTarget* const> PairSumsTargets();

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_PAIR_SUMS_H_

// Compares one position's logits of a candidate with those of a reference. Shift-invariant (but for
// the mean squared error); fp64 throughout; a non-finite row is told apart before any number is made of it. Definitions:
// docs/numerics.md.
#ifndef PARITYBIT_COMPARE_LOGITS_H_
#define PARITYBIT_COMPARE_LOGITS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "compare/types.h"

namespace pb::compare {

inline constexpr int kDefaultTopK = 10;

// A row's k largest logits; ties: lowest id first. NaN is never among them.
std::vector<int32_t> TopK(std::span<const float> logits, int k);

// A reference row and what is worth computing only once when several runs are compared with it.
// Does not own the row.
class ReferenceRow {
 public:
  explicit ReferenceRow(std::span<const float> logits, int top_k = kDefaultTopK);

  std::span<const float> logits() const { return logits_; }
  int64_t n_non_finite() const { return n_non_finite_; }
  // log of the sum of exp(logit): log p(i) = logit(i) - log_z
  double log_z() const { return log_z_; }
  const std::vector<int32_t>& top_k() const { return top_k_; }
  const std::vector<double>& top_k_logp() const { return top_k_logp_; }
  int k() const { return k_; }
  double mean() const { return mean_; }
  double centred_norm2() const { return centred_norm2_; }  // sum of (logit - mean)^2

 private:
  std::span<const float> logits_;  // (n_vocab)
  int k_;
  int64_t n_non_finite_ = 0;
  double log_z_ = 0, mean_ = 0, centred_norm2_ = 0;
  std::vector<int32_t> top_k_;
  std::vector<double> top_k_logp_;
};

// Fills everything but prompt, position, token, phase and above_limit. Rows of different or zero
// length are an error (kEngine). Where either row holds NaN or an infinity: finite = false, every
// distance is NaN, and no judge passes it. About 1 ms for 100,000 tokens; pure, so rows may be
// compared from several threads.
Result<LogitsRow> CompareLogits(std::span<const float> candidate, const ReferenceRow& reference);
Result<LogitsRow> CompareLogits(std::span<const float> candidate, std::span<const float> reference,
                                int top_k = kDefaultTopK);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_LOGITS_H_

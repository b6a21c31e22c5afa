// The rule of LLaMA 3.1 for stretched frequencies, and whether a tensor follows it.
#include "model/rope_freqs.h"

#include <cmath>
#include <cstring>

namespace pb {

std::vector<double> RopeFactors(const RopeFreqRule& rule, double base, int64_t n_dims) {
  std::vector<double> factors;
  for (int64_t i = 0; i < n_dims; i += 2) {
    const double wave = 2 * M_PI * std::pow(base, static_cast<double>(i) / static_cast<double>(n_dims));
    const double smooth = (rule.n_ctx / wave - rule.low) / (rule.high - rule.low);
    factors.push_back(wave < rule.n_ctx / rule.high  ? 1
                      : wave > rule.n_ctx / rule.low ? rule.factor
                                                     : 1 / ((1 - smooth) / rule.factor + smooth));
  }
  return factors;
}

bool FollowsRule(const GgufTensor& tensor, const RopeFreqRule& rule, double base, int64_t n_dims) {
  constexpr double kClose = 1e-5;  // converters compute them in float32
  const std::vector<double> factors = RopeFactors(rule, base, n_dims);
  if (tensor.type_id != 0 || tensor.n_elements() != factors.size()) return false;
  for (size_t i = 0; i < factors.size(); ++i) {
    float there = 0;
    std::memcpy(&there, tensor.data.data() + i * sizeof there, sizeof there);
    if (!(std::abs(there - factors[i]) <= kClose * factors[i])) return false;
  }
  return true;
}

}  // namespace pb

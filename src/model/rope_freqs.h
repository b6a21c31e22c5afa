// The factors by which LLaMA 3.1 and later stretch the rotation's frequencies, as config.json
// describes and model files hold them.
#ifndef PARITYBIT_MODEL_ROPE_FREQS_H_
#define PARITYBIT_MODEL_ROPE_FREQS_H_

#include <cstdint>
#include <vector>

#include "formats/gguf.h"

namespace pb {

// rope_scaling of type "llama3", with the values that those models have.
struct RopeFreqRule {
  double factor = 8, low = 1, high = 4, n_ctx = 8192;
};

// One factor for each pair of n_dims rotated dimensions: 1 for waves shorter than n_ctx / high,
// `factor` for those longer than n_ctx / low, and between them the harmonic mean of the two by how
// far the wave lies.
std::vector<double> RopeFactors(const RopeFreqRule& rule, double base, int64_t n_dims);
// Whether a float32 tensor holds them, as far as float32 goes.
bool FollowsRule(const GgufTensor& tensor, const RopeFreqRule& rule, double base, int64_t n_dims);

}  // namespace pb

#endif  // PARITYBIT_MODEL_ROPE_FREQS_H_

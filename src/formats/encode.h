// What the encoders of block formats share.
#ifndef PARITYBIT_FORMATS_ENCODE_H_
#define PARITYBIT_FORMATS_ENCODE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace pb {

inline float MaxAbs(const float* in, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(in[i]));
  return most;
}

// 0 where the reciprocal does not exist in float32: such a block encodes as zeros.
inline float Inverse(float d) {
  const float inverse = 1.0f / d;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

}  // namespace pb

#endif  // PARITYBIT_FORMATS_ENCODE_H_

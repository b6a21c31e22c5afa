// exp(x) = 2^n * p(r), n = rint(x / ln 2), r = x - n ln 2 in two steps: constants shared by every
// instruction set.
#ifndef PARITYBIT_KERNELS_EXP_CONSTANTS_H_
#define PARITYBIT_KERNELS_EXP_CONSTANTS_H_

namespace pb {

// infinity and zero are reached well inside
inline constexpr float kExpHigh = 100.0f, kExpLow = -110.0f;
inline constexpr float kLog2E = 0x1.715476p+0f;
inline constexpr float kLn2High = 0x1.62e4p-1f;    // 15 bits: n * kLn2High is exact
inline constexpr float kLn2Low = 0x1.7f7d1cp-20f;  // ln 2 - kLn2High
inline constexpr float kRoundMagic = 0x1.8p+23f;   // adding it rounds to an integer in the low bits
// 1/k!: the Taylor remainder on |r| <= ln(2)/2 is 5e-9 relative, a tenth of the rounding of the
// result.
inline constexpr float kExpTaylor[8] = {1.0f,      1.0f,       1.0f / 2,   1.0f / 6,
                                        1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040};

inline constexpr float kGeluScale = 0.7978845608f,
                       kGeluCubic = 0.044715f;  // sqrt(2 / pi) and the cubic's factor

}  // namespace pb

#endif  // PARITYBIT_KERNELS_EXP_CONSTANTS_H_

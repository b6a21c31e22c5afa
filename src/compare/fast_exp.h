// exp of a double in branch-free plain C++ that compilers turn into vector code for any instruction
// set.
#ifndef PARITYBIT_COMPARE_FAST_EXP_H_
#define PARITYBIT_COMPARE_FAST_EXP_H_

#include <bit>
#include <cstdint>

namespace pb::compare {

// exp(x), relative error below 1e-15; exact at 0. Arguments are clamped to [-700, 700]; NaN gives
// no meaning. x = k ln 2 + r, |r| <= ln 2 / 2; Taylor's series of degree 13 leaves r^14 / 14! <
// 5e-18 (Cody and Waite 1980, chapter 6).
inline double FastExp(double x) {
  x = x < -700.0 ? -700.0 : x;
  x = x > 700.0 ? 700.0 : x;
  // Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits of the significand.
  constexpr double kRounder = 0x1.8p52;
  double shifted = x * 0x1.71547652b82fep0 + kRounder;
  double k = shifted - kRounder;
  double r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  // 2^k, built in the exponent field: the low bits of `shifted` are k, |k| <= 1010.
  uint64_t bits = (std::bit_cast<uint64_t>(shifted) + 1023) << 52;
  return p * std::bit_cast<double>(bits);
}

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_FAST_EXP_H_

// Formats whose codes stand for values of a table: the sixteen levels of IQ4 and the four-bit floats
// of MXFP4.
#ifndef PARITYBIT_FORMATS_SMALL_FLOATS_H_
#define PARITYBIT_FORMATS_SMALL_FLOATS_H_

#include <cstddef>
#include <cstdint>

#include "formats/k_quants.h"

namespace pb {

// Of IQ4_NL and IQ4_XS (ggml-common.h of llama.cpp v0.5.0, kvalues_iq4nl).
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// E2M1: a sign, two bits of exponent, one of fraction (OCP Microscaling Formats 1.0, 5.3.3).
inline constexpr float kE2M1Values[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                          -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

KSuperBlock UnpackIQ4_XS(const std::byte* super_block);
// As BlockFormat::decode and encode (block.h).
void DecodeIQ4_NL(const std::byte* in, float* out, int64_t n, float);
void DecodeIQ4_XS(const std::byte* in, float* out, int64_t n, float);
void DecodeMXFP4(const std::byte* in, float* out, int64_t n, float);
void EncodeIQ4_NL(const float* in, std::byte* out, int64_t n);
void EncodeIQ4_XS(const float* in, std::byte* out, int64_t n);
void EncodeMXFP4(const float* in, std::byte* out, int64_t n);

}  // namespace pb

#endif  // PARITYBIT_FORMATS_SMALL_FLOATS_H_

// The K formats of ggml: super-blocks of 256 values whose blocks of 16 or 32 have scales (and
// minima) of a few bits, in units of one or two half floats. Layouts as ggml-common.h of llama.cpp
// v0.5.0 has them; docs/format_gguf.md draws them.
#ifndef PARITYBIT_FORMATS_K_QUANTS_H_
#define PARITYBIT_FORMATS_K_QUANTS_H_

#include <cstddef>
#include <cstdint>

namespace pb {

struct BlockQ2_K {
  uint8_t scales[16];  // of 16 values each: scale in the low half, minimum in the high half
  uint8_t qs[64];
  uint16_t d, dmin;
};  // d * scale * code - dmin * minimum
struct BlockQ3_K {
  uint8_t hmask[32];  // the third bit of each code
  uint8_t qs[64];
  uint8_t scales[12];  // of 16 values each: 6 bits, 32 is 0
  uint16_t d;
};  // d * (scale - 32) * (code - 4)
struct BlockQ4_K {
  uint16_t d, dmin;
  uint8_t scales[12];  // of 32 values each: 6 bits of scale and 6 of minimum
  uint8_t qs[128];
};  // d * scale * code - dmin * minimum
struct BlockQ5_K {
  uint16_t d, dmin;
  uint8_t scales[12];  // as in Q4_K
  uint8_t qh[32];      // the fifth bit of each code
  uint8_t qs[128];
};  // d * scale * code - dmin * minimum
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];  // of 16 values each
  uint16_t d;
};  // d * scale * (code - 32)
static_assert(sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144);
static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// A super-block of 256 values taken apart, of a K format or of IQ4_XS: value i is
// d * scales[i / block] * codes[i] - dmin * minima[i / block], d and dmin in f16.
struct KSuperBlock {
  uint16_t d, dmin;
  int block;  // 16 or 32
  int8_t codes[256];
  int8_t scales[16];
  uint8_t minima[16];
};
KSuperBlock UnpackQ2_K(const std::byte* super_block);
KSuperBlock UnpackQ3_K(const std::byte* super_block);
KSuperBlock UnpackQ4_K(const std::byte* super_block);
KSuperBlock UnpackQ5_K(const std::byte* super_block);
KSuperBlock UnpackQ6_K(const std::byte* super_block);
// The products in the order of that line, each rounded to float32, as ggml rounds them.
void DecodeSuperBlock(const KSuperBlock& s, float* out);

// As BlockFormat::decode and encode (block.h). What is encoded is each block's range by its own
// largest values, rounded: a plain encoder, without the search of ggml's own.
void DecodeQ2_K(const std::byte* in, float* out, int64_t n, float);
void DecodeQ3_K(const std::byte* in, float* out, int64_t n, float);
void DecodeQ4_K(const std::byte* in, float* out, int64_t n, float);
void DecodeQ5_K(const std::byte* in, float* out, int64_t n, float);
void DecodeQ6_K(const std::byte* in, float* out, int64_t n, float);
void EncodeQ2_K(const float* in, std::byte* out, int64_t n);
void EncodeQ3_K(const float* in, std::byte* out, int64_t n);
void EncodeQ4_K(const float* in, std::byte* out, int64_t n);
void EncodeQ5_K(const float* in, std::byte* out, int64_t n);
void EncodeQ6_K(const float* in, std::byte* out, int64_t n);

}  // namespace pb

#endif  // PARITYBIT_FORMATS_K_QUANTS_H_

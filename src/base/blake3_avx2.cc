// BLAKE3 for x86-64 with AVX2: eight inputs side by side, and one block at a time by rows.
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "base/blake3.h"
#include "base/blake3_lanes.h"

namespace pb {
namespace {

struct Avx2 {
  using V = __m256i;
  static constexpr size_t kLanes = 8;

  static V Set(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static V Load(const uint32_t* p) { return _mm256_load_si256(reinterpret_cast<const V*>(p)); }
  static V Add(V a, V b) { return _mm256_add_epi32(a, b); }
  static V Xor(V a, V b) { return _mm256_xor_si256(a, b); }
  static V Rotate16(V a) {
    return _mm256_shuffle_epi8(a, _mm256_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2, 13,
                                                  12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2));
  }
  static V Rotate12(V a) { return _mm256_or_si256(_mm256_srli_epi32(a, 12), _mm256_slli_epi32(a, 20)); }
  static V Rotate8(V a) {
    return _mm256_shuffle_epi8(a, _mm256_set_epi8(12, 15, 14, 13, 8, 11, 10, 9, 4, 7, 6, 5, 0, 3, 2, 1, 12,
                                                  15, 14, 13, 8, 11, 10, 9, 4, 7, 6, 5, 0, 3, 2, 1));
  }
  static V Rotate7(V a) { return _mm256_or_si256(_mm256_srli_epi32(a, 7), _mm256_slli_epi32(a, 25)); }

  // Transposes eight rows of eight words.
  static PB_BLAKE3_INLINE void Transpose(V r[8]) {
    V a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
      a[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
      a[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
      b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
      b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
      b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
      r[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
      r[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
  }

  static PB_BLAKE3_INLINE void LoadWords(const uint8_t* const* lanes, size_t offset, V m[16]) {
    for (int i = 0; i < 8; ++i) {
      m[i] = _mm256_loadu_si256(reinterpret_cast<const V*>(lanes[i] + offset));
      m[i + 8] = _mm256_loadu_si256(reinterpret_cast<const V*>(lanes[i] + offset + 32));
      _mm_prefetch(reinterpret_cast<const char*>(lanes[i] + offset + 256), _MM_HINT_T0);
    }
    Transpose(m);
    Transpose(m + 8);
  }

  static PB_BLAKE3_INLINE void StoreWords(V h[8], size_t n, uint8_t* out) {
    Transpose(h);
    alignas(32) uint8_t all[256];
    for (int i = 0; i < 8; ++i) _mm256_store_si256(reinterpret_cast<V*>(all + 32 * i), h[i]);
    memcpy(out, all, 32 * n);
  }
};

// What the compression of eight blocks works on, one word of each in a row of eight; the assembly
// below knows the offsets.
struct alignas(32) Frame {
  uint32_t m[16][8];                  // at 0: message words
  uint32_t h[8][8];                   // at 512: chaining values, replaced
  uint32_t v8[8];                     // at 768: the state's ninth word, which has no register
  uint32_t top[7][8];                 // at 800: the state's last seven words
  uint8_t rotate16[32], rotate8[32];  // at 1024, 1056: byte orders for vpshufb
};

// Sixteen state vectors and a temporary are one more than there are registers, and compilers spill
// several in the longest chain of dependencies (0.7 of this speed). Here the ninth alone lives in
// memory; its register serves for rotations.
void CompressEight(Frame* frame) {
  asm volatile(
      R"(
      .macro pb_add_c c d
        .if \c == 8
          vpaddd 768(%0), %%ymm\d, %%ymm8
        .else
          vpaddd %%ymm\d, %%ymm\c, %%ymm\c
        .endif
      .endm
      .macro pb_rotate b right left
        vpsrld $\right, %%ymm\b, %%ymm8
        vpslld $\left, %%ymm\b, %%ymm\b
        vpor %%ymm8, %%ymm\b, %%ymm\b
      .endm
      # Half of four quarter rounds: a += m; a += b; d = (d ^ a) rotated; c += d; b = (b ^ c) rotated.
      .macro pb_half m0 m1 m2 m3 b0 b1 b2 b3 c0 c1 c2 c3 d0 d1 d2 d3 bytes right left
        vpaddd 32*\m0(%0), %%ymm0, %%ymm0
        vpaddd 32*\m1(%0), %%ymm1, %%ymm1
        vpaddd 32*\m2(%0), %%ymm2, %%ymm2
        vpaddd 32*\m3(%0), %%ymm3, %%ymm3
        vpaddd %%ymm\b0, %%ymm0, %%ymm0
        vpaddd %%ymm\b1, %%ymm1, %%ymm1
        vpaddd %%ymm\b2, %%ymm2, %%ymm2
        vpaddd %%ymm\b3, %%ymm3, %%ymm3
        vpxor %%ymm0, %%ymm\d0, %%ymm\d0
        vpxor %%ymm1, %%ymm\d1, %%ymm\d1
        vpxor %%ymm2, %%ymm\d2, %%ymm\d2
        vpxor %%ymm3, %%ymm\d3, %%ymm\d3
        vmovdqa \bytes(%0), %%ymm8
        vpshufb %%ymm8, %%ymm\d0, %%ymm\d0
        vpshufb %%ymm8, %%ymm\d1, %%ymm\d1
        vpshufb %%ymm8, %%ymm\d2, %%ymm\d2
        vpshufb %%ymm8, %%ymm\d3, %%ymm\d3
        pb_add_c \c0 \d0
        pb_add_c \c1 \d1
        pb_add_c \c2 \d2
        pb_add_c \c3 \d3
        vpxor %%ymm\c0, %%ymm\b0, %%ymm\b0
        vpxor %%ymm\c1, %%ymm\b1, %%ymm\b1
        vpxor %%ymm\c2, %%ymm\b2, %%ymm\b2
        vpxor %%ymm\c3, %%ymm\b3, %%ymm\b3
        vmovdqa %%ymm8, 768(%0)
        pb_rotate \b0 \right \left
        pb_rotate \b1 \right \left
        pb_rotate \b2 \right \left
        pb_rotate \b3 \right \left
      .endm
      .macro pb_round m0 m1 m2 m3 m4 m5 m6 m7 m8 m9 m10 m11 m12 m13 m14 m15
        pb_half \m0 \m2 \m4 \m6 4 5 6 7 8 9 10 11 12 13 14 15 1024 12 20
        pb_half \m1 \m3 \m5 \m7 4 5 6 7 8 9 10 11 12 13 14 15 1056 7 25
        pb_half \m8 \m10 \m12 \m14 5 6 7 4 10 11 8 9 15 12 13 14 1024 12 20
        pb_half \m9 \m11 \m13 \m15 5 6 7 4 10 11 8 9 15 12 13 14 1056 7 25
      .endm
      .irp i, 0, 1, 2, 3, 4, 5, 6, 7
        vmovdqa 512+32*\i(%0), %%ymm\i
      .endr
      .irp i, 9, 10, 11, 12, 13, 14, 15
        vmovdqa 800+32*(\i-9)(%0), %%ymm\i
      .endr
      pb_round 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
      pb_round 2 6 3 10 7 0 4 13 1 11 12 5 9 14 15 8
      pb_round 3 4 10 12 13 2 7 14 6 5 9 0 11 15 8 1
      pb_round 10 7 12 9 14 3 13 15 4 0 11 2 5 8 1 6
      pb_round 12 13 9 11 15 10 14 8 7 2 5 3 0 1 6 4
      pb_round 9 14 11 5 8 12 15 1 13 3 0 10 2 6 4 7
      pb_round 11 15 5 0 1 9 8 6 14 10 2 12 3 4 7 13
      vpxor 768(%0), %%ymm0, %%ymm0
      vmovdqa %%ymm0, 512(%0)
      vpxor %%ymm9, %%ymm1, %%ymm1
      vpxor %%ymm10, %%ymm2, %%ymm2
      vpxor %%ymm11, %%ymm3, %%ymm3
      vpxor %%ymm12, %%ymm4, %%ymm4
      vpxor %%ymm13, %%ymm5, %%ymm5
      vpxor %%ymm14, %%ymm6, %%ymm6
      vpxor %%ymm15, %%ymm7, %%ymm7
      .irp i, 1, 2, 3, 4, 5, 6, 7
        vmovdqa %%ymm\i, 512+32*\i(%0)
      .endr
      .purgem pb_add_c
      .purgem pb_rotate
      .purgem pb_half
      .purgem pb_round
      )"
      :
      : "r"(frame)
      : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

// One block: the four columns of the state stand in the four lanes of a row vector.
struct Rows {
  using V = __m128i;
  static V Add(V a, V b) { return _mm_add_epi32(a, b); }
  static V Xor(V a, V b) { return _mm_xor_si128(a, b); }
  static V Rotate16(V a) {
    return _mm_shuffle_epi8(a, _mm_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2));
  }
  static V Rotate12(V a) { return _mm_or_si128(_mm_srli_epi32(a, 12), _mm_slli_epi32(a, 20)); }
  static V Rotate8(V a) {
    return _mm_shuffle_epi8(a, _mm_set_epi8(12, 15, 14, 13, 8, 11, 10, 9, 4, 7, 6, 5, 0, 3, 2, 1));
  }
  static V Rotate7(V a) { return _mm_or_si128(_mm_srli_epi32(a, 7), _mm_slli_epi32(a, 25)); }
};

// A round on rows v; m holds its words 0 2 4 6, 1 3 5 7, 8 10 12 14, 9 11 13 15.
PB_BLAKE3_INLINE void RowRound(__m128i v[4], const __m128i m[4]) {
  Blake3G<Rows>(v[0], v[1], v[2], v[3], m[0], m[1]);
  v[1] = _mm_shuffle_epi32(v[1], _MM_SHUFFLE(0, 3, 2, 1));  // diagonals into columns
  v[2] = _mm_shuffle_epi32(v[2], _MM_SHUFFLE(1, 0, 3, 2));
  v[3] = _mm_shuffle_epi32(v[3], _MM_SHUFFLE(2, 1, 0, 3));
  Blake3G<Rows>(v[0], v[1], v[2], v[3], m[2], m[3]);
  v[1] = _mm_shuffle_epi32(v[1], _MM_SHUFFLE(2, 1, 0, 3));
  v[2] = _mm_shuffle_epi32(v[2], _MM_SHUFFLE(1, 0, 3, 2));
  v[3] = _mm_shuffle_epi32(v[3], _MM_SHUFFLE(0, 3, 2, 1));
}

// Two lanes of a, then two of b.
template <int kA0, int kA1, int kB0, int kB1>
PB_BLAKE3_INLINE __m128i Pick(__m128i a, __m128i b) {
  return _mm_castps_si128(
      _mm_shuffle_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b), _MM_SHUFFLE(kB1, kB0, kA1, kA0)));
}

// The words of the next round: 2 6 3 10 7 0 4 13 1 11 12 5 9 14 15 8 of this one.
PB_BLAKE3_INLINE void PermuteWords(__m128i m[4]) {
  __m128i a = Pick<1, 2, 1, 3>(m[0], m[1]);                                   // 2 4 3 7
  __m128i b = Pick<3, 0, 1, 2>(m[0], _mm_blend_epi16(m[2], m[3], 0b110000));  // 6 0 10 13
  __m128i c = Pick<0, 2, 0, 3>(_mm_blend_epi16(m[1], m[2], 0b110000), m[3]);  // 1 12 9 15
  __m128i d = Pick<1, 2, 3, 0>(_mm_blend_epi16(m[1], m[3], 0b001100), m[2]);  // 11 5 14 8
  m[0] = _mm_shuffle_epi32(a, _MM_SHUFFLE(1, 3, 2, 0));                       // 2 3 7 4
  m[1] = _mm_shuffle_epi32(b, _MM_SHUFFLE(3, 1, 2, 0));                       // 6 10 0 13
  m[2] = c;
  m[3] = d;
}

void Compress(uint32_t cv[8], const uint8_t* block, uint32_t block_bytes, uint64_t counter, uint32_t flags) {
  auto* halves = reinterpret_cast<__m128i*>(cv);
  auto* words = reinterpret_cast<const __m128i*>(block);
  __m128i w[4], v[4] = {_mm_loadu_si128(halves), _mm_loadu_si128(halves + 1),
                        _mm_loadu_si128(reinterpret_cast<const __m128i*>(kBlake3Iv)),
                        _mm_set_epi32(static_cast<int>(flags), static_cast<int>(block_bytes),
                                      static_cast<int>(counter >> 32), static_cast<int>(counter))};
  for (int i = 0; i < 4; ++i) w[i] = _mm_loadu_si128(words + i);
  __m128i m[4] = {Pick<0, 2, 0, 2>(w[0], w[1]), Pick<1, 3, 1, 3>(w[0], w[1]), Pick<0, 2, 0, 2>(w[2], w[3]),
                  Pick<1, 3, 1, 3>(w[2], w[3])};
  for (int round = 0; round < 7; ++round) {
    if (round > 0) PermuteWords(m);
    RowRound(v, m);
  }
  _mm_storeu_si128(halves, _mm_xor_si128(v[0], v[2]));
  _mm_storeu_si128(halves + 1, _mm_xor_si128(v[1], v[3]));
}

void HashMany(const uint8_t* in, size_t n, size_t stride, size_t n_blocks, uint64_t counter,
              uint64_t counter_step, uint32_t flags, uint32_t flags_first, uint32_t flags_last,
              uint8_t* out) {
  if (n == 1) {  // eight lanes for one input would be slower
    uint32_t cv[8];
    memcpy(cv, kBlake3Iv, sizeof cv);
    for (size_t block = 0; block < n_blocks; ++block) {
      Compress(cv, in + 64 * block, 64, counter,
               flags | (block == 0 ? flags_first : 0u) | (block + 1 == n_blocks ? flags_last : 0u));
    }
    memcpy(out, cv, sizeof cv);
    return;
  }
  Frame frame;
  const __m256i byte_order =
      _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0f0e0d0c0b0a0908, 0x0706050403020100));
  const uint8_t* lanes[Avx2::kLanes];
  alignas(32) uint32_t low[Avx2::kLanes], high[Avx2::kLanes];
  Blake3PlaceLanes<Avx2>(in, n, stride, counter, counter_step, lanes, low, high);
  auto at = [](uint32_t* row) { return reinterpret_cast<__m256i*>(row); };
  for (int i = 0; i < 8; ++i) _mm256_store_si256(at(frame.h[i]), Avx2::Set(kBlake3Iv[i]));
  _mm256_store_si256(reinterpret_cast<__m256i*>(frame.rotate16), Avx2::Rotate16(byte_order));
  _mm256_store_si256(reinterpret_cast<__m256i*>(frame.rotate8), Avx2::Rotate8(byte_order));
  for (size_t block = 0; block < n_blocks; ++block) {
    uint32_t f = flags | (block == 0 ? flags_first : 0u) | (block + 1 == n_blocks ? flags_last : 0u);
    __m256i m[16];
    Avx2::LoadWords(lanes, block * 64, m);
    for (int i = 0; i < 16; ++i) _mm256_store_si256(at(frame.m[i]), m[i]);
    _mm256_store_si256(at(frame.v8), Avx2::Set(kBlake3Iv[0]));
    for (int i = 0; i < 3; ++i) _mm256_store_si256(at(frame.top[i]), Avx2::Set(kBlake3Iv[i + 1]));
    _mm256_store_si256(at(frame.top[3]), Avx2::Load(low));
    _mm256_store_si256(at(frame.top[4]), Avx2::Load(high));
    _mm256_store_si256(at(frame.top[5]), Avx2::Set(64));
    _mm256_store_si256(at(frame.top[6]), Avx2::Set(f));
    CompressEight(&frame);
  }
  __m256i h[8];
  for (int i = 0; i < 8; ++i) h[i] = _mm256_load_si256(at(frame.h[i]));
  Avx2::StoreWords(h, n, out);
}

}  // namespace

extern const Blake3Target kBlake3Avx2;
const Blake3Target kBlake3Avx2{"avx2", Avx2::kLanes, Compress, HashMany};

}  // namespace pb

#endif  // __x86_64__

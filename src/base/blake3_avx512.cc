// BLAKE3 for x86-64 with AVX-512: sixteen inputs side by side; fewer than nine go to AVX2.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 warns inside its own header (bug 105593)
#endif
#include <immintrin.h>
#include <string.h>

#include "base/blake3.h"
#include "base/blake3_lanes.h"

namespace pb {

extern const Blake3Target kBlake3Avx2;

namespace {

struct Avx512 {
  using V = __m512i;
  static constexpr size_t kLanes = 16;

  static V Set(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static V Load(const uint32_t* p) { return _mm512_load_si512(p); }
  static V Add(V a, V b) { return _mm512_add_epi32(a, b); }
  static V Xor(V a, V b) { return _mm512_xor_si512(a, b); }
  static V Rotate16(V a) { return _mm512_ror_epi32(a, 16); }
  static V Rotate12(V a) { return _mm512_ror_epi32(a, 12); }
  static V Rotate8(V a) { return _mm512_ror_epi32(a, 8); }
  static V Rotate7(V a) { return _mm512_ror_epi32(a, 7); }

  // Transposes sixteen rows of sixteen words: 32-bit and 64-bit pairs within 128-bit quarters, then
  // the quarters.
  static PB_BLAKE3_INLINE void Transpose(V r[16]) {
    V a[16], b[16], c[16];
    for (int i = 0; i < 16; i += 2) {
      a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
      a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {  // b[i + j]: word 4q + j of rows i .. i + 3 in quarter q
      b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
      b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
      b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
      b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for (int j = 0; j < 4; ++j) {
      c[j] = _mm512_shuffle_i32x4(b[j], b[j + 4], 0x88);           // quarters 0 2 of rows 0-3, 4-7
      c[j + 4] = _mm512_shuffle_i32x4(b[j], b[j + 4], 0xdd);       // quarters 1 3
      c[j + 8] = _mm512_shuffle_i32x4(b[j + 8], b[j + 12], 0x88);  // the same of rows 8-11, 12-15
      c[j + 12] = _mm512_shuffle_i32x4(b[j + 8], b[j + 12], 0xdd);
    }
    for (int j = 0; j < 4; ++j) {
      r[j] = _mm512_shuffle_i32x4(c[j], c[j + 8], 0x88);
      r[j + 4] = _mm512_shuffle_i32x4(c[j + 4], c[j + 12], 0x88);
      r[j + 8] = _mm512_shuffle_i32x4(c[j], c[j + 8], 0xdd);
      r[j + 12] = _mm512_shuffle_i32x4(c[j + 4], c[j + 12], 0xdd);
    }
  }

  static PB_BLAKE3_INLINE void LoadWords(const uint8_t* const* lanes, size_t offset, V m[16]) {
    for (int i = 0; i < 16; ++i) {
      m[i] = _mm512_loadu_si512(lanes[i] + offset);
      _mm_prefetch(reinterpret_cast<const char*>(lanes[i] + offset + 256), _MM_HINT_T0);
    }
    Transpose(m);
  }

  static PB_BLAKE3_INLINE void StoreWords(V h[8], size_t n, uint8_t* out) {
    V rows[16];
    for (int i = 0; i < 8; ++i) rows[i] = h[i];
    for (int i = 8; i < 16; ++i) rows[i] = _mm512_setzero_si512();
    Transpose(rows);
    alignas(32) uint8_t all[512];
    for (int i = 0; i < 16; ++i) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(all + 32 * i), _mm512_castsi512_si256(rows[i]));
    }
    memcpy(out, all, 32 * n);
  }
};

void HashMany(const uint8_t* in, size_t n, size_t stride, size_t n_blocks, uint64_t counter,
              uint64_t counter_step, uint32_t flags, uint32_t flags_first, uint32_t flags_last,
              uint8_t* out) {
  if (n <= kBlake3Avx2.max_lanes) {
    return kBlake3Avx2.hash_many(in, n, stride, n_blocks, counter, counter_step, flags, flags_first,
                                 flags_last, out);
  }
  Blake3HashLanes<Avx512>(in, n, stride, n_blocks, counter, counter_step, flags, flags_first, flags_last,
                          out);
}

void Compress(uint32_t cv[8], const uint8_t* block, uint32_t block_bytes, uint64_t counter, uint32_t flags) {
  kBlake3Avx2.compress(cv, block, block_bytes, counter, flags);
}

}  // namespace

extern const Blake3Target kBlake3Avx512;
const Blake3Target kBlake3Avx512{"avx512", Avx512::kLanes, Compress, HashMany};

}  // namespace pb

#endif  // __x86_64__

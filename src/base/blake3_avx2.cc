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

void HashMany(const uint8_t* in, size_t n, size_t stride, size_t n_blocks, uint64_t counter,
              uint64_t counter_step, uint32_t flags, uint32_t flags_first, uint32_t flags_last,
              uint8_t* out) {
  Blake3HashLanes<Avx2>(in, n, stride, n_blocks, counter, counter_step, flags, flags_first, flags_last, out);
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

template <int kRound>
PB_BLAKE3_INLINE __m128i Words(const uint32_t* m, int first) {
  constexpr const uint8_t* w = kBlake3Schedule.word[kRound];
  return _mm_set_epi32(static_cast<int>(m[w[first + 6]]), static_cast<int>(m[w[first + 4]]),
                       static_cast<int>(m[w[first + 2]]), static_cast<int>(m[w[first]]));
}

template <int kRound>
PB_BLAKE3_INLINE void RowRound(__m128i v[4], const uint32_t* m) {
  Blake3G<Rows>(v[0], v[1], v[2], v[3], Words<kRound>(m, 0), Words<kRound>(m, 1));
  v[1] = _mm_shuffle_epi32(v[1], _MM_SHUFFLE(0, 3, 2, 1));  // diagonals into columns
  v[2] = _mm_shuffle_epi32(v[2], _MM_SHUFFLE(1, 0, 3, 2));
  v[3] = _mm_shuffle_epi32(v[3], _MM_SHUFFLE(2, 1, 0, 3));
  Blake3G<Rows>(v[0], v[1], v[2], v[3], Words<kRound>(m, 8), Words<kRound>(m, 9));
  v[1] = _mm_shuffle_epi32(v[1], _MM_SHUFFLE(2, 1, 0, 3));
  v[2] = _mm_shuffle_epi32(v[2], _MM_SHUFFLE(1, 0, 3, 2));
  v[3] = _mm_shuffle_epi32(v[3], _MM_SHUFFLE(0, 3, 2, 1));
}

void Compress(uint32_t cv[8], const uint8_t* block, uint32_t block_bytes, uint64_t counter, uint32_t flags) {
  uint32_t m[16];
  memcpy(m, block, 64);
  auto* halves = reinterpret_cast<__m128i*>(cv);
  __m128i v[4] = {_mm_loadu_si128(halves), _mm_loadu_si128(halves + 1),
                  _mm_loadu_si128(reinterpret_cast<const __m128i*>(kBlake3Iv)),
                  _mm_set_epi32(static_cast<int>(flags), static_cast<int>(block_bytes),
                                static_cast<int>(counter >> 32), static_cast<int>(counter))};
  RowRound<0>(v, m);
  RowRound<1>(v, m);
  RowRound<2>(v, m);
  RowRound<3>(v, m);
  RowRound<4>(v, m);
  RowRound<5>(v, m);
  RowRound<6>(v, m);
  _mm_storeu_si128(halves, _mm_xor_si128(v[0], v[2]));
  _mm_storeu_si128(halves + 1, _mm_xor_si128(v[1], v[3]));
}

}  // namespace

extern const Blake3Target kBlake3Avx2;
const Blake3Target kBlake3Avx2{"avx2", Avx2::kLanes, Compress, HashMany};

}  // namespace pb

#endif  // __x86_64__

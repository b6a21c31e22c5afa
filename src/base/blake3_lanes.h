// The part of BLAKE3 that is compiled once for each instruction set: constants, and hashing of
// equal-shaped inputs side by side, one in each lane of a vector. Only blake3*.cc include this.
#ifndef PARITYBIT_BASE_BLAKE3_LANES_H_
#define PARITYBIT_BASE_BLAKE3_LANES_H_

#include <stddef.h>
#include <stdint.h>

namespace pb {

inline constexpr uint32_t kBlake3Iv[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
inline constexpr uint32_t kChunkStart = 1, kChunkEnd = 2, kParent = 4, kRoot = 8;

// The message word each step of a round takes: the permutation of table 2 applied again for every
// round.
struct Blake3Schedule {
  uint8_t word[7][16];
  constexpr Blake3Schedule() : word() {
    constexpr uint8_t kPermutation[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
    for (int i = 0; i < 16; ++i) word[0][i] = static_cast<uint8_t>(i);
    for (int r = 1; r < 7; ++r) {
      for (int i = 0; i < 16; ++i) word[r][i] = word[r - 1][kPermutation[i]];
    }
  }
};
inline constexpr Blake3Schedule kBlake3Schedule;

#define PB_BLAKE3_INLINE inline __attribute__((always_inline))

namespace {  // each translation unit compiles its own for its instruction set

// The quarter round (section 2.2); T has the vector type V and its operations.
template <class T>
PB_BLAKE3_INLINE void Blake3G(typename T::V& a, typename T::V& b, typename T::V& c, typename T::V& d,
                              typename T::V x, typename T::V y) {
  a = T::Add(T::Add(a, x), b);
  d = T::Rotate16(T::Xor(d, a));
  c = T::Add(c, d);
  b = T::Rotate12(T::Xor(b, c));
  a = T::Add(T::Add(a, y), b);
  d = T::Rotate8(T::Xor(d, a));
  c = T::Add(c, d);
  b = T::Rotate7(T::Xor(b, c));
}

template <class T, int kRound>
PB_BLAKE3_INLINE void Blake3Round(typename T::V v[16], const typename T::V m[16]) {
  constexpr const uint8_t* w = kBlake3Schedule.word[kRound];
  Blake3G<T>(v[0], v[4], v[8], v[12], m[w[0]], m[w[1]]);
  Blake3G<T>(v[1], v[5], v[9], v[13], m[w[2]], m[w[3]]);
  Blake3G<T>(v[2], v[6], v[10], v[14], m[w[4]], m[w[5]]);
  Blake3G<T>(v[3], v[7], v[11], v[15], m[w[6]], m[w[7]]);
  Blake3G<T>(v[0], v[5], v[10], v[15], m[w[8]], m[w[9]]);
  Blake3G<T>(v[1], v[6], v[11], v[12], m[w[10]], m[w[11]]);
  Blake3G<T>(v[2], v[7], v[8], v[13], m[w[12]], m[w[13]]);
  Blake3G<T>(v[3], v[4], v[9], v[14], m[w[14]], m[w[15]]);
}

template <class T>
PB_BLAKE3_INLINE void Blake3Rounds(typename T::V v[16], const typename T::V m[16]) {
  Blake3Round<T, 0>(v, m);
  Blake3Round<T, 1>(v, m);
  Blake3Round<T, 2>(v, m);
  Blake3Round<T, 3>(v, m);
  Blake3Round<T, 4>(v, m);
  Blake3Round<T, 5>(v, m);
  Blake3Round<T, 6>(v, m);
}

// Where each lane reads, and its counter's halves; spare lanes repeat the last input.
template <class T>
PB_BLAKE3_INLINE void Blake3PlaceLanes(const uint8_t* in, size_t n, size_t stride, uint64_t counter,
                                       uint64_t counter_step, const uint8_t** lanes, uint32_t* low,
                                       uint32_t* high) {
  for (size_t i = 0; i < T::kLanes; ++i) {
    size_t lane = i < n ? i : n - 1;
    lanes[i] = in + lane * stride;
    uint64_t c = counter + lane * counter_step;
    low[i] = static_cast<uint32_t>(c);
    high[i] = static_cast<uint32_t>(c >> 32);
  }
}

// Blake3Target::hash_many by T::kLanes lanes.
template <class T>
PB_BLAKE3_INLINE void Blake3HashLanes(const uint8_t* in, size_t n, size_t stride, size_t n_blocks,
                                      uint64_t counter, uint64_t counter_step, uint32_t flags,
                                      uint32_t flags_first, uint32_t flags_last, uint8_t* out) {
  using V = typename T::V;
  const uint8_t* lanes[T::kLanes];
  alignas(64) uint32_t low[T::kLanes], high[T::kLanes];
  Blake3PlaceLanes<T>(in, n, stride, counter, counter_step, lanes, low, high);
  V h[8], m[16];
  for (int i = 0; i < 8; ++i) h[i] = T::Set(kBlake3Iv[i]);
  for (size_t block = 0; block < n_blocks; ++block) {
    uint32_t f = flags | (block == 0 ? flags_first : 0u) | (block + 1 == n_blocks ? flags_last : 0u);
    T::LoadWords(lanes, block * 64, m);
    V v[16] = {h[0],
               h[1],
               h[2],
               h[3],
               h[4],
               h[5],
               h[6],
               h[7],
               T::Set(kBlake3Iv[0]),
               T::Set(kBlake3Iv[1]),
               T::Set(kBlake3Iv[2]),
               T::Set(kBlake3Iv[3]),
               T::Load(low),
               T::Load(high),
               T::Set(64),
               T::Set(f)};
    Blake3Rounds<T>(v, m);
    for (int i = 0; i < 8; ++i) h[i] = T::Xor(v[i], v[i + 8]);
  }
  T::StoreWords(h, n, out);
}

}  // namespace
}  // namespace pb

#endif  // PARITYBIT_BASE_BLAKE3_LANES_H_

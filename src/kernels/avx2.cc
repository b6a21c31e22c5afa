// AVX2 with FMA and F16C. Compiled with its own flags; entered only where IsaAvailable says so.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/exp_constants.h"
#include "kernels/ref.h"
#include "kernels/targets.h"

namespace pb {
namespace {

constexpr int kDotTile = 2;
constexpr int kContextParts = 1;

struct Vec {
  __m256 lo, hi;
};
struct Ints {
  __m256i lo, hi;
};
struct Doubles {
  __m256d v[4];
};

inline Vec Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline Vec LoadN(const float* p, int64_t n) {
  if (n == 16) return Load(p);
  float buffer[16] = {};
  __builtin_memcpy(buffer, p, static_cast<size_t>(n) * 4);
  return Load(buffer);
}
inline __m256 Widen(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec Load(const uint16_t* p) { return {Widen(p), Widen(p + 8)}; }
inline Vec LoadN(const uint16_t* p, int64_t n) {
  if (n == 16) return Load(p);
  uint16_t buffer[16] = {};
  __builtin_memcpy(buffer, p, static_cast<size_t>(n) * 2);
  return Load(buffer);
}
inline void Store(float* p, Vec v) { _mm256_storeu_ps(p, v.lo), _mm256_storeu_ps(p + 8, v.hi); }
inline void StoreN(float* p, Vec v, int64_t n) {
  if (n == 16) return Store(p, v);
  float buffer[16];
  Store(buffer, v);
  __builtin_memcpy(p, buffer, static_cast<size_t>(n) * 4);
}
inline __m128i Half(__m256 v) { return _mm256_cvtps_ph(v, 0); }  // 0: to nearest even
inline void StoreHalf(uint16_t* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), Half(v.lo));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), Half(v.hi));
}
inline void StoreHalfN(uint16_t* p, Vec v, int64_t n) {
  uint16_t buffer[16];
  StoreHalf(buffer, v);
  __builtin_memcpy(p, buffer, static_cast<size_t>(n) * 2);
}
inline Vec RoundHalf(Vec v) { return {_mm256_cvtph_ps(Half(v.lo)), _mm256_cvtph_ps(Half(v.hi))}; }
inline float RoundHalf(float v) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph(_mm_set_ss(v), 0))); }
inline Vec Set(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
inline Vec Add(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Vec Sub(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline Vec Mul(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Vec Div(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline Vec Fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline __m256 Negate(__m256 v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }
inline Vec Negate(Vec v) { return {Negate(v.lo), Negate(v.hi)}; }
inline Vec MaxKeep(Vec a, Vec b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}  // a > b ? a : b
inline __m256 ZeroNegative(__m256 v) {
  return _mm256_andnot_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ), v);
}
inline Vec ZeroNegative(Vec v) { return {ZeroNegative(v.lo), ZeroNegative(v.hi)}; }
inline float SquareRoot(float v) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(v))); }

inline float Fold(Vec v) {
  __m256 h = _mm256_add_ps(v.lo, v.hi);
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline float FoldMax(Vec v) {  // no NaN inside: MaxKeep drops them
  __m256 h = _mm256_max_ps(v.lo, v.hi);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

inline Doubles ZeroDoubles() {
  return {{_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()}};
}
inline Doubles AddDoubles(Doubles s, Vec v) {
  return {{_mm256_add_pd(s.v[0], _mm256_cvtps_pd(_mm256_castps256_ps128(v.lo))),
           _mm256_add_pd(s.v[1], _mm256_cvtps_pd(_mm256_extractf128_ps(v.lo, 1))),
           _mm256_add_pd(s.v[2], _mm256_cvtps_pd(_mm256_castps256_ps128(v.hi))),
           _mm256_add_pd(s.v[3], _mm256_cvtps_pd(_mm256_extractf128_ps(v.hi, 1)))}};
}
inline double Fold(Doubles s) {
  __m256d h = _mm256_add_pd(_mm256_add_pd(s.v[0], s.v[2]), _mm256_add_pd(s.v[1], s.v[3]));
  __m128d q = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
  return _mm_cvtsd_f64(_mm_add_sd(q, _mm_unpackhi_pd(q, q)));
}

inline __m256i AbsBits(__m256 v) {
  return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
}
inline Ints AbsBits(Vec v) { return {AbsBits(v.lo), AbsBits(v.hi)}; }
inline Ints MaxInts(Ints a, Ints b) { return {_mm256_max_epu32(a.lo, b.lo), _mm256_max_epu32(a.hi, b.hi)}; }
inline uint32_t FoldMaxInts(Ints v) {
  __m256i h = _mm256_max_epu32(v.lo, v.hi);
  __m128i q = _mm_max_epu32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  q = _mm_max_epu32(q, _mm_shuffle_epi32(q, _MM_SHUFFLE(1, 0, 3, 2)));
  q = _mm_max_epu32(q, _mm_shuffle_epi32(q, _MM_SHUFFLE(2, 3, 0, 1)));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(q));
}

inline int32_t FoldInts(__m256i v) {
  __m128i q = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, _MM_SHUFFLE(1, 0, 3, 2)));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm_cvtsi128_si32(q);
}

// Rounds 32 values to int8 codes; returns their sum.
inline int32_t RoundCodes(Vec a, Vec b, int8_t* codes) {
  __m256i i0 = _mm256_cvtps_epi32(a.lo), i1 = _mm256_cvtps_epi32(a.hi);
  __m256i i2 = _mm256_cvtps_epi32(b.lo), i3 = _mm256_cvtps_epi32(b.hi);
  __m256i bytes =
      _mm256_packs_epi16(_mm256_packs_epi32(i0, i1), _mm256_packs_epi32(i2, i3));  // works in 128-bit halves
  bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), bytes);
  return FoldInts(_mm256_add_epi32(_mm256_add_epi32(i0, i1), _mm256_add_epi32(i2, i3)));
}

inline __m256 Exp(__m256 x) {
  auto set = [](float v) { return _mm256_set1_ps(v); };
  // the second operand where x is NaN
  x = _mm256_max_ps(set(kExpLow), _mm256_min_ps(set(kExpHigh), x));
  __m256 shifted = _mm256_fmadd_ps(x, set(kLog2E), set(kRoundMagic)),
         n = _mm256_sub_ps(shifted, set(kRoundMagic));
  __m256 r = _mm256_fmadd_ps(n, set(-kLn2Low), _mm256_fmadd_ps(n, set(-kLn2High), x));
  __m256 p = set(kExpTaylor[7]);
  for (int i = 6; i >= 0; i--) p = _mm256_fmadd_ps(p, r, set(kExpTaylor[i]));
  __m256i e = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(set(kRoundMagic)));
  __m256i half = _mm256_srai_epi32(e, 1), rest = _mm256_sub_epi32(e, half), bias = _mm256_set1_epi32(127);
  __m256 s0 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  __m256 s1 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(p, s0), s1);
}
inline Vec Exp(Vec v) { return {Exp(v.lo), Exp(v.hi)}; }

// None goes ahead in tiles larger than DotTile's.
template <typename A, typename B>
inline int64_t LeadingDots(const A*, const B*, int64_t, int64_t, int64_t, float*, int64_t) {
  return 0;
}

#include "kernels/simd_body.h"

inline __m256i Broadcast4(const int8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}

// Products of 8 rows by 4 columns, summed in pairs. Codes below 16 times |activation| <= 127 stay
// within int16 in pairs; signed codes go through |w| * sign(x, w), where 2 * 128 * 127 fits as well.
template <int kBits>
inline __m256i QuadPairs(const uint8_t* bytes, int q, const int8_t* codes) {
  __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + q % kBits * 64)),
          x = Broadcast4(codes + 4 * q);
  if constexpr (kBits == 8) {
    x = _mm256_sign_epi8(x, w), w = _mm256_abs_epi8(w);
  } else {
    w = _mm256_and_si256(_mm256_srli_epi16(w, q / kBits * kBits),
                         _mm256_set1_epi8(static_cast<char>((1 << kBits) - 1)));
  }
  return _mm256_maddubs_epi16(w, x);
}
template <int kBits>
inline __m256i QuadSums(const uint8_t* bytes, int q, const int8_t* codes) {
  return _mm256_madd_epi16(QuadPairs<kBits>(bytes, q, codes), _mm256_set1_epi16(1));
}

// Writes 8 outputs of a token row, with the scales that cover all of them.
inline void Finish(const PackedProduct& p, __m256 v, int64_t row, int64_t t) {
  if (p.x->scheme == ActScheme::kBitnet) v = _mm256_div_ps(v, _mm256_set1_ps(p.x->scales[t * p.x->n_blocks]));
  v = _mm256_mul_ps(_mm256_mul_ps(v, _mm256_set1_ps(p.w->scale)), _mm256_set1_ps(p.post_scale));
  float buffer[8];
  _mm256_storeu_ps(buffer, v);
  const int64_t rows = p.w->n_rows - row < 8 ? p.w->n_rows - row : 8;
  __builtin_memcpy(p.out + t * p.out_stride + row, buffer, static_cast<size_t>(rows) * 4);
}

// Half a group (8 rows) against one token row.
template <int kBits, bool kMin>
void ProductTile(const PackedProduct& p, int64_t row, int64_t t) {
  const PackedMatrix& w = *p.w;
  const QuantRows& x = *p.x;
  const int x_shift = SchemeShift(x.scheme), shift = w.block_shift < x_shift ? w.block_shift : x_shift;
  const bool bitnet = x.scheme == ActScheme::kBitnet;
  const int64_t n_subs = w.n_subs(), group = row / kGroupRows, half = row % kGroupRows;
  const uint8_t* bytes = w.codes.get() + group * n_subs * kBits * 64 + half * 4;
  const int64_t w_at = group * w.n_blocks() * kGroupRows + half;
  const int8_t* codes = x.codes.get() + t * x.n_columns;
  const float* scales = x.scales.get() + t * x.n_blocks;
  const float* sums = x.sums.get() + t * n_subs;
  const int32_t* prefix = x.prefix.get() + t * (n_subs + 1);
  __m256 acc[8], low = _mm256_setzero_ps();
  for (auto& a : acc) a = _mm256_setzero_ps();
  for (int64_t begin = 0; begin < n_subs; begin += int64_t{1} << shift) {
    int64_t end = begin + (int64_t{1} << shift) < n_subs ? begin + (int64_t{1} << shift) : n_subs;
    __m256i lane[8];
    for (int q = 0; q < 8; q++) {
      int32_t offset = 0;
      for (int64_t sub = begin + q; kBits == 2 && sub < end; sub += 8)  // ternary codes are one too high
        offset += prefix[sub] - prefix[sub + 1];
      lane[q] = _mm256_set1_epi32(offset);
    }
    for (int64_t sub = begin; sub < end; sub++) {
      for (int q = 0; q < 8; q++) {
        lane[q] = _mm256_add_epi32(lane[q], QuadSums<kBits>(bytes + sub * kBits * 64, q, codes + sub * kSub));
      }
    }
    const int64_t block = w_at + (begin >> w.block_shift) * kGroupRows;
    __m256 d = Widen(w.scales.get() + block);
    if (!bitnet) d = _mm256_mul_ps(d, _mm256_set1_ps(scales[begin >> x_shift]));
    for (int q = 0; q < 8; q++) acc[q] = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(lane[q]), acc[q]);
    if constexpr (kMin)
      low = _mm256_fmadd_ps(Widen(w.minima.get() + block), _mm256_set1_ps(sums[begin]), low);
  }
  for (int n = 4; n > 0; n /= 2) {
    for (int q = 0; q < n; q++) acc[q] = _mm256_add_ps(acc[q], acc[q + n]);
  }
  Finish(p, kMin ? _mm256_add_ps(acc[0], low) : acc[0], row, t);
}

inline __m256i WidenScales(const int8_t* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline __m256i WidenScales(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline int32_t SumOf16(const int8_t* x) {
  const __m256i v = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  return FoldInts(_mm256_madd_epi16(v, _mm256_set1_epi16(1)));
}

// Half a group (8 rows) with fine scales against one token row. A fine scale enters where pairs are
// added: the product of a pair of int16 with it is exact in 32 bits. Four pairs of codes within
// -32 to 32 stay within int16 (4 * 2 * 32 * 127), eight of codes below 16; wide codes go alone.
template <int kBits, bool kMin, int kFine, bool kWide>
void FineTile(const PackedProduct& p, int64_t row, int64_t t) {
  const PackedMatrix& w = *p.w;
  const QuantRows& x = *p.x;
  const int x_shift = SchemeShift(x.scheme), shift = w.block_shift < x_shift ? w.block_shift : x_shift;
  const bool bitnet = x.scheme == ActScheme::kBitnet;
  const int64_t n_subs = w.n_subs(), group = row / kGroupRows, half = row % kGroupRows;
  const uint8_t* bytes = w.codes.get() + group * n_subs * kBits * 64 + half * 4;
  const int64_t w_at = group * w.n_blocks() * kGroupRows + half;
  const int64_t fine_at = group * (w.n_columns / kFine) * kGroupRows + half;
  const int8_t* codes = x.codes.get() + t * x.n_columns;
  const float* scales = x.scales.get() + t * x.n_blocks;
  const int32_t* prefix = x.prefix.get() + t * (n_subs + 1);
  constexpr int kTogether = kWide ? 1 : kBits == 8 ? 4 : kFine / 4;
  __m256 acc = _mm256_setzero_ps(), low = acc;
  for (int64_t begin = 0; begin < n_subs; begin += int64_t{1} << shift) {
    const int64_t end = begin + (int64_t{1} << shift);
    __m256i products = _mm256_setzero_si256(), minima = products;
    for (int64_t sub = begin; sub < end; sub++) {
      for (int part = 0; part < kSub / kFine; part++) {
        const int64_t at = fine_at + (sub * (kSub / kFine) + part) * kGroupRows;
        const __m256i fine = WidenScales(w.fine_scales.get() + at);
        const __m256i pairs = _mm256_blend_epi16(fine, _mm256_slli_epi32(fine, 16), 0xaa);
        for (int q = part * (kFine / 4); q < (part + 1) * (kFine / 4); q += kTogether) {
          __m256i sums = QuadPairs<kBits>(bytes + sub * kBits * 64, q, codes + sub * kSub);
          for (int i = 1; i < kTogether; i++)
            sums =
                _mm256_add_epi16(sums, QuadPairs<kBits>(bytes + sub * kBits * 64, q + i, codes + sub * kSub));
          products = _mm256_add_epi32(products, _mm256_madd_epi16(sums, pairs));
        }
        if constexpr (kMin) {
          const int32_t sum =
              kFine == kSub ? prefix[sub + 1] - prefix[sub] : SumOf16(codes + sub * kSub + part * kFine);
          minima = _mm256_add_epi32(
              minima, _mm256_mullo_epi32(WidenScales(w.fine_minima.get() + at), _mm256_set1_epi32(sum)));
        }
      }
    }
    const int64_t block = w_at + (begin >> w.block_shift) * kGroupRows;
    const __m256 scale = _mm256_set1_ps(bitnet ? 1.0f : scales[begin >> x_shift]);
    acc = _mm256_fmadd_ps(_mm256_mul_ps(Widen(w.scales.get() + block), scale), _mm256_cvtepi32_ps(products),
                          acc);
    if constexpr (kMin)
      low = _mm256_fmadd_ps(_mm256_mul_ps(Widen(w.minima.get() + block), scale), _mm256_cvtepi32_ps(minima),
                            low);
  }
  Finish(p, kMin ? _mm256_sub_ps(acc, low) : acc, row, t);
}

// Calls tile(row, t) for each half of a group and each token row.
template <typename Tile>
void ForTiles(const PackedProduct& p, int64_t begin_group, int64_t end_group, Tile tile) {
  int64_t end_row = end_group * kGroupRows < p.w->n_rows ? end_group * kGroupRows : p.w->n_rows;
  for (int64_t row = begin_group * kGroupRows; row < end_row; row += 8) {
    for (int64_t t = 0; t < p.x->n_rows; t++) tile(p, row, t);
  }
}

void PackedProducts(const PackedProduct& p, int64_t begin_group, int64_t end_group) {
  const PackedMatrix& w = *p.w;
  const auto run = [&](auto tile) { ForTiles(p, begin_group, end_group, tile); };
  if (w.fine == 0) {
    if (w.bits == 2) return run(ProductTile<2, false>);
    if (w.bits == 4) return run(ProductTile<4, true>);
    if (w.has_min) return run(ProductTile<8, true>);
    return run(ProductTile<8, false>);
  }
  if (w.bits == 2) return run(FineTile<2, true, 16, false>);
  if (w.bits == 4) return run(FineTile<4, true, 32, false>);
  if (w.has_min) return run(FineTile<8, true, 32, false>);
  if (w.fine == 16) return run(FineTile<8, false, 16, false>);
  run(FineTile<8, false, 32, true>);
}

}  // namespace

const Kernels& Avx2Kernels() { return TableOf(Isa::kAvx2, PackedProducts); }

}  // namespace pb
#endif

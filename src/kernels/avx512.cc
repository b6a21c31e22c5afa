// AVX-512 (F, BW, DQ, VL, VNNI). Compiled with its own flags; entered only where IsaAvailable says
// so.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels/exp_constants.h"
#include "kernels/ref.h"
#include "kernels/targets.h"

namespace pb {
namespace {

constexpr int kDotTile = 4;
constexpr int kContextParts = 2;

using Vec = __m512;
using Ints = __m512i;
struct Doubles {
  __m512d lo, hi;
};

inline __mmask16 MaskOf(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline Vec Load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec LoadN(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(MaskOf(n), p); }
inline Vec Load(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec LoadN(const uint16_t* p, int64_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(MaskOf(n), p));
}
inline void Store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline void StoreN(float* p, Vec v, int64_t n) { _mm512_mask_storeu_ps(p, MaskOf(n), v); }
inline __m256i Half(Vec v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline void StoreHalf(uint16_t* p, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), Half(v)); }
inline void StoreHalfN(uint16_t* p, Vec v, int64_t n) { _mm256_mask_storeu_epi16(p, MaskOf(n), Half(v)); }
inline Vec RoundHalf(Vec v) { return _mm512_cvtph_ps(Half(v)); }
inline float RoundHalf(float v) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph(_mm_set_ss(v), 0))); }
inline Vec Set(float v) { return _mm512_set1_ps(v); }
inline Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec Negate(Vec v) { return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f)); }
inline Vec MaxKeep(Vec a, Vec b) { return _mm512_max_ps(a, b); }  // a > b ? a : b
inline Vec ZeroNegative(Vec v) {
  return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), _mm512_setzero_ps());
}
inline float SquareRoot(float v) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(v))); }

inline float Fold8(__m256 v) {
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline float Fold(Vec v) {
  return Fold8(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}
// no NaN inside: MaxKeep drops them
inline float FoldMax(Vec v) { return _mm512_reduce_max_ps(v); }

inline Doubles ZeroDoubles() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
inline Doubles AddDoubles(Doubles s, Vec v) {
  return {_mm512_add_pd(s.lo, _mm512_cvtps_pd(_mm512_castps512_ps256(v))),
          _mm512_add_pd(s.hi, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)))};
}
inline double Fold(Doubles s) {
  __m512d v = _mm512_add_pd(s.lo, s.hi);
  __m256d h = _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));
  __m128d q = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
  return _mm_cvtsd_f64(_mm_add_sd(q, _mm_unpackhi_pd(q, q)));
}

inline Ints AbsBits(Vec v) { return _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)); }
inline Ints MaxInts(Ints a, Ints b) { return _mm512_max_epu32(a, b); }
inline uint32_t FoldMaxInts(Ints v) { return _mm512_reduce_max_epu32(v); }

// Rounds 32 values to int8 codes; returns their sum.
inline int32_t RoundCodes(Vec a, Vec b, int8_t* codes) {
  __m512i ia = _mm512_cvtps_epi32(a), ib = _mm512_cvtps_epi32(b);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtsepi32_epi8(ia));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16), _mm512_cvtsepi32_epi8(ib));
  return _mm512_reduce_add_epi32(_mm512_add_epi32(ia, ib));
}

inline Vec Exp(Vec x) {
  // the second operand where x is NaN
  x = _mm512_max_ps(Set(kExpLow), _mm512_min_ps(Set(kExpHigh), x));
  Vec shifted = Fma(x, Set(kLog2E), Set(kRoundMagic)), n = Sub(shifted, Set(kRoundMagic));
  Vec r = Fma(n, Set(-kLn2Low), Fma(n, Set(-kLn2High), x));
  Vec p = Set(kExpTaylor[7]);
  for (int i = 6; i >= 0; i--) p = Fma(p, r, Set(kExpTaylor[i]));
  __m512i e = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(Set(kRoundMagic)));
  __m512i half = _mm512_srai_epi32(e, 1), rest = _mm512_sub_epi32(e, half), bias = _mm512_set1_epi32(127);
  Vec s0 = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
  Vec s1 = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(rest, bias), 23));
  return Mul(Mul(p, s0), s1);
}

// The sums of 16 vectors, each folded as Fold does it.
inline Vec Fold16(const Vec* v) {
  Vec of8[8], of4[4], of2[2];
  for (int i = 0; i < 8; i++)
    of8[i] = Add(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),
                 _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
  for (int i = 0; i < 4; i++)
    of4[i] = Add(_mm512_shuffle_f32x4(of8[2 * i], of8[2 * i + 1], 0x88),
                 _mm512_shuffle_f32x4(of8[2 * i], of8[2 * i + 1], 0xdd));
  for (int i = 0; i < 2; i++)
    of2[i] = Add(_mm512_shuffle_ps(of4[2 * i], of4[2 * i + 1], 0x44),
                 _mm512_shuffle_ps(of4[2 * i], of4[2 * i + 1], 0xee));
  const Vec sums = Add(_mm512_shuffle_ps(of2[0], of2[1], 0x88), _mm512_shuffle_ps(of2[0], of2[1], 0xdd));
  // Of vector 4 e + c the sum stands at 4 c + e.
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), sums);
}

// The first products of a row with rows of b, 16 at a time; how many they are.
template <typename A, typename B>
inline int64_t LeadingDots(const A* a, const B* b, int64_t b_stride, int64_t n_b, int64_t n, float* out,
                           int64_t out_stride) {
  if (n % 32 != 0) return 0;
  int64_t t = 0;
  for (; t + 16 <= n_b; t += 16) {
    Vec sums[16];
    for (int k = 0; k < 16; k += kDotTile) {
      Vec lo[kDotTile], hi[kDotTile];
      for (int j = 0; j < kDotTile; j++) lo[j] = hi[j] = Set(0.0f);
      for (int64_t i = 0; i < n; i += 32) {
        const Vec a0 = Load(a + i), a1 = Load(a + i + 16);
        for (int j = 0; j < kDotTile; j++) {
          const B* row = b + (t + k + j) * b_stride + i;
          lo[j] = Fma(a0, Load(row), lo[j]);
          hi[j] = Fma(a1, Load(row + 16), hi[j]);
        }
      }
      for (int j = 0; j < kDotTile; j++) sums[k + j] = Add(lo[j], hi[j]);
    }
    const Vec folded = Fold16(sums);
    if (out_stride == 1) {
      Store(out + t, folded);
      continue;
    }
    float values[16];
    Store(values, folded);
    for (int i = 0; i < 16; i++) out[(t + i) * out_stride] = values[i];
  }
  return t;
}

#include "kernels/simd_body.h"

inline __m512i Broadcast4(const int8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}

// The 8 lanes of code vectors of one sub, 16 rows by 4 columns each. Signed codes become magnitudes
// and a mask of signs, which the activations take over: dpbusd multiplies unsigned by signed.
template <int kBits>
struct SubCodes {
  __m512i code[8];
  __mmask64 negative[8];

  explicit SubCodes(const uint8_t* bytes) {
    const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << kBits) - 1));
    for (int q = 0; q < 8; q++) {
      __m512i raw = _mm512_loadu_si512(bytes + q % kBits * 64);
      if constexpr (kBits == 8) {
        negative[q] = _mm512_movepi8_mask(raw);
        code[q] = _mm512_abs_epi8(raw);
      } else {
        code[q] = _mm512_and_si512(_mm512_srli_epi16(raw, static_cast<unsigned>(q / kBits * kBits)), mask);
      }
    }
  }
  __m512i Add(__m512i sum, int q, const int8_t* x) const {
    __m512i v = Broadcast4(x + 4 * q);
    if constexpr (kBits == 8) v = _mm512_mask_sub_epi8(v, negative[q], _mm512_setzero_si512(), v);
    return _mm512_dpbusd_epi32(sum, code[q], v);
  }
};

// Writes the 16 outputs of a group for a token row, with the scales that cover all of them.
inline void Finish(const PackedProduct& p, Vec v, int64_t group, int64_t t) {
  if (p.x->scheme == ActScheme::kBitnet) v = Div(v, Set(p.x->scales[t * p.x->n_blocks]));
  v = Mul(Mul(v, Set(p.w->scale)), Set(p.post_scale));
  const int64_t row = group * kGroupRows,
                rows = p.w->n_rows - row < kGroupRows ? p.w->n_rows - row : kGroupRows;
  StoreN(p.out + t * p.out_stride + row, v, rows);
}

// The codes of lane q of a sub as dpbusd takes them: signed ones stand 128 higher, which the offset
// that their sum begins with takes back.
template <int kBits>
inline __m512i LaneCodes(const uint8_t* bytes, int q) {
  const __m512i raw = _mm512_loadu_si512(bytes + q % kBits * 64);
  if constexpr (kBits == 8) return _mm512_xor_si512(raw, _mm512_set1_epi8(-128));
  const __m512i mask = _mm512_set1_epi8(static_cast<char>((1 << kBits) - 1));
  return _mm512_and_si512(_mm512_srli_epi16(raw, static_cast<unsigned>(q / kBits * kBits)), mask);
}

// -128 times the sum of each four codes side by side, (n_rows, n_columns / 4).
AlignedArray<int32_t> OffsetsOf(const QuantRows& x) {
  const int64_t n = x.n_rows * x.n_columns;
  auto offsets = MakeAligned<int32_t>(n / 4);
  const __m256i high = _mm256_set1_epi8(-128), zero = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += kSub) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x.codes.get() + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(offsets.get() + i / 4),
                        _mm256_sub_epi32(zero, _mm256_dpbusd_epi32(zero, high, codes)));
  }
  return offsets;
}

// The sum of the 8 lanes, halves added.
inline Vec FoldLanes(const Vec* a) {
  return Add(Add(Add(a[0], a[4]), Add(a[2], a[6])), Add(Add(a[1], a[5]), Add(a[3], a[7])));
}

// One group of 16 rows against kTile token rows, where each sub is a block: lane by lane, so that all
// sums of a tile of 3 stay in registers.
template <int kBits, bool kMin, int kTile>
void SubTile(const PackedProduct& p, const int32_t* offsets, int64_t group, int64_t t0) {
  const PackedMatrix& w = *p.w;
  const QuantRows& x = *p.x;
  const bool bitnet = x.scheme == ActScheme::kBitnet;
  const int x_shift = SchemeShift(x.scheme);
  const int64_t n_subs = w.n_subs(), w_at = group * w.n_blocks() * kGroupRows;
  const uint8_t* bytes = w.codes.get() + group * n_subs * kBits * 64;
  const float* scales = x.scales.get() + t0 * x.n_blocks;
  const float* sums = x.sums.get() + t0 * n_subs;
  const int32_t* prefix = x.prefix.get() + t0 * (n_subs + 1);
  Vec acc[kTile][8], low[kTile];
  for (int t = 0; t < kTile; t++) {
    low[t] = Set(0.0f);
    for (int q = 0; q < 8; q++) acc[t][q] = Set(0.0f);
  }
  for (int64_t sub = 0; sub < n_subs; sub++) {
    const int64_t block = w_at + (sub >> w.block_shift) * kGroupRows;
    const Vec d = Load(w.scales.get() + block);
    Vec scale[kTile];
    for (int t = 0; t < kTile; t++) {
      scale[t] = bitnet ? d : Mul(d, Set(scales[t * x.n_blocks + (sub >> x_shift)]));
      if constexpr (kMin) low[t] = Fma(Load(w.minima.get() + block), Set(sums[t * n_subs + sub]), low[t]);
    }
#pragma GCC unroll 8
    for (int q = 0; q < 8; q++) {
      const __m512i code = LaneCodes<kBits>(bytes + sub * kBits * 64, q);
#pragma GCC unroll 8
      for (int t = 0; t < kTile; t++) {
        const int64_t at = (t0 + t) * x.n_columns + sub * kSub + 4 * q;
        __m512i lane = _mm512_setzero_si512();
        if constexpr (kBits == 8) lane = _mm512_set1_epi32(offsets[at / 4]);
        if (kBits == 2 && q == 0) {  // ternary codes are one too high
          const int32_t* before = prefix + t * (n_subs + 1) + sub;
          lane = _mm512_set1_epi32(before[0] - before[1]);
        }
        lane = _mm512_dpbusd_epi32(lane, code, Broadcast4(x.codes.get() + at));
        acc[t][q] = Fma(scale[t], _mm512_cvtepi32_ps(lane), acc[t][q]);
      }
    }
  }
  for (int t = 0; t < kTile; t++) {
    const Vec v = FoldLanes(acc[t]);
    Finish(p, kMin ? Add(v, low[t]) : v, group, t0 + t);
  }
}

// One group of 16 rows of ternary codes against kTile token rows, where a block is several subs.
template <int kTile>
void TernaryTile(const PackedProduct& p, int64_t group, int64_t t0) {
  constexpr int kBits = 2;
  const PackedMatrix& w = *p.w;
  const QuantRows& x = *p.x;
  const int x_shift = SchemeShift(x.scheme), shift = w.block_shift < x_shift ? w.block_shift : x_shift;
  const bool bitnet = x.scheme == ActScheme::kBitnet;
  const int64_t n_subs = w.n_subs();
  const uint8_t* bytes = w.codes.get() + group * n_subs * kBits * 64;
  const int64_t w_at = group * w.n_blocks() * kGroupRows;
  const int8_t* codes = x.codes.get() + t0 * x.n_columns;
  const float* scales = x.scales.get() + t0 * x.n_blocks;
  const int32_t* prefix = x.prefix.get() + t0 * (n_subs + 1);
  Vec acc[kTile][8];
  for (int t = 0; t < kTile; t++) {
    for (int q = 0; q < 8; q++) acc[t][q] = Set(0.0f);
  }
  for (int64_t begin = 0; begin < n_subs; begin += int64_t{1} << shift) {
    int64_t end = begin + (int64_t{1} << shift) < n_subs ? begin + (int64_t{1} << shift) : n_subs;
    __m512i lane[kTile][8];
    for (int t = 0; t < kTile; t++) {
      const int32_t* before = prefix + t * (n_subs + 1);
      for (int q = 0; q < 8; q++) {
        int32_t offset = 0;
        for (int64_t sub = begin + q; sub < end; sub += 8)  // the codes are one too high
          offset += before[sub] - before[sub + 1];
        lane[t][q] = _mm512_set1_epi32(offset);
      }
    }
    for (int64_t sub = begin; sub < end; sub++) {
      const SubCodes<kBits> w_codes(bytes + sub * kBits * 64);
      for (int q = 0; q < 8; q++) {
        for (int t = 0; t < kTile; t++)
          lane[t][q] = w_codes.Add(lane[t][q], q, codes + t * x.n_columns + sub * kSub);
      }
    }
    const Vec d = Load(w.scales.get() + w_at + (begin >> w.block_shift) * kGroupRows);
    for (int t = 0; t < kTile; t++) {
      const Vec scale = bitnet ? d : Mul(d, Set(scales[t * x.n_blocks + (begin >> x_shift)]));
      for (int q = 0; q < 8; q++) acc[t][q] = Fma(scale, _mm512_cvtepi32_ps(lane[t][q]), acc[t][q]);
    }
  }
  for (int t = 0; t < kTile; t++) Finish(p, FoldLanes(acc[t]), group, t0 + t);
}

inline __m512i WidenScales(const int8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m512i WidenScales(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline int32_t SumOf16(const int8_t* x) {
  return _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
}

// One group of 16 rows with fine scales against kTile token rows.
template <int kBits, bool kMin, int kFine, int kTile>
void FineTile(const PackedProduct& p, int64_t group, int64_t t0) {
  const PackedMatrix& w = *p.w;
  const QuantRows& x = *p.x;
  const int x_shift = SchemeShift(x.scheme), shift = w.block_shift < x_shift ? w.block_shift : x_shift;
  const bool bitnet = x.scheme == ActScheme::kBitnet;
  const int64_t n_subs = w.n_subs();
  const uint8_t* bytes = w.codes.get() + group * n_subs * kBits * 64;
  const int64_t w_at = group * w.n_blocks() * kGroupRows;
  const int64_t fine_at = group * (w.n_columns / kFine) * kGroupRows;
  const int8_t* fine_scales = w.fine_scales.get() + fine_at;
  const int8_t* codes = x.codes.get() + t0 * x.n_columns;
  const float* scales = x.scales.get() + t0 * x.n_blocks;
  const int32_t* prefix = x.prefix.get() + t0 * (n_subs + 1);
  Vec acc[kTile], low[kTile];
  for (int t = 0; t < kTile; t++) acc[t] = Set(0.0f), low[t] = Set(0.0f);
  for (int64_t begin = 0; begin < n_subs; begin += int64_t{1} << shift) {
    const int64_t end = begin + (int64_t{1} << shift);
    __m512i products[kTile], minima[kTile];
    for (int t = 0; t < kTile; t++) products[t] = minima[t] = _mm512_setzero_si512();
    for (int64_t sub = begin; sub < end; sub++) {
      const SubCodes<kBits> w_codes(bytes + sub * kBits * 64);
      for (int part = 0; part < kSub / kFine; part++) {
        const int64_t at = (sub * (kSub / kFine) + part) * kGroupRows;
        const __m512i fine = WidenScales(fine_scales + at);
        for (int t = 0; t < kTile; t++) {
          const int8_t* row = codes + t * x.n_columns + sub * kSub;
          __m512i dot = _mm512_setzero_si512();
          for (int q = part * (kFine / 4); q < (part + 1) * (kFine / 4); q++) dot = w_codes.Add(dot, q, row);
          products[t] = _mm512_add_epi32(products[t], _mm512_mullo_epi32(fine, dot));
          if constexpr (kMin) {
            const int32_t* before = prefix + t * (n_subs + 1) + sub;
            const int32_t sum = kFine == kSub ? before[1] - before[0] : SumOf16(row + part * kFine);
            const __m512i fine_minimum = WidenScales(w.fine_minima.get() + fine_at + at);
            minima[t] = _mm512_add_epi32(minima[t], _mm512_mullo_epi32(fine_minimum, _mm512_set1_epi32(sum)));
          }
        }
      }
    }
    const int64_t block = w_at + (begin >> w.block_shift) * kGroupRows;
    for (int t = 0; t < kTile; t++) {
      const Vec scale = Set(bitnet ? 1.0f : scales[t * x.n_blocks + (begin >> x_shift)]);
      acc[t] = Fma(Mul(Load(w.scales.get() + block), scale), _mm512_cvtepi32_ps(products[t]), acc[t]);
      if constexpr (kMin)
        low[t] = Fma(Mul(Load(w.minima.get() + block), scale), _mm512_cvtepi32_ps(minima[t]), low[t]);
    }
  }
  for (int t = 0; t < kTile; t++) {
    Finish(p, kMin ? Sub(acc[t], low[t]) : acc[t], group, t0 + t);
  }
}

template <int kBits, bool kMin, int kFine>
void FineProduct(const PackedProduct& p, int64_t begin_group, int64_t end_group) {
  for (int64_t g = begin_group; g < end_group; g++) {
    int64_t t = 0;
    for (; t + 4 <= p.x->n_rows; t += 4) FineTile<kBits, kMin, kFine, 4>(p, g, t);
    for (; t < p.x->n_rows; t++) FineTile<kBits, kMin, kFine, 1>(p, g, t);
  }
}

template <int kBits, bool kMin>
void SubProduct(const PackedProduct& p, int64_t begin_group, int64_t end_group) {
  const AlignedArray<int32_t> offsets = kBits == 8 ? OffsetsOf(*p.x) : nullptr;
  for (int64_t g = begin_group; g < end_group; g++) {
    int64_t t = 0;
    for (; t + 3 <= p.x->n_rows; t += 3) SubTile<kBits, kMin, 3>(p, offsets.get(), g, t);
    for (; t < p.x->n_rows; t++) SubTile<kBits, kMin, 1>(p, offsets.get(), g, t);
  }
}

void TernaryProduct(const PackedProduct& p, int64_t begin_group, int64_t end_group) {
  for (int64_t g = begin_group; g < end_group; g++) {
    int64_t t = 0;
    for (; t + 2 <= p.x->n_rows; t += 2) TernaryTile<2>(p, g, t);
    for (; t < p.x->n_rows; t++) TernaryTile<1>(p, g, t);
  }
}

void PackedProducts(const PackedProduct& p, int64_t begin_group, int64_t end_group) {
  const PackedMatrix& w = *p.w;
  if (w.fine == 0) {
    const bool by_subs = w.block_shift == 0 || SchemeShift(p.x->scheme) == 0;
    if (w.bits == 2 && by_subs) return SubProduct<2, false>(p, begin_group, end_group);
    if (w.bits == 2) return TernaryProduct(p, begin_group, end_group);
    // Only ternary types have longer blocks.
    if (w.bits == 4) return SubProduct<4, true>(p, begin_group, end_group);
    if (w.has_min) return SubProduct<8, true>(p, begin_group, end_group);
    return SubProduct<8, false>(p, begin_group, end_group);
  }
  if (w.bits == 2) return FineProduct<2, true, 16>(p, begin_group, end_group);
  if (w.bits == 4) return FineProduct<4, true, 32>(p, begin_group, end_group);
  if (w.has_min) return FineProduct<8, true, 32>(p, begin_group, end_group);
  if (w.fine == 16) return FineProduct<8, false, 16>(p, begin_group, end_group);
  FineProduct<8, false, 32>(p, begin_group, end_group);
}

}  // namespace

const Kernels& Avx512Kernels() { return TableOf(Isa::kAvx512, PackedProducts); }

}  // namespace pb
#endif

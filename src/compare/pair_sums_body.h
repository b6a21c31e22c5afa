// The loops of pair_sums.h over vectors of the compiler's, which makes of them what the including
// file's instruction set has, of PB_VECTOR_BYTES. Included once in each of those files, inside its
// unnamed namespace, and by nothing else; uses nothing of the library, whose inline functions are
// other files' as well.

#ifndef PB_DOUBLES  // of Floats, where the compiler's own way is not one instruction
#define PB_DOUBLES(floats) __builtin_convertvector(floats, Doubles)
#endif

using Doubles = double __attribute__((vector_size(PB_VECTOR_BYTES)));
using Floats = float __attribute__((vector_size(PB_VECTOR_BYTES / 2)));
using Bits = int __attribute__((vector_size(PB_VECTOR_BYTES)));

constexpr size_t kWidth = sizeof(Doubles) / sizeof(double), kVectors = kPairLanes / kWidth;
constexpr size_t kBlock = 64;  // values that are looked at in one go
constexpr size_t kBitLanes = sizeof(Bits) / sizeof(int);
// What halves of wider ones are.
using Bits16 = int __attribute__((vector_size(16)));
using Bits32 = int __attribute__((vector_size(32)));
constexpr int kNoSign = 0x7fffffff;
constexpr int kInfinite = 0x7f800000;                   // magnitudes that are not finite are this or more
constexpr int kMasked = static_cast<int>(0xff800000u);  // -inf

struct Lanes {
  Doubles ee[kVectors], qq[kVectors], pp[kVectors], p[kVectors], q[kVectors], max_ee[kVectors];
};

// Adds kPairLanes values to the lanes and to their columns.
inline __attribute__((always_inline)) void AddVectors(const float* x, const float* y, Lanes* row,
                                                      double* column_error, double* column_norm) {
#pragma GCC unroll 4
  for (size_t v = 0; v < kVectors; v++) {
    Floats a, b;
    __builtin_memcpy(&a, x + v * kWidth, sizeof a), __builtin_memcpy(&b, y + v * kWidth, sizeof b);
    const Doubles p = PB_DOUBLES(a), q = PB_DOUBLES(b), e = p - q, ee = e * e, qq = q * q;
    Doubles error, norm;
    __builtin_memcpy(&error, column_error + v * kWidth, sizeof error);
    __builtin_memcpy(&norm, column_norm + v * kWidth, sizeof norm);
    error += ee, norm += qq;
    __builtin_memcpy(column_error + v * kWidth, &error, sizeof error);
    __builtin_memcpy(column_norm + v * kWidth, &norm, sizeof norm);
    row->ee[v] += ee, row->qq[v] += qq, row->pp[v] += p * p, row->p[v] += p, row->q[v] += q;
    row->max_ee[v] = ee > row->max_ee[v] ? ee : row->max_ee[v];
  }
}

inline int BitsOf(float v) {
  int bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  return bits;
}

// What `take`, of two vectors, makes of all lanes: of a vector's halves until one lane is left, as one lane
// after the other is a long chain.
template <typename Take>
inline __attribute__((always_inline)) int OfLanes(Bits16 v, Take take) {
  v = take(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));
  return take(v, __builtin_shufflevector(v, v, 1, 0, 3, 2))[0];
}

template <typename Half, typename Vector, typename Take>
inline __attribute__((always_inline)) int OfHalves(const Vector& v, Take take) {
  Half halves[2];
  static_assert(sizeof halves == sizeof v);
  __builtin_memcpy(halves, &v, sizeof v);
  return OfLanes(take(halves[0], halves[1]), take);
}
#if PB_VECTOR_BYTES > 16
template <typename Take>
inline __attribute__((always_inline)) int OfLanes(Bits32 v, Take take) {
  return OfHalves<Bits16>(v, take);
}
#endif
#if PB_VECTOR_BYTES > 32
template <typename Take>
inline __attribute__((always_inline)) int OfLanes(Bits v, Take take) {
  return OfHalves<Bits32>(v, take);
}
#endif

struct Larger {
  template <typename Vector>
  __attribute__((always_inline)) Vector operator()(const Vector& a, const Vector& b) const {
    return a > b ? a : b;
  }
};
struct Either {
  template <typename Vector>
  __attribute__((always_inline)) Vector operator()(const Vector& a, const Vector& b) const {
    return a | b;
  }
};

// The largest of kBlock magnitudes of either row, by its bits, which are in their order.
inline __attribute__((always_inline)) int LargestOfBlock(const float* x, const float* y) {
  Bits lanes = {};
  for (size_t k = 0; k < kBlock; k += kBitLanes) {
    Bits a, b;
    __builtin_memcpy(&a, x + k, sizeof a), __builtin_memcpy(&b, y + k, sizeof b);
    a &= kNoSign, b &= kNoSign;
    lanes = a > lanes ? a : lanes;
    lanes = b > lanes ? b : lanes;
  }
  return OfLanes(lanes, Larger());
}

size_t AddFinite(const float* x, const float* y, size_t n, PairLanes* row, double* column_error,
                 double* column_norm, float* largest) {
  Lanes sums;
  static_assert(sizeof sums == sizeof *row && kBlock % kPairLanes == 0);
  __builtin_memcpy(&sums, row, sizeof sums);
  int most = BitsOf(*largest);
  size_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    const int block = LargestOfBlock(x + i, y + i);
    if (block >= kInfinite) break;
    most = block > most ? block : most;
    if (block == 0) continue;  // zeros add nothing
    for (size_t k = i; k < i + kBlock; k += kPairLanes)
      AddVectors(x + k, y + k, &sums, column_error + k, column_norm + k);
  }
  size_t end = i;
  for (; end < n; end++) {
    const int a = BitsOf(x[end]) & kNoSign, b = BitsOf(y[end]) & kNoSign, larger = a > b ? a : b;
    if (larger >= kInfinite) break;
    most = larger > most ? larger : most;
  }
  for (; i + kPairLanes <= end; i += kPairLanes)
    AddVectors(x + i, y + i, &sums, column_error + i, column_norm + i);
  if (i < end) {  // padded with zeros
    float p[kPairLanes] = {}, q[kPairLanes] = {};
    double error[kPairLanes] = {}, norm[kPairLanes] = {};
    for (size_t k = 0; i + k < end; k++) p[k] = x[i + k], q[k] = y[i + k];
    AddVectors(p, q, &sums, error, norm);
    for (size_t k = 0; i + k < end; k++) column_error[i + k] += error[k], column_norm[i + k] += norm[k];
  }
  __builtin_memcpy(row, &sums, sizeof sums);
  __builtin_memcpy(largest, &most, sizeof most);
  return end;
}

size_t MaskedRun(const float* x, const float* y, size_t n) {
  size_t i = 0;
  for (; i + kBitLanes <= n; i += kBitLanes) {
    Bits a, b;
    __builtin_memcpy(&a, x + i, sizeof a), __builtin_memcpy(&b, y + i, sizeof b);
    const Bits other = (a ^ kMasked) | (b ^ kMasked);
    if (OfLanes(other, Either()) != 0) break;
  }
  while (i < n && BitsOf(x[i]) == kMasked && BitsOf(y[i]) == kMasked) i++;
  return i;
}

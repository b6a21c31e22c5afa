// The loops of pair_sums.h over vectors of the compiler's, which makes of them what the including
// file's instruction set has, of PB_VECTOR_BYTES. Included once in each of those files, inside its
// unnamed namespace, and by nothing else; uses nothing of the library, whose inline functions are
// other files' as well.

using Doubles = double __attribute__((vector_size(PB_VECTOR_BYTES)));
using Floats = float __attribute__((vector_size(PB_VECTOR_BYTES / 2)));
using Bits = int __attribute__((vector_size(PB_VECTOR_BYTES)));

constexpr size_t kWidth = sizeof(Doubles) / sizeof(double), kVectors = kPairLanes / kWidth;
constexpr size_t kBlock = 64;  // values that are looked at in one go
constexpr size_t kBitLanes = sizeof(Bits) / sizeof(int);
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
    const Doubles p = __builtin_convertvector(a, Doubles), q = __builtin_convertvector(b, Doubles), e = p - q,
                  ee = e * e, qq = q * q;
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
  int most = 0;
  for (size_t lane = 0; lane < kBitLanes; lane++) most = lanes[lane] > most ? lanes[lane] : most;
  return most;
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
    int any = 0;
    for (size_t lane = 0; lane < kBitLanes; lane++) any |= other[lane];
    if (any != 0) break;
  }
  while (i < n && BitsOf(x[i]) == kMasked && BitsOf(y[i]) == kMasked) i++;
  return i;
}

// Quantised weights repacked for the integer kernels, and rows of activations quantised for them.
// Both are exact: the codes and scales are those of the file's format, only their order in memory
// differs.
#ifndef PARITYBIT_KERNELS_PACKED_H_
#define PARITYBIT_KERNELS_PACKED_H_

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "base/result.h"
#include "formats/act_scheme.h"
#include "formats/block.h"

namespace pb {

// Storage on 64-byte boundaries, so that a vector load never straddles a cache line. Contents start
// uninitialised.
template <typename T>
struct AlignedDelete {
  void operator()(T* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
template <typename T>
using AlignedArray = std::unique_ptr<T[], AlignedDelete<T>>;
template <typename T>
AlignedArray<T> MakeAligned(int64_t n) {
  return AlignedArray<T>(
      static_cast<T*>(::operator new[](static_cast<size_t>(n) * sizeof(T), std::align_val_t{64})));
}

inline constexpr int64_t kGroupRows = 16;  // weight rows that stand interleaved
inline constexpr int64_t kSub = 32;        // columns of one step of the integer kernels

// A weight matrix whose value at (row, column) is d * (code - offset) + m, times `scale` of the
// whole tensor; with fine scales (K formats, IQ4_XS) d * fine_scale * code - m * fine_minimum. Codes
// are unsigned of 2 or 4 bits, or signed of 8. Rows stand in groups of 16 (the
// last one padded with zero scales), columns in subs of 32, four columns of one row side by side:
// column 4q + j of row r of a sub is in byte (q mod bits) * 64 + 4r + j, from bit (q / bits) *
// bits.
struct PackedMatrix {
  int bits = 0, offset = 0;
  int64_t n_rows = 0, n_columns = 0;
  int block_shift = 0;                // a scale covers 32 << block_shift columns
  bool has_min = false;               // Q4_1, Q5_1, Q2_K, Q4_K, Q5_K
  int fine = 0;                       // columns a fine scale covers, 16 or 32; 0: there is none
  bool wide = false;                  // codes beyond -32 to 32, where there are fine scales (IQ4_XS)
  float scale = 1;                    // of the whole tensor (I2_S, whose d is 1)
  AlignedArray<uint8_t> codes;        // [group][sub][bits * 64]
  AlignedArray<uint16_t> scales;      // [group][block][16], f16
  AlignedArray<uint16_t> minima;      // [group][block][16], f16
  AlignedArray<int8_t> fine_scales;   // [group][column / fine][16]
  AlignedArray<uint8_t> fine_minima;  // alike

  int64_t n_groups() const { return (n_rows + kGroupRows - 1) / kGroupRows; }
  int64_t n_subs() const { return n_columns / kSub; }
  int64_t n_blocks() const { return (n_subs() + (int64_t{1} << block_shift) - 1) >> block_shift; }
};

// True for the types whose codes are integers of up to 8 bits with a half float a block: Q4_0 Q4_1
// Q5_0 Q5_1 Q8_0 Q2_K to Q6_K, IQ4_NL and IQ4_XS (whose table holds whole numbers), TQ1_0 TQ2_0 I2_S
// Q1_0 Q2_0.
bool IsPackable(BlockType type);
// Fills rows [16 * begin_group, 16 * end_group); threads may share the groups between them.
void PackGroups(const WeightView& w, PackedMatrix& packed, int64_t begin_group, int64_t end_group);
// Everything of a packed matrix but the contents.
PackedMatrix MakePacked(const WeightView& w);
// A row before packing: n_columns codes; an f16 a block; fine scales and minima by columns / fine.
// What a format does not have stays empty.
struct PackedRow {
  std::vector<uint8_t> codes;
  std::vector<uint16_t> d, m;
  std::vector<int8_t> fine_scales;
  std::vector<uint8_t> fine_minima;
};
PackedRow RowCodes(const WeightView& w, int64_t row);

// Columns a scale covers are 32 << shift.
inline int SchemeShift(ActScheme s) { return s == ActScheme::kQ8_K ? 3 : s == ActScheme::kBitnet ? 40 : 0; }

// Activation rows as codes. A block that holds NaN or Inf has codes 0 and scale NaN: it spoils
// exactly the outputs it enters.
struct QuantRows {
  QuantRows(ActScheme scheme, int64_t n_rows, int64_t n_columns);

  ActScheme scheme;
  int64_t n_rows, n_columns, n_blocks;
  AlignedArray<int8_t> codes;  // (n_rows, n_columns)
  AlignedArray<float> scales;  // (n_rows, n_blocks)
  // (n_rows, n_columns / 32): d * sum of codes, for formats with a minimum
  AlignedArray<float> sums;
  AlignedArray<int32_t> prefix;  // (n_rows, n_columns / 32 + 1): sum of all codes before
};

}  // namespace pb

#endif  // PARITYBIT_KERNELS_PACKED_H_

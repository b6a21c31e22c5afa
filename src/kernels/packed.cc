// Unpacks the codes of each block format, and interleaves rows in groups.
#include "kernels/packed.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "formats/small_floats.h"

namespace pb {
namespace {

constexpr int kWholeRow = 40;  // a block shift past any row
constexpr uint16_t kOneF16 = 0x3c00;

// The unpackers below read one block of the file (layouts: docs/format_gguf.md) into one byte a
// code.
void UnpackQ4_1(const BlockQ4_1& b, uint8_t* codes) {
  for (int i = 0; i < 16; i++) codes[i] = b.qs[i] & 15, codes[i + 16] = b.qs[i] >> 4;
}

void UnpackQ4_0(const BlockQ4_0& b, uint8_t* codes) {
  for (int i = 0; i < 16; i++) {
    codes[i] = static_cast<uint8_t>((b.qs[i] & 15) - 8);
    codes[i + 16] = static_cast<uint8_t>((b.qs[i] >> 4) - 8);
  }
}

template <typename Block>  // Q5_0, Q5_1
void UnpackQ5(const Block& b, int offset, uint8_t* codes) {
  for (int i = 0; i < 32; i++) {
    const int low = b.qs[i % 16] >> (i < 16 ? 0 : 4) & 15, high = b.qh[i / 8] >> (i % 8) & 1;
    codes[i] = static_cast<uint8_t>((low | high << 4) - offset);
  }
}
void UnpackQ5_0(const BlockQ5_0& b, uint8_t* codes) { UnpackQ5(b, 16, codes); }
void UnpackQ5_1(const BlockQ5_1& b, uint8_t* codes) { UnpackQ5(b, 0, codes); }

void UnpackIQ4_NL(const BlockIQ4_NL& b, uint8_t* codes) {
  for (int i = 0; i < 16; i++) {
    codes[i] = static_cast<uint8_t>(kIq4Values[b.qs[i] & 15]);
    codes[i + 16] = static_cast<uint8_t>(kIq4Values[b.qs[i] >> 4]);
  }
}

// A bit is -1 or 1, which are the codes 0 and 2.
void UnpackQ1_0(const BlockQ1_0& b, uint8_t* codes) {
  for (int i = 0; i < 128; i++) codes[i] = static_cast<uint8_t>((b.qs[i / 8] >> (i % 8) & 1) * 2);
}

void UnpackQ2_0(const BlockQ2_0& b, uint8_t* codes) {
  for (int i = 0; i < 64; i++) codes[i] = b.qs[i / 4] >> (i % 4 * 2) & 3;
}

void UnpackQ8_0(const BlockQ8_0& b, uint8_t* codes) {
  for (int i = 0; i < 32; i++) codes[i] = static_cast<uint8_t>(b.qs[i]);
}

void UnpackTQ2_0(const BlockTQ2_0& b, uint8_t* codes) {
  for (int half = 0; half < 2; half++) {
    for (int plane = 0; plane < 4; plane++) {
      for (int i = 0; i < 32; i++) *codes++ = b.qs[half * 32 + i] >> (2 * plane) & 3;
    }
  }
}

// Trit `index` of a byte that holds five of them as a base-3 fraction of 256.
uint8_t Trit(uint8_t byte, int index) {
  constexpr uint8_t kPower[5] = {1, 3, 9, 27, 81};
  uint8_t shifted = static_cast<uint8_t>(byte * kPower[index]);
  return static_cast<uint8_t>(shifted * 3 >> 8);
}

void UnpackTQ1_0(const BlockTQ1_0& b, uint8_t* codes) {
  for (int t = 0; t < 5; t++) {
    for (int i = 0; i < 32; i++) *codes++ = Trit(b.qs[i], t);
  }
  for (int t = 0; t < 5; t++) {
    for (int i = 32; i < 48; i++) *codes++ = Trit(b.qs[i], t);
  }
  for (int t = 0; t < 4; t++) {
    for (int i = 0; i < 4; i++) *codes++ = Trit(b.qh[i], t);
  }
}

void UnpackI2S(const uint8_t* bytes, uint8_t* codes) {
  for (int plane = 0; plane < 4; plane++) {
    for (int i = 0; i < 32; i++) *codes++ = bytes[i] >> (6 - 2 * plane) & 3;
  }
}

template <typename Block>
void Blocks(const WeightView& w, int64_t row, int block_values, void (*unpack)(const Block&, uint8_t*),
            PackedRow* out) {
  const std::byte* data = w.data + static_cast<uint64_t>(row) * w.row_bytes;
  for (int64_t b = 0; b < w.n_columns / block_values; b++) {
    Block block;
    std::memcpy(&block, data + b * static_cast<int64_t>(sizeof block), sizeof block);
    unpack(block, out->codes.data() + b * block_values);
    out->d.push_back(block.d);
    if constexpr (requires { block.m; }) out->m.push_back(block.m);
  }
}

void SuperBlocks(const WeightView& w, int64_t row, KSuperBlock (*unpack)(const std::byte*), bool has_min,
                 PackedRow* out) {
  const std::byte* data = w.data + static_cast<uint64_t>(row) * w.row_bytes;
  const int64_t n = w.n_columns / 256;
  for (int64_t b = 0; b < n; b++) {
    const KSuperBlock s = unpack(data + static_cast<uint64_t>(b) * (w.row_bytes / static_cast<uint64_t>(n)));
    std::copy(s.codes, s.codes + 256, out->codes.begin() + b * 256);
    out->d.push_back(s.d);
    out->fine_scales.insert(out->fine_scales.end(), s.scales, s.scales + 256 / s.block);
    if (!has_min) continue;
    out->m.push_back(s.dmin);
    out->fine_minima.insert(out->fine_minima.end(), s.minima, s.minima + 256 / s.block);
  }
}

// How a type is packed; what its codes count from, 32 << block_shift columns a scale, and `fine`
// columns a fine one.
struct Packing {
  BlockType type;
  int bits, offset, block_shift;
  bool has_min = false;
  int fine = 0;
  bool wide = false;
};
constexpr Packing kPackings[] = {
    {BlockType::kQ4_0, 8, 0, 0},
    {BlockType::kQ4_1, 4, 0, 0, true},
    {BlockType::kQ5_0, 8, 0, 0},
    {BlockType::kQ5_1, 8, 0, 0, true},
    {BlockType::kQ8_0, 8, 0, 0},
    {BlockType::kQ2_K, 2, 0, 3, true, 16},
    {BlockType::kQ3_K, 8, 0, 3, false, 16},
    {BlockType::kQ4_K, 4, 0, 3, true, 32},
    {BlockType::kQ5_K, 8, 0, 3, true, 32},
    {BlockType::kQ6_K, 8, 0, 3, false, 16},
    {BlockType::kIQ4_NL, 8, 0, 0},
    {BlockType::kIQ4_XS, 8, 0, 3, false, 32, true},
    {BlockType::kTQ1_0, 2, 1, 3},
    {BlockType::kTQ2_0, 2, 1, 3},
    {BlockType::kI2_S, 2, 1, kWholeRow},
    {BlockType::kQ1_0, 2, 1, 2},
    {BlockType::kQ2_0, 2, 1, 1},
};

const Packing* FindPacking(BlockType type) {
  for (const Packing& p : kPackings)
    if (p.type == type) return &p;
  return nullptr;
}

}  // namespace

bool IsPackable(BlockType type) { return FindPacking(type) != nullptr; }

PackedRow RowCodes(const WeightView& w, int64_t row) {
  PackedRow out;
  out.codes.resize(static_cast<size_t>(w.n_columns));
  const std::byte* data = w.data + static_cast<uint64_t>(row) * w.row_bytes;
  switch (w.type) {
    case BlockType::kQ4_0:
      Blocks<BlockQ4_0>(w, row, 32, UnpackQ4_0, &out);
      break;
    case BlockType::kQ4_1:
      Blocks<BlockQ4_1>(w, row, 32, UnpackQ4_1, &out);
      break;
    case BlockType::kQ5_0:
      Blocks<BlockQ5_0>(w, row, 32, UnpackQ5_0, &out);
      break;
    case BlockType::kQ5_1:
      Blocks<BlockQ5_1>(w, row, 32, UnpackQ5_1, &out);
      break;
    case BlockType::kQ8_0:
      Blocks<BlockQ8_0>(w, row, 32, UnpackQ8_0, &out);
      break;
    case BlockType::kIQ4_NL:
      Blocks<BlockIQ4_NL>(w, row, 32, UnpackIQ4_NL, &out);
      break;
    case BlockType::kQ1_0:
      Blocks<BlockQ1_0>(w, row, 128, UnpackQ1_0, &out);
      break;
    case BlockType::kQ2_0:
      Blocks<BlockQ2_0>(w, row, 64, UnpackQ2_0, &out);
      break;
    case BlockType::kTQ1_0:
      Blocks<BlockTQ1_0>(w, row, 256, UnpackTQ1_0, &out);
      break;
    case BlockType::kTQ2_0:
      Blocks<BlockTQ2_0>(w, row, 256, UnpackTQ2_0, &out);
      break;
    case BlockType::kQ2_K:
      SuperBlocks(w, row, UnpackQ2_K, true, &out);
      break;
    case BlockType::kQ3_K:
      SuperBlocks(w, row, UnpackQ3_K, false, &out);
      break;
    case BlockType::kQ4_K:
      SuperBlocks(w, row, UnpackQ4_K, true, &out);
      break;
    case BlockType::kQ5_K:
      SuperBlocks(w, row, UnpackQ5_K, true, &out);
      break;
    case BlockType::kQ6_K:
      SuperBlocks(w, row, UnpackQ6_K, false, &out);
      break;
    case BlockType::kIQ4_XS:
      SuperBlocks(w, row, UnpackIQ4_XS, false, &out);
      break;
    case BlockType::kI2_S:
      for (int64_t b = 0; b < w.n_columns / 128; b++)
        UnpackI2S(reinterpret_cast<const uint8_t*>(data) + b * 32, out.codes.data() + b * 128);
      out.d.push_back(kOneF16);
      break;
    default:
      PB_CHECK(false && "not a packable type");
  }
  return out;
}

PackedMatrix MakePacked(const WeightView& w) {
  PB_CHECK(IsPackable(w.type) && w.n_columns % kSub == 0);
  PackedMatrix p;
  p.n_rows = w.n_rows, p.n_columns = w.n_columns;
  const Packing& packing = *FindPacking(w.type);
  p.bits = packing.bits, p.offset = packing.offset;
  p.has_min = packing.has_min, p.block_shift = packing.block_shift;
  p.fine = packing.fine, p.wide = packing.wide;
  p.scale = w.type == BlockType::kI2_S ? w.scale : 1.0f;
  p.codes = MakeAligned<uint8_t>(p.n_groups() * p.n_subs() * p.bits * 64);
  const int64_t n_scales = p.n_groups() * p.n_blocks() * kGroupRows;
  p.scales = MakeAligned<uint16_t>(n_scales);
  if (p.has_min) p.minima = MakeAligned<uint16_t>(n_scales);
  const int64_t n_fine = p.fine ? p.n_groups() * (p.n_columns / p.fine) * kGroupRows : 0;
  if (p.fine) p.fine_scales = MakeAligned<int8_t>(n_fine);
  if (p.fine && p.has_min) p.fine_minima = MakeAligned<uint8_t>(n_fine);
  return p;
}

namespace {

// Row r of a group: values side by side become one column of [value][16].
template <typename T>
void Interleave(const std::vector<T>& values, int64_t group, int64_t r, T* all) {
  const int64_t n = static_cast<int64_t>(values.size());
  for (int64_t i = 0; i < n; i++) all[(group * n + i) * kGroupRows + r] = values[static_cast<size_t>(i)];
}

}  // namespace

void PackGroups(const WeightView& w, PackedMatrix& p, int64_t begin_group, int64_t end_group) {
  for (int64_t g = begin_group; g < end_group; g++) {
    uint8_t* out = p.codes.get() + g * p.n_subs() * p.bits * 64;
    std::memset(out, 0, static_cast<size_t>(p.n_subs() * p.bits * 64));
    for (int64_t r = 0; r < kGroupRows; r++) {
      // What stands behind the last row is it again with scales of zero.
      const bool behind = g * kGroupRows + r >= p.n_rows;
      PackedRow row = RowCodes(w, std::min(g * kGroupRows + r, p.n_rows - 1));
      if (behind) std::fill(row.d.begin(), row.d.end(), 0), std::fill(row.m.begin(), row.m.end(), 0);
      Interleave(row.d, g, r, p.scales.get());
      Interleave(row.m, g, r, p.minima.get());
      Interleave(row.fine_scales, g, r, p.fine_scales.get());
      Interleave(row.fine_minima, g, r, p.fine_minima.get());
      for (int64_t sub = 0; sub < p.n_subs(); sub++) {
        for (int q = 0; q < 8; q++) {
          uint8_t* to = out + (sub * p.bits + q % p.bits) * 64 + 4 * r;
          int shift = q / p.bits * p.bits;
          for (int j = 0; j < 4; j++) {
            to[j] =
                static_cast<uint8_t>(to[j] | row.codes[static_cast<size_t>(sub * kSub + 4 * q + j)] << shift);
          }
        }
      }
    }
  }
}

QuantRows::QuantRows(ActScheme s, int64_t rows, int64_t columns)
    : scheme(s), n_rows(rows), n_columns(columns) {
  int64_t subs = columns / kSub;
  n_blocks = (subs + (int64_t{1} << SchemeShift(s)) - 1) >> SchemeShift(s);
  codes = MakeAligned<int8_t>(rows * columns);
  scales = MakeAligned<float>(rows * n_blocks);
  sums = MakeAligned<float>(rows * subs);
  prefix = MakeAligned<int32_t>(rows * (subs + 1));
}

}  // namespace pb

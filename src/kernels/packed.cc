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

void UnpackQ5_0(const BlockQ5_0& b, uint8_t* codes) {
  for (int i = 0; i < 32; i++) {
    const int low = b.qs[i % 16] >> (i < 16 ? 0 : 4) & 15, high = b.qh[i / 8] >> (i % 8) & 1;
    codes[i] = static_cast<uint8_t>((low | high << 4) - 16);
  }
}

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
void RowOf(const std::byte* data, int64_t n_columns, int block_values, void (*unpack)(const Block&, uint8_t*),
           uint8_t* codes, uint16_t* d) {
  for (int64_t b = 0; b < n_columns / block_values; b++) {
    Block block;
    std::memcpy(&block, data + b * static_cast<int64_t>(sizeof block), sizeof block);
    unpack(block, codes + b * block_values);
    d[b] = block.d;
  }
}

// How a type is packed; what its codes count from, and 32 << block_shift columns a scale.
struct Packing {
  BlockType type;
  int bits, offset, block_shift;
  bool has_min;
};
constexpr Packing kPackings[] = {
    {BlockType::kQ4_0, 8, 0, 0, false},   {BlockType::kQ4_1, 4, 0, 0, true},
    {BlockType::kQ5_0, 8, 0, 0, false},   {BlockType::kQ8_0, 8, 0, 0, false},
    {BlockType::kIQ4_NL, 8, 0, 0, false}, {BlockType::kTQ1_0, 2, 1, 3, false},
    {BlockType::kTQ2_0, 2, 1, 3, false},  {BlockType::kI2_S, 2, 1, kWholeRow, false},
    {BlockType::kQ1_0, 2, 1, 2, false},   {BlockType::kQ2_0, 2, 1, 1, false},
};

const Packing* FindPacking(BlockType type) {
  for (const Packing& p : kPackings)
    if (p.type == type) return &p;
  return nullptr;
}

}  // namespace

bool IsPackable(BlockType type) { return FindPacking(type) != nullptr; }

void RowCodes(const WeightView& w, int64_t row, uint8_t* codes, uint16_t* d, uint16_t* m) {
  const std::byte* data = w.data + static_cast<uint64_t>(row) * w.row_bytes;
  switch (w.type) {
    case BlockType::kQ4_1:
      RowOf<BlockQ4_1>(data, w.n_columns, 32, UnpackQ4_1, codes, d);
      for (int64_t b = 0; b < w.n_columns / 32; b++) std::memcpy(&m[b], data + b * 20 + 2, 2);
      return;
    case BlockType::kQ4_0:
      return RowOf<BlockQ4_0>(data, w.n_columns, 32, UnpackQ4_0, codes, d);
    case BlockType::kQ5_0:
      return RowOf<BlockQ5_0>(data, w.n_columns, 32, UnpackQ5_0, codes, d);
    case BlockType::kIQ4_NL:
      return RowOf<BlockIQ4_NL>(data, w.n_columns, 32, UnpackIQ4_NL, codes, d);
    case BlockType::kQ1_0:
      return RowOf<BlockQ1_0>(data, w.n_columns, 128, UnpackQ1_0, codes, d);
    case BlockType::kQ2_0:
      return RowOf<BlockQ2_0>(data, w.n_columns, 64, UnpackQ2_0, codes, d);
    case BlockType::kQ8_0:
      return RowOf<BlockQ8_0>(data, w.n_columns, 32, UnpackQ8_0, codes, d);
    case BlockType::kTQ1_0:
      return RowOf<BlockTQ1_0>(data, w.n_columns, 256, UnpackTQ1_0, codes, d);
    case BlockType::kTQ2_0:
      return RowOf<BlockTQ2_0>(data, w.n_columns, 256, UnpackTQ2_0, codes, d);
    case BlockType::kI2_S:
      for (int64_t b = 0; b < w.n_columns / 128; b++) {
        UnpackI2S(reinterpret_cast<const uint8_t*>(data) + b * 32, codes + b * 128);
      }
      d[0] = kOneF16;
      return;
    default:
      PB_CHECK(false && "not a packable type");
  }
}

PackedMatrix MakePacked(const WeightView& w) {
  PB_CHECK(IsPackable(w.type) && w.n_columns % kSub == 0);
  PackedMatrix p;
  p.n_rows = w.n_rows, p.n_columns = w.n_columns;
  const Packing& packing = *FindPacking(w.type);
  p.bits = packing.bits, p.offset = packing.offset;
  p.has_min = packing.has_min, p.block_shift = packing.block_shift;
  p.scale = w.type == BlockType::kI2_S ? w.scale : 1.0f;
  p.codes = MakeAligned<uint8_t>(p.n_groups() * p.n_subs() * p.bits * 64);
  p.scales = MakeAligned<uint16_t>(p.n_groups() * p.n_blocks() * kGroupRows);
  if (p.has_min) p.minima = MakeAligned<uint16_t>(p.n_groups() * p.n_blocks() * kGroupRows);
  return p;
}

void PackGroups(const WeightView& w, PackedMatrix& p, int64_t begin_group, int64_t end_group) {
  int64_t n_blocks = p.n_blocks();
  std::vector<uint8_t> codes(static_cast<size_t>(p.n_columns));
  std::vector<uint16_t> d(static_cast<size_t>(n_blocks)), m(static_cast<size_t>(n_blocks));
  for (int64_t g = begin_group; g < end_group; g++) {
    uint8_t* out = p.codes.get() + g * p.n_subs() * p.bits * 64;
    uint16_t* scales = p.scales.get() + g * n_blocks * kGroupRows;
    std::memset(out, 0, static_cast<size_t>(p.n_subs() * p.bits * 64));
    std::memset(scales, 0, static_cast<size_t>(n_blocks * kGroupRows) * 2);
    uint16_t* minima = p.has_min ? p.minima.get() + g * n_blocks * kGroupRows : nullptr;
    if (minima) std::memset(minima, 0, static_cast<size_t>(n_blocks * kGroupRows) * 2);
    for (int64_t r = 0; r < std::min(kGroupRows, p.n_rows - g * kGroupRows); r++) {
      RowCodes(w, g * kGroupRows + r, codes.data(), d.data(), m.data());
      for (int64_t b = 0; b < n_blocks; b++) scales[b * kGroupRows + r] = d[static_cast<size_t>(b)];
      for (int64_t b = 0; minima && b < n_blocks; b++) minima[b * kGroupRows + r] = m[static_cast<size_t>(b)];
      for (int64_t sub = 0; sub < p.n_subs(); sub++) {
        for (int q = 0; q < 8; q++) {
          uint8_t* to = out + (sub * p.bits + q % p.bits) * 64 + 4 * r;
          int shift = q / p.bits * p.bits;
          for (int j = 0; j < 4; j++) {
            to[j] = static_cast<uint8_t>(to[j] | codes[static_cast<size_t>(sub * kSub + 4 * q + j)] << shift);
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

// Looks at every float of a file's tensors once: all of a float tensor, the scales of a block
// format.
#include "formats/non_finite.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/bytes.h"

namespace pb {
namespace {

enum class Float { kF16, kBF16, kF32, kF64, kE8M0 };

// Where the floats of a block stand; a second offset of -1: there is one.
struct Layout {
  uint32_t type_id;
  uint32_t block_values, block_bytes;
  Float kind;
  std::array<int32_t, 2> at;
};
// As ggml-common.h of llama.cpp has them. IQ1_M spreads one scale over eight blocks' bits, and I2_S
// has one a tensor, which its reader checks.
constexpr Layout kLayouts[] = {
    {0, 1, 4, Float::kF32, {0, -1}},         // F32
    {1, 1, 2, Float::kF16, {0, -1}},         // F16
    {2, 32, 18, Float::kF16, {0, -1}},       // Q4_0
    {3, 32, 20, Float::kF16, {0, 2}},        // Q4_1
    {6, 32, 22, Float::kF16, {0, -1}},       // Q5_0
    {7, 32, 24, Float::kF16, {0, 2}},        // Q5_1
    {8, 32, 34, Float::kF16, {0, -1}},       // Q8_0
    {9, 32, 36, Float::kF16, {0, 2}},        // Q8_1
    {10, 256, 84, Float::kF16, {80, 82}},    // Q2_K
    {11, 256, 110, Float::kF16, {108, -1}},  // Q3_K
    {12, 256, 144, Float::kF16, {0, 2}},     // Q4_K
    {13, 256, 176, Float::kF16, {0, 2}},     // Q5_K
    {14, 256, 210, Float::kF16, {208, -1}},  // Q6_K
    {15, 256, 292, Float::kF32, {0, -1}},    // Q8_K
    {16, 256, 66, Float::kF16, {0, -1}},     // IQ2_XXS
    {17, 256, 74, Float::kF16, {0, -1}},     // IQ2_XS
    {18, 256, 98, Float::kF16, {0, -1}},     // IQ3_XXS
    {19, 256, 50, Float::kF16, {0, -1}},     // IQ1_S
    {20, 32, 18, Float::kF16, {0, -1}},      // IQ4_NL
    {21, 256, 110, Float::kF16, {0, -1}},    // IQ3_S
    {22, 256, 82, Float::kF16, {0, -1}},     // IQ2_S
    {23, 256, 136, Float::kF16, {0, -1}},    // IQ4_XS
    {28, 1, 8, Float::kF64, {0, -1}},        // F64
    {30, 1, 2, Float::kBF16, {0, -1}},       // BF16
    {34, 256, 54, Float::kF16, {52, -1}},    // TQ1_0
    {35, 256, 66, Float::kF16, {64, -1}},    // TQ2_0
    {39, 32, 17, Float::kE8M0, {0, -1}},     // MXFP4
};

// Of one float: whether it is NaN or infinite, and which. All exponent bits are set then, and NaN
// has others below.
template <typename T>
struct Bits {
  T exponent, fraction;
};
constexpr Bits<uint16_t> kHalf{0x7c00, 0x03ff}, kBrain{0x7f80, 0x007f};
constexpr Bits<uint32_t> kSingle{0x7f800000, 0x007fffff};
constexpr Bits<uint64_t> kDouble{0x7ff0000000000000, 0x000fffffffffffff};

// Counts over n floats that stand `stride` bytes apart.
struct Counts {
  int64_t n_nan = 0, n_infinite = 0;
  int64_t n() const { return n_nan + n_infinite; }
};

template <typename T>
Counts CountFloats(const std::byte* data, int64_t n, int64_t stride, Bits<T> bits) {
  Counts counts;
  for (int64_t i = 0; i < n; ++i) {
    const T v = LoadLe<T>(data + i * stride);
    if ((v & bits.exponent) != bits.exponent) continue;
    ++((v & bits.fraction) ? counts.n_nan : counts.n_infinite);
  }
  return counts;
}

// Whether any is so, without a branch a value, so that compilers use vectors for floats that stand
// side by side.
template <typename T>
bool AnyFloat(const std::byte* data, int64_t n, int64_t stride, Bits<T> bits) {
  constexpr int64_t kChunk = 4096;
  for (int64_t i = 0; i < n; i += kChunk) {
    const std::byte* at = data + i * stride;
    const int64_t m = std::min(kChunk, n - i);
    T found = 0;
    if (stride == static_cast<int64_t>(sizeof(T)))
      for (int64_t j = 0; j < m; ++j)
        found |= (LoadLe<T>(at + j * static_cast<int64_t>(sizeof(T))) & bits.exponent) == bits.exponent;
    else
      for (int64_t j = 0; j < m; ++j) found |= (LoadLe<T>(at + j * stride) & bits.exponent) == bits.exponent;
    if (found) return true;
  }
  return false;
}

template <typename Visit>
auto WithBits(Float kind, const Visit& visit) {
  switch (kind) {
    case Float::kF16:
      return visit(kHalf);
    case Float::kBF16:
      return visit(kBrain);
    case Float::kF32:
      return visit(kSingle);
    case Float::kF64:
      return visit(kDouble);
    case Float::kE8M0:  // an exponent alone, of which 255 stands for NaN
      break;
  }
  return visit(Bits<uint8_t>{0xff, 0xff});
}

Counts CountBlocks(const Layout& layout, const std::byte* data, int64_t n_blocks) {
  Counts counts;
  for (int32_t at : layout.at) {
    if (at < 0) continue;
    const Counts more = WithBits(
        layout.kind, [&](auto bits) { return CountFloats(data + at, n_blocks, layout.block_bytes, bits); });
    counts.n_nan += more.n_nan, counts.n_infinite += more.n_infinite;
  }
  return counts;
}

bool AnyInBlocks(const Layout& layout, const std::byte* data, int64_t n_blocks) {
  return std::any_of(layout.at.begin(), layout.at.end(), [&](int32_t at) {
    return at >= 0 && WithBits(layout.kind, [&](auto bits) {
             return AnyFloat(data + at, n_blocks, layout.block_bytes, bits);
           });
  });
}

constexpr size_t kRowsNamed = 4;

// Which rows hold some, once it is known that the tensor does.
NonFiniteTensor Describe(const GgufTensor& t, const Layout& layout) {
  NonFiniteTensor found;
  found.tensor = t.name;
  found.one_row = t.n_rows() == 1;
  const int64_t n_columns = static_cast<int64_t>(t.n_columns());
  const int64_t unit = found.one_row ? layout.block_values : n_columns;  // values told together
  const int64_t blocks = unit / layout.block_values;
  const int64_t n_units = static_cast<int64_t>(t.n_elements()) / unit;
  for (int64_t i = 0; i < n_units; ++i) {
    const Counts counts = CountBlocks(layout, t.data.data() + i * blocks * layout.block_bytes, blocks);
    if (counts.n() == 0) continue;
    if (found.rows.size() < kRowsNamed) found.rows.push_back(i * (found.one_row ? layout.block_values : 1));
    ++found.n_rows;
    found.n_nan += counts.n_nan, found.n_infinite += counts.n_infinite;
  }
  return found;
}

}  // namespace

std::string NonFiniteTensor::Text() const {
  const int64_t more = n_rows - static_cast<int64_t>(rows.size());
  return fmt::format("{}, {}{} {}{}, {} {}", tensor, one_row ? "value" : "row", n_rows > 1 ? "s" : "",
                     fmt::join(rows, ", "), more > 0 ? fmt::format(" and {} more", more) : "",
                     n_rows > 1 ? "hold" : "holds",
                     n_nan == 0        ? "infinity"
                     : n_infinite == 0 ? "NaN"
                                       : "NaN and infinity");
}

std::vector<NonFiniteTensor> FindNonFinite(const GgufFile& file) {
  std::vector<NonFiniteTensor> found;
  for (const GgufTensor& t : file.tensors()) {
    const auto* layout = std::find_if(std::begin(kLayouts), std::end(kLayouts),
                                      [&](const Layout& l) { return l.type_id == t.type_id; });
    if (layout == std::end(kLayouts)) continue;
    const auto n_blocks = static_cast<int64_t>(t.data.size() / layout->block_bytes);
    if (static_cast<uint64_t>(n_blocks) * layout->block_values != t.n_elements()) continue;
    if (AnyInBlocks(*layout, t.data.data(), n_blocks)) found.push_back(Describe(t, *layout));
  }
  return found;
}

}  // namespace pb

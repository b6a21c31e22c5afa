// Block formats of tensor data: one table row each with layout, decode and encode. One definition
// for every user of a format.
#ifndef PARITYBIT_FORMATS_BLOCK_H_
#define PARITYBIT_FORMATS_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb {

// Numbers as in GGUF files (ggml_type).
enum class BlockType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kI2_S = 36,
  kMXFP4 = 39,
  kQ1_0 = 41,
  kQ2_0 = 42,
};

// On-disk blocks, little-endian (ggml-common.h of llama.cpp v0.5.0 for all but I2_S).
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};  // 32 values: d * (code - 8)
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];  // the fifth bit of each code
  uint8_t qs[16];
};  // 32 values: d * (code - 16)
struct BlockQ5_1 {
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[16];
};  // 32 values: d * code + m
struct BlockQ4_1 {
  uint16_t d, m;
  uint8_t qs[16];
};  // 32 values: d * code + m
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};  // 32 values: d * code
struct BlockQ8_1 {
  uint16_t d, s;
  int8_t qs[32];
};  // 32 values; s = d * sum(codes)
struct BlockQ8_K {
  float d;
  int8_t qs[256];
  int16_t bsums[16];
};  // 256 values; sums of 16
struct BlockTQ1_0 {
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d;
};  // 256 values, 5 trits a byte
struct BlockTQ2_0 {
  uint8_t qs[64];
  uint16_t d;
};  // 256 values, 2 bits each
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t qs[16];
};  // 32 values: d * kIq4Values[code]
struct BlockIQ4_XS {
  uint16_t d, scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};  // 256 values, 32 a scale of 6 bits: d * (scale - 32) * kIq4Values[code]
struct BlockMXFP4 {
  uint8_t e;
  uint8_t qs[16];
};  // 32 values: 2^(e - 127) * kE2M1Values[code] (OCP Microscaling Formats 1.0)
struct BlockQ1_0 {
  uint16_t d;
  uint8_t qs[16];
};  // 128 values: d or -d, a bit each
struct BlockQ2_0 {
  uint16_t d;
  uint8_t qs[16];
};  // 64 values: d * (code - 1), 2 bits each
static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockIQ4_NL) == 18 && sizeof(BlockIQ4_XS) == 136 && sizeof(BlockMXFP4) == 17);
static_assert(sizeof(BlockQ1_0) == 18 && sizeof(BlockQ2_0) == 18);
static_assert(sizeof(BlockQ4_1) == 20 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ8_1) == 36);
static_assert(sizeof(BlockQ8_K) == 292 && sizeof(BlockTQ1_0) == 54 && sizeof(BlockTQ2_0) == 66);

// I2_S of Microsoft's bitnet.cpp on x86 (activation-parallel build): see docs/format_gguf.md. One
// f32 scale a tensor, behind all codes; so a row alone is not self-contained.
inline constexpr uint64_t kI2SBlock = 128, kI2SBlockBytes = 32, kI2STail = 32;

struct BlockFormat {
  BlockType type;
  std::string_view name;  // "TQ2_0"
  uint32_t block_values;  // values a block; rows must be a multiple
  uint32_t block_bytes;
  // Decodes n_values (a multiple of block_values) to float32; `scale` is used by I2_S alone. No
  // alignment is needed.
  void (*decode)(const std::byte* blocks, float* out, int64_t n_values, float scale);
  // Encodes n_values (a multiple of block_values), all finite. Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and
  // MXFP4 round as ggml's reference quantisers do; the ternary types take the largest magnitude (of
  // a block; I2_S: of all n_values, with the tail behind the codes) as scale. The others are
  // encoded plainly, each block by its own range, without the search of ggml's quantisers.
  void (*encode)(const float* values, std::byte* out, int64_t n_values);
};

// nullptr for a type that nothing here decodes.
const BlockFormat* FindBlockFormat(uint32_t type_id);
const BlockFormat& GetBlockFormat(BlockType type);
// The name ggml gives a type number, supported here or not ("Q4_K"); "type 99" for an unknown one.
std::string BlockTypeName(uint32_t type_id);

// Bytes of a tensor with this shape, checked for overflow and for rows that are no multiple of the
// block. An unknown type is kMalformed; one that is known and of which not even the layout is known
// here is kUnsupported.
Result<uint64_t> TensorBytes(uint32_t type_id, std::span<const uint64_t> shape);

// What the bytes of an I2_S tensor say. Code 3 never occurs in any I2_S layout, so code3_count > 0
// or a scale that is not finite proves damage or another format. The converse does not hold: all
// known layouts (see docs/format_gguf.md) have equal sizes and use codes 0..2, and bytes alone
// cannot tell which values they stand for.
struct I2SScan {
  uint64_t code3_count = 0;
  uint64_t first_code3_byte = 0;  // from the start of the tensor
  float scale = 0;
  bool scale_finite = false;
  bool tail_repeats = true;  // the 32 bytes are the scale eight times over
  bool tail_zero = true;     // the scale once, then zeros
};
// `data` is the whole tensor, tail included.
I2SScan ScanI2S(std::span<const std::byte> data);

// How the values of a type stand in blocks.
struct BlockLayout {
  uint32_t block_values, block_bytes;
};
// Of any type whose layout is known, decoded here or not.
std::optional<BlockLayout> FindBlockLayout(uint32_t type_id);

// Decodes weights of types that nothing here decodes: an engine's own decoder, lent
// (abi/engine.h: PB_CAP_DECODE). For use from several threads.
class LentDecoder {
 public:
  virtual ~LentDecoder() = default;
  // Decodes values.size() values, whole blocks of them, to float32. kUnsupported: it does not
  // decode the type.
  virtual Status Decode(uint32_t type_id, std::span<const std::byte> blocks,
                        std::span<float> values) const = 0;
  // Whose it is: "llama.cpp v0.5.0".
  virtual std::string lender() const = 0;
  virtual std::filesystem::path plugin() const = 0;
};

// A weight matrix in a block format: what kernels and oracle read. Row r begins at data + r *
// row_bytes.
struct WeightView {
  BlockType type = BlockType::kF32;
  const std::byte* data = nullptr;
  int64_t n_rows = 0, n_columns = 0;
  uint64_t row_bytes = 0;
  float scale = 1;                       // I2_S: the tensor's scale; else 1
  const LentDecoder* decoder = nullptr;  // of a type that nothing here decodes; else null
};

// Decodes row r to n_columns float32; what a lent decoder fails on becomes NaN.
void DecodeRow(const WeightView& w, int64_t row, float* out);
// The minimum of each block of row r, which its format adds to scale times code: n_columns / size
// values a block, 32 in Q4_1, Q5_1, Q4_K and Q5_K, 16 in Q2_K. Empty where the format has none.
std::vector<double> BlockMinima(const WeightView& w, int64_t row);
// The same of formats whose codes are stored as whole numbers from 0 on and lowered by a constant,
// Q6_K's by 32: -32 times the block's scale. A product may be made of the codes as they are stored,
// and of these offsets with the sums of what they meet. n_columns / size values a block: 16 in Q3_K
// and Q6_K, the row in I2_S, else the format's block. Empty where codes are signed, or have a minimum.
std::vector<double> BlockOffsets(const WeightView& w, int64_t row);

}  // namespace pb

#endif  // PARITYBIT_FORMATS_BLOCK_H_

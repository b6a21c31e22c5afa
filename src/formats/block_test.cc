// Block formats against blocks written by hand and models decoded elsewhere.
#include "formats/block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/bytes.h"
#include "base/half.h"
#include "base/random.h"
#include "formats/gguf.h"
#include "formats/k_quants.h"
#include "tests/paths.h"

namespace pb {
namespace {

std::vector<float> Decode(BlockType type, const void* blocks, int64_t n, float scale = 1) {
  std::vector<float> out(static_cast<size_t>(n));
  GetBlockFormat(type).decode(static_cast<const std::byte*>(blocks), out.data(), n, scale);
  return out;
}

std::vector<std::byte> Encode(BlockType type, const std::vector<float>& values) {
  uint64_t shape[] = {values.size()};
  std::vector<std::byte> out(TensorBytes(static_cast<uint32_t>(type), shape).value());
  GetBlockFormat(type).encode(values.data(), out.data(), static_cast<int64_t>(values.size()));
  return out;
}

TEST(Block, Q8_0ByHand) {
  BlockQ8_0 block = {};
  block.d = 0x3800;  // 0.5
  block.qs[0] = -128;
  block.qs[31] = 127;
  auto v = Decode(BlockType::kQ8_0, &block, 32);
  EXPECT_EQ(v[0], -64.0f);
  EXPECT_EQ(v[1], 0.0f);
  EXPECT_EQ(v[31], 63.5f);
}

TEST(Block, Q4_1ByHand) {
  BlockQ4_1 block = {};
  block.d = 0x4000;  // 2
  block.m = 0xbc00;  // -1
  block.qs[0] = 0x21;
  block.qs[15] = 0xf0;
  auto v = Decode(BlockType::kQ4_1, &block, 32);
  EXPECT_EQ(v[0], 1.0f);
  EXPECT_EQ(v[16], 3.0f);
  EXPECT_EQ(v[15], -1.0f);
  EXPECT_EQ(v[31], 29.0f);
}

TEST(Block, MinimaAreThoseOfTheRow) {
  BlockQ4_1 blocks[4] = {};
  for (int i = 0; i < 4; i++) blocks[i].m = F32ToF16(static_cast<float>(i) - 2);
  WeightView w;
  w.type = BlockType::kQ4_1, w.data = reinterpret_cast<const std::byte*>(blocks);
  w.n_rows = 2, w.n_columns = 64, w.row_bytes = 2 * sizeof(BlockQ4_1);
  EXPECT_EQ(BlockMinima(w, 1), (std::vector<double>{0, 1}));
  w.type = BlockType::kQ8_0;
  EXPECT_TRUE(BlockMinima(w, 1).empty());
}

// Codes of 0 are worth nothing but their offset. What such a block decodes to is held against the
// reference's decoder elsewhere (tests of decoders).
TEST(Block, OffsetsAreWhatCodesOfZeroDecodeTo) {
  const auto d = F32ToF16(1.5F);
  const auto check = [](BlockType type, const void* block, int64_t n, size_t n_offsets) {
    WeightView w;
    w.type = type, w.data = static_cast<const std::byte*>(block);
    w.n_rows = 1, w.n_columns = n, w.row_bytes = 1, w.scale = 1.5F;
    const std::vector<float> values = Decode(type, block, n);
    const std::vector<double> offsets = BlockOffsets(w, 0);
    ASSERT_EQ(offsets.size(), n_offsets) << BlockTypeName(static_cast<uint32_t>(type));
    EXPECT_TRUE(BlockMinima(w, 0).empty());
    for (int64_t k = 0; k < n; k++)
      EXPECT_EQ(offsets[static_cast<size_t>(k) * n_offsets / static_cast<size_t>(n)],
                double(values[static_cast<size_t>(k)]))
          << BlockTypeName(static_cast<uint32_t>(type)) << " " << k;
  };
  BlockQ4_0 q4_0 = {d, {}};
  BlockQ5_0 q5_0 = {d, {}, {}};
  BlockTQ1_0 tq1_0 = {{}, {}, d};
  BlockTQ2_0 tq2_0 = {{}, d};
  BlockQ1_0 q1_0 = {d, {}};
  BlockQ2_0 q2_0 = {d, {}};
  BlockQ3_K q3_k = {};
  BlockQ6_K q6_k = {};
  q3_k.d = q6_k.d = d;
  for (int b = 0; b < 12; b++) q3_k.scales[b] = static_cast<uint8_t>(37 * b);
  for (int b = 0; b < 16; b++) q6_k.scales[b] = static_cast<int8_t>(8 * b - 64);
  check(BlockType::kQ4_0, &q4_0, 32, 1);
  check(BlockType::kQ5_0, &q5_0, 32, 1);
  check(BlockType::kQ3_K, &q3_k, 256, 16);
  check(BlockType::kQ6_K, &q6_k, 256, 16);
  check(BlockType::kTQ1_0, &tq1_0, 256, 1);
  check(BlockType::kTQ2_0, &tq2_0, 256, 1);
  check(BlockType::kQ1_0, &q1_0, 128, 1);
  check(BlockType::kQ2_0, &q2_0, 64, 1);
  WeightView signed_codes;
  BlockQ8_0 q8_0 = {d, {}};
  signed_codes.type = BlockType::kQ8_0, signed_codes.data = reinterpret_cast<const std::byte*>(&q8_0);
  signed_codes.n_rows = 1, signed_codes.n_columns = 32, signed_codes.row_bytes = sizeof q8_0;
  EXPECT_TRUE(BlockOffsets(signed_codes, 0).empty());
}

// Codes of 0 in the first block of three, of 1 in the others: the offset is the row's.
TEST(Block, TheOffsetOfI2SIsItsScale) {
  std::byte blocks[3 * kI2SBlockBytes] = {};
  std::fill(blocks + kI2SBlockBytes, std::end(blocks), std::byte{0x55});
  WeightView w;
  w.type = BlockType::kI2_S, w.data = blocks, w.scale = 0.25F;
  w.n_rows = 1, w.n_columns = 384, w.row_bytes = sizeof blocks;
  EXPECT_EQ(BlockOffsets(w, 0), std::vector<double>{-0.25});
  std::vector<float> row(384);
  DecodeRow(w, 0, row.data());
  EXPECT_EQ(row[0], -0.25F);
  EXPECT_EQ(row[200], 0.0F);
}

TEST(Block, TQ1_0HoldsFiveTritsAByte) {
  // Every five-digit number in base 3, most significant digit first, is stored as the fraction
  // n/243 of 256, rounded up.
  for (int n = 0; n < 243; ++n) {
    BlockTQ1_0 block = {};
    block.d = 0x3c00;  // 1
    block.qs[7] = block.qs[32 + 9] = static_cast<uint8_t>((n * 256 + 242) / 243);
    block.qh[2] = static_cast<uint8_t>((n / 3 * 3 * 256 + 242) / 243);
    auto v = Decode(BlockType::kTQ1_0, &block, 256);
    int digits[] = {n / 81, n / 27 % 3, n / 9 % 3, n / 3 % 3, n % 3};
    for (int k = 0; k < 5; ++k) {
      ASSERT_EQ(v[7 + 32 * k], digits[k] - 1) << n;
      ASSERT_EQ(v[160 + 9 + 16 * k], digits[k] - 1) << n;
      if (k < 4) {
        ASSERT_EQ(v[240 + 2 + 4 * k], digits[k] - 1) << n;
      }
    }
  }
}

TEST(Block, TQ2_0ByHand) {
  BlockTQ2_0 block = {};
  block.d = 0xc000;                   // -2
  block.qs[3] = 0b10'01'00'10;        // values 3, 35, 67, 99 = codes 2, 0, 1, 2
  block.qs[32 + 31] = 0b00'10'00'01;  // values 159, 191, 223, 255 = codes 1, 0, 2, 0
  auto v = Decode(BlockType::kTQ2_0, &block, 256);
  EXPECT_EQ(v[3], -2.0f);
  EXPECT_EQ(v[35], 2.0f);
  EXPECT_EQ(v[67], 0.0f);
  EXPECT_EQ(v[99], -2.0f);
  EXPECT_EQ(v[159], 0.0f);
  EXPECT_EQ(v[191], 2.0f);
  EXPECT_EQ(v[223], -2.0f);
  EXPECT_EQ(v[255], 2.0f);
}

TEST(Block, I2SByHand) {
  std::vector<uint8_t> bytes(64, 0b01'01'01'01);
  bytes[5] = 0b10'00'01'10;        // values 5, 37, 69, 101 = codes 2, 0, 1, 2
  bytes[32 + 31] = 0b00'01'10'01;  // values 159, 191, 223, 255 = codes 0, 1, 2, 1
  auto v = Decode(BlockType::kI2_S, bytes.data(), 256, 0.25f);
  EXPECT_EQ(v[5], 0.25f);
  EXPECT_EQ(v[37], -0.25f);
  EXPECT_EQ(v[69], 0.0f);
  EXPECT_EQ(v[101], 0.25f);
  EXPECT_EQ(v[159], -0.25f);
  EXPECT_EQ(v[223], 0.25f);
  EXPECT_EQ(v[255], 0.0f);
}

// The bundled models hold the same weights in three formats, packed by another program
// (train_tiny_bitnet.py).
TEST(Block, BundledModelsDecodeToEqualBits) {
  for (const char* name : {"tiny-bitnet-relu2", "tiny-bitnet-silu"}) {
    auto path = [&](const char* format) { return ModelPath(name, format); };
    auto tq2 = GgufFile::Open(path("tq2_0")), tq1 = GgufFile::Open(path("tq1_0")),
         i2s = GgufFile::Open(path("i2_s"));
    ASSERT_TRUE(tq2.ok() && tq1.ok() && i2s.ok());
    int compared = 0;
    for (const GgufTensor& t : tq2->tensors()) {
      if (t.type_id != static_cast<uint32_t>(BlockType::kTQ2_0)) continue;
      const GgufTensor *one = tq1->FindTensor(t.name), *two = i2s->FindTensor(t.name);
      ASSERT_TRUE(one && two);
      auto n = static_cast<int64_t>(t.n_elements());
      I2SScan scan = ScanI2S(two->data);
      EXPECT_EQ(scan.code3_count, 0u);
      EXPECT_TRUE(scan.scale_finite && scan.tail_repeats);
      auto a = Decode(BlockType::kTQ2_0, t.data.data(), n);
      auto b = Decode(BlockType::kTQ1_0, one->data.data(), n);
      auto c = Decode(BlockType::kI2_S, two->data.data(), n, scan.scale);
      ASSERT_EQ(std::memcmp(a.data(), b.data(), a.size() * 4), 0) << t.name;
      ASSERT_EQ(std::memcmp(a.data(), c.data(), a.size() * 4), 0) << t.name;
      ++compared;
    }
    EXPECT_EQ(compared, 42);
  }
}

TEST(Block, TernaryTypesKeepTernaryWeightsExactly) {
  Random random(7);
  std::vector<float> w(1024);
  for (float& v : w) v = (static_cast<float>(random.Below(3)) - 1) * F16ToF32(0x2a3f);
  for (BlockType type :
       {BlockType::kF32, BlockType::kF16, BlockType::kTQ1_0, BlockType::kTQ2_0, BlockType::kI2_S}) {
    auto bytes = Encode(type, w);
    float scale = type == BlockType::kI2_S ? ScanI2S(bytes).scale : 1;
    EXPECT_EQ(Decode(type, bytes.data(), 1024, scale), w) << BlockTypeName(static_cast<uint32_t>(type));
  }
}

TEST(Block, QuantisersStayWithinHalfAStep) {
  Random random(8);
  std::vector<float> w(1024);
  for (float& v : w) v = static_cast<float>(random.Normal());
  auto q8 = Decode(BlockType::kQ8_0, Encode(BlockType::kQ8_0, w).data(), 1024);
  auto q4 = Decode(BlockType::kQ4_1, Encode(BlockType::kQ4_1, w).data(), 1024);
  for (int b = 0; b < 1024; b += 32) {
    auto [low, high] = std::minmax_element(w.begin() + b, w.begin() + b + 32);
    float step8 = std::max(-*low, *high) / 127, step4 = (*high - *low) / 15;
    for (int i = b; i < b + 32; ++i) {
      // Half a step, and the f16 rounding of the step times the largest code (and of the minimum).
      EXPECT_LE(std::fabs(q8[i] - w[i]), step8 * (0.5f + 127 * 0x1p-11f));
      EXPECT_LE(std::fabs(q4[i] - w[i]), step4 * (0.5f + 15 * 0x1p-11f) + std::fabs(*low) * 0x1p-11f);
    }
  }
}

TEST(Block, ZeroAndTinyBlocksEncode) {
  for (float value : {0.0f, 1e-45f}) {
    for (BlockType type :
         {BlockType::kQ8_0, BlockType::kQ4_1, BlockType::kTQ1_0, BlockType::kTQ2_0, BlockType::kI2_S}) {
      for (float v : Decode(type, Encode(type, std::vector<float>(256, value)).data(), 256, 0))
        EXPECT_EQ(v, 0.0f);
    }
  }
}

TEST(Block, TensorBytesChecksShapes) {
  auto bytes = [](uint32_t type, std::vector<uint64_t> shape) { return TensorBytes(type, shape); };
  EXPECT_EQ(bytes(0, {3, 5}).value(), 60u);
  EXPECT_EQ(bytes(3, {64, 2}).value(), 80u);
  EXPECT_EQ(bytes(34, {512, 3}).value(), 324u);
  EXPECT_EQ(bytes(36, {256, 4}).value(), 288u);  // n/4 + 32
  EXPECT_EQ(bytes(12, {256}).value(), 144u);     // Q4_K: known, not decoded
  EXPECT_EQ(FindBlockFormat(16), nullptr);
  EXPECT_EQ(BlockTypeName(12), "Q4_K");
  EXPECT_EQ(bytes(35, {255}).error().code, Code::kMalformed);
  EXPECT_EQ(bytes(0, {1ull << 40, 1ull << 40}).error().code, Code::kMalformed);
  EXPECT_EQ(bytes(99, {32}).error().code, Code::kMalformed);
  EXPECT_EQ(bytes(135, {64}).error().code, Code::kUnsupported);
  EXPECT_NE(bytes(135, {64}).error().message.find("IQ2_BN"), std::string::npos);
  EXPECT_EQ(BlockTypeName(99), "type 99");
}

TEST(Block, ScanFindsWhatNoI2SHolds) {
  std::vector<float> w(256, 1.0f);
  auto bytes = Encode(BlockType::kI2_S, w);
  EXPECT_EQ(ScanI2S(bytes).code3_count, 0u);
  EXPECT_EQ(ScanI2S(bytes).scale, 1.0f);
  bytes[9] = std::byte{0b11'01'11'00};
  bytes[10] = std::byte{0b01'10'10'01};  // neighbouring bits of two codes are no code 3
  EXPECT_EQ(ScanI2S(bytes).code3_count, 2u);
  EXPECT_EQ(ScanI2S(bytes).first_code3_byte, 9u);
  StoreLe<uint32_t>(bytes.data() + 64, 0x7f800000u);
  EXPECT_FALSE(ScanI2S(bytes).scale_finite);
  EXPECT_FALSE(ScanI2S(bytes).tail_repeats);
  EXPECT_FALSE(ScanI2S(bytes).tail_zero);
  std::fill(bytes.begin() + 68, bytes.end(), std::byte{0});
  EXPECT_TRUE(ScanI2S(bytes).tail_zero);
}

TEST(Block, DecodeRowFindsItsRow) {
  std::vector<float> w(3 * 256);
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(static_cast<int>(i / 256) - 1) * 0.5f;
  for (BlockType type : {BlockType::kF16, BlockType::kTQ1_0, BlockType::kI2_S}) {
    auto bytes = Encode(type, w);
    const BlockFormat& format = GetBlockFormat(type);
    WeightView view = {type, bytes.data(), 3, 256, 256 / format.block_values * format.block_bytes, 0.5f};
    std::vector<float> row(256);
    for (int r = 0; r < 3; ++r) {
      DecodeRow(view, r, row.data());
      EXPECT_EQ(row, std::vector<float>(256, static_cast<float>(r - 1) * 0.5f)) << format.name;
    }
  }
}

}  // namespace
}  // namespace pb

// The block formats against the reference library's own code: random blocks decode to equal bits,
// and random weights encode to equal bytes. Fails when the reference is not set up.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/random.h"
#include "formats/block.h"
#include "host/engine.h"
#include "setup/setup.h"
#include "tests/paths.h"

namespace pb {
namespace {

constexpr int64_t kValues = 256 * 1000;

// The library's functions of a type: (blocks, floats, n) and (floats, blocks, n).
struct Functions {
  BlockType type;
  const char *decode, *encode;
};
constexpr Functions kTypes[] = {
    {BlockType::kF16, "ggml_fp16_to_fp32_row", "ggml_fp32_to_fp16_row"},
    {BlockType::kBF16, "ggml_bf16_to_fp32_row", "ggml_fp32_to_bf16_row_ref"},
    {BlockType::kQ8_0, "dequantize_row_q8_0", "quantize_row_q8_0_ref"},
    {BlockType::kQ4_0, "dequantize_row_q4_0", "quantize_row_q4_0_ref"},
    {BlockType::kQ5_0, "dequantize_row_q5_0", "quantize_row_q5_0_ref"},
    {BlockType::kQ5_1, "dequantize_row_q5_1", "quantize_row_q5_1_ref"},
    {BlockType::kMXFP4, "dequantize_row_mxfp4", "quantize_row_mxfp4_ref"},
    {BlockType::kQ1_0, "dequantize_row_q1_0", "quantize_row_q1_0_ref"},
    {BlockType::kQ2_0, "dequantize_row_q2_0", "quantize_row_q2_0_ref"},
    // Types whose quantisers search: decoded alone.
    {BlockType::kQ2_K, "dequantize_row_q2_K", nullptr},
    {BlockType::kQ3_K, "dequantize_row_q3_K", nullptr},
    {BlockType::kQ4_K, "dequantize_row_q4_K", nullptr},
    {BlockType::kQ5_K, "dequantize_row_q5_K", nullptr},
    {BlockType::kQ6_K, "dequantize_row_q6_K", nullptr},
    {BlockType::kIQ4_NL, "dequantize_row_iq4_nl", nullptr},
    {BlockType::kIQ4_XS, "dequantize_row_iq4_xs", nullptr},
    {BlockType::kQ4_1, "dequantize_row_q4_1", "quantize_row_q4_1_ref"},
    {BlockType::kTQ1_0, "dequantize_row_tq1_0", "quantize_row_tq1_0_ref"},
    {BlockType::kTQ2_0, "dequantize_row_tq2_0", "quantize_row_tq2_0_ref"},
};

class BlockReference : public ::testing::TestWithParam<Functions> {
 protected:
  static void SetUpTestSuite() {
    auto reference = setup::FindReference("llama.cpp");
    ASSERT_TRUE(reference.ok()) << reference.error().message;
    std::string path = (reference->library_dir / "libggml-base.so").string();
    library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library_, nullptr) << dlerror();
  }

  template <typename F>
  static F* Function(const char* name) {
    void* symbol = library_ ? dlsym(library_, name) : nullptr;
    EXPECT_NE(symbol, nullptr) << name;
    return reinterpret_cast<F*>(symbol);
  }

  static const BlockFormat& Format() { return GetBlockFormat(GetParam().type); }
  static std::vector<std::byte> Blocks() {
    return std::vector<std::byte>(
        static_cast<size_t>(kValues / Format().block_values * Format().block_bytes));
  }

  static void* library_;
};

void* BlockReference::library_ = nullptr;

TEST_P(BlockReference, RandomBlocksDecodeToEqualBits) {
  auto* theirs = Function<void(const void*, float*, int64_t)>(GetParam().decode);
  ASSERT_NE(theirs, nullptr);
  Random random(static_cast<uint64_t>(GetParam().type));
  auto blocks = Blocks();
  for (std::byte& b : blocks) b = static_cast<std::byte>(random.Next());
  std::vector<float> a(kValues), b(kValues);
  Format().decode(blocks.data(), a.data(), kValues, 1.0f);
  theirs(blocks.data(), b.data(), kValues);
  int64_t finite = 0;
  for (int64_t i = 0; i < kValues; ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;  // the payload of a NaN means nothing
    ASSERT_EQ(std::memcmp(&a[i], &b[i], 4), 0) << i << ": " << a[i] << " against " << b[i];
    ++finite;
  }
  EXPECT_GT(finite, kValues / 2);
}

// Every byte alone, beside bytes of ones and of zeros: each bit's place.
TEST_P(BlockReference, ExtremeBlocksDecodeToEqualBits) {
  auto* theirs = Function<void(const void*, float*, int64_t)>(GetParam().decode);
  ASSERT_NE(theirs, nullptr);
  const size_t n_values = 256 / Format().block_values * Format().block_values;
  std::vector<std::byte> bytes(n_values / Format().block_values * Format().block_bytes);
  std::vector<float> a(n_values), b(n_values);
  for (std::byte fill : {std::byte{0}, std::byte{0xff}, std::byte{0x3c}}) {
    for (size_t at = 0; at < bytes.size(); ++at) {
      for (int value = 0; value < 256; ++value) {
        std::fill(bytes.begin(), bytes.end(), fill);
        bytes[at] = static_cast<std::byte>(value);
        Format().decode(bytes.data(), a.data(), static_cast<int64_t>(n_values), 1.0f);
        theirs(bytes.data(), b.data(), static_cast<int64_t>(n_values));
        for (size_t i = 0; i < n_values; ++i)
          ASSERT_TRUE((std::isnan(a[i]) && std::isnan(b[i])) || std::memcmp(&a[i], &b[i], 4) == 0)
              << "byte " << at << " = " << value << ", value " << i << ": " << a[i] << " against " << b[i];
      }
    }
  }
}

TEST_P(BlockReference, RandomWeightsEncodeToEqualBytes) {
  if (!GetParam().encode) {
    // What is encoded plainly decodes to within a step of the coarsest of its blocks.
    Random random(static_cast<uint64_t>(GetParam().type) + 200);
    std::vector<float> weights(kValues), back(kValues);
    for (float& w : weights) w = static_cast<float>(0.02 * random.Normal());
    auto blocks = Blocks();
    Format().encode(weights.data(), blocks.data(), kValues);
    Function<void(const void*, float*, int64_t)>(GetParam().decode)(blocks.data(), back.data(), kValues);
    double error = 0, norm = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const double e = double(back[i]) - double(weights[i]);
      error += e * e, norm += double(weights[i]) * double(weights[i]);
    }
    EXPECT_LT(std::sqrt(error / norm),
              GetParam().type == BlockType::kQ2_K || GetParam().type == BlockType::kQ3_K ? 0.35 : 0.11);
    return;
  }
  auto* theirs = Function<void(const float*, void*, int64_t)>(GetParam().encode);
  ASSERT_NE(theirs, nullptr);
  Random random(static_cast<uint64_t>(GetParam().type) + 100);
  for (bool ternary : {false, true}) {
    std::vector<float> weights(kValues);
    for (float& w : weights) {
      w = ternary ? (static_cast<float>(random.Below(3)) - 1) * 0.0371f
                  : static_cast<float>(0.02 * random.Normal());
    }
    auto a = Blocks(), b = Blocks();
    Format().encode(weights.data(), a.data(), kValues);
    theirs(weights.data(), b.data(), kValues);
    EXPECT_TRUE(a == b) << (ternary ? "ternary" : "normal");
  }
}

// What the reference lends (PB_CAP_DECODE) of types that are decoded here, too.
TEST(LentDecoder, GivesTheBitsOfOurOwn) {
  auto reference = setup::FindReference("llama.cpp");
  ASSERT_TRUE(reference.ok()) << reference.error().message;
  auto engine = host::Engine::Start(reference->plugin, {}, {});
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  ASSERT_NE((*engine)->capabilities() & PB_CAP_DECODE, 0u);
  constexpr size_t kRow = 2048;
  std::vector<float> ours(kRow), theirs(kRow);
  for (const Functions& f : kTypes) {
    const BlockFormat& format = GetBlockFormat(f.type);
    std::vector<std::byte> blocks(kRow / format.block_values * format.block_bytes);
    Random random(static_cast<uint64_t>(f.type) + 300);
    for (std::byte& b : blocks) b = static_cast<std::byte>(random.Next());
    format.decode(blocks.data(), ours.data(), kRow, 1.0f);
    const Status decoded = (*engine)->Decode(static_cast<uint32_t>(f.type), blocks, theirs);
    ASSERT_TRUE(decoded.ok()) << format.name << ": " << decoded.error().message;
    for (size_t i = 0; i < kRow; ++i)
      ASSERT_TRUE((std::isnan(ours[i]) && std::isnan(theirs[i])) || ours[i] == theirs[i])
          << format.name << ", value " << i << ": " << ours[i] << " against " << theirs[i];
    const auto cut = std::span<const std::byte>(blocks).first(blocks.size() - 1);
    EXPECT_FALSE((*engine)->Decode(static_cast<uint32_t>(f.type), cut, theirs).ok()) << format.name;
  }
  const Status unknown = (*engine)->Decode(250, std::vector<std::byte>(8), theirs);
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, Code::kUnsupported) << unknown.error().message;
}

// Of engines that lend nothing it is an error, and they go on.
TEST(LentDecoder, IsRefusedWhereThereIsNone) {
  auto engine = host::Engine::Start(PluginPath("native"), {}, {});
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  std::vector<float> values(4);
  for (int i = 0; i < 2; ++i) {
    const Status decoded = (*engine)->Decode(1, std::vector<std::byte>(8), values);
    ASSERT_FALSE(decoded.ok());
    EXPECT_EQ(decoded.error().code, Code::kUnsupported) << decoded.error().message;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, BlockReference, ::testing::ValuesIn(kTypes),
                         [](const auto& info) { return std::string(GetBlockFormat(info.param.type).name); });

}  // namespace
}  // namespace pb

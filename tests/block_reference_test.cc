// The block formats against the reference library's own code: random blocks decode to equal bits,
// and random weights encode to equal bytes. Fails when the reference is not set up.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/random.h"
#include "formats/block.h"
#include "setup/setup.h"

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

TEST_P(BlockReference, RandomWeightsEncodeToEqualBytes) {
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

INSTANTIATE_TEST_SUITE_P(Types, BlockReference, ::testing::ValuesIn(kTypes),
                         [](const auto& info) { return std::string(GetBlockFormat(info.param.type).name); });

}  // namespace
}  // namespace pb

// The table of activation schemes against ggml's own (vec_dot_type of each type, read off llama.cpp
// v0.5.0), and the setting's language.
#include "formats/act_scheme.h"

#include <gtest/gtest.h>

namespace pb {
namespace {

TEST(ActScheme, GgmlChoosesByWeightType) {
  // ggml-cpu.c, type_traits_cpu.
  const std::pair<const char*, const char*> kExpected[] = {
      {"F32", "none"},    {"F16", "f16"},     {"BF16", "bf16"},  {"Q4_0", "q8_0"},  {"Q4_1", "q8_1"},
      {"Q5_0", "q8_0"},   {"Q5_1", "q8_1"},   {"Q8_0", "q8_0"},  {"Q4_K", "q8_k"},  {"Q6_K", "q8_k"},
      {"IQ4_NL", "q8_0"}, {"IQ4_XS", "q8_k"}, {"TQ1_0", "q8_k"}, {"TQ2_0", "q8_k"}, {"I2_S", "bitnet"}};
  for (const auto& [type, scheme] : kExpected) {
    ASSERT_TRUE(GgmlActScheme(std::string_view(type))) << type;
    EXPECT_STREQ(ActSchemeName(*GgmlActScheme(std::string_view(type))), scheme) << type;
  }
  EXPECT_FALSE(GgmlActScheme(std::string_view("Q9_X")));
  EXPECT_EQ(GgmlActScheme(14u), ActScheme::kQ8_K);  // Q6_K, which is not decoded here
}

TEST(ActQuant, ExceptionsReachTheirTypeAlone) {
  auto q = ActQuant::Parse("ggml+F16/32:none");
  ASSERT_TRUE(q.ok());
  EXPECT_EQ(q->SchemeFor(BlockType::kF16, 64, MatrixPlace::kLayer), ActScheme::kNone);
  EXPECT_EQ(q->SchemeFor(BlockType::kF16, 777, MatrixPlace::kOutput), ActScheme::kF16);
  EXPECT_EQ(q->SchemeFor(BlockType::kTQ2_0, 64, MatrixPlace::kLayer), ActScheme::kQ8_K);
  EXPECT_EQ(q->Text(), "ggml+F16/32:none");
  auto all = ActQuant::Parse("q8_0+F16:bf16");
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->SchemeFor(BlockType::kF16, 64, MatrixPlace::kOutput), ActScheme::kBF16);
  EXPECT_EQ(all->SchemeFor(BlockType::kTQ2_0, 64, MatrixPlace::kLayer), ActScheme::kQ8_0);
  auto output = ActQuant::Parse("ggml+F16:none+F16/output:f16");
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->SchemeFor(BlockType::kF16, 64, MatrixPlace::kLayer), ActScheme::kNone);
  EXPECT_EQ(output->SchemeFor(BlockType::kF16, 64, MatrixPlace::kOutput), ActScheme::kF16);
  EXPECT_EQ(output->Text(), "ggml+F16:none+F16/output:f16");
  auto experts = ActQuant::Parse("ggml+F16:none+F16/experts:f16");
  ASSERT_TRUE(experts.ok());
  EXPECT_EQ(experts->SchemeFor(BlockType::kF16, 64, MatrixPlace::kExpert), ActScheme::kF16);
  EXPECT_EQ(experts->SchemeFor(BlockType::kF16, 64, MatrixPlace::kLayer), ActScheme::kNone);
  EXPECT_EQ(experts->SchemeFor(BlockType::kF16, 64, MatrixPlace::kOutput), ActScheme::kNone);
  EXPECT_EQ(experts->Text(), "ggml+F16:none+F16/experts:f16");
  EXPECT_EQ(all->SchemeFor(BlockType::kTQ2_0, 64, MatrixPlace::kExpert), ActScheme::kQ8_0);
  // The output matrix stands outside the layers.
  EXPECT_EQ(all->SchemeFor(BlockType::kTQ2_0, 64, MatrixPlace::kOutput), ActScheme::kQ8_K);
  EXPECT_EQ((ActQuant{ActScheme::kBitnet, {}}).SchemeFor(BlockType::kQ8_0, 64, MatrixPlace::kOutput),
            ActScheme::kNone);
}

TEST(ActQuant, WhatIsNotOfferedIsNamed) {
  for (const char* text : {"", "q9", "ggml+", "ggml+F16", "ggml+F16:q9", "ggml+Q9_X:none", "ggml+/32:none",
                           "ggml++F16:none", "ggml+F16/out:none"}) {
    auto q = ActQuant::Parse(text);
    ASSERT_FALSE(q.ok()) << text;
    EXPECT_EQ(q.error().code, Code::kUsage) << text;
    EXPECT_NE(q.error().message.find("q8_k"), std::string::npos) << q.error().message;
  }
}

}  // namespace
}  // namespace pb

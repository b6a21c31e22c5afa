// Safetensors against a file that transformers wrote and files written by hand, whole and
// damaged.
#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/bytes.h"
#include "base/half.h"
#include "tests/paths.h"

namespace pb {
namespace {

std::vector<std::byte> File(std::string_view header, size_t data_bytes) {
  std::vector<std::byte> bytes(8 + header.size() + data_bytes, std::byte{0});
  StoreLe<uint64_t>(bytes.data(), header.size());
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

std::string ErrorOf(std::string_view header, size_t data_bytes, Code code = Code::kMalformed) {
  auto file = SafetensorsFile::Parse(File(header, data_bytes));
  if (file.ok()) return "loaded";
  EXPECT_EQ(file.error().code, code) << file.error().message;
  return file.error().message;
}

TEST(Safetensors, ReadsWhatTransformersWrote) {
  auto file = SafetensorsFile::Open(SourcePath("models/golden/tiny-bitnet-relu2.safetensors"));
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->metadata().at("engine"), "transformers 5.23.0");
  const SafeTensor* logits = file->Find("logits");
  ASSERT_NE(logits, nullptr);
  EXPECT_EQ(logits->shape, (std::vector<uint64_t>{32, 2048}));
  auto values = logits->Floats();
  ASSERT_TRUE(values.ok());
  EXPECT_EQ(values->size(), 32u * 2048u);
  for (float v : *values) ASSERT_TRUE(std::isfinite(v));
  EXPECT_EQ(file->Find("no such tensor"), nullptr);
  EXPECT_TRUE(SafetensorsFile::Open(SourcePath("models/golden/smollm2-135m-q4_1.safetensors")).ok());
  EXPECT_TRUE(SafetensorsFile::Open(SourcePath("models/golden/tiny-bitnet-silu.safetensors")).ok());
}

TEST(Safetensors, ReadsAFileWrittenByHand) {
  std::string header =
      R"({"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
      R"("n":{"dtype":"I32","shape":[1,0],"data_offsets":[8,8]},"__metadata__":{"k":"v"}}  )";
  auto bytes = File(header, 8);
  StoreLe<float>(bytes.data() + 8 + header.size(), 1.5f);
  StoreLe<uint16_t>(bytes.data() + 8 + header.size() + 4, 0x3c00);  // 1
  StoreLe<uint16_t>(bytes.data() + 8 + header.size() + 6, 0xc000);  // -2
  auto file = SafetensorsFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->metadata().at("k"), "v");
  EXPECT_EQ(file->Find("a")->Floats().value(), std::vector<float>{1.5f});
  EXPECT_EQ(file->Find("b")->Floats().value(), (std::vector<float>{1, -2}));
  EXPECT_EQ(file->Find("n")->n_elements(), 0u);
  EXPECT_EQ(file->Find("n")->Floats().error().code, Code::kUnsupported);
  EXPECT_EQ(file->tensors()[0].name, "a");
}

TEST(Safetensors, RefusesDamage) {
  EXPECT_NE(ErrorOf("", 0).find("not valid JSON"), std::string::npos);
  EXPECT_NE(ErrorOf("[]", 0).find("no JSON object"), std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3).find("1 missing"),
            std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5).find("belong to none"),
            std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8).find("begins at"),
            std::string::npos);
  EXPECT_NE(
      ErrorOf(
          R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
          6)
          .find("begins at"),
      std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4).find("need 8 bytes"),
            std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0)
                .find("overflows"),
            std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4).find("no list"),
            std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4).find("no list"),
            std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4).find("no range"),
            std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":"F32","shape":[1]}})", 4).find("data_offsets"), std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":7})", 0).find("no JSON object"), std::string::npos);
  EXPECT_NE(ErrorOf(R"({"__metadata__":{"k":1}})", 0).find("no string"), std::string::npos);
  EXPECT_NE(
      ErrorOf(
          R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
          4)
          .find("twice"),
      std::string::npos);
  EXPECT_NE(
      ErrorOf(R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,4]}})", 4, Code::kUnsupported).find("F4"),
      std::string::npos);
  EXPECT_NE(ErrorOf(R"({"a":{"dtype":")"
                    "\xff"
                    R"("}})",
                    0)
                .find("JSON"),
            std::string::npos);
  // Nesting costs neither stack nor memory.
  EXPECT_NE(ErrorOf("{\"a\":" + std::string(1 << 20, '['), 0), "loaded");
  EXPECT_NE(ErrorOf("{\"a\":" + std::string(1 << 20, '[') + std::string(1 << 20, ']') + "}", 0), "loaded");
  // A length that the file does not have is never allocated.
  auto huge = File("{}", 0);
  StoreLe<uint64_t>(huge.data(), UINT64_MAX);
  EXPECT_FALSE(SafetensorsFile::Parse(huge).ok());
  StoreLe<uint64_t>(huge.data(), 99'000'000);
  EXPECT_FALSE(SafetensorsFile::Parse(huge).ok());
}

TEST(Safetensors, EveryCutIsNoticedAndEveryBitFlipEnds) {
  std::string header = R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                       R"("b":{"dtype":"U8","shape":[5],"data_offsets":[16,21]}})";
  auto bytes = File(header, 21);
  ASSERT_TRUE(SafetensorsFile::Parse(bytes).ok());
  for (size_t n = 0; n < bytes.size(); ++n) {
    auto cut = SafetensorsFile::Parse({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n)});
    ASSERT_FALSE(cut.ok()) << n;
    ASSERT_EQ(cut.error().code, Code::kMalformed) << n;
  }
  int loaded = 0;
  for (size_t bit = 0; bit < 8 * (8 + header.size()); ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    loaded += SafetensorsFile::Parse(bytes).ok();
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  EXPECT_GT(loaded, 0);    // a flip inside a name
  EXPECT_LT(loaded, 200);  // most do not survive
}

TEST(Safetensors, WhatIsWrittenReadsBack) {
  auto path =
      std::filesystem::temp_directory_path() / fmt::format("pb-safetensors-{}.safetensors", ::getpid());
  auto writer = SafetensorsWriter::Create(path, {{"engine", "na\"tive"}, {"model", "m"}}, 2048);
  ASSERT_TRUE(writer.ok()) << writer.error().message;
  const float values[] = {1, -2, 3.5f, 4, 5, 6};
  const uint64_t shape[] = {2, 3}, empty[] = {0, 7};
  ASSERT_TRUE(writer->Add("embeddings", SafeDtype::kF32, shape, std::as_bytes(std::span(values))).ok());
  ASSERT_TRUE(writer->Add("none", SafeDtype::kI64, empty, {}).ok());
  EXPECT_EQ(writer->Add("none", SafeDtype::kI64, empty, {}).error().code, Code::kUsage);
  EXPECT_EQ(writer->Add("\xff", SafeDtype::kI64, empty, {}).error().code, Code::kUsage);
  ASSERT_TRUE(writer->Flush().ok());
  {
    auto halfway = SafetensorsFile::Open(path);  // valid before the end
    ASSERT_TRUE(halfway.ok()) << halfway.error().message;
    EXPECT_EQ(halfway->tensors().size(), 2u);
  }
  int added = 0;
  while (writer->HasRoom("x000")) {
    ASSERT_TRUE(
        writer->Add(fmt::format("x{:03}", added++), SafeDtype::kF32, shape, std::as_bytes(std::span(values)))
            .ok());
  }
  EXPECT_GT(added, 5);
  EXPECT_EQ(writer->Add("one more", SafeDtype::kI64, empty, {}).error().code, Code::kUsage);
  ASSERT_TRUE(writer->Finish().ok());
  auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->tensors().size(), static_cast<size_t>(2 + added));
  EXPECT_EQ(file->metadata().at("engine"), "na\"tive");
  EXPECT_EQ(file->Find("embeddings")->Floats().value(), (std::vector<float>{1, -2, 3.5f, 4, 5, 6}));
  EXPECT_EQ(file->Find("embeddings")->shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(file->Find("embeddings")->offset % 64, 0u);
  std::filesystem::remove(path);
}

TEST(Safetensors, SaysWhereItCannotWrite) {
  auto writer = SafetensorsWriter::Create("/no/such/folder/x.safetensors", {});
  ASSERT_FALSE(writer.ok());
  EXPECT_EQ(writer.error().code, Code::kIo);
  EXPECT_NE(writer.error().message.find("/no/such/folder"), std::string::npos);
}

}  // namespace
}  // namespace pb

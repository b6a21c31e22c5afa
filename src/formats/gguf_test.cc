// GGUF files written by hand byte by byte, whole and damaged; what is written reads back.
#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "base/bytes.h"
#include "base/random.h"
#include "tests/paths.h"

namespace pb {
namespace {

// Lays out a file byte by byte, independently of GgufWriter.
class Bytes {
 public:
  template <typename T>
  Bytes& Put(T v) {
    size_t at = bytes_.size();
    bytes_.resize(at + sizeof v);
    StoreLe(bytes_.data() + at, v);
    return *this;
  }
  Bytes& Text(std::string_view s) {
    Put<uint64_t>(s.size());
    for (char c : s) Put(c);
    return *this;
  }
  Bytes& Header(uint64_t n_tensors, uint64_t n_keys, uint32_t version = 3) {
    return Put<uint32_t>(0x46554747).Put(version).Put(n_tensors).Put(n_keys);
  }
  Bytes& Tensor(std::string_view name, std::vector<uint64_t> shape, uint32_t type, uint64_t offset) {
    Text(name).Put<uint32_t>(static_cast<uint32_t>(shape.size()));
    for (uint64_t d : shape) Put(d);
    return Put(type).Put(offset);
  }
  Bytes& Pad(size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  Bytes& Zeros(size_t n) {
    bytes_.resize(bytes_.size() + n);
    return *this;
  }
  std::vector<std::byte> Take() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

std::string ErrorOf(Bytes bytes, Code code = Code::kMalformed) {
  auto file = GgufFile::Parse(bytes.Take());
  if (file.ok()) return "loaded";
  EXPECT_EQ(file.error().code, code) << file.error().message;
  return file.error().message;
}

::testing::AssertionResult Says(const std::string& message, std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    if (message.find(part) == std::string::npos)
      return ::testing::AssertionFailure() << "\"" << message << "\" lacks \"" << part << "\"";
  }
  return ::testing::AssertionSuccess();
}

TEST(Gguf, ReadsAFileWrittenByHand) {
  for (uint32_t version : {2u, 3u}) {
    Bytes b;
    b.Header(1, 5, version);
    b.Text("a").Put<uint32_t>(5).Put<int32_t>(-7);
    b.Text("b").Put<uint32_t>(8).Text("text");
    b.Text("c").Put<uint32_t>(9).Put<uint32_t>(8).Put<uint64_t>(2).Text("x").Text("");
    b.Text("d").Put<uint32_t>(7).Put<uint8_t>(1);
    b.Text("general.alignment").Put<uint32_t>(4).Put<uint32_t>(64);
    b.Tensor("w", {2, 3}, 0, 64).Pad(64).Zeros(64);
    for (int i = 0; i < 6; ++i) b.Put(static_cast<float>(i));
    auto file = GgufFile::Parse(b.Take());
    ASSERT_TRUE(file.ok()) << file.error().message;
    EXPECT_EQ(file->version(), version);
    EXPECT_EQ(file->alignment(), 64u);
    EXPECT_EQ(std::get<int64_t>(file->Find("a")->value), -7);
    EXPECT_EQ(file->Find("b")->offset, 24u + 8 + 1 + 4 + 4);
    EXPECT_EQ(file->String("b").value(), "text");
    EXPECT_EQ(*file->Strings("c"), (std::vector<std::string>{"x", ""}));
    EXPECT_EQ(file->Bool("d").value(), true);
    EXPECT_EQ(file->Uint("a").error().code, Code::kMalformed);
    EXPECT_EQ(file->Uint("nowhere").error().code, Code::kNotFound);
    const GgufTensor* w = file->FindTensor("w");
    ASSERT_NE(w, nullptr);
    EXPECT_EQ(w->n_columns(), 2u);
    EXPECT_EQ(w->n_rows(), 3u);
    EXPECT_EQ(LoadLe<float>(w->data.data() + 20), 5.0f);
    EXPECT_EQ(w->offset + 24, file->file_bytes());
  }
}

TEST(Gguf, RefusesWhatIsNoGguf) {
  EXPECT_TRUE(Says(ErrorOf(Bytes()), {"byte 0", "magic"}));
  EXPECT_TRUE(Says(ErrorOf(Bytes().Put<uint32_t>(0x04034b50).Zeros(20)), {"byte 0", "504b0304"}));
  EXPECT_TRUE(
      Says(ErrorOf(Bytes().Put<uint32_t>(0x46554747).Put<uint32_t>(0x03000000).Zeros(16), Code::kUnsupported),
           {"byte 4", "big-endian"}));
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(0, 0, 1), Code::kUnsupported), {"byte 4", "version 1"}));
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(0, 0, 4)), {"byte 4", "version 4"}));
  EXPECT_EQ(ErrorOf(Bytes().Header(0, 0)), "loaded");
}

TEST(Gguf, RefusesAbsurdCounts) {
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(UINT64_MAX, 0)), {"byte 8", "tensors"}));
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(0, 1ull << 60)), {"byte 16", "metadata keys"}));
  EXPECT_TRUE(
      Says(ErrorOf(Bytes().Header(0, 1).Put<uint64_t>(UINT64_MAX).Zeros(100)), {"byte 24", "at most 65535"}));
  EXPECT_TRUE(
      Says(ErrorOf(Bytes().Header(0, 1).Text("k").Put<uint32_t>(8).Put<uint64_t>(1ull << 50).Zeros(100)),
           {"string", "1125899906842624"}));
  EXPECT_TRUE(Says(ErrorOf(Bytes()
                               .Header(0, 1)
                               .Text("k")
                               .Put<uint32_t>(9)
                               .Put<uint32_t>(8)
                               .Put<uint64_t>(1ull << 61)
                               .Zeros(100)),
                   {"byte 37", "array elements"}));
  EXPECT_TRUE(
      Says(ErrorOf(Bytes().Header(1, 0).Text("t").Put<uint32_t>(5).Zeros(64)), {"tensor t", "5 dimensions"}));
}

TEST(Gguf, RefusesBadMetadata) {
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(0, 1).Text("k").Put<uint32_t>(7).Put<uint8_t>(2)),
                   {"byte 37", "key k", "bool holds 2"}));
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(0, 1).Text("k").Put<uint32_t>(13).Zeros(8)),
                   {"byte 33", "key k", "unknown value type 13"}));
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(0, 1).Text("k").Put<uint32_t>(9).Put<uint32_t>(9).Put<uint64_t>(0)),
                   {"array of arrays"}));
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(0, 1).Text("").Put<uint32_t>(7).Put<uint8_t>(0).Put<uint8_t>(0)),
                   {"byte 24", "empty metadata key"}));
  Bytes twice;
  twice.Header(0, 2).Text("k").Put<uint32_t>(7).Put<uint8_t>(0).Text("k").Put<uint32_t>(7).Put<uint8_t>(0);
  EXPECT_TRUE(Says(ErrorOf(twice), {"byte 38", "key k occurs twice", "first at byte 24"}));
  for (uint32_t bad : {0u, 4u, 33u, 1u << 31}) {
    EXPECT_TRUE(Says(ErrorOf(Bytes().Header(0, 1).Text("general.alignment").Put<uint32_t>(4).Put(bad)),
                     {"byte 24", "general.alignment"}));
  }
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(0, 1).Text("general.alignment").Put<uint32_t>(8).Text("32")),
                   {"general.alignment"}));
  EXPECT_TRUE(
      Says(ErrorOf(Bytes().Header(0, 1).Text("k\x01\n").Put<uint32_t>(13).Zeros(8)), {"k\\x01\\x0a"}));
}

TEST(Gguf, RefusesBadTensors) {
  auto one = [](std::vector<uint64_t> shape, uint32_t type, uint64_t offset, size_t data) {
    return Bytes().Header(1, 0).Tensor("w", std::move(shape), type, offset).Pad().Zeros(data);
  };
  EXPECT_EQ(ErrorOf(one({8}, 0, 0, 32)), "loaded");
  EXPECT_TRUE(Says(ErrorOf(one({8}, 0, 0, 31)), {"tensor w", "(1 missing)", "truncated download"}));
  EXPECT_TRUE(Says(ErrorOf(one({8}, 0, 32, 32)), {"tensor w", "(32 missing)"}));
  EXPECT_TRUE(Says(ErrorOf(one({8}, 99, 0, 32)), {"byte 24", "tensor w", "unknown tensor type 99"}));
  EXPECT_TRUE(Says(ErrorOf(one({64}, 135, 0, 64), Code::kUnsupported), {"tensor w", "IQ2_BN"}));
  EXPECT_TRUE(Says(ErrorOf(one({8}, 0, 8, 64)), {"tensor w", "offset 8", "alignment 32"}));
  EXPECT_TRUE(Says(ErrorOf(one({8}, 0, UINT64_MAX - 31, 64)), {"tensor w", "overflows"}));
  EXPECT_TRUE(Says(ErrorOf(one({1ull << 32, 1ull << 32}, 0, 0, 64)),
                   {"tensor w", "product of its dimensions overflows"}));
  EXPECT_TRUE(Says(ErrorOf(one({0}, 0, 0, 64)), {"tensor w", "dimension 0 is 0"}));
  EXPECT_TRUE(Says(ErrorOf(one({250}, 35, 0, 66)), {"tensor w", "250", "TQ2_0"}));
  EXPECT_TRUE(
      Says(ErrorOf(Bytes().Header(2, 0).Tensor("w", {16}, 0, 0).Tensor("v", {8}, 0, 32).Pad().Zeros(64)),
           {"tensors w and v overlap"}));
  EXPECT_TRUE(
      Says(ErrorOf(Bytes().Header(2, 0).Tensor("w", {8}, 0, 0).Tensor("w", {8}, 0, 32).Pad().Zeros(64)),
           {"tensor w occurs twice", "first at byte 24"}));
  EXPECT_TRUE(Says(ErrorOf(Bytes().Header(1, 0).Tensor(std::string(65, 'n'), {8}, 0, 0).Pad().Zeros(64)),
                   {"at most 64"}));
  EXPECT_TRUE(
      Says(ErrorOf(Bytes().Header(1, 0).Tensor("", {8}, 0, 0).Pad().Zeros(64)), {"empty tensor name"}));
  // Any order and gaps are fine; a scalar has no dimensions.
  EXPECT_EQ(ErrorOf(Bytes().Header(2, 0).Tensor("w", {8}, 0, 96).Tensor("v", {}, 0, 0).Pad().Zeros(128)),
            "loaded");
}

TEST(Gguf, TellsOtherLayoutsOfType36BySize) {
  // 256 values of I2_S have 96 bytes; another program's type 36 has 18 bytes for every 32 values:
  // 144.
  auto file = [](size_t data) { return Bytes().Header(1, 0).Tensor("w", {256}, 36, 0).Pad().Zeros(data); };
  EXPECT_EQ(ErrorOf(file(96)), "loaded");
  EXPECT_TRUE(
      Says(ErrorOf(file(144), Code::kUnsupported), {"tensor w", "type 36", "96 bytes", "144 lie before"}));
  EXPECT_TRUE(
      Says(ErrorOf(Bytes().Header(2, 0).Tensor("w", {256}, 36, 0).Tensor("v", {8}, 0, 160).Pad().Zeros(192),
                   Code::kUnsupported),
           {"tensor w", "160 lie before"}));
  EXPECT_TRUE(Says(ErrorOf(file(80)), {"(16 missing)"}));
}

TEST(Gguf, NamesTheFileThatCannotBeOpened) {
  auto file = GgufFile::Open("/no/such/model.gguf");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, Code::kNotFound);
  EXPECT_TRUE(Says(file.error().message, {"/no/such/model.gguf"}));
}

GgufValue RandomValue(Random& random) {
  auto type = static_cast<GgufType>(random.Below(13));
  GgufValue v;
  v.type = type;
  switch (type) {
    case GgufType::kString:
      v.value = std::string(random.Below(20), static_cast<char>(random.Below(256)));
      break;
    case GgufType::kBool:
      v.value = random.Below(2) == 1;
      break;
    case GgufType::kF32:
    case GgufType::kF64:
      v.value = static_cast<double>(static_cast<float>(random.Normal()));
      break;
    case GgufType::kI8:
    case GgufType::kI16:
    case GgufType::kI32:
    case GgufType::kI64:
      v.value = static_cast<int64_t>(random.Below(256)) - 128;
      break;
    case GgufType::kArray: {
      v.element = random.Below(2) ? GgufType::kString : GgufType::kBool;
      if (v.element == GgufType::kString) {
        v.value = std::vector<std::string>(random.Below(5), "element");
      } else {
        std::vector<uint64_t> bits(random.Below(9));
        for (uint64_t& b : bits) b = random.Below(2);
        v.value = std::move(bits);
      }
      break;
    }
    default:
      v.value = random.Below(256);
  }
  return v;
}

TEST(Gguf, WhatIsWrittenReadsBack) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    GgufWriter writer;
    std::vector<GgufValue> values;
    for (uint64_t i = 0, n = random.Below(12); i < n; ++i) {
      values.push_back(RandomValue(random));
      writer.Add(fmt::format("key.{}", i), values.back());
    }
    std::vector<std::vector<std::byte>> data;
    for (uint64_t i = 0, n = random.Below(6); i < n; ++i) {
      std::vector<uint64_t> shape = {256 * (1 + random.Below(2)), 1 + random.Below(3)};
      uint32_t types[] = {0, 1, 3, 8, 30, 34, 35, 36};
      uint32_t type = types[random.Below(8)];
      data.emplace_back(TensorBytes(type, shape).value());
      for (std::byte& b : data.back()) b = static_cast<std::byte>(random.Below(256));
      writer.AddTensor(fmt::format("tensor.{}", i), type, shape, data.back());
    }
    auto file = GgufFile::Parse(writer.Serialise());
    ASSERT_TRUE(file.ok()) << file.error().message;
    ASSERT_EQ(file->metadata().size(), values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      const GgufValue* read = file->Find(fmt::format("key.{}", i));
      ASSERT_NE(read, nullptr);
      EXPECT_EQ(read->type, values[i].type);
      EXPECT_TRUE(read->value == values[i].value);
    }
    for (size_t i = 0; i < data.size(); ++i) {
      const GgufTensor* t = file->FindTensor(fmt::format("tensor.{}", i));
      ASSERT_NE(t, nullptr);
      EXPECT_TRUE(std::equal(t->data.begin(), t->data.end(), data[i].begin(), data[i].end()));
      EXPECT_EQ(t->offset % 32, 0u);
    }
  }
}

TEST(Gguf, WritesAtomicallyAndMapsBack) {
  auto path = std::filesystem::temp_directory_path() / fmt::format("pb-gguf-{}.gguf", ::getpid());
  GgufWriter writer;
  writer.AddUint32("u", 7);
  writer.AddFloat32("f", 0.5f);
  writer.AddInts("i", {-1, 2});
  writer.AddTensor("w", 0, {2}, std::vector<std::byte>(8));
  ASSERT_TRUE(writer.Write(path).ok());
  auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.error().message;
  GgufFile moved = std::move(file).value();
  EXPECT_EQ(moved.path(), path);
  EXPECT_EQ(moved.Uint("u").value(), 7u);
  EXPECT_EQ(moved.Float("f").value(), 0.5);
  EXPECT_EQ(std::get<std::vector<int64_t>>(moved.Find("i")->value), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(LoadLe<float>(moved.FindTensor("w")->data.data()), 0.0f);
  std::filesystem::remove(path);
}

// The dump in docs/format_gguf.md is a real file that means what the page says.
TEST(Gguf, TheDocumentedDumpLoads) {
  std::string page = ReadFile(SourcePath("docs/format_gguf.md")).value();
  std::vector<std::byte> bytes;
  size_t at = 0;
  while ((at = page.find(fmt::format("\n    {:08x}  ", bytes.size()), at)) != std::string::npos) {
    const char* hex = page.data() + at + 15;
    for (int i = 0; i < 16; ++i)
      bytes.push_back(static_cast<std::byte>(std::strtoul(hex + 3 * i, nullptr, 16)));
  }
  ASSERT_EQ(bytes.size(), 192u);
  auto file = GgufFile::Parse(bytes);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->String("general.architecture").value(), "bitnet-b1.58");
  const GgufTensor* w = file->FindTensor("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->offset, 0x80u);
  EXPECT_EQ(w->shape, (std::vector<uint64_t>{128, 1}));
  I2SScan scan = ScanI2S(w->data);
  EXPECT_TRUE(scan.tail_repeats);
  std::vector<float> values(128), expected(128, 0.0f);
  GetBlockFormat(BlockType::kI2_S).decode(w->data.data(), values.data(), 128, scan.scale);
  expected[0] = expected[96] = 0.5f;
  expected[32] = -0.5f;
  EXPECT_EQ(values, expected);
}

}  // namespace
}  // namespace pb

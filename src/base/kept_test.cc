// Sealed files against their own bytes: every bit, every length, and whatever stands in an
// entry's place.
#include "base/kept.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace pb {
namespace {

class Kept : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("kept_{}", getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
  const nlohmann::json object_ = {{"kl", {0.00031, 1e-300, 0.125}}, {"who", "llama.cpp"}};
};

// echo -n '{"a":1' | sha256sum
TEST_F(Kept, TheDigestIsThatOfAllBytesBeforeIt) {
  EXPECT_EQ(Sealed({{"a", 1}}),
            "{\"a\":1,\"sha256\":\"8b0f0d75aabe01bbfba9341752c2cf7626f154e676aa791427b31aebfabc2592\"}");
}

TEST_F(Kept, IsReadAsItWasWritten) {
  ASSERT_TRUE(WriteSealed(folder_ / "a", object_).ok());
  auto read = ReadSealed(folder_ / "a", 1000);
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->at("kl"), object_.at("kl"));
  EXPECT_EQ(read->at("who"), "llama.cpp");
  EXPECT_EQ(ReadSealed(folder_ / "b", 1000).error().code, Code::kNotFound);
  EXPECT_EQ(ReadSealed(folder_ / "a", 10).error().code, Code::kMalformed);
}

TEST_F(Kept, EveryBitAndEveryLengthCounts) {
  const std::string good = Sealed(object_);
  ASSERT_TRUE(OpenSealed(good).ok());
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(OpenSealed(bad).ok()) << bad;
  }
  for (size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(OpenSealed(good.substr(0, n)).ok()) << n;
  for (const char* more : {" ", "}", "\n\n", "x"}) EXPECT_FALSE(OpenSealed(good + more).ok()) << more;
  EXPECT_TRUE(OpenSealed(good + "\n").ok());
  // An object of today behind the digest of another.
  const std::string other = Sealed({{"kl", {0.5, 1e-300, 0.125}}, {"who", "llama.cpp"}});
  EXPECT_FALSE(OpenSealed(other.substr(0, other.size() - 70) + good.substr(good.size() - 70)).ok());
}

// A text whose digest is right may still be anything.
TEST_F(Kept, ASealIsNoReasonToParseWithoutLimits) {
  const std::string deep = "{\"a\":" + std::string(200'000, '[') + std::string(200'000, ']') + "}";
  EXPECT_EQ(OpenSealed(deep).error().message, "it does not end with the digest of its content");
}

// Names of files and engines need be no UTF-8, which JSON cannot hold.
TEST_F(Kept, BytesThatAreNoUtf8AreEscapedAndNotLost) {
  auto read = OpenSealed(Sealed({{"one", "nat\xff.so"}, {"other", "nat\xfe.so"}}));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ((*read)["one"], "nat\\xff.so");
  EXPECT_EQ((*read)["other"], "nat\\xfe.so");
}

TEST_F(Kept, CacheEntriesAreMadeAnewWhateverStandsThere) {
  const std::filesystem::path entry = folder_ / "x" / "y" / "entry.json";
  EXPECT_FALSE(ReadCacheEntry(entry, 1000));
  WriteCacheEntry(entry, object_);
  ASSERT_TRUE(ReadCacheEntry(entry, 1000));
  // Written before there were digests, or cut: no trouble, and none to be believed.
  ASSERT_TRUE(WriteFileAtomic(entry, object_.dump()).ok());
  EXPECT_FALSE(ReadCacheEntry(entry, 1000));
  EXPECT_EQ(CacheTrouble(), "");
  // A pipe is not waited for, and is replaced.
  std::filesystem::remove(entry);
  ASSERT_EQ(mkfifo(entry.c_str(), 0600), 0);
  EXPECT_FALSE(ReadCacheEntry(entry, 1000));
  EXPECT_EQ(CacheTrouble(), entry.string() + ": not a regular file");
  WriteCacheEntry(entry, object_);
  EXPECT_TRUE(ReadCacheEntry(entry, 1000));
  // Where nothing can be written nothing is kept; the first trouble is the one that is told.
  WriteCacheEntry(entry / "below", object_);
  EXPECT_FALSE(ReadCacheEntry(entry / "below", 1000));
  EXPECT_EQ(CacheTrouble(), entry.string() + ": not a regular file");
}

}  // namespace
}  // namespace pb

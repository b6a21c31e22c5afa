// A compiled normalisation written by hand, and maps that lead out of themselves.
#include "tokenizer/chars_map.h"

#include <gtest/gtest.h>

#include <cstring>

namespace pb {
namespace {

std::string Bytes(const std::vector<uint32_t>& units, std::string_view replacements) {
  std::string out(4 + units.size() * 4, '\0');
  const auto n = static_cast<uint32_t>(units.size() * 4);
  std::memcpy(out.data(), &n, 4);
  std::memcpy(out.data() + 4, units.data(), n);
  return out.append(replacements);
}

// The root's children stand at 0 xor 'a'; that of "a" at 97 xor 'b' xor its offset, and so on: "a" is
// written "X", "ab" is written "YZ".
std::vector<uint32_t> Units() {
  std::vector<uint32_t> units(512, 0);
  units['a'] = 256u << 10 | 1u << 8 | 'a';  // offset 256: the value stands at 97 ^ 256
  units['a' ^ 256] = 1u << 31 | 0;          // its replacement is at 0
  units['a' ^ 256 ^ 'b'] = 8u << 10 | 1u << 8 | 'b';
  units['a' ^ 256 ^ 'b' ^ 8] = 1u << 31 | 2;  // at 2
  return units;
}

std::string Found(const Result<std::optional<CharsMap::Found>>& found) {
  if (!found.ok()) return found.error().message;
  if (!*found) return "nothing";
  return fmt::format("{} {}", (*found)->bytes, (*found)->with);
}

TEST(CharsMap, LongestAndShortest) {
  auto map = CharsMap::Create(Bytes(Units(), std::string_view("X\0YZ\0", 5)));
  ASSERT_TRUE(map.ok()) << map.error().message;
  EXPECT_EQ(Found(map->Longest("abc")), "2 YZ");
  EXPECT_EQ(Found(map->Shortest("abc")), "1 X");
  EXPECT_EQ(Found(map->Longest("ac")), "1 X");
  EXPECT_EQ(Found(map->Longest("b")), "nothing");
  EXPECT_EQ(Found(map->Longest("")), "nothing");
  EXPECT_EQ(Found(map->Longest(std::string_view("\0a", 2))), "nothing");
}

TEST(CharsMap, RefusesWhatLeadsOutOfIt) {
  auto said = [](const std::string& bytes) {
    auto map = CharsMap::Create(bytes);
    return map.ok() ? Found(map->Longest("ab")) : map.error().message;
  };
  EXPECT_EQ(said("abc"), "it has 3 bytes, too few for its length");
  EXPECT_EQ(said(std::string("\xFF\xFF\0\0abcd", 8)), "byte 0: an array of 65535 bytes, where 4 follow");
  EXPECT_EQ(said(Bytes({0, 1}, std::string_view("\0", 1))), "an index 97 beyond the 2 units of its array");
  EXPECT_EQ(said(Bytes(Units(), "X")), "a replacement at byte 0 of 1 that does not end");
}

}  // namespace
}  // namespace pb

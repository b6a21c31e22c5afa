// The names that llama.cpp's gguf-split gives.
#include "base/shards.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

namespace pb {
namespace {

constexpr size_t kMaxShards = 4096;

}  // namespace

std::string ShardName::File(size_t number) const {
  return fmt::format("{}-{:05}-of-{:05}.gguf", stem, number, count);
}

ShardName ParseShardName(const std::string& name) {
  constexpr std::string_view kEnd = ".gguf", kOf = "-of-";
  constexpr size_t kDigits = 5, kTail = 1 + kDigits + 4 + kDigits + 5;
  if (name.size() <= kTail || !name.ends_with(kEnd)) return {};
  const size_t at = name.size() - kTail;
  ShardName shard;
  const auto number = [&](size_t from, size_t* to) {
    const char* end = name.data() + from + kDigits;
    return std::from_chars(name.data() + from, end, *to).ptr == end;
  };
  if (name[at] != '-' || name.compare(at + 1 + kDigits, kOf.size(), kOf) != 0 || !number(at + 1, &shard.no) ||
      !number(at + 1 + kDigits + kOf.size(), &shard.count) || shard.no < 1 || shard.no > shard.count ||
      shard.count > kMaxShards)
    return {};
  shard.stem = name.substr(0, at);
  return shard;
}

}  // namespace pb

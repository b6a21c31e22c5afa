// A file of a set: "model", 2 and 3 of "model-00002-of-00003.gguf".
#ifndef PARITYBIT_BASE_SHARDS_H_
#define PARITYBIT_BASE_SHARDS_H_

#include <filesystem>
#include <string>

namespace pb {

struct ShardName {
  std::string stem;
  size_t no = 0, count = 0;  // no counts from 1; a count of 0: no shard's name

  // Another file of the set, beside this one.
  std::string File(size_t number) const;
};

ShardName ParseShardName(const std::string& file_name);

}  // namespace pb

#endif  // PARITYBIT_BASE_SHARDS_H_

// What stands in the user's cache: listed with its size, and removed without following a link out
// of it.
#ifndef PARITYBIT_SETUP_CACHE_FOLDER_H_
#define PARITYBIT_SETUP_CACHE_FOLDER_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb::setup {

struct CacheItem {
  std::string name;    // of the entry: "models"
  std::string what;    // what it holds; empty: not known, so not paritybit's to remove
  uint64_t bytes = 0;  // on disk; a link counts itself alone
  int64_t n_files = 0;
  bool is_link = false;
  bool known() const { return !what.empty(); }
};

// The entries of the cache in order of their names; none where there is no cache. kIo: it cannot be
// read.
Result<std::vector<CacheItem>> ListCache(const std::filesystem::path& cache);

// Removes an entry with all that it holds: links are removed, never followed, and another file
// system that is mounted there is left alone. Not there any more is no error.
Status RemoveFromCache(const std::filesystem::path& cache, std::string_view name);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_CACHE_FOLDER_H_

// Files: read-only memory map, whole-file read with a cap, atomic write, and the directories
// paritybit keeps things in.
#ifndef PARITYBIT_BASE_FILE_H_
#define PARITYBIT_BASE_FILE_H_

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pb {

// A file mapped read-only. Movable; unmaps on destruction. Views into it live as long as it does.
class MappedFile {
 public:
  static Result<MappedFile> Open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}
  const std::byte* data_;
  size_t size_;
};

// Reads a whole file; larger than max_bytes is an error.
Result<std::string> ReadFile(const std::filesystem::path& path, uint64_t max_bytes = 1ull << 30);
// Writes beside the target, syncs, and renames: readers see the old file or the new one.
Status WriteFileAtomic(const std::filesystem::path& path, std::string_view content);

// The user's cache (references, models, noise floors): $PARITYBIT_CACHE, else
// $XDG_CACHE_HOME/paritybit, else ~/.cache/paritybit.
std::filesystem::path CacheDir();
// Directory of the running executable.
std::filesystem::path ExecutableDir();

}  // namespace pb

#endif  // PARITYBIT_BASE_FILE_H_

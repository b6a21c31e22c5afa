// Creates, grows, seals and maps the anonymous file.
#include "host/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/system_error.h"

namespace pb::host {
namespace {

Error Failed(const char* what) { return SystemError(fmt::format("shared memory: {}", what), errno); }

}  // namespace

Result<SharedMemory> SharedMemory::Create() {
  int fd = memfd_create("paritybit", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return Failed("memfd_create");
  SharedMemory memory(fd);
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) != 0) return Failed("sealing");
  PB_TRY(memory.Reserve(kArenaOffset));
  return memory;
}

Result<SharedMemory> SharedMemory::Attach(int fd) {
  SharedMemory memory(fd);
  PB_TRY(memory.Refresh());
  if (memory.size_ < kArenaOffset)
    return MakeError(Code::kUsage, "file descriptor {} is not the shared memory", fd);
  return memory;
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      outgrown_(std::exchange(other.outgrown_, {})) {}

void SharedMemory::DropOutgrown() {
  for (const std::span<std::byte> old : outgrown_) munmap(old.data(), old.size());
  outgrown_.clear();
}

SharedMemory::~SharedMemory() {
  DropOutgrown();
  if (data_) munmap(data_, size_);
  if (fd_ >= 0) close(fd_);
}

Status SharedMemory::Reserve(uint64_t n_bytes) {
  if (n_bytes <= size_) return {};
  // Both may grow it: never ask for less than there is.
  struct stat info;
  if (fstat(fd_, &info) != 0) return Failed("fstat");
  uint64_t have = static_cast<uint64_t>(info.st_size);
  if (have < n_bytes) {
    have = std::max(n_bytes, size_ * 2);
    have = (have + 4095) / 4096 * 4096;
    if (ftruncate(fd_, static_cast<off_t>(have)) != 0) return Failed("growing");
  }
  return Map(have);
}

Status SharedMemory::Refresh() {
  struct stat info;
  if (fstat(fd_, &info) != 0) return Failed("fstat");
  uint64_t have = static_cast<uint64_t>(info.st_size);
  return have <= size_ ? Status() : Map(have);
}

Status SharedMemory::Map(uint64_t n_bytes) {
  void* p = mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (p == MAP_FAILED) return Failed("mapping");
  if (data_) outgrown_.emplace_back(data_, size_);
  data_ = static_cast<std::byte*>(p);
  size_ = n_bytes;
  return {};
}

}  // namespace pb::host

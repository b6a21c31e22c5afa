// Memory that paritybit and paritybit-host both see: an anonymous file that can grow and, being
// sealed, never shrink, so that neither side can take a page away from under the other.
#ifndef PARITYBIT_HOST_SHARED_MEMORY_H_
#define PARITYBIT_HOST_SHARED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace pb::host {

// Where an evaluation stands, at the head of the shared memory: written by the child without a
// message, read by the parent when the child is silent or dead. The parent believes none of it: it
// is printed, and any change counts as progress.
struct StatusPage {
  uint64_t progress;  // counts the points reached
  int32_t stage, layer, first_position;
  char native_name[64];
  // Of the start, before any code of the plugin runs: whether paritybit-host has begun, and if it
  // could not be started, the call that failed and its errno.
  int32_t host_began, start_errno;
  char start_call[32];
};
inline constexpr uint64_t kArenaOffset = 4096;  // tensors follow the status page
static_assert(sizeof(StatusPage) <= kArenaOffset);

// Owns a mapping and the file descriptor. Pointers into it are valid until it is moved, or
// DropOutgrown is called after Reserve or Refresh has mapped more.
class SharedMemory {
 public:
  static Result<SharedMemory> Create();
  // Takes over a descriptor that Create made in another process.
  static Result<SharedMemory> Attach(int fd);
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&&) = delete;
  ~SharedMemory();

  // Grows the file when needed and maps at least n_bytes.
  Status Reserve(uint64_t n_bytes);
  // Maps all there is after the other side may have grown it.
  Status Refresh();
  // Lets go of mappings that were outgrown.
  void DropOutgrown();

  int fd() const { return fd_; }
  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }
  StatusPage* status() const { return reinterpret_cast<StatusPage*>(data_); }
  float* values(uint64_t offset) const { return reinterpret_cast<float*>(data_ + offset); }

 private:
  explicit SharedMemory(int fd) : fd_(fd) {}
  Status Map(uint64_t n_bytes);

  int fd_ = -1;
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
  std::vector<std::span<std::byte>> outgrown_;
};

// Next offset at or after n where a tensor may lie.
constexpr uint64_t AlignTensor(uint64_t n) { return (n + 63) / 64 * 64; }

// Bytes of the shared memory, from its start.
struct Range {
  uint64_t begin = kArenaOffset, end = kArenaOffset;
};
// Where n bytes may lie beside a range that is in use.
constexpr uint64_t Beside(const Range& used, uint64_t n) {
  return AlignTensor(kArenaOffset + n) <= used.begin ? kArenaOffset : AlignTensor(used.end);
}

}  // namespace pb::host

#endif  // PARITYBIT_HOST_SHARED_MEMORY_H_

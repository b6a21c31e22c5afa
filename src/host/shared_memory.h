// Memory that paritybit and paritybit-host both see: an anonymous file that can grow and, being
// sealed, never shrink, so that neither side can take a page away from under the other.
#ifndef PARITYBIT_HOST_SHARED_MEMORY_H_
#define PARITYBIT_HOST_SHARED_MEMORY_H_

#include <cstddef>
#include <cstdint>

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

// Owns one mapping and the file descriptor. Pointers into it are valid until the next Map, Reserve
// or move.
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
};

// Next offset at or after n where a tensor may lie.
constexpr uint64_t AlignTensor(uint64_t n) { return (n + 63) / 64 * 64; }

}  // namespace pb::host

#endif  // PARITYBIT_HOST_SHARED_MEMORY_H_

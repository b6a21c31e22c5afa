// Little-endian loads and a bounded cursor over untrusted bytes whose errors carry the byte offset.
#ifndef PARITYBIT_BASE_BYTES_H_
#define PARITYBIT_BASE_BYTES_H_

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/result.h"

namespace pb {

static_assert(std::endian::native == std::endian::little, "file formats are read in place as little-endian");

template <typename T>
T LoadLe(const void* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename T>
void StoreLe(void* p, T v) {
  std::memcpy(p, &v, sizeof v);
}

// Reads forward through bytes it does not own; every read is checked against the end.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

  // Reads one little-endian value; `what` names it in the error.
  template <typename T>
  Result<T> Read(std::string_view what) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (remaining() < sizeof(T)) return Truncated(what, sizeof(T));
    T v = LoadLe<T>(bytes_.data() + offset_);
    offset_ += sizeof(T);
    return v;
  }

  // Returns a view of the next n bytes.
  Result<std::span<const std::byte>> Take(uint64_t n, std::string_view what) {
    if (remaining() < n) return Truncated(what, n);
    auto view = bytes_.subspan(offset_, n);
    offset_ += n;
    return view;
  }

  Error Truncated(std::string_view what, uint64_t n) const {
    return MakeError(Code::kMalformed, "byte {}: {} needs {} bytes, {} are left", offset_, what, n,
                     remaining());
  }

 private:
  std::span<const std::byte> bytes_;
  uint64_t offset_ = 0;
};

}  // namespace pb

#endif  // PARITYBIT_BASE_BYTES_H_

// A file that is on its way: its bytes so far, whose they are, and the lock that keeps two
// downloads of one file apart.
#ifndef PARITYBIT_HUB_PARTIAL_H_
#define PARITYBIT_HUB_PARTIAL_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pb::hub {

// What tells one content of an address from another.
struct Origin {
  std::string url;        // without its query
  std::string validator;  // for If-Range: a strong ETag, else Last-Modified; empty: none
  std::string identity;   // what the hub itself says of the file (X-Linked-ETag); empty: nothing
  uint64_t total = 0;     // bytes of the whole; 0: not known
};

class Partial {
 public:
  // Opens TARGET.part, or makes it, and locks it; `waiting` is called once where another process
  // holds it.
  static Result<Partial> Open(const std::filesystem::path& target, const std::function<void()>& waiting);
  Partial(Partial&& other) noexcept;
  Partial& operator=(Partial&&) = delete;
  ~Partial();

  const std::filesystem::path& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }
  const Origin& origin() const { return origin_; }
  // Forgets what is there; what comes is of this origin.
  Status Begin(const Origin& origin);
  Status Append(std::string_view bytes);
  // On the disk, under its own name; what stood there is replaced.
  Status Finish(const std::filesystem::path& target);
  // Removes all of it.
  void Drop();
  // kIo: the disk has no room for so many bytes more.
  Status CheckRoom(uint64_t more) const;

 private:
  Partial(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  std::filesystem::path SideCar() const { return path_.string() + ".json"; }
  void ReadSideCar();

  int fd_;
  std::filesystem::path path_;
  uint64_t bytes_ = 0;
  Origin origin_;
};

}  // namespace pb::hub

#endif  // PARITYBIT_HUB_PARTIAL_H_

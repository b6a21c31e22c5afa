// Keeps what has arrived of a file, with a sealed note of what it is of.
#include "hub/partial.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/kept.h"
#include "base/system_error.h"

namespace pb::hub {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxSideCarBytes = 64 << 10;

Error Failed(const fs::path& path, std::string_view doing) {
  return SystemError(fmt::format("{}: {}", path.string(), doing), errno);
}

std::string TextOf(const nlohmann::json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

}  // namespace

Result<Partial> Partial::Open(const fs::path& target, const std::function<void()>& waiting) {
  const fs::path path = target.string() + ".part";
  bool told = false;
  for (;;) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd < 0) return Failed(path, "cannot be opened");
    Partial partial(fd, path);
    struct stat here;
    if (::fstat(fd, &here) != 0 || !S_ISREG(here.st_mode))
      return MakeError(Code::kIo, "{}: not a regular file", path.string());
    while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return Failed(path, "cannot be locked");
      if (errno == EWOULDBLOCK) {
        if (waiting && !told) waiting();
        told = true;
        if (::flock(fd, LOCK_EX) == 0) break;
        if (errno != EINTR) return Failed(path, "cannot be locked");
      }
    }
    // Whoever held it may have finished it: these bytes have the target's name now, and are not ours.
    struct stat there;
    if (::stat(path.c_str(), &there) != 0 || there.st_ino != here.st_ino || there.st_dev != here.st_dev)
      continue;
    if (::fstat(fd, &here) != 0) return Failed(path, "cannot be read");
    partial.bytes_ = static_cast<uint64_t>(here.st_size);
    partial.ReadSideCar();
    return partial;
  }
}

Partial::Partial(Partial&& other) noexcept
    : fd_(other.fd_), path_(std::move(other.path_)), bytes_(other.bytes_), origin_(std::move(other.origin_)) {
  other.fd_ = -1;
}

Partial::~Partial() {
  if (fd_ >= 0) ::close(fd_);
}

void Partial::ReadSideCar() {
  auto json = ReadSealed(SideCar(), kMaxSideCarBytes);
  if (!json.ok()) return;
  origin_.url = TextOf(*json, "url");
  origin_.validator = TextOf(*json, "validator");
  origin_.identity = TextOf(*json, "identity");
  const auto total = json->find("total");
  if (total != json->end() && total->is_number_unsigned()) origin_.total = total->get<uint64_t>();
}

Status Partial::Begin(const Origin& origin) {
  if (::ftruncate(fd_, 0) != 0) return Failed(path_, "cannot be emptied");
  bytes_ = 0;
  origin_ = origin;
  return WriteSealed(SideCar(), {{"url", origin.url},
                                 {"validator", origin.validator},
                                 {"identity", origin.identity},
                                 {"total", origin.total}});
}

Status Partial::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(bytes_));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed(path_, "cannot be written");
    bytes_ += static_cast<uint64_t>(n);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Status Partial::Finish(const fs::path& target) {
  if (::fsync(fd_) != 0) return Failed(path_, "cannot be finished");
  if (::rename(path_.c_str(), target.c_str()) != 0) return Failed(target, "cannot be put in place");
  std::error_code ignored;
  fs::remove(SideCar(), ignored);
  return {};
}

void Partial::Drop() {
  std::error_code ignored;
  fs::remove(SideCar(), ignored);
  fs::remove(path_, ignored);
}

Status Partial::CheckRoom(uint64_t more) const {
  struct statvfs disk;
  if (::fstatvfs(fd_, &disk) != 0) return {};
  const uint64_t room = static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
  if (more <= room) return {};
  return MakeError(Code::kIo, "{}: not enough disk space: {} bytes are missing of the file, {} are free",
                   path_.string(), more, room);
}

}  // namespace pb::hub

// Makes temporary folders, takes locks, and renames into place.
#include "setup/work_dir.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
constexpr char kPrefix[] = ".tmp-";

bool OwnerIsGone(const std::string& name) {
  const long pid = std::atol(name.c_str() + sizeof(kPrefix) - 1);
  return pid > 0 && kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH;
}

}  // namespace

Result<WorkDir> WorkDir::Create(const fs::path& parent) {
  std::error_code error;
  fs::create_directories(parent, error);
  if (error) return MakeError(Code::kIo, "{}: cannot be created: {}", parent.string(), error.message());
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kPrefix, 0) == 0 && OwnerIsGone(name)) fs::remove_all(entry.path(), ignored);
  }
  std::string pattern = (parent / (kPrefix + std::to_string(getpid()) + "-XXXXXX")).string();
  if (!mkdtemp(pattern.data())) return MakeError(Code::kIo, "{}: {}", pattern, std::strerror(errno));
  return WorkDir(pattern);
}

WorkDir::~WorkDir() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

Status Replace(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_directories(to.parent_path(), error);
  fs::path old;
  if (fs::is_directory(to, error)) {  // rename does not replace a directory that holds something
    old = from;
    old += ".old";
    fs::rename(to, old, error);
    if (error) return MakeError(Code::kIo, "{}: cannot be moved away: {}", to.string(), error.message());
  }
  fs::rename(from, to, error);
  if (error) return MakeError(Code::kIo, "{}: cannot be put in place: {}", to.string(), error.message());
  if (!old.empty()) fs::remove_all(old, error);
  return {};
}

Result<Lock> Lock::Take(const fs::path& file, const Progress& progress) {
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  const int fd = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return MakeError(Code::kIo, "{}: cannot be opened: {}", file.string(), std::strerror(errno));
  Lock lock(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return lock;
  if (progress) progress("another set-up is running; waiting for it");
  while (flock(fd, LOCK_EX) != 0) {
    if (errno != EINTR)
      return MakeError(Code::kIo, "{}: cannot be locked: {}", file.string(), std::strerror(errno));
  }
  return lock;
}

Lock::~Lock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace pb::setup

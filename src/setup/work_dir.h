// A place to prepare something in, and the lock that keeps two set-ups apart: what is ready appears
// under its name at once, and an interrupted set-up leaves nothing half.
#ifndef PARITYBIT_SETUP_WORK_DIR_H_
#define PARITYBIT_SETUP_WORK_DIR_H_

#include <filesystem>

#include "base/result.h"
#include "setup/setup.h"

namespace pb::setup {

// A directory beside its target (same file system), removed with all it holds on destruction.
class WorkDir {
 public:
  // Creates PARENT/.tmp-PID-N; removes what set-ups that were killed have left there.
  static Result<WorkDir> Create(const std::filesystem::path& parent);
  WorkDir(WorkDir&& other) noexcept : path_(std::move(other.path_)) { other.path_.clear(); }
  WorkDir& operator=(WorkDir&&) = delete;
  ~WorkDir();
  const std::filesystem::path& path() const { return path_; }

 private:
  explicit WorkDir(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

// Puts `from` in the place of `to` (file or directory); what stood there is removed.
Status Replace(const std::filesystem::path& from, const std::filesystem::path& to);

// Held from Take until destruction; the system releases it when the process dies.
class Lock {
 public:
  // Waits for another set-up on this machine to finish, and says so.
  static Result<Lock> Take(const std::filesystem::path& file, const Progress& progress);
  Lock(Lock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Lock& operator=(Lock&&) = delete;
  ~Lock();

 private:
  explicit Lock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_WORK_DIR_H_

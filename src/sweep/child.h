// A program that runs beside others, with both streams in files, a limit of time, and a limit on how
// long it may be silent. It dies with the thread that started it.
#ifndef PARITYBIT_SWEEP_CHILD_H_
#define PARITYBIT_SWEEP_CHILD_H_

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace pb::sweep {

struct ChildLimits {
  double wall_seconds = 0, silent_seconds = 0;
};

struct ChildEnd {
  enum How { kExited, kOutOfTime, kSilent } how = kExited;
  int exit_code = 0;  // 128 + signal when a signal ended it
  double wall_seconds = 0;
  // Resident memory of the largest of its processes, where they ended by themselves; else 0.
  double peak_mib = 0;
};

class Child {
 public:
  // argv[0] is a path. Its stdout and stderr become these files, made anew.
  static Result<Child> Start(const std::vector<std::string>& argv, const std::filesystem::path& out,
                             const std::filesystem::path& err, ChildLimits limits);
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  // Ends it, and all that it started, where it still runs.
  ~Child();

  // None while it runs; what is beyond a limit is ended first.
  std::optional<ChildEnd> Poll();
  // Returns when one of them may have ended, or after a quarter of a second.
  static void Wait(std::span<const Child* const> children);

 private:
  using Clock = std::chrono::steady_clock;
  Child(pid_t pid, int alive) : pid_(pid), alive_(alive) {}
  ChildEnd Reap(ChildEnd::How how);
  // Bytes of both files.
  uintmax_t Written() const;

  pid_t pid_;
  int alive_;  // a pipe that ends with the last of its processes
  std::filesystem::path out_, err_;
  ChildLimits limits_;
  Clock::time_point start_ = Clock::now(), heard_ = start_;
  uintmax_t written_ = 0;
};

}  // namespace pb::sweep

#endif  // PARITYBIT_SWEEP_CHILD_H_

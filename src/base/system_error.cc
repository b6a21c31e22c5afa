// Errors of the operating system in words: a user who meets a limit reads which one, and how large
// it is.
#include "base/system_error.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>

namespace pb {
namespace {

// What `ulimit -FLAG` prints for a resource: its soft limit in units of `unit` bytes.
std::string Ulimit(__rlimit_resource_t resource, char flag, rlim_t unit) {
  rlimit limit;
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "";
  return fmt::format("ulimit -{} is {}", flag, limit.rlim_cur / unit);
}

}  // namespace

std::string LimitText(int error) {
  switch (error) {
    case EMFILE:
      return Ulimit(RLIMIT_NOFILE, 'n', 1);
    case EFBIG:
      return Ulimit(RLIMIT_FSIZE, 'f', 1024);
    case ENOMEM:
      return Ulimit(RLIMIT_AS, 'v', 1024);
    case EAGAIN: {  // of a thread: too many of them, or no room for its stack
      const std::string processes = Ulimit(RLIMIT_NPROC, 'u', 1), memory = Ulimit(RLIMIT_AS, 'v', 1024);
      return processes + (processes.empty() || memory.empty() ? "" : ", ") + memory;
    }
    default:
      return "";
  }
}

std::string ErrnoText(int error) {
  const std::string limit = LimitText(error);
  return limit.empty() ? std::strerror(error) : fmt::format("{} ({})", std::strerror(error), limit);
}

Error SystemError(std::string_view what, int error) {
  const Code code = error == ENOENT ? Code::kNotFound : Code::kIo;
  return MakeError(code, "{}: {}", what, ErrnoText(error));
}

}  // namespace pb

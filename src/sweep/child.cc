// Forks, watches files grow, and ends what goes on for too long.
#include "sweep/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/fd.h"
#include "base/system_error.h"

namespace pb::sweep {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void BecomeChild(char* const* argv, int out, int err, int alive, pid_t parent) {
  setpgid(0, 0);  // Ctrl-C is the sweep's: it ends its cells by ending
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  const int null = open("/dev/null", O_RDONLY);
  if (null >= 0) dup2(null, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  fcntl(alive, F_SETFD, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execv(argv[0], argv);
  _exit(127);
}

int CreateFile(const fs::path& path) {
  return open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
}

}  // namespace

Result<Child> Child::Start(const std::vector<std::string>& argv, const fs::path& out, const fs::path& err,
                           ChildLimits limits) {
  const Fd out_fd(CreateFile(out)), err_fd(CreateFile(err));
  for (const auto& [fd, path] : {std::pair{out_fd.get(), out}, std::pair{err_fd.get(), err}})
    if (fd < 0) return MakeError(Code::kIo, "{}: cannot be created: {}", path.string(), ErrnoText(errno));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return MakeError(Code::kIo, "pipe: {}", ErrnoText(errno));
  Fd alive(ends[0]);
  const Fd held(ends[1]);
  std::vector<char*> args;
  for (const std::string& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));
  args.push_back(nullptr);
  const pid_t parent = getpid(), pid = fork();
  if (pid < 0) return MakeError(Code::kIo, "fork: {}", ErrnoText(errno));
  if (pid == 0) BecomeChild(args.data(), out_fd.get(), err_fd.get(), held.get(), parent);
  setpgid(pid, pid);  // whichever of the two comes first
  Child child(pid, alive.Release());
  child.out_ = out, child.err_ = err, child.limits_ = limits;
  return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      alive_(std::exchange(other.alive_, -1)),
      out_(std::move(other.out_)),
      err_(std::move(other.err_)),
      limits_(other.limits_),
      start_(other.start_),
      heard_(other.heard_),
      written_(other.written_) {}

Child::~Child() {
  if (pid_ > 0) Reap(ChildEnd::kOutOfTime);
  if (alive_ >= 0) close(alive_);
}

uintmax_t Child::Written() const {
  uintmax_t n = 0;
  for (const fs::path& path : {out_, err_}) {
    std::error_code error;
    const uintmax_t size = fs::file_size(path, error);
    if (!error) n += size;
  }
  return n;
}

ChildEnd Child::Reap(ChildEnd::How how) {
  if (how != ChildEnd::kExited) kill(-pid_, SIGKILL);
  int status = 0;
  rusage used{};  // its own and that of what it waited for
  while (wait4(pid_, &status, 0, &used) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return {how, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
          std::chrono::duration<double>(Clock::now() - start_).count(),
          how == ChildEnd::kExited ? static_cast<double>(used.ru_maxrss) / 1024 : 0};
}

std::optional<ChildEnd> Child::Poll() {
  siginfo_t info{};
  // Seen, and left to Reap.
  if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_)
    return Reap(ChildEnd::kExited);
  const auto now = Clock::now();
  if (const uintmax_t written = Written(); written != written_) written_ = written, heard_ = now;
  if (now - start_ > std::chrono::duration<double>(limits_.wall_seconds)) return Reap(ChildEnd::kOutOfTime);
  if (now - heard_ > std::chrono::duration<double>(limits_.silent_seconds)) return Reap(ChildEnd::kSilent);
  return std::nullopt;
}

void Child::Wait(std::span<const Child* const> children) {
  constexpr int kTickMs = 250;
  std::vector<pollfd> fds;
  for (const Child* child : children) fds.push_back({child->alive_, POLLIN, 0});
  poll(fds.data(), fds.size(), kTickMs);
}

}  // namespace pb::sweep

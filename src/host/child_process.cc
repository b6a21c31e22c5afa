// Forks with limits set, keeps the last lines of stderr, and turns a status into words.
#include "host/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>

#include "base/system_error.h"

namespace pb::host {
namespace {

constexpr size_t kOutputKept = 64 << 10;
constexpr rlim_t kStackBytes =
    64ull << 20;  // a runaway recursion ends soon, whatever the user's own limit is

constexpr int kPassed = 5;  // descriptors that the child has: 0 to 2, its socket, the shared memory

struct ExecPlan {
  const char* const* argv;
  int null_fd, output_fd, socket_fd, memory_fd;
  rlim_t memory_bytes;
  pid_t parent;
  StatusPage* status;  // where the child tells what failed
};

void LimitTo(__rlimit_resource_t resource, rlim_t value) {
  rlimit limit;
  if (getrlimit(resource, &limit) != 0) return;
  limit.rlim_cur = std::min(value, limit.rlim_max);
  if (resource != RLIMIT_STACK) limit.rlim_max = limit.rlim_cur;
  setrlimit(resource, &limit);
}

// Closes what the child does not need, so that it takes no more descriptors than its parent, and
// puts the others in place.
const char* PlaceDescriptors(const ExecPlan& plan) {
  const int sources[kPassed] = {plan.null_fd, plan.output_fd, plan.output_fd, plan.socket_fd, plan.memory_fd};
  unsigned from = 3;
  for (;;) {
    unsigned next = ~0u;  // the smallest source that is not below `from`
    for (int source : sources) {
      const auto candidate = static_cast<unsigned>(source);
      if (candidate >= from && candidate < next) next = candidate;
    }
    if (next > from && close_range(from, next == ~0u ? next : next - 1, 0) != 0) return "close_range";
    if (next == ~0u) break;
    from = next + 1;
  }
  int high[kPassed];
  for (int i = 0; i < kPassed; ++i) {
    high[i] = sources[i] >= kPassed ? sources[i] : fcntl(sources[i], F_DUPFD, kPassed);
    if (high[i] < 0) return "fcntl";
  }
  for (int i = 0; i < kPassed; ++i) {
    if (dup2(high[i], i) < 0) return "dup2";
  }
  return close_range(kPassed, ~0u, 0) != 0 ? "close_range" : nullptr;
}

// Between fork and exec, where only async-signal-safe calls are allowed. Returns when something
// failed, with its name.
const char* BecomeHost(const ExecPlan& plan) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != plan.parent) _exit(127);  // nobody is left to run for
  for (int signal_number : {SIGINT, SIGTERM, SIGPIPE, SIGHUP, SIGQUIT}) signal(signal_number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (const char* failed = PlaceDescriptors(plan)) return failed;
  LimitTo(RLIMIT_CORE, 0);
  LimitTo(RLIMIT_STACK, kStackBytes);
  if (plan.memory_bytes > 0) LimitTo(RLIMIT_AS, plan.memory_bytes);
  execv(plan.argv[0], const_cast<char* const*>(plan.argv));
  return "exec";
}

std::string Explain(int status, bool killed_by_us) {
  if (WIFEXITED(status)) return fmt::format("exited with status {}", WEXITSTATUS(status));
  int number = WTERMSIG(status);
  if (number == SIGKILL && killed_by_us) return "closed its connection and had to be killed";
  const char* name = sigabbrev_np(number);
  return fmt::format("killed by signal {} (SIG{}){}", number, name ? name : "?",
                     number == SIGKILL ? ", not by paritybit (was the machine out of memory?)" : "");
}

void CloseFd(int& fd) {
  if (fd >= 0) close(fd);
  fd = -1;
}

}  // namespace

Result<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::filesystem::path& program,
                                                          const std::filesystem::path& plugin,
                                                          const Limits& limits, const SharedMemory& memory) {
  int sockets[2], pipes[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
    return SystemError("socketpair", errno);
  if (pipe2(pipes, O_CLOEXEC) != 0) {
    const int error = errno;
    close(sockets[0]);
    close(sockets[1]);
    return SystemError("pipe", error);
  }
  int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC), error = errno;
  std::unique_ptr<ChildProcess> child(new ChildProcess);
  Status opened = child->Open(sockets[0], pipes[0]);
  std::string program_text = program.string(), plugin_text = plugin.string();
  const char* argv[] = {program_text.c_str(), plugin_text.c_str(), "3", nullptr};
  ExecPlan plan{argv,     null_fd,        pipes[1], sockets[1], memory.fd(), limits.memory_bytes,
                getpid(), memory.status()};
  pid_t pid = opened.ok() && null_fd >= 0 ? fork() : -1;
  if (pid == 0) {
    const char* failed = BecomeHost(plan);
    plan.status->start_errno = errno;
    std::strncpy(plan.status->start_call, failed, sizeof plan.status->start_call - 1);
    _exit(127);
  }
  if (null_fd >= 0) error = errno;
  for (int fd : {sockets[1], pipes[1], null_fd}) {
    if (fd >= 0) close(fd);
  }
  PB_TRY(std::move(opened));
  if (null_fd < 0) return SystemError("/dev/null: cannot open", error);
  if (pid < 0) return SystemError(fmt::format("starting {}", program_text), error);
  setpgid(pid, pid);
  child->pid_ = pid;
  child->pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  epoll_event event{EPOLLIN, {}};
  if (child->pidfd_ >= 0) epoll_ctl(child->epoll_, EPOLL_CTL_ADD, child->pidfd_, &event);
  return child;
}

Status ChildProcess::Open(int socket_fd, int output_fd) {
  socket_ = socket_fd;
  output_fd_ = output_fd;
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{EPOLLIN, {}};
  if (epoll_ < 0 || fcntl(socket_, F_SETFL, O_NONBLOCK) != 0 || fcntl(output_fd_, F_SETFL, O_NONBLOCK) != 0 ||
      epoll_ctl(epoll_, EPOLL_CTL_ADD, socket_, &event) != 0 ||
      epoll_ctl(epoll_, EPOLL_CTL_ADD, output_fd_, &event) != 0) {
    return SystemError("watching a child process", errno);
  }
  return {};
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) End(false);
  for (int* fd : {&socket_, &output_fd_, &epoll_, &pidfd_}) CloseFd(*fd);
}

void ChildProcess::Poll(int timeout_ms, bool wait_writable) {
  pollfd fds[3] = {{socket_, static_cast<short>(wait_writable ? POLLIN | POLLOUT : POLLIN), 0},
                   {output_fd_, POLLIN, 0},
                   {pidfd_, POLLIN, 0}};
  poll(fds, 3, timeout_ms);
  if (fds[1].revents != 0) DrainOutput();
}

void ChildProcess::DrainOutput() {
  char buffer[16384];
  // Bounded, so that a child that prints without end cannot hold us here.
  for (int i = 0; i < 64 && output_fd_ >= 0; ++i) {
    ssize_t n = read(output_fd_, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      CloseFd(output_fd_);
      return;
    }
    output_.append(buffer, static_cast<size_t>(n));
    if (output_.size() > 2 * kOutputKept) output_.erase(0, output_.size() - kOutputKept);
  }
}

double ChildProcess::CpuSeconds() const {
  clockid_t clock;
  timespec time{};
  if (pid_ <= 0 || clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

bool ChildProcess::Ended() {
  if (pid_ < 0) return true;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return false;
  kill(-pid_, SIGKILL);  // what the plugin may have started
  pid_ = -1;
  how_ended_ = Explain(status, killed_by_us_);
  DrainOutput();
  if (output_.size() > kOutputKept) output_.erase(0, output_.size() - kOutputKept);
  return true;
}

std::string ChildProcess::End(bool kill_it) {
  using Clock = std::chrono::steady_clock;
  auto grace_ends = Clock::now() + std::chrono::seconds(kill_it ? 0 : 1);
  while (!Ended()) {
    if (!killed_by_us_ && Clock::now() >= grace_ends) {
      killed_by_us_ = true;
      kill(-pid_, SIGKILL);
      kill(pid_, SIGKILL);
    }
    pollfd fds[2] = {{output_fd_, POLLIN, 0}, {pidfd_, POLLIN, 0}};
    poll(fds, 2, 10);
    DrainOutput();
  }
  return how_ended_;
}

}  // namespace pb::host

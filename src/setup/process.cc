// Forks, collects the output, and waits with a limit of time.
#include "setup/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "base/system_error.h"

namespace pb::setup {
namespace {

constexpr size_t kKeptBytes = 64 * 1024;

struct Pipe {
  int read_fd = -1, write_fd = -1;
  bool Open() {
    std::array<int, 2> fds;
    if (pipe2(fds.data(), O_CLOEXEC) != 0) return false;
    read_fd = fds[0];
    write_fd = fds[1];
    return true;
  }
  void CloseWrite() {
    if (write_fd >= 0) close(write_fd);
    write_fd = -1;
  }
  ~Pipe() {
    CloseWrite();
    if (read_fd >= 0) close(read_fd);
  }
};

// Cuts a stream into lines.
class Lines {
 public:
  explicit Lines(const LineFn& on_line) : on_line_(on_line) {}
  void Add(std::string_view text) {
    if (!on_line_) return;
    for (const char c : text) {
      if (c == '\n' || c == '\r')
        End();
      else if (line_.size() < kKeptBytes)
        line_ += c;
    }
  }
  void End() {
    if (on_line_ && !line_.empty()) on_line_(line_);
    line_.clear();
  }

 private:
  const LineFn& on_line_;
  std::string line_;
};

// Appends what is there; false at the end of the stream.
bool Drain(int fd, std::string* to, Lines* lines) {
  std::array<char, 8192> buffer;
  const ssize_t n = read(fd, buffer.data(), buffer.size());
  if (n < 0) return errno == EINTR;
  to->append(buffer.data(), static_cast<size_t>(n));
  lines->Add({buffer.data(), static_cast<size_t>(n)});
  if (n == 0) lines->End();
  if (to->size() > 2 * kKeptBytes) to->erase(0, to->size() - kKeptBytes);
  return n > 0;
}

// Reads both streams until both end or the time is up; false then.
bool Collect(int out_fd, int err_fd, double timeout_seconds, const LineFn& on_line, Output* output) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::duration<double>(timeout_seconds);
  Lines out(on_line), err(on_line);
  std::array<pollfd, 2> fds = {pollfd{out_fd, POLLIN, 0}, pollfd{err_fd, POLLIN, 0}};
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    if (poll(fds.data(), fds.size(), static_cast<int>(std::min<int64_t>(left, 1000))) <= 0) continue;
    if (fds[0].revents && !Drain(out_fd, &output->out, &out)) fds[0].fd = -1;
    if (fds[1].revents && !Drain(err_fd, &output->err, &err)) fds[1].fd = -1;
  }
  return true;
}

[[noreturn]] void BecomeChild(const char* program, char* const* argv, int out_fd, int err_fd) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // an interrupted set-up leaves no download running
  const int null = open("/dev/null", O_RDONLY);
  if (null >= 0) dup2(null, STDIN_FILENO);
  dup2(out_fd, STDOUT_FILENO);
  dup2(err_fd, STDERR_FILENO);
  execv(program, argv);
  _exit(127);
}

std::string LastLines(const std::string& text, size_t n_lines) {
  size_t at = text.find_last_not_of("\n \t");
  if (at == text.npos) return "";
  const size_t end = at + 1;
  for (size_t i = 0; i < n_lines && at != text.npos && at > 0; ++i) at = text.rfind('\n', at - 1);
  return text.substr(at == text.npos || at == 0 ? 0 : at + 1,
                     at == text.npos || at == 0 ? end : end - at - 1);
}

}  // namespace

std::filesystem::path FindProgram(std::string_view name) {
  if (name.find('/') != name.npos) return std::filesystem::path(name);
  const char* path = std::getenv("PATH");
  std::string_view rest = path ? path : "/usr/local/bin:/usr/bin:/bin";
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    const std::filesystem::path file = std::filesystem::path(rest.substr(0, colon)) / name;
    if (access(file.c_str(), X_OK) == 0 && !std::filesystem::is_directory(file)) return file;
    rest = colon == rest.npos ? "" : rest.substr(colon + 1);
  }
  return {};
}

Result<Output> RunProgram(const std::vector<std::string>& argv, double timeout_seconds,
                          const LineFn& on_line) {
  const std::filesystem::path program = FindProgram(argv.at(0));
  if (program.empty()) return MakeError(Code::kNotFound, "{}: no such program in $PATH", argv[0]);
  Pipe out, err;
  if (!out.Open() || !err.Open()) return MakeError(Code::kIo, "pipe: {}", ErrnoText(errno));
  std::vector<char*> args;
  for (const std::string& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));
  args.push_back(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return MakeError(Code::kIo, "fork: {}", ErrnoText(errno));
  if (pid == 0) BecomeChild(program.c_str(), args.data(), out.write_fd, err.write_fd);
  out.CloseWrite();
  err.CloseWrite();
  Output output;
  const bool finished = Collect(out.read_fd, err.read_fd, timeout_seconds, on_line, &output);
  if (!finished) kill(-pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!finished) {
    return MakeError(Code::kTimeout, "{} took longer than {:.0f} s and was ended", argv[0], timeout_seconds);
  }
  output.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return output;
}

Result<Output> RunProgramOk(const std::vector<std::string>& argv, double timeout_seconds) {
  PB_ASSIGN(Output output, RunProgram(argv, timeout_seconds));
  if (output.exit_code == 0) return output;
  std::string command;
  for (const std::string& arg : argv) command += (command.empty() ? "" : " ") + arg;
  const std::string& said = output.err.empty() ? output.out : output.err;
  return MakeError(Code::kIo, "`{}` failed with {}:\n{}", command, output.exit_code, LastLines(said, 12));
}

}  // namespace pb::setup

// One paritybit-host process: started with limits and a socket, its output kept, its end explained,
// never outliving its owner.
#ifndef PARITYBIT_HOST_CHILD_PROCESS_H_
#define PARITYBIT_HOST_CHILD_PROCESS_H_

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "host/engine.h"
#include "host/shared_memory.h"

namespace pb::host {

// Owns the process, the parent's end of its socket and the pipe its stdout and stderr go to. Not
// for use from several threads; the thread that starts it must outlive it, because the kernel ends
// the child with that thread.
class ChildProcess {
 public:
  // Runs `program plugin 3` with the socket at descriptor 3 and the shared memory at 4.
  static Result<std::unique_ptr<ChildProcess>> Start(const std::filesystem::path& program,
                                                     const std::filesystem::path& plugin,
                                                     const Limits& limits, const SharedMemory& memory);
  // Waits up to a second for the child to end by itself, then kills it and what it started.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  int socket() const { return socket_; }
  // Readable when the socket or the output is, or when the child has ended.
  int ready_fd() const { return epoll_; }
  // Waits until ready or timeout_ms have passed (-1: no limit), takes over what the child printed.
  // With wait_writable it also returns when the socket takes bytes.
  void Poll(int timeout_ms, bool wait_writable);
  // What it has been given of the processors, all its threads together; 0 once it has ended.
  double CpuSeconds() const;
  // Whether the child has ended; does not wait.
  bool Ended();
  // Makes the child end (kill_it: by force; otherwise a second's grace) and returns how: "killed by
  // signal 11 (SIGSEGV)", "exited with status 3".
  std::string End(bool kill_it);
  // The newest 64 KiB of what the child printed.
  std::string_view output() const { return output_; }

 private:
  ChildProcess() = default;
  Status Open(int socket_fd, int output_fd);
  void DrainOutput();

  pid_t pid_ = -1;  // -1 once reaped
  int socket_ = -1, output_fd_ = -1, epoll_ = -1, pidfd_ = -1;
  bool killed_by_us_ = false;
  std::string output_;
  std::string how_ended_;
};

}  // namespace pb::host

#endif  // PARITYBIT_HOST_CHILD_PROCESS_H_

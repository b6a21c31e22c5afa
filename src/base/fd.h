// A file descriptor that is closed when its owner ends.
#ifndef PARITYBIT_BASE_FD_H_
#define PARITYBIT_BASE_FD_H_

#include <unistd.h>

#include <utility>

namespace pb {

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}  // negative: there is none
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace pb

#endif  // PARITYBIT_BASE_FD_H_

// Reads and writes whole frames, through interrupts and short counts.
#include "host/channel.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace pb::host {

Result<std::optional<Frame>> Channel::Receive() {
  for (;;) {
    PB_ASSIGN(std::optional<Frame> frame, buffer_.Next());
    if (frame) return frame;
    char bytes[16384];
    ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
    if (n == 0) return std::optional<Frame>();
    if (n < 0 && errno != EINTR) return MakeError(Code::kIo, "reading the socket: {}", std::strerror(errno));
    if (n > 0) buffer_.Append(bytes, static_cast<size_t>(n));
  }
}

Status Channel::Send(FrameWriter frame) {
  std::string bytes = std::move(frame).Finish();
  for (size_t sent = 0; sent < bytes.size();) {
    ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR) return MakeError(Code::kIo, "writing the socket: {}", std::strerror(errno));
    if (n > 0) sent += static_cast<size_t>(n);
  }
  return {};
}

}  // namespace pb::host

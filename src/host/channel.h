// The child's end of the socket: whole frames, blocking.
#ifndef PARITYBIT_HOST_CHANNEL_H_
#define PARITYBIT_HOST_CHANNEL_H_

#include <optional>

#include "base/result.h"
#include "host/wire.h"

namespace pb::host {

class Channel {
 public:
  explicit Channel(int fd) : fd_(fd) {}

  // The next frame; nothing when the parent has closed its end.
  Result<std::optional<Frame>> Receive();
  Status Send(FrameWriter frame);

 private:
  int fd_;
  FrameBuffer buffer_;
};

}  // namespace pb::host

#endif  // PARITYBIT_HOST_CHANNEL_H_

// What paritybit-host does: loads one plugin and answers the parent's requests with it until the
// parent is gone.
#ifndef PARITYBIT_HOST_SERVER_H_
#define PARITYBIT_HOST_SERVER_H_

#include <optional>
#include <string>

#include "abi/engine.h"
#include "host/channel.h"
#include "host/shared_memory.h"
#include "host/wire.h"

namespace pb::host {

// Runs on one thread, which is the thread the plugin sees.
class Server {
 public:
  Server(std::string plugin, Channel channel, SharedMemory memory)
      : plugin_(std::move(plugin)), channel_(std::move(channel)), memory_(std::move(memory)) {}

  // Serves until the parent quits (no error) or the socket fails.
  Status Run();

 private:
  // Each fills the reply to its request.
  Status Handle(const Frame& request, FrameWriter& reply);
  Status Create(ByteReader& in, FrameWriter& reply);
  Status OpenModel(ByteReader& in, FrameWriter& reply);
  Status Tokenize(ByteReader& in, FrameWriter& reply);
  Status Detokenize(ByteReader& in, FrameWriter& reply);
  Status OpenSession(ByteReader& in, FrameWriter& reply);
  Status Stages(FrameWriter& reply);
  Status Reset(ByteReader& in);
  Status Eval(ByteReader& in);
  Status Replay(ByteReader& in, FrameWriter& reply);
  Status Decode(ByteReader& in);

  void CloseSession();
  void CloseModel();
  Status Take(pb_error* error) const;

  std::string plugin_;
  Channel channel_;
  SharedMemory memory_;
  pb_engine_api api_{};
  pb_engine* engine_ = nullptr;
  pb_model* model_ = nullptr;
  pb_session* session_ = nullptr;
};

}  // namespace pb::host

#endif  // PARITYBIT_HOST_SERVER_H_

// Engine over a child process: sends requests, and believes no answer it has not checked.
#ifndef PARITYBIT_HOST_REMOTE_ENGINE_H_
#define PARITYBIT_HOST_REMOTE_ENGINE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/child_process.h"
#include "host/engine.h"
#include "host/shared_memory.h"
#include "host/wire.h"

namespace pb::host {

// Checks what an evaluation delivers against what was asked: rows of logits in order, none missing,
// none twice, of the right width; points within the tokens evaluated.
class EvalCheck {
 public:
  EvalCheck(const EvalRequest& request, std::optional<int64_t> n_vocab);
  Status Logits(int64_t first_position, int64_t n_rows, int64_t n_vocab);
  Status Point(const PointRef& point, const TensorRef* output) const;  // null: inputs only
  Status Done() const;
  int32_t first() const { return static_cast<int32_t>(first_); }
  int32_t end() const { return static_cast<int32_t>(end_); }

 private:
  TapFilter tap_;
  int64_t first_, end_;  // positions evaluated: [first_, end_)
  int64_t next_logits_;  // position of the next row of logits
  std::optional<int64_t> n_vocab_;
};

class RemoteEngine : public Engine {
 public:
  RemoteEngine(std::string name, const Limits& limits, SharedMemory memory,
               std::unique_ptr<ChildProcess> child)
      : name_(std::move(name)), limits_(limits), memory_(std::move(memory)), child_(std::move(child)) {}
  ~RemoteEngine() override;

  // The first request: loads the plugin and creates its engine.
  Status Create(const Settings& settings);

  uint64_t capabilities() const override { return capabilities_; }
  const Facts& description() const override { return description_; }
  Result<Facts> OpenModel(const std::filesystem::path& path) override;
  Result<std::vector<int32_t>> Tokenize(std::string_view text, uint32_t flags) override;
  Result<std::string> Detokenize(std::span<const int32_t> ids) override;
  Result<Facts> OpenSession(const Settings& overrides) override;
  Result<std::vector<StageVisibility>> Stages() override;
  Status Reset(int32_t n_keep) override;
  Result<TensorRef> Replay(const ReplayRequest& request) override;
  Status Decode(uint32_t type_id, std::span<const std::byte> blocks, std::span<float> values) override;
  Status BeginEval(const EvalRequest& request) override;
  Result<Event> Wait() override;
  Status Continue() override;
  Status Overwrite(std::span<const float> values) override;
  Status Stop() override;
  int ready_fd() const override { return child_->ready_fd(); }
  std::string LastWords() const override;

 private:
  enum class State { kIdle, kRunning, kAtEvent };

  // Sends a request and returns the body of its reply, or the child's error. `doing` says in
  // messages what the child was asked.
  Result<Frame> Call(FrameWriter request, std::string doing);
  Status Send(FrameWriter frame);
  Result<Frame> Receive();
  // Waits for bytes or the right to send them; an error when the child is silent beyond its limit
  // or dead.
  Status Await(bool writable);
  // An error where the time that it has is up (Limits::until).
  Status GiveUpInTime();
  Status Idle(const char* call) const;
  Result<Event> ParsePoint(const Frame& frame);
  Result<Event> ParseLogits(const Frame& frame);
  Result<Event> FinishEval(const Frame& frame);
  Result<TensorRef> ParseReplay(const Frame& reply, const ReplayRequest& request) const;
  Result<Codes> ParseCodes(ByteReader& in, const ReplayRequest& request, const TensorRef& output) const;
  TensorRef Refer(Placed placed) const;
  Error ReadError(const Frame& frame) const;
  Error NotStarted();
  Error Excuse(Error error) const;
  // The child is of no more use: ends it and keeps the error for every later call.
  Error Break(Code code, std::string what, bool kill_it);
  Error Died();
  Error Broken(const Error& error);
  std::string Where() const;
  void Progress();
  // Seconds since the last progress: by the clock where the engine waits, by what its process was
  // given of the processors where it computes and others compute as well.
  double Silence();

  std::string name_;
  Limits limits_;
  SharedMemory memory_;
  std::unique_ptr<ChildProcess> child_;
  FrameBuffer received_;
  std::optional<Error> dead_;
  bool created_ = false;  // the plugin answered
  std::string doing_;
  double last_progress_ = 0;  // seconds, steady clock
  // What clock and processors had given it since then when it was first asked; nothing: not yet.
  struct Computing {
    double clock, cpu;
  };
  std::optional<Computing> computing_;
  uint64_t points_seen_ = 0;
  uint64_t capabilities_ = 0;
  Facts description_;
  std::optional<int64_t> n_vocab_;
  int32_t n_positions_ = -1;  // the session holds; -1: no session, or unknown until Reset
  State state_ = State::kIdle;
  std::optional<EvalCheck> eval_;
  // of the point that stands; 0 values: it has no output
  uint64_t output_offset_ = 0, output_values_ = 0;
  bool with_inputs_ = false;  // the evaluation hands over inputs, too
};

}  // namespace pb::host

#endif  // PARITYBIT_HOST_REMOTE_ENGINE_H_

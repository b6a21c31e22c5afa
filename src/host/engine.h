// An engine in a child process of its own, seen from paritybit: the ABI over a socket and shared
// memory, with limits on time without progress and on memory. A crash, hang, abort or out-of-memory
// of an engine is an Error with its last words, never ours.
#ifndef PARITYBIT_HOST_ENGINE_H_
#define PARITYBIT_HOST_ENGINE_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "abi/engine.h"
#include "base/result.h"
#include "trace/facts.h"

namespace pb::host {

using Settings = std::vector<std::pair<std::string, std::string>>;

using trace::Fact, trace::Facts, trace::FindFact, trace::FactText, trace::FactNumber;

struct Limits {
  // Longest silence during a call (CROSSVAL_TIMEOUT_SECS): by the clock or, of an engine that
  // computes while others do too, by what it was given of the processors, and ten times by the clock.
  double progress_seconds = 180;
  uint64_t memory_bytes = 0;  // address space limit of the child; 0: none
  // When what it is doing is given up, whatever it does: kIo, as nobody asked it to be so quick.
  std::optional<std::chrono::steady_clock::time_point> until = std::nullopt;
};

struct StageVisibility {
  pb_visibility visibility = PB_ABSENT;
  std::string reason;
  // Observed: the layers that show it, ascending, where others do not; empty: all of them.
  std::vector<int32_t> layers = {};
  // Of those, where ops that no stage shows stand before it; -1 of a stage that is of no layer.
  std::vector<int32_t> apart = {};

  // Of one layer; -1: of a stage that is of none. In layers that do not show what others do the
  // architecture lacks an optional op, and any other is computed out of sight.
  pb_visibility At(pb_stage stage, int32_t layer) const {
    if (layers.empty() || std::binary_search(layers.begin(), layers.end(), layer)) return visibility;
    return pb_vocabulary[stage].optional ? PB_ABSENT : PB_UNOBSERVABLE;
  }
};

// Which tracepoints the child sends. Empty lists mean all.
struct TapFilter {
  std::vector<int32_t> stages;
  std::vector<int32_t> layers;
  bool outputs = false;  // nothing is sent while both are false
  bool inputs = false;
  bool unmapped = false;  // also points outside the vocabulary
};

struct EvalRequest {
  std::vector<int32_t> tokens;
  int32_t first_position = 0;
  int32_t logits_from = 0;  // index in tokens of the first row wanted; tokens.size(): none
  TapFilter tap;
};

// What a product makes of its input rows (abi/engine.h: pb_codes).
struct Codes {
  std::string scheme, maker;
  int64_t n_rows = 0, n_columns = 0, block = 0;
  std::vector<int8_t> codes;    // (n_rows, n_columns)
  std::vector<float> scales;    // (n_rows, n_blocks)
  std::vector<float> sums;      // (n_rows, n_blocks); empty: the scheme stores none
  std::vector<float> products;  // (n_rows, n_outputs); empty: not told

  int64_t n_blocks() const { return (n_columns + block - 1) / block; }
};

// A tensor handed over; data lives in shared memory until the next Wait, so that it can be read while
// the engine goes on; of an evaluation that hands over inputs, until the next Continue or Overwrite.
struct TensorRef {
  std::string name;
  std::vector<int64_t> shape;  // shape[0]: token rows
  std::span<const float> data;
  std::span<const float>
      units;  // Replay alone, where asked for: one for each value (abi/engine.h: pb_replay)
  std::optional<Codes> codes = std::nullopt;  // Replay alone, where asked for: of its input
  // What the data are part of, if they outlive the event: they live as long as it is held.
  std::shared_ptr<const void> lasting = nullptr;
};

struct PointRef {
  int32_t stage = PB_STAGE_UNMAPPED, layer = -1, first_position = 0, occurrence = 0;
  std::string native_name, op;
};

// What a running evaluation reports next.
struct Event {
  enum Kind { kPoint, kLogits, kDone } kind = kDone;
  PointRef point;                 // kPoint
  std::vector<TensorRef> inputs;  // kPoint, where asked for
  // kPoint: the output; kLogits: rows (n, n_vocab) from point.first_position
  TensorRef tensor;
};

struct ReplayRequest {
  int32_t stage = 0, layer = 0, first_position = 0;
  std::vector<std::pair<std::vector<int64_t>, std::vector<float>>> inputs;  // shape, values
  std::string variation;                                                    // empty: none
  bool units = false;                                                       // PB_CAP_UNITS
  bool codes = false;                                                       // PB_CAP_CODES
};

// Engine::Start -> OpenModel -> OpenSession -> Eval*. One model and one session at a time: opening
// again replaces. Not for use from several threads, and the thread that starts an engine must
// outlive it. Every call may fail with kEngine (crash: signal or exit status and last stderr lines;
// a broken promise of the ABI, such as too few logits rows; or the plugin's own error), kTimeout or
// kUsage/kUnsupported/kUndeclared/kMalformed/kIo as the plugin says. After a crash, a timeout or a
// broken promise every call returns that error; after an error of the plugin's own the engine is
// usable, a session after Reset.
class Engine {
 public:
  // Starts `paritybit-host PLUGIN` (in ../lib/paritybit of the running executable, or $PARITYBIT_HOST).
  static Result<std::unique_ptr<Engine>> Start(const std::filesystem::path& plugin, const Settings& settings,
                                               const Limits& limits);
  virtual ~Engine() = default;  // asks the child to end, then kills it

  virtual uint64_t capabilities() const = 0;     // PB_CAP_*
  virtual const Facts& description() const = 0;  // pb_engine_api.describe
  virtual Result<Facts> OpenModel(const std::filesystem::path& path) = 0;
  virtual Result<std::vector<int32_t>> Tokenize(std::string_view text, uint32_t flags) = 0;
  virtual Result<std::string> Detokenize(std::span<const int32_t> ids) = 0;
  virtual Result<Facts> OpenSession(const Settings& overrides) = 0;
  virtual Result<std::vector<StageVisibility>> Stages() = 0;  // indexed by pb_stage
  virtual Status Reset(int32_t n_keep) = 0;
  virtual Result<TensorRef> Replay(const ReplayRequest& request) = 0;
  // Decodes weights (PB_CAP_DECODE; abi/engine.h: decode) to values.size() floats. Needs no model.
  virtual Status Decode(uint32_t type_id, std::span<const std::byte> blocks, std::span<float> values) = 0;

  // An evaluation in steps, so that two engines can be driven in lock-step: Begin, then Wait /
  // Continue until kDone. After kPoint the engine stands still until Continue or Overwrite.
  virtual Status BeginEval(const EvalRequest& request) = 0;
  virtual Result<Event> Wait() = 0;
  virtual Status Continue() = 0;
  // Continues with the output replaced; as many values as the tensor handed over. They may be that
  // tensor's own data, changed.
  virtual Status Overwrite(std::span<const float> values) = 0;
  // Gives up the evaluation that stands at an event, and forgets the positions it began with.
  virtual Status Stop() = 0;
  // For poll over several engines: readable when the engine has something to say: an event, output,
  // its end. Wait may then still block for the rest of it, within the progress limit.
  virtual int ready_fd() const = 0;

  // Whole evaluation without overwriting: on_event for each point and logits block; its error ends
  // the evaluation and is returned. Logits come in blocks of at most 16 MiB.
  Status Eval(const EvalRequest& request, const std::function<Status(const Event&)>& on_event);
  // The same of an evaluation that was begun.
  Status Finish(const std::function<Status(const Event&)>& on_event);

  // The child's last stderr lines (at most 64 KiB kept).
  virtual std::string LastWords() const = 0;
};

}  // namespace pb::host

#endif  // PARITYBIT_HOST_ENGINE_H_

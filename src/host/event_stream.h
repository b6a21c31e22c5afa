// The child's side of one evaluation: receives the plugin's callbacks, filters them, and hands each
// on as an event that stands until the parent answers.
#ifndef PARITYBIT_HOST_EVENT_STREAM_H_
#define PARITYBIT_HOST_EVENT_STREAM_H_

#include <optional>
#include <vector>

#include "abi/engine.h"
#include "host/channel.h"
#include "host/shared_memory.h"
#include "host/wire.h"

namespace pb::host {

// Lives for one call of eval. Nothing it does in a callback throws through the plugin: what is
// wrong is kept in violation().
class EventStream {
 public:
  EventStream(Channel& channel, SharedMemory& memory, const TapFilter& filter);
  EventStream(const EventStream&) = delete;
  EventStream& operator=(const EventStream&) = delete;

  // For pb_eval.tap: null when the filter wants nothing, so that the engine runs as it does without
  // observers.
  const pb_tap* tap() const { return filter_.outputs || filter_.inputs ? &tap_ : nullptr; }
  // For pb_eval.logits, with this as its context.
  static int OnLogits(void* ctx, int32_t first_position, const float* rows, int64_t n_rows, int64_t n_vocab);

  // The first thing the plugin did against the ABI, or that failed here.
  const std::optional<Error>& violation() const { return violation_; }
  // The parent asked to give the evaluation up.
  bool stopped() const { return stopped_; }

 private:
  // Inputs handed over whose output is still to come.
  struct Pending {
    PointRef point;
    std::vector<Placed> inputs;
  };

  static uint32_t OnWant(void* ctx, const pb_point* point);
  static void OnInputs(void* ctx, const pb_point* point, const pb_tensor* inputs, size_t n_inputs);
  static int OnOutput(void* ctx, const pb_point* point, pb_tensor* output);

  uint32_t Want(const pb_point& point) const;
  Status Inputs(const pb_point& point, const pb_tensor* inputs, size_t n_inputs);
  Status Output(const pb_point& point, pb_tensor* output, bool* overwritten);
  Status OutputRows(const PointRef& point, std::span<const Placed> inputs, const pb_tensor& output,
                    int64_t row, int64_t n_rows, bool* overwritten);
  Status Logits(int32_t first_position, const float* rows, int64_t n_rows, int64_t n_vocab);
  Result<Placed> Place(const pb_tensor& tensor);
  Result<Placed> PlaceValues(std::string_view name, std::span<const int64_t> shape, const float* data);
  // Sends the event and waits for the answer. `overwrite`: where an event may be overwritten, takes the
  // place of the values in the shared memory.
  Status Exchange(FrameWriter event, std::optional<uint64_t>* overwrite);
  void Fail(Error error);

  Channel& channel_;
  SharedMemory& memory_;
  TapFilter filter_;
  uint64_t stage_mask_ = 0;  // bit i: stage i is wanted
  pb_tap tap_;
  std::vector<Pending> pending_;
  uint64_t arena_end_ = kArenaOffset;
  Range shown_;  // of the last tensor, which the parent may still read while the next one is placed
  bool stopped_ = false;
  std::optional<Error> violation_;
};

}  // namespace pb::host

#endif  // PARITYBIT_HOST_EVENT_STREAM_H_

// Filters a plugin's callbacks, copies tensors to shared memory, and waits for the parent's
// answer.
#include "host/event_stream.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

namespace pb::host {
namespace {

// Of logits that are handed over at once: a pass has hundreds of rows of a whole vocabulary.
constexpr uint64_t kLogitsBlockBytes = 16 << 20;

PointRef ToRef(const pb_point& point) {
  return {point.stage,
          point.layer,
          point.first_position,
          point.occurrence,
          point.native_name ? point.native_name : "",
          point.op ? point.op : ""};
}

// Rows.
int64_t LogitsBlock(int64_t n_vocab) {
  return std::max<int64_t>(1, static_cast<int64_t>(kLogitsBlockBytes / sizeof(float)) / n_vocab);
}

bool SamePoint(const PointRef& a, const PointRef& b) {
  return a.stage == b.stage && a.layer == b.layer && a.first_position == b.first_position &&
         a.occurrence == b.occurrence && a.native_name == b.native_name && a.op == b.op;
}

std::string Name(const pb_point& point) {
  if (point.stage >= 0 && point.stage < PB_STAGE_COUNT) {
    return fmt::format("{} of layer {}", pb_vocabulary[point.stage].name, point.layer);
  }
  return fmt::format("{} ({})", point.native_name ? point.native_name : "?", point.op ? point.op : "?");
}

Status CheckTensor(const pb_tensor& tensor) {
  if (tensor.struct_size < sizeof(pb_tensor))
    return MakeError(Code::kEngine, "a tensor whose struct_size is too small");
  if (tensor.dtype != PB_F32)
    return MakeError(Code::kUnsupported, "a tensor of dtype {}, where only f32 is taken", tensor.dtype);
  if (tensor.n_dims < 1 || tensor.n_dims > 4)
    return MakeError(Code::kEngine, "lied: a tensor of {} dimensions", tensor.n_dims);
  const std::span shape(tensor.shape, static_cast<size_t>(tensor.n_dims));
  if (CountValues(shape) && tensor.data) return {};
  return MakeError(Code::kEngine, "lied: a tensor of shape ({}){}", fmt::join(shape, ", "),
                   tensor.data ? "" : " without data");
}

}  // namespace

EventStream::EventStream(Channel& channel, SharedMemory& memory, const TapFilter& filter)
    : channel_(channel),
      memory_(memory),
      filter_(filter),
      tap_{sizeof(pb_tap), this, OnWant, OnInputs, OnOutput} {
  static_assert(PB_STAGE_COUNT <= 64);
  for (int32_t stage : filter.stages) {
    if (stage >= 0 && stage < PB_STAGE_COUNT) stage_mask_ |= uint64_t{1} << stage;
  }
  if (filter.stages.empty()) stage_mask_ = ~uint64_t{0};
}

uint32_t EventStream::Want(const pb_point& point) const {
  if (stopped_ || violation_) return PB_WANT_OUTPUT;  // reaches OnOutput, which ends the evaluation
  if (point.stage >= PB_STAGE_COUNT || point.stage < PB_STAGE_UNMAPPED) return PB_WANT_OUTPUT;
  bool wanted = point.stage == PB_STAGE_UNMAPPED ? filter_.unmapped : (stage_mask_ >> point.stage & 1) != 0;
  if (wanted && !filter_.layers.empty())
    wanted = std::ranges::find(filter_.layers, point.layer) != filter_.layers.end();
  if (!wanted) return 0;
  return (filter_.outputs ? PB_WANT_OUTPUT : 0) | (filter_.inputs ? PB_WANT_INPUTS : 0);
}

uint32_t EventStream::OnWant(void* ctx, const pb_point* point) {
  auto& self = *static_cast<EventStream*>(ctx);
  if (!point || point->struct_size < sizeof(pb_point)) {
    self.Fail(MakeError(Code::kEngine, "handed over a point whose struct_size is too small"));
    return PB_WANT_OUTPUT;
  }
  StatusPage& status = *self.memory_.status();
  status.stage = point->stage;
  status.layer = point->layer;
  status.first_position = point->first_position;
  if (point->native_name) {
    std::strncpy(status.native_name, point->native_name, sizeof status.native_name - 1);
  } else {
    status.native_name[0] = 0;
  }
  ++status.progress;
  return self.Want(*point);
}

void EventStream::OnInputs(void* ctx, const pb_point* point, const pb_tensor* inputs, size_t n_inputs) {
  auto& self = *static_cast<EventStream*>(ctx);
  if (self.violation_ || self.stopped_) return;
  try {
    if (Status status = self.Inputs(*point, inputs, n_inputs); !status.ok())
      self.Fail(std::move(status).error());
  } catch (const std::exception& e) {
    self.Fail(MakeError(Code::kEngine, "taking over inputs: {}", e.what()));
  }
}

int EventStream::OnOutput(void* ctx, const pb_point* point, pb_tensor* output) {
  auto& self = *static_cast<EventStream*>(ctx);
  if (self.violation_ || self.stopped_) return PB_STOP;
  bool overwritten = false;
  try {
    if (Status status = self.Output(*point, output, &overwritten); !status.ok())
      self.Fail(std::move(status).error());
  } catch (const std::exception& e) {
    self.Fail(MakeError(Code::kEngine, "taking over an output: {}", e.what()));
  }
  if (self.violation_ || self.stopped_) return PB_STOP;
  return overwritten ? PB_OVERWRITTEN : PB_CONTINUE;
}

int EventStream::OnLogits(void* ctx, int32_t first_position, const float* rows, int64_t n_rows,
                          int64_t n_vocab) {
  auto& self = *static_cast<EventStream*>(ctx);
  if (self.violation_ || self.stopped_) return 1;
  try {
    if (Status status = self.Logits(first_position, rows, n_rows, n_vocab); !status.ok())
      self.Fail(std::move(status).error());
  } catch (const std::exception& e) {
    self.Fail(MakeError(Code::kEngine, "taking over logits: {}", e.what()));
  }
  return self.violation_ || self.stopped_ ? 1 : 0;
}

Status EventStream::Inputs(const pb_point& point, const pb_tensor* inputs, size_t n_inputs) {
  if (n_inputs > 64) return MakeError(Code::kEngine, "lied about {}: {} inputs", Name(point), n_inputs);
  Pending pending{ToRef(point), {}};
  for (size_t i = 0; i < n_inputs; ++i) {
    auto placed = Place(inputs[i]);
    if (!placed.ok()) return std::move(placed).error().In(fmt::format("input {} of {}", i, Name(point)));
    pending.inputs.push_back(std::move(placed).value());
  }
  if (filter_.outputs) {
    pending_.push_back(std::move(pending));
    return {};
  }
  FrameWriter event(MessageType::kPoint);
  event.PutPoint(pending.point);
  event.Put<uint32_t>(pending.inputs.size());
  for (const Placed& input : pending.inputs) PutPlaced(event, input);
  event.Put<uint32_t>(0);
  PB_TRY(Exchange(std::move(event), nullptr));
  arena_end_ = kArenaOffset;
  return {};
}

Status EventStream::Output(const pb_point& point, pb_tensor* output, bool* overwritten) {
  if (!output) return MakeError(Code::kEngine, "handed over {} without a tensor", Name(point));
  PointRef ref = ToRef(point);
  std::vector<Placed> inputs;
  for (size_t i = 0; i < pending_.size(); ++i) {
    if (!SamePoint(pending_[i].point, ref)) continue;
    inputs = std::move(pending_[i].inputs);
    pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(i));
    break;
  }
  if (Status valid = CheckTensor(*output); !valid.ok()) return std::move(valid).error().In(Name(point));
  const bool in_blocks = point.stage == PB_STAGE_LOGITS && inputs.empty() && output->n_dims == 2;
  const int64_t n_rows = output->shape[0];
  const int64_t block = in_blocks ? LogitsBlock(output->shape[1]) : n_rows;
  for (int64_t row = 0; row < n_rows && !stopped_; row += block) {
    const uint64_t mark = arena_end_;
    PB_TRY(OutputRows(ref, inputs, *output, row, std::min(block, n_rows - row), overwritten));
    arena_end_ = mark;
    ref.first_position += static_cast<int32_t>(block);
  }
  if (pending_.empty()) arena_end_ = kArenaOffset;
  return {};
}

// Hands over some rows of an output, which have been checked, and takes back what the parent put
// there.
Status EventStream::OutputRows(const PointRef& point, std::span<const Placed> inputs, const pb_tensor& output,
                               int64_t row, int64_t n_rows, bool* overwritten) {
  std::vector<int64_t> shape(output.shape, output.shape + output.n_dims);
  const auto width = static_cast<int64_t>(*CountValues(shape)) / shape[0];
  shape[0] = n_rows;
  float* values = static_cast<float*>(output.data) + row * width;
  PB_ASSIGN(Placed placed, PlaceValues(output.name ? output.name : "", shape, values));
  FrameWriter event(MessageType::kPoint);
  event.PutPoint(point);
  event.Put<uint32_t>(inputs.size());
  for (const Placed& input : inputs) PutPlaced(event, input);
  event.Put<uint32_t>(1);
  PutPlaced(event, placed);
  std::optional<uint64_t> taken;
  PB_TRY(Exchange(std::move(event), &taken));
  if (!taken) return {};
  PB_TRY(memory_.Refresh());
  if (*taken > memory_.size() || memory_.size() - *taken < placed.n_values * sizeof(float))
    return MakeError(Code::kInternal, "an overwrite from beyond the shared memory");
  // From where it was shown it is what stands there.
  if (*taken != placed.offset) std::memcpy(values, memory_.values(*taken), placed.n_values * sizeof(float));
  *overwritten = true;
  return {};
}

Status EventStream::Logits(int32_t first_position, const float* rows, int64_t n_rows, int64_t n_vocab) {
  const int64_t whole[] = {n_rows, n_vocab};
  if (!rows || !CountValues(whole)) {
    return MakeError(Code::kEngine, "lied about the logits: {} rows of {} values", n_rows, n_vocab);
  }
  const int64_t block = LogitsBlock(n_vocab);
  for (int64_t row = 0; row < n_rows && !stopped_; row += block) {
    const int64_t shape[] = {std::min(block, n_rows - row), n_vocab};
    uint64_t mark = arena_end_;
    PB_ASSIGN(Placed placed, PlaceValues("logits", shape, rows + row * n_vocab));
    FrameWriter event(MessageType::kLogits);
    event.Put<int64_t>(first_position + row);
    PutPlaced(event, placed);
    PB_TRY(Exchange(std::move(event), nullptr));
    arena_end_ = mark;
  }
  return {};
}

Result<Placed> EventStream::Place(const pb_tensor& tensor) {
  PB_TRY(CheckTensor(tensor));
  return PlaceValues(tensor.name ? tensor.name : "",
                     std::span(tensor.shape, static_cast<size_t>(tensor.n_dims)),
                     static_cast<const float*>(tensor.data));
}

Result<Placed> EventStream::PlaceValues(std::string_view name, std::span<const int64_t> shape,
                                        const float* data) {
  Placed placed{std::string(name), {shape.begin(), shape.end()}, arena_end_, *CountValues(shape)};
  const uint64_t n_bytes = placed.n_values * sizeof(float);
  // Inputs stand until their output has come, one behind the other.
  if (!filter_.inputs) {
    placed.offset = Beside(shown_, n_bytes);
    shown_ = {placed.offset, placed.offset + n_bytes};
  }
  arena_end_ = AlignTensor(placed.offset + n_bytes);
  PB_TRY(memory_.Reserve(arena_end_));
  memory_.DropOutgrown();
  std::memcpy(memory_.values(placed.offset), data, placed.n_values * sizeof(float));
  return placed;
}

Status EventStream::Exchange(FrameWriter event, std::optional<uint64_t>* overwrite) {
  PB_TRY(channel_.Send(std::move(event)));
  PB_ASSIGN(std::optional<Frame> answer, channel_.Receive());
  if (!answer) _exit(0);  // nobody is left to run for
  switch (answer->type) {
    case MessageType::kContinue:
      return {};
    case MessageType::kOverwrite: {
      if (!overwrite) break;
      ByteReader in(BodyBytes(*answer));
      PB_ASSIGN(*overwrite, in.Read<uint64_t>("place"));
      return {};
    }
    case MessageType::kStop:
      stopped_ = true;
      return {};
    default:
      break;
  }
  return MakeError(Code::kInternal, "message {} does not answer an event",
                   static_cast<uint32_t>(answer->type));
}

void EventStream::Fail(Error error) {
  if (!violation_) violation_ = std::move(error);
}

}  // namespace pb::host

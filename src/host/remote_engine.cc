// One method for each request of the protocol, and every check of what comes back.
#include "host/remote_engine.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/system_error.h"

namespace pb::host {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::optional<int64_t> ToInt(const Fact* fact) {
  int64_t value = 0;
  if (!fact) return std::nullopt;
  auto [end, error] = std::from_chars(fact->value.data(), fact->value.data() + fact->value.size(), value);
  if (error != std::errc() || end != fact->value.data() + fact->value.size()) return std::nullopt;
  return value;
}

// The last few lines of a text on one line, each cut to a readable length.
std::string LastLines(std::string_view text) {
  constexpr size_t kLines = 5, kLineBytes = 240;
  std::string out;
  for (size_t n = 0; n < kLines && !text.empty();) {
    size_t end = text.find_last_not_of("\n\r \t");
    if (end == std::string_view::npos) break;
    text = text.substr(0, end + 1);
    size_t start = text.find_last_of("\n\r") + 1;  // npos + 1 == 0
    std::string line(text.substr(start).substr(0, kLineBytes));
    out = out.empty() ? line : line + " | " + out;
    text = text.substr(0, start);
    ++n;
  }
  return Printable(out);
}

}  // namespace

RemoteEngine::~RemoteEngine() {
  if (dead_) return;
  FrameWriter quit(MessageType::kQuit);
  std::string bytes = std::move(quit).Finish();
  if (state_ == State::kIdle)
    (void)send(child_->socket(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  child_->End(state_ != State::kIdle);
}

Status RemoteEngine::Create(const Settings& settings) {
  memory_.status()->stage = PB_STAGE_UNMAPPED;
  FrameWriter request(MessageType::kCreate);
  request.PutSettings(settings);
  PB_ASSIGN(Frame reply, Call(std::move(request), "loading the plugin"));
  ByteReader in(BodyBytes(reply));
  auto read = [&]() -> Status {
    PB_ASSIGN(capabilities_, in.Read<uint64_t>("capabilities"));
    PB_ASSIGN(description_, ReadFacts(in));
    return ExpectEnd(in);
  };
  if (Status status = read(); !status.ok()) return Broken(status.error());
  created_ = true;
  return {};
}

Result<Facts> RemoteEngine::OpenModel(const std::filesystem::path& path) {
  n_positions_ = -1;
  n_vocab_.reset();
  FrameWriter request(MessageType::kOpenModel);
  request.PutString(path.string());
  PB_ASSIGN(Frame reply, Call(std::move(request), fmt::format("opening {}", path.string())));
  ByteReader in(BodyBytes(reply));
  auto facts = ReadFacts(in);
  if (!facts.ok()) return Broken(facts.error());
  n_vocab_ = ToInt(FindFact(*facts, "n_vocab"));
  return facts;
}

Result<std::vector<int32_t>> RemoteEngine::Tokenize(std::string_view text, uint32_t flags) {
  FrameWriter request(MessageType::kTokenize);
  request.PutString(text);
  request.Put(flags);
  PB_ASSIGN(Frame reply, Call(std::move(request), fmt::format("tokenising {} bytes", text.size())));
  ByteReader in(BodyBytes(reply));
  auto ids = ReadInts(in, "ids");
  if (!ids.ok()) return Broken(ids.error());
  for (int32_t id : *ids) {
    if (id < 0 || (n_vocab_ && id >= *n_vocab_)) {
      return Broken(MakeError(Code::kEngine, "lied about tokens: id {}, where n_vocab is {}", id,
                              n_vocab_.value_or(-1)));
    }
  }
  return ids;
}

Result<std::string> RemoteEngine::Detokenize(std::span<const int32_t> ids) {
  FrameWriter request(MessageType::kDetokenize);
  request.PutInts(ids);
  PB_ASSIGN(Frame reply, Call(std::move(request), fmt::format("detokenising {} tokens", ids.size())));
  ByteReader in(BodyBytes(reply));
  auto text = ReadString(in, "text");
  if (!text.ok()) return Broken(text.error());
  return text;
}

Result<Facts> RemoteEngine::OpenSession(const Settings& overrides) {
  n_positions_ = -1;
  FrameWriter request(MessageType::kOpenSession);
  request.PutSettings(overrides);
  PB_ASSIGN(Frame reply, Call(std::move(request), "opening a session"));
  ByteReader in(BodyBytes(reply));
  auto facts = ReadFacts(in);
  if (!facts.ok()) return Broken(facts.error());
  n_positions_ = 0;
  return facts;
}

Result<std::vector<StageVisibility>> RemoteEngine::Stages() {
  PB_ASSIGN(Frame reply, Call(FrameWriter(MessageType::kStages), "listing its stages"));
  ByteReader in(BodyBytes(reply));
  std::vector<StageVisibility> stages;
  auto read = [&]() -> Status {
    for (int i = 0; i < PB_STAGE_COUNT; ++i) {
      PB_ASSIGN(uint32_t visibility, in.Read<uint32_t>("visibility"));
      PB_ASSIGN(std::string reason, ReadString(in, "reason"));
      if (visibility > PB_UNOBSERVABLE) return MakeError(Code::kEngine, "visibility {}", visibility);
      stages.push_back({static_cast<pb_visibility>(visibility), Printable(reason)});
      for (std::vector<int32_t>* layers : {&stages.back().layers, &stages.back().apart}) {
        PB_ASSIGN(const uint32_t n_layers, in.Read<uint32_t>("number of layers"));
        for (uint32_t k = 0; k < n_layers; ++k) {
          PB_ASSIGN(const int32_t layer, in.Read<int32_t>("layer"));
          layers->push_back(layer);
        }
      }
    }
    return ExpectEnd(in);
  };
  if (Status status = read(); !status.ok()) return Broken(status.error());
  return stages;
}

Status RemoteEngine::Reset(int32_t n_keep) {
  FrameWriter request(MessageType::kReset);
  request.Put(n_keep);
  if (n_keep < 0 || (n_positions_ >= 0 && n_keep > n_positions_)) {
    return MakeError(Code::kUsage, "{}: Reset({}) of a session that holds {} positions", name_, n_keep,
                     n_positions_);
  }
  n_positions_ = -1;
  PB_ASSIGN(Frame reply, Call(std::move(request), fmt::format("resetting to {} positions", n_keep)));
  n_positions_ = n_keep;
  return {};
}

Result<TensorRef> RemoteEngine::Replay(const ReplayRequest& request) {
  PB_TRY(Idle("Replay"));
  FrameWriter frame(MessageType::kReplay);
  frame.Put(request.stage);
  frame.Put(request.layer);
  frame.Put(request.first_position);
  frame.PutString(request.variation);
  frame.Put<uint32_t>(request.units);
  frame.Put<uint32_t>(request.codes);
  frame.Put<uint32_t>(request.inputs.size());
  uint64_t offset = kArenaOffset;
  for (const auto& [shape, values] : request.inputs) {
    auto n = CountValues(shape);
    if (!n || *n != values.size()) {
      return MakeError(Code::kUsage, "{}: replay input of shape ({}) with {} values", name_,
                       fmt::join(shape, ", "), values.size());
    }
    uint64_t end = offset + values.size() * sizeof(float);
    PB_TRY(memory_.Reserve(end));
    std::memcpy(memory_.values(offset), values.data(), values.size() * sizeof(float));
    PutPlaced(frame, Placed{"", shape, offset, *n});
    offset = AlignTensor(end);
  }
  PB_ASSIGN(Frame reply, Call(std::move(frame),
                              fmt::format("replaying stage {} of layer {}", request.stage, request.layer)));
  PB_TRY(memory_.Refresh());
  auto output = ParseReplay(reply, request);
  if (!output.ok()) return Broken(output.error());
  return output;
}

// The blocks go and the values come by the shared memory, the one behind the other.
Status RemoteEngine::Decode(uint32_t type_id, std::span<const std::byte> blocks, std::span<float> values) {
  PB_TRY(Idle("Decode"));
  if (blocks.empty() || values.empty()) return MakeError(Code::kUsage, "{}: nothing to decode", name_);
  const uint64_t to = AlignTensor(kArenaOffset + blocks.size());
  PB_TRY(memory_.Reserve(to + values.size_bytes()));
  std::memcpy(memory_.values(kArenaOffset), blocks.data(), blocks.size());
  FrameWriter frame(MessageType::kDecode);
  frame.Put(type_id);
  frame.Put<uint64_t>(blocks.size());
  frame.Put<uint64_t>(values.size());
  PB_TRY(Call(std::move(frame), fmt::format("decoding {} weights of type {}", values.size(), type_id)));
  std::memcpy(values.data(), memory_.values(to), values.size_bytes());
  return {};
}

Result<TensorRef> RemoteEngine::ParseReplay(const Frame& reply, const ReplayRequest& request) const {
  ByteReader in(BodyBytes(reply));
  PB_ASSIGN(Placed placed, ReadPlaced(in, memory_.size()));
  TensorRef output = Refer(std::move(placed));
  if (request.units) {
    PB_ASSIGN(Placed units, ReadPlaced(in, memory_.size()));
    if (units.shape != output.shape) {
      return MakeError(Code::kEngine, "units of shape ({}) for an output of shape ({})",
                       fmt::join(units.shape, ", "), fmt::join(output.shape, ", "));
    }
    output.units = Refer(std::move(units)).data;
    for (float u : output.units)
      if (!(u >= 0)) return MakeError(Code::kEngine, "lied about units: one is {}", u);
  }
  if (request.codes) {
    PB_ASSIGN(Codes codes, ParseCodes(in, request, output));
    output.codes = std::move(codes);
  }
  PB_TRY(ExpectEnd(in));
  return output;
}

Result<Codes> RemoteEngine::ParseCodes(ByteReader& in, const ReplayRequest& request,
                                       const TensorRef& output) const {
  PB_ASSIGN(PlacedCodes placed, ReadCodes(in, memory_.size()));
  Codes c{placed.scheme,
          placed.maker,
          placed.codes.shape[0],
          placed.codes.shape[1],
          placed.block,
          {},
          {},
          {},
          {}};
  if (request.inputs.empty() || request.inputs[0].second.size() != placed.codes.n_values ||
      c.n_rows != output.shape[0] || (placed.products && placed.products->n_values != output.data.size()))
    return MakeError(Code::kEngine, "lied about codes: ({}, {}) of another input", c.n_rows, c.n_columns);
  for (float code : Refer(placed.codes).data) {
    if (!(code >= -128 && code <= 127) || code != std::nearbyint(code))
      return MakeError(Code::kEngine, "lied about codes: one is {}", code);
    c.codes.push_back(static_cast<int8_t>(code));
  }
  auto copy = [&](const Placed& from, std::vector<float>* to) {
    const std::span<const float> values = Refer(from).data;
    to->assign(values.begin(), values.end());
  };
  copy(placed.scales, &c.scales);
  if (placed.sums) copy(*placed.sums, &c.sums);
  if (placed.products) copy(*placed.products, &c.products);
  return c;
}

Status RemoteEngine::BeginEval(const EvalRequest& request) {
  PB_TRY(Idle("BeginEval"));
  auto n = static_cast<int64_t>(request.tokens.size());
  if (n == 0 || n > INT32_MAX - request.first_position || request.logits_from < 0 ||
      request.logits_from > n) {
    return MakeError(Code::kUsage, "{}: an evaluation of {} tokens with logits from {}", name_, n,
                     request.logits_from);
  }
  if (n_positions_ < 0 || request.first_position != n_positions_) {
    return MakeError(
        Code::kUsage, "{}: an evaluation from position {}, where the session {}", name_,
        request.first_position,
        n_positions_ < 0 ? "needs to be opened or reset" : fmt::format("holds {} positions", n_positions_));
  }
  FrameWriter frame(MessageType::kEval);
  frame.PutInts(request.tokens);
  frame.Put(request.first_position);
  frame.Put(request.logits_from);
  frame.PutFilter(request.tap);
  doing_ = fmt::format("eval of {} tokens from position {}", n, request.first_position);
  eval_.emplace(request, n_vocab_);
  with_inputs_ = request.tap.inputs;
  n_positions_ = -1;
  Progress();
  PB_TRY(Send(std::move(frame)));
  state_ = State::kRunning;
  return {};
}

Result<Event> RemoteEngine::Wait() {
  if (dead_) return *dead_;
  if (state_ != State::kRunning)
    return MakeError(Code::kUsage, "{}: Wait without a running evaluation", name_);
  memory_.DropOutgrown();
  PB_ASSIGN(Frame frame, Receive());
  PB_TRY(memory_.Refresh());
  auto parse = [&]() -> Result<Event> {
    switch (frame.type) {
      case MessageType::kPoint:
        return ParsePoint(frame);
      case MessageType::kLogits:
        return ParseLogits(frame);
      default:
        return FinishEval(frame);
    }
  };
  if (frame.type == MessageType::kError) {
    state_ = State::kIdle;
    return ReadError(frame);
  }
  auto event = parse();
  if (!event.ok()) return Broken(event.error());
  return event;
}

Result<Event> RemoteEngine::ParsePoint(const Frame& frame) {
  ByteReader in(BodyBytes(frame));
  Event event;
  event.kind = Event::kPoint;
  PB_ASSIGN(event.point, ReadPoint(in));
  PB_ASSIGN(uint32_t n_inputs, in.Read<uint32_t>("inputs"));
  for (uint32_t i = 0; i < n_inputs; ++i) {
    PB_ASSIGN(Placed placed, ReadPlaced(in, memory_.size()));
    event.inputs.push_back(Refer(std::move(placed)));
  }
  PB_ASSIGN(uint32_t n_outputs, in.Read<uint32_t>("outputs"));
  output_values_ = 0;
  if (n_outputs > 0) {
    PB_ASSIGN(Placed placed, ReadPlaced(in, memory_.size()));
    output_offset_ = placed.offset;
    output_values_ = placed.n_values;
    event.tensor = Refer(std::move(placed));
  }
  PB_TRY(eval_->Point(event.point, n_outputs > 0 ? &event.tensor : nullptr));
  PB_TRY(ExpectEnd(in));
  state_ = State::kAtEvent;
  return event;
}

Result<Event> RemoteEngine::ParseLogits(const Frame& frame) {
  ByteReader in(BodyBytes(frame));
  PB_ASSIGN(int64_t first_position, in.Read<int64_t>("first position"));
  PB_ASSIGN(Placed placed, ReadPlaced(in, memory_.size()));
  PB_TRY(ExpectEnd(in));
  if (placed.shape.size() != 2)
    return MakeError(Code::kEngine, "logits of {} dimensions", placed.shape.size());
  PB_TRY(eval_->Logits(first_position, placed.shape[0], placed.shape[1]));
  Event event;
  event.kind = Event::kLogits;
  event.point.stage = PB_STAGE_LOGITS;
  event.point.first_position = static_cast<int32_t>(first_position);
  output_values_ = 0;
  event.tensor = Refer(std::move(placed));
  state_ = State::kAtEvent;
  return event;
}

Result<Event> RemoteEngine::FinishEval(const Frame& frame) {
  if (frame.type != MessageType::kReply || !frame.body.empty()) {
    return MakeError(Code::kEngine, "message {} during an evaluation", static_cast<uint32_t>(frame.type));
  }
  PB_TRY(eval_->Done());
  state_ = State::kIdle;
  n_positions_ = eval_->end();
  return Event();
}

Status RemoteEngine::Continue() {
  if (dead_) return *dead_;
  if (state_ != State::kAtEvent)
    return MakeError(Code::kUsage, "{}: Continue without an event that stands", name_);
  state_ = State::kRunning;
  Progress();
  return Send(FrameWriter(MessageType::kContinue));
}

Status RemoteEngine::Overwrite(std::span<const float> values) {
  if (dead_) return *dead_;
  if (state_ != State::kAtEvent || output_values_ == 0) {
    return MakeError(Code::kUsage, "{}: Overwrite without an output that stands", name_);
  }
  if (!(capabilities_ & PB_CAP_OVERWRITE))
    return MakeError(Code::kUnsupported, "{}: its outputs cannot be overwritten", name_);
  if (values.size() != output_values_) {
    return MakeError(Code::kUsage, "{}: {} values to overwrite an output of {}", name_, values.size(),
                     output_values_);
  }
  // Beside what was shown, which may be read on.
  uint64_t offset = output_offset_;
  if (values.data() != memory_.values(output_offset_)) {
    // Inputs stand there where they are asked for.
    if (!with_inputs_)
      offset = Beside({output_offset_, output_offset_ + values.size_bytes()}, values.size_bytes());
    PB_TRY(memory_.Reserve(offset + values.size_bytes()));
    std::memmove(memory_.values(offset), values.data(), values.size_bytes());
  }
  state_ = State::kRunning;
  Progress();
  FrameWriter frame(MessageType::kOverwrite);
  frame.Put(offset);
  return Send(std::move(frame));
}

Status RemoteEngine::Stop() {
  if (dead_) return *dead_;
  if (state_ != State::kAtEvent)
    return MakeError(Code::kUsage, "{}: Stop without an event that stands", name_);
  state_ = State::kRunning;
  Progress();
  PB_TRY(Send(FrameWriter(MessageType::kStop)));
  PB_ASSIGN(Frame frame, Receive());
  state_ = State::kIdle;
  if (frame.type != MessageType::kReply && frame.type != MessageType::kError) {
    return Broken(MakeError(Code::kEngine, "went on after it was told to stop"));
  }
  return Reset(eval_->first());
}

std::string RemoteEngine::LastWords() const { return Printable(child_->output()); }

Status RemoteEngine::Idle(const char* call) const {
  if (dead_) return *dead_;
  if (state_ != State::kIdle) return MakeError(Code::kUsage, "{}: {} while an evaluation runs", name_, call);
  return {};
}

Result<Frame> RemoteEngine::Call(FrameWriter request, std::string doing) {
  PB_TRY(Idle("another call"));
  doing_ = std::move(doing);
  Progress();
  PB_TRY(Send(std::move(request)));
  PB_ASSIGN(Frame reply, Receive());
  if (reply.type == MessageType::kError) return ReadError(reply);
  if (reply.type == MessageType::kReply) return reply;
  return Broken(
      MakeError(Code::kEngine, "message {} where a reply was due", static_cast<uint32_t>(reply.type)));
}

Status RemoteEngine::Send(FrameWriter frame) {
  std::string bytes = std::move(frame).Finish();
  bool ended = false;
  for (size_t sent = 0; sent < bytes.size();) {
    ssize_t n = send(child_->socket(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<size_t>(n);
      Progress();
    } else if (n < 0 && errno == EAGAIN && !ended) {
      PB_TRY(Await(true));
      ended = child_->Ended();
    } else if (n < 0 && errno != EINTR) {
      return Died();
    }
  }
  return {};
}

Result<Frame> RemoteEngine::Receive() {
  char bytes[16384];
  bool ended = false;  // what it sent before it died is still read
  for (;;) {
    PB_TRY(GiveUpInTime());
    auto frame = received_.Next();
    if (!frame.ok()) return Broken(frame.error());
    if (*frame) return *std::move(frame).value();
    ssize_t n = recv(child_->socket(), bytes, sizeof bytes, 0);
    if (n > 0) {
      received_.Append(bytes, static_cast<size_t>(n));
      Progress();
    } else if (n < 0 && errno == EAGAIN && !ended) {
      PB_TRY(Await(false));
      ended = child_->Ended();
    } else if (n == 0 || errno != EINTR) {
      return Died();
    }
  }
}

Status RemoteEngine::GiveUpInTime() {
  if (!limits_.until || std::chrono::steady_clock::now() < *limits_.until) return {};
  return Break(Code::kIo, fmt::format("given up during {}{}, as the time for it is up", doing_, Where()),
               true);
}

Status RemoteEngine::Await(bool writable) {
  PB_TRY(GiveUpInTime());
  double silent = Silence();
  if (silent > limits_.progress_seconds) {
    const double clock = Now() - last_progress_;
    const std::string busy =
        silent < clock / 2 ? fmt::format(", of its own computing ({:.3g} s by the clock)", clock) : "";
    return Break(Code::kTimeout,
                 fmt::format("no progress for {:.3g} s during {}{}{}", silent, doing_, Where(), busy), true);
  }
  // In slices, because points that nobody asked for count as progress too and arrive without a
  // message.
  double slice = std::min(limits_.progress_seconds / 4, limits_.progress_seconds - silent);
  if (limits_.until)
    slice = std::min(
        slice, std::chrono::duration<double>(*limits_.until - std::chrono::steady_clock::now()).count());
  child_->Poll(static_cast<int>(std::clamp(slice * 1000, 1.0, 1e6)), writable);
  if (uint64_t points = memory_.status()->progress; points != points_seen_) {
    points_seen_ = points;
    Progress();
  }
  return {};
}

void RemoteEngine::Progress() { last_progress_ = Now(), computing_.reset(); }

double RemoteEngine::Silence() {
  constexpr double kWaits = 0.05;  // of the clock: what computes no more than this waits for something
  constexpr double kLongest = 10;  // times the limit that the clock may say of what computes
  const double clock = Now() - last_progress_;
  if (clock < limits_.progress_seconds / 8) return clock;
  const double cpu = child_->CpuSeconds();
  if (!computing_) computing_ = {clock, cpu};
  const double computed = cpu - computing_->cpu;
  if (computed < kWaits * (clock - computing_->clock)) return clock;
  return std::clamp(computing_->clock + computed, clock / kLongest, clock);
}

TensorRef RemoteEngine::Refer(Placed placed) const {
  return {std::move(placed.name),
          std::move(placed.shape),
          {memory_.values(placed.offset), placed.n_values},
          {},
          {}};
}

Error RemoteEngine::ReadError(const Frame& frame) const {
  ByteReader in(BodyBytes(frame));
  auto code = in.Read<uint32_t>("code");
  auto text = ReadString(in, "message");
  if (!code.ok() || !text.ok() || *code > static_cast<uint32_t>(Code::kInternal)) {
    return MakeError(Code::kEngine, "{}: an error that cannot be read", name_);
  }
  return Excuse(MakeError(static_cast<Code>(*code), "{}: {}", name_, Printable(*text)));
}

// An engine that met a limit of its surroundings did not fail: kIo, with the limit. One that
// paritybit set for it is its own matter.
Error RemoteEngine::Excuse(Error error) const {
  if (error.code != Code::kEngine && error.code != Code::kIo && error.code != Code::kInternal &&
      error.code != Code::kMalformed)
    return error;
  auto says = [&](std::string_view text) { return error.message.find(text) != std::string::npos; };
  auto met = [&](int number) {
    const std::string limit = LimitText(number);
    error.code = Code::kIo;
    if (!limit.empty() && !says(limit)) error.message += fmt::format(" ({})", limit);
    return error;
  };
  for (int number : {EMFILE, ENFILE, EFBIG, EAGAIN}) {
    if (says(std::strerror(number))) return met(number);
  }
  const bool limited = limits_.memory_bytes == 0 && !LimitText(ENOMEM).empty();
  if (limited && (says("memory") || says("alloc") || says("map"))) return met(ENOMEM);
  return error;
}

Error RemoteEngine::Break(Code code, std::string what, bool kill_it) {
  std::string how = child_->End(kill_it);
  std::string words = LastLines(child_->output());
  if (!kill_it) what = how + what;
  dead_ = MakeError(code, "{}: {}{}", name_, what, words.empty() ? "" : "; last words: " + words);
  state_ = State::kIdle;
  return *dead_;
}

// The child ended before any code of the plugin ran: the engine has no part in it.
Error RemoteEngine::NotStarted() {
  Break(Code::kIo, ", before paritybit-host loaded the plugin", false);
  const StatusPage& status = *memory_.status();
  if (status.start_errno != 0) {
    const std::string call(status.start_call, strnlen(status.start_call, sizeof status.start_call));
    dead_ = SystemError(fmt::format("{}: starting paritybit-host: {}", name_, Printable(call)),
                        status.start_errno);
  }
  return *(dead_ = Excuse(*dead_));
}

Error RemoteEngine::Died() {
  if (!created_ && !memory_.status()->host_began && limits_.memory_bytes == 0) return NotStarted();
  Break(Code::kEngine, fmt::format(" during {}{}", doing_, Where()), false);
  return *(dead_ = Excuse(*dead_));
}

Error RemoteEngine::Broken(const Error& error) {
  return Break(Code::kEngine, fmt::format("{} (during {}{})", error.message, doing_, Where()), true);
}

std::string RemoteEngine::Where() const {
  StatusPage status;
  std::memcpy(&status, memory_.data(), sizeof status);
  status.native_name[sizeof status.native_name - 1] = 0;
  std::string name = Printable(status.native_name);
  if (status.stage >= 0 && status.stage < PB_STAGE_COUNT) {
    std::string layer = status.layer >= 0 ? fmt::format("layer {} ", status.layer) : "";
    return fmt::format(" at {}{}", layer, pb_vocabulary[status.stage].name);
  }
  return name.empty() ? "" : fmt::format(" at {}", name);
}

}  // namespace pb::host

// One handler for each request of the protocol.
#include "host/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>
#include <exception>
#include <new>
#include <utility>
#include <vector>

#include "host/event_stream.h"
#include "host/plugin.h"

namespace pb::host {
namespace {

constexpr size_t kMaxFacts = 4096;
constexpr size_t kMaxTokens = 1u << 26;
constexpr size_t kMaxTextBytes = 1u << 27;

// Collects facts; what a callback must not throw is kept in `error`.
struct FactSink {
  Facts facts;
  std::optional<Error> error;

  static void Add(void* ctx, const pb_fact* fact) {
    auto& self = *static_cast<FactSink*>(ctx);
    if (self.error) return;
    if (!fact || fact->struct_size < sizeof(pb_fact) || !fact->key || !fact->value || !fact->origin ||
        !*fact->key) {
      self.error = MakeError(Code::kEngine, "stated a fact without key, value or origin");
    } else if (self.facts.size() >= kMaxFacts) {
      self.error = MakeError(Code::kEngine, "stated more than {} facts", kMaxFacts);
    } else {
      self.facts.push_back({fact->key, fact->value, fact->origin});
    }
  }
};

struct StageSink {
  std::vector<StageVisibility> stages = std::vector<StageVisibility>(PB_STAGE_COUNT);
  std::bitset<PB_STAGE_COUNT> told;
  std::optional<Error> error;

  static void Add(void* ctx, int32_t stage, int32_t visibility, const char* reason) {
    auto& self = *static_cast<StageSink*>(ctx);
    if (self.error) return;
    if (stage < 0 || stage >= PB_STAGE_COUNT || visibility < PB_ABSENT || visibility > PB_UNOBSERVABLE) {
      self.error = MakeError(Code::kEngine, "declared stage {} with visibility {}", stage, visibility);
    } else if (self.told[static_cast<size_t>(stage)]) {
      self.error = MakeError(Code::kEngine, "declared stage {} twice", pb_vocabulary[stage].name);
    } else if (visibility == PB_UNOBSERVABLE && (!reason || !*reason)) {
      self.error = MakeError(Code::kEngine, "declared stage {} unobservable without a reason",
                             pb_vocabulary[stage].name);
    } else {
      self.told.set(static_cast<size_t>(stage));
      self.stages[static_cast<size_t>(stage)] = {static_cast<pb_visibility>(visibility),
                                                 reason ? reason : ""};
    }
  }
};

struct LayerSink {
  std::vector<StageVisibility>& stages;
  std::optional<Error> error = std::nullopt;

  static void Add(void* ctx, int32_t stage, int32_t layer, int32_t apart) {
    auto& self = *static_cast<LayerSink*>(ctx);
    if (self.error) return;
    constexpr int32_t kMostLayers = 1 << 16;
    const bool is_stage = stage >= 0 && stage < PB_STAGE_COUNT;
    const bool fits =
        is_stage && (pb_vocabulary[stage].per_layer ? layer >= 0 && layer < kMostLayers : layer == -1);
    if (!fits || self.stages[static_cast<size_t>(stage)].visibility != PB_OBSERVED) {
      self.error = MakeError(Code::kEngine, "declared that layer {} shows stage {}", layer, stage);
      return;
    }
    StageVisibility& told = self.stages[static_cast<size_t>(stage)];
    if (!told.layers.empty() && told.layers.back() >= layer) {
      self.error =
          MakeError(Code::kEngine, "declared layers of stage {} out of order", pb_vocabulary[stage].name);
      return;
    }
    told.layers.push_back(layer);
    if (apart) told.apart.push_back(layer);
  }
};

// Takes over the output of a replay, its units and its codes, one behind the other.
struct ReplaySink {
  SharedMemory& memory;
  std::optional<Placed> output, units;
  std::optional<PlacedCodes> codes;
  std::optional<Error> error;
  uint64_t end = kArenaOffset;  // of what was taken over

  static void Output(void* ctx, const pb_tensor* tensor) {
    auto& self = *static_cast<ReplaySink*>(ctx);
    self.Take(tensor, "output", &self.output);
  }

  static void Units(void* ctx, const pb_tensor* tensor) {
    auto& self = *static_cast<ReplaySink*>(ctx);
    if (self.output) return self.Take(tensor, "units", &self.units);
    if (!self.error) self.error = MakeError(Code::kEngine, "gave units before an output");
  }

  static void Codes(void* ctx, const pb_codes* codes) {
    auto& self = *static_cast<ReplaySink*>(ctx);
    if (self.error) return;
    try {
      if (Status status = self.TakeCodes(codes); !status.ok()) self.error = std::move(status).error();
    } catch (const std::exception& e) {
      self.error = MakeError(Code::kEngine, "taking over codes: {}", e.what());
    }
  }

  Status TakeCodes(const pb_codes* c) {
    if (!output || codes)
      return MakeError(Code::kEngine, "gave codes {}", codes ? "twice" : "before an output");
    if (!c || c->struct_size < sizeof(pb_codes) || !c->scheme || !c->maker || !c->codes || !c->scales ||
        c->block < 1 || c->block > c->n_columns || !CountValues(std::array{c->n_rows, c->n_columns}))
      return MakeError(Code::kEngine, "lied about codes");
    if (c->n_rows != output->shape[0] ||
        (c->products && c->n_outputs != static_cast<int64_t>(output->n_values) / c->n_rows))
      return MakeError(Code::kEngine, "lied about codes: {} rows of {} products for an output of shape ({})",
                       c->n_rows, c->n_outputs, fmt::join(output->shape, ", "));
    const int64_t n_blocks = (c->n_columns + c->block - 1) / c->block;
    const std::vector<float> whole(c->codes, c->codes + c->n_rows * c->n_columns);
    PlacedCodes taken{c->scheme, c->maker, c->block, {}, {}, {}, {}};
    PB_ASSIGN(taken.codes, Place(std::array{c->n_rows, c->n_columns}, whole.data()));
    PB_ASSIGN(taken.scales, Place(std::array{c->n_rows, n_blocks}, c->scales));
    if (c->sums) {
      PB_ASSIGN(Placed sums, Place(std::array{c->n_rows, n_blocks}, c->sums));
      taken.sums = std::move(sums);
    }
    if (c->products) {
      PB_ASSIGN(Placed products, Place(std::array{c->n_rows, c->n_outputs}, c->products));
      taken.products = std::move(products);
    }
    codes = std::move(taken);
    return {};
  }

  Result<Placed> Place(std::span<const int64_t> shape, const float* values) {
    const uint64_t n = *CountValues(shape), offset = end;
    PB_TRY(memory.Reserve(offset + n * sizeof(float)));
    std::memcpy(memory.values(offset), values, n * sizeof(float));
    end = AlignTensor(offset + n * sizeof(float));
    return Placed{"", {shape.begin(), shape.end()}, offset, n};
  }

  void Take(const pb_tensor* tensor, const char* what, std::optional<Placed>* placed) {
    if (error) return;
    std::span shape(tensor->shape, static_cast<size_t>(std::clamp(tensor->n_dims, 0, 4)));
    auto n = CountValues(shape);
    if (!n || !tensor->data || tensor->dtype != PB_F32) {
      error =
          MakeError(Code::kEngine, "lied about the replayed {}: shape ({})", what, fmt::join(shape, ", "));
    } else if (*placed) {
      error = MakeError(Code::kEngine, "gave the replayed {} twice", what);
    } else if (auto taken = Place(shape, static_cast<const float*>(tensor->data)); !taken.ok()) {
      error = std::move(taken).error();
    } else {
      *placed = std::move(taken).value();
    }
  }
};

std::vector<pb_setting> ToAbi(const Settings& settings) {
  std::vector<pb_setting> out;
  for (const auto& [key, value] : settings) out.push_back({key.c_str(), value.c_str()});
  return out;
}

}  // namespace

Status Server::Run() {
  for (;;) {
    PB_ASSIGN(std::optional<Frame> request, channel_.Receive());
    if (!request || request->type == MessageType::kQuit) break;
    FrameWriter reply(MessageType::kReply);
    Status status;
    try {
      status = Handle(*request, reply);
    } catch (const std::bad_alloc&) {
      status = MakeError(Code::kEngine, "out of memory (std::bad_alloc)");
    } catch (const std::exception& e) {
      status = MakeError(Code::kEngine, "a C++ exception came out of the plugin: {}", e.what());
    } catch (...) {
      status = MakeError(Code::kEngine, "a C++ exception of unknown type came out of the plugin");
    }
    if (!status.ok()) {
      reply = FrameWriter(MessageType::kError);
      reply.Put(static_cast<uint32_t>(status.error().code));
      reply.PutString(status.error().message);
    }
    PB_TRY(channel_.Send(std::move(reply)));
  }
  CloseModel();
  if (engine_) api_.destroy(engine_);
  return {};
}

Status Server::Handle(const Frame& request, FrameWriter& reply) {
  ByteReader in(BodyBytes(request));
  bool model_needed = request.type != MessageType::kCreate && request.type != MessageType::kOpenModel &&
                      request.type != MessageType::kDecode;
  if ((model_needed && !model_) || (request.type != MessageType::kCreate && !engine_)) {
    return MakeError(Code::kUsage, "a call that needs an open model");
  }
  memory_.status()->stage = PB_STAGE_UNMAPPED;
  memory_.status()->native_name[0] = 0;
  switch (request.type) {
    case MessageType::kCreate:
      return Create(in, reply);
    case MessageType::kOpenModel:
      return OpenModel(in, reply);
    case MessageType::kDecode:
      return Decode(in);
    case MessageType::kTokenize:
      return Tokenize(in, reply);
    case MessageType::kDetokenize:
      return Detokenize(in, reply);
    case MessageType::kOpenSession:
      return OpenSession(in, reply);
    default:
      break;
  }
  if (!session_) return MakeError(Code::kUsage, "a call that needs an open session");
  switch (request.type) {
    case MessageType::kStages:
      return Stages(reply);
    case MessageType::kReset:
      return Reset(in);
    case MessageType::kEval:
      return Eval(in);
    case MessageType::kReplay:
      return Replay(in, reply);
    default:
      return MakeError(Code::kInternal, "request {} is not known", static_cast<uint32_t>(request.type));
  }
}

Status Server::Take(pb_error* error) const { return TakeError(api_, error); }

Status Server::Create(ByteReader& in, FrameWriter& reply) {
  PB_ASSIGN(Settings settings, ReadSettings(in));
  PB_ASSIGN(api_, LoadPlugin(plugin_));
  auto abi_settings = ToAbi(settings);
  PB_TRY(Take(api_.create(abi_settings.data(), abi_settings.size(), &engine_)));
  if (!engine_) return MakeError(Code::kEngine, "create reported success without an engine");
  FactSink sink;
  PB_TRY(Take(api_.describe(engine_, FactSink::Add, &sink)));
  if (sink.error) return *sink.error;
  reply.Put(api_.capabilities);
  reply.PutFacts(sink.facts);
  return {};
}

Status Server::OpenModel(ByteReader& in, FrameWriter& reply) {
  PB_ASSIGN(std::string path, ReadString(in, "path"));
  CloseModel();
  if (Status opened = Take(api_.model_open(engine_, path.c_str(), &model_)); !opened.ok()) {
    // paritybit read the file just now: what an engine cannot read of it is the engine's failure.
    const Error& error = opened.error();
    return Error{error.code == Code::kIo ? Code::kEngine : error.code, error.message};
  }
  if (!model_) return MakeError(Code::kEngine, "model_open reported success without a model");
  FactSink sink;
  PB_TRY(Take(api_.model_facts(model_, FactSink::Add, &sink)));
  if (sink.error) return *sink.error;
  reply.PutFacts(sink.facts);
  return {};
}

Status Server::Tokenize(ByteReader& in, FrameWriter& reply) {
  PB_ASSIGN(std::string text, ReadString(in, "text"));
  PB_ASSIGN(uint32_t flags, in.Read<uint32_t>("flags"));
  if (!(api_.capabilities & PB_CAP_TOKENIZE))
    return MakeError(Code::kUnsupported, "this engine does not tokenise");
  size_t n = 0, written = 0;
  PB_TRY(Take(api_.tokenize(model_, text.data(), text.size(), flags, nullptr, 0, &n)));
  if (n > kMaxTokens)
    return MakeError(Code::kEngine, "lied about tokens: {} for {} bytes of text", n, text.size());
  std::vector<int32_t> ids(n);
  PB_TRY(Take(api_.tokenize(model_, text.data(), text.size(), flags, ids.data(), n, &written)));
  if (written != n)
    return MakeError(Code::kEngine, "lied about tokens: announced {}, then gave {}", n, written);
  reply.PutInts(ids);
  return {};
}

Status Server::Detokenize(ByteReader& in, FrameWriter& reply) {
  PB_ASSIGN(std::vector<int32_t> ids, ReadInts(in, "ids"));
  if (!(api_.capabilities & PB_CAP_TOKENIZE))
    return MakeError(Code::kUnsupported, "this engine does not detokenise");
  size_t n = 0, written = 0;
  PB_TRY(Take(api_.detokenize(model_, ids.data(), ids.size(), nullptr, 0, &n)));
  if (n > kMaxTextBytes)
    return MakeError(Code::kEngine, "lied about text: {} bytes for {} tokens", n, ids.size());
  std::string text(n, '\0');
  PB_TRY(Take(api_.detokenize(model_, ids.data(), ids.size(), text.data(), n, &written)));
  if (written != n)
    return MakeError(Code::kEngine, "lied about text: announced {} bytes, then gave {}", n, written);
  reply.PutString(text);
  return {};
}

Status Server::OpenSession(ByteReader& in, FrameWriter& reply) {
  PB_ASSIGN(Settings settings, ReadSettings(in));
  CloseSession();
  auto abi_settings = ToAbi(settings);
  PB_TRY(Take(api_.session_open(model_, abi_settings.data(), abi_settings.size(), &session_)));
  if (!session_) return MakeError(Code::kEngine, "session_open reported success without a session");
  FactSink sink;
  PB_TRY(Take(api_.session_facts(session_, FactSink::Add, &sink)));
  if (sink.error) return *sink.error;
  reply.PutFacts(sink.facts);
  return {};
}

Status Server::Stages(FrameWriter& reply) {
  StageSink sink;
  PB_TRY(Take(api_.session_stages(session_, StageSink::Add, &sink)));
  if (sink.error) return *sink.error;
  LayerSink layers{sink.stages};
  if (api_.session_layers) PB_TRY(Take(api_.session_layers(session_, LayerSink::Add, &layers)));
  if (layers.error) return *layers.error;
  for (size_t i = 0; i < PB_STAGE_COUNT; ++i) {
    if (!sink.told[i]) return MakeError(Code::kEngine, "did not declare stage {}", pb_vocabulary[i].name);
    const StageVisibility& stage = sink.stages[i];
    reply.Put<uint32_t>(stage.visibility);
    reply.PutString(stage.reason);
    for (const std::vector<int32_t>* layers : {&stage.layers, &stage.apart}) {
      reply.Put<uint32_t>(static_cast<uint32_t>(layers->size()));
      for (const int32_t layer : *layers) reply.Put(layer);
    }
  }
  return {};
}

Status Server::Reset(ByteReader& in) {
  PB_ASSIGN(int32_t n_keep, in.Read<int32_t>("n_keep"));
  return Take(api_.reset(session_, n_keep));
}

Status Server::Eval(ByteReader& in) {
  PB_ASSIGN(std::vector<int32_t> tokens, ReadInts(in, "tokens"));
  PB_ASSIGN(int32_t first_position, in.Read<int32_t>("first position"));
  PB_ASSIGN(int32_t logits_from, in.Read<int32_t>("logits from"));
  PB_ASSIGN(TapFilter filter, ReadFilter(in));
  EventStream events(channel_, memory_, filter);
  pb_eval eval{sizeof(pb_eval), tokens.data(), static_cast<int32_t>(tokens.size()),
               first_position,  logits_from,   EventStream::OnLogits,
               &events,         events.tap()};
  Status status = Take(api_.eval(session_, &eval));
  if (events.violation()) return *events.violation();
  if (events.stopped()) return {};
  return status;
}

Status Server::Replay(ByteReader& in, FrameWriter& reply) {
  if (!(api_.capabilities & PB_CAP_REPLAY))
    return MakeError(Code::kUnsupported, "this engine does not replay ops");
  PB_TRY(memory_.Refresh());
  pb_replay replay{};
  replay.struct_size = sizeof replay;
  PB_ASSIGN(replay.stage, in.Read<int32_t>("stage"));
  PB_ASSIGN(replay.layer, in.Read<int32_t>("layer"));
  PB_ASSIGN(replay.first_position, in.Read<int32_t>("first position"));
  PB_ASSIGN(std::string variation, ReadString(in, "variation"));
  if (!variation.empty() && !(api_.capabilities & PB_CAP_VARY)) {
    return MakeError(Code::kUnsupported, "this engine does not vary ops");
  }
  PB_ASSIGN(uint32_t with_units, in.Read<uint32_t>("units"));
  if (with_units && !(api_.capabilities & PB_CAP_UNITS)) {
    return MakeError(Code::kUnsupported, "this engine does not tell rounding units");
  }
  PB_ASSIGN(uint32_t with_codes, in.Read<uint32_t>("codes"));
  if (with_codes && !(api_.capabilities & PB_CAP_CODES)) {
    return MakeError(Code::kUnsupported, "this engine does not tell activation codes");
  }
  PB_ASSIGN(uint32_t n_inputs, in.Read<uint32_t>("inputs"));
  // The inputs are copied: the output is written where they stand.
  std::vector<std::vector<float>> values(n_inputs);
  std::vector<pb_tensor> inputs;
  for (uint32_t i = 0; i < n_inputs; ++i) {
    PB_ASSIGN(Placed placed, ReadPlaced(in, memory_.size()));
    values[i].assign(memory_.values(placed.offset), memory_.values(placed.offset) + placed.n_values);
    pb_tensor tensor{sizeof(pb_tensor), PB_F32,           static_cast<int32_t>(placed.shape.size()),
                     {1, 1, 1, 1},      values[i].data(), nullptr};
    std::ranges::copy(placed.shape, tensor.shape);
    inputs.push_back(tensor);
  }
  ReplaySink sink{memory_, {}, {}, {}, {}};
  replay.inputs = inputs.data();
  replay.n_inputs = inputs.size();
  replay.variation = variation.empty() ? nullptr : variation.c_str();
  replay.ctx = &sink;
  replay.output = ReplaySink::Output;
  if (with_units) replay.units = ReplaySink::Units;
  if (with_codes) replay.codes = ReplaySink::Codes;
  PB_TRY(Take(api_.replay(session_, &replay)));
  if (sink.error) return *sink.error;
  if (!sink.output) return MakeError(Code::kEngine, "replay reported success without an output");
  if (with_units && !sink.units)
    return MakeError(Code::kEngine, "replay gave no units, which it says it tells");
  if (with_codes && !sink.codes)
    return MakeError(Code::kEngine, "replay gave no codes, which it says it tells");
  PutPlaced(reply, *sink.output);
  if (with_units) PutPlaced(reply, *sink.units);
  if (with_codes) PutCodes(reply, *sink.codes);
  return {};
}

// Blocks stand at the arena's start, and the values come behind them.
Status Server::Decode(ByteReader& in) {
  if (!(api_.capabilities & PB_CAP_DECODE))
    return MakeError(Code::kUnsupported, "this engine does not decode weights");
  PB_ASSIGN(uint32_t type_id, in.Read<uint32_t>("type"));
  PB_ASSIGN(uint64_t n_bytes, in.Read<uint64_t>("blocks"));
  PB_ASSIGN(uint64_t n_values, in.Read<uint64_t>("values"));
  PB_TRY(memory_.Refresh());
  const uint64_t room = memory_.size() - kArenaOffset;
  if (n_bytes > room || n_values > kMaxTensorValues || AlignTensor(n_bytes) + n_values * sizeof(float) > room)
    return MakeError(Code::kEngine, "{} bytes to decode to {} values in {} shared bytes", n_bytes, n_values,
                     memory_.size());
  return Take(api_.decode(engine_, static_cast<int32_t>(type_id), memory_.data() + kArenaOffset, n_bytes,
                          static_cast<int64_t>(n_values),
                          memory_.values(kArenaOffset + AlignTensor(n_bytes))));
}

void Server::CloseSession() {
  if (session_) api_.session_close(session_);
  session_ = nullptr;
}

void Server::CloseModel() {
  CloseSession();
  if (model_) api_.model_close(model_);
  model_ = nullptr;
}

}  // namespace pb::host

#include "run/capture.h"

#include <algorithm>
#include <chrono>

#include "run/axes.h"

namespace pb::run {
namespace {

std::vector<trace::Fact> TraceFacts(const host::Facts& facts) {
  std::vector<trace::Fact> out;
  for (const host::Fact& fact : facts) out.push_back({fact.key, fact.value, fact.origin});
  return out;
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Both runs of RecordTrace over one sequence.
class Recorder {
 public:
  Recorder(Participant& engine, const TraceRequest& request, trace::Writer& writer,
           const trace::PointFilter& filter)
      : engine_(engine),
        request_(request),
        writer_(writer),
        capture_(writer, filter),
        tokens_(request.tokens) {
    const size_t n_all = tokens_.size();
    n_prefill_ = request.n_prefill > 0 ? std::min(static_cast<size_t>(request.n_prefill), n_all) : n_all;
    n_steps_ = static_cast<int64_t>(n_all - n_prefill_) + request.max_tokens + 1;
  }

  Result<TraceSummary> Run() {
    TraceSummary summary;
    auto start = std::chrono::steady_clock::now();
    PB_TRY(RunUntapped());
    summary.seconds_untapped = SecondsSince(start);
    summary.logits_blake3_untapped = ToHex(untapped_.Finish());
    PB_TRY(engine_.Reset());
    start = std::chrono::steady_clock::now();
    PB_TRY(RunTapped());
    summary.seconds = SecondsSince(start);
    summary.logits_blake3 = capture_.LogitsDigest();
    PB_TRY(writer_.Finish(summary.logits_blake3, summary.logits_blake3_untapped));
    return summary;
  }

 private:
  std::span<const int32_t> Step(int64_t step) const {
    const std::span<const int32_t> all(tokens_);
    return step == 0 ? all.first(n_prefill_) : all.subspan(n_prefill_ + static_cast<size_t>(step) - 1, 1);
  }
  int32_t Position(int64_t step) const {
    return step == 0 ? 0 : static_cast<int32_t>(n_prefill_ + static_cast<size_t>(step) - 1);
  }

  Status RunUntapped() {
    int32_t next = -1;
    auto on_row = [&](int32_t, std::span<const float> row) -> Status {
      untapped_.Update(std::as_bytes(row));
      next = Greedy(row);
      return {};
    };
    for (int64_t step = 0; step < n_steps_; ++step) {
      if (request_.progress) request_.progress("without taps", step, 2 * n_steps_);
      if (static_cast<size_t>(Position(step)) == tokens_.size()) {
        if (next < 0) return MakeError(Code::kEngine, "no finite logit at position {}", Position(step) - 1);
        tokens_.push_back(next);
      }
      PB_TRY(engine_.Evaluate(Step(step), Position(step), on_row));
    }
    return {};
  }

  Status RunTapped() {
    for (int64_t step = 0; step < n_steps_; ++step) {
      if (request_.progress) request_.progress("recording", n_steps_ + step, 2 * n_steps_);
      const auto tokens = Step(step);
      PB_TRY(capture_.BeginStep(Position(step), tokens));
      host::EvalRequest eval{
          {tokens.begin(), tokens.end()}, Position(step), 0, capture_.Tap(engine_.engine())};
      PB_TRY(engine_.Evaluate(eval, [&](const host::Event& event) { return capture_.OnEvent(event); }));
    }
    return {};
  }

  Participant& engine_;
  const TraceRequest& request_;
  trace::Writer& writer_;
  Capture capture_;
  std::vector<int32_t> tokens_;
  size_t n_prefill_ = 0;
  int64_t n_steps_ = 0;
  Blake3 untapped_;
};

}  // namespace

Result<trace::Manifest> DescribeTrace(Participant& engine) {
  const EngineRecord& record = engine.record();
  trace::Manifest manifest;
  manifest.engine = record.spec;
  // A trace travels: where the libraries lay, and which others there were, says nothing elsewhere; their digests do. And what an
  // engine promises of its next run is no promise of a recording.
  for (const trace::Fact& fact : TraceFacts(record.description))
    if (!fact.key.starts_with("path.") && fact.key != kLibrariesFact && fact.key != kPromiseFact)
      manifest.engine_facts.push_back(fact);
  // A recording that is recorded again keeps the identity of the engine that computed it.
  if (!host::FindFact(record.description, kIdentityFact))
    manifest.engine_facts.push_back({std::string(kIdentityFact), record.identity, "observed"});
  manifest.model_facts = TraceFacts(record.model);
  manifest.session_facts = TraceFacts(record.session);
  manifest.model_path = record.model_path.string();
  manifest.model_sha256 = record.model_sha256;
  PB_ASSIGN(auto stages, engine.Stages());
  for (size_t i = 0; i < stages.size() && i < PB_STAGE_COUNT; ++i) {
    if (stages[i].visibility == PB_UNOBSERVABLE)
      manifest.unobservable.emplace_back(pb_vocabulary[i].name, stages[i].reason);
  }
  return manifest;
}

Status Capture::BeginStep(int32_t first_position, std::span<const int32_t> tokens) {
  ++step_;
  return writer_.BeginStep(first_position, tokens);
}

host::TapFilter Capture::Tap(const host::Engine& engine) const {
  host::TapFilter tap;
  if (!(engine.capabilities() & PB_CAP_OUTPUTS)) return tap;
  for (const pb_stage_info& info : pb_vocabulary) {
    if (info.stage != PB_STAGE_LOGITS && filter_.MayWantStage(info.name, step_))
      tap.stages.push_back(info.stage);
  }
  tap.outputs = tap.unmapped = !tap.stages.empty();
  constexpr int32_t kMostLayers = 4096;  // more than any model has
  bool all = true;
  for (int32_t layer = -1; layer < kMostLayers && !filter_.empty(); ++layer) {
    const bool wanted = filter_.MayWantLayer(layer, step_);
    if (wanted) tap.layers.push_back(layer);
    all = all && wanted;
  }
  if (all) tap.layers.clear();
  return tap;
}

Status Capture::OnEvent(const host::Event& event) {
  trace::Point point;
  point.first_position = event.point.first_position;
  switch (event.kind) {
    case host::Event::kDone:
      return {};
    case host::Event::kLogits:
      logits_.Update(std::as_bytes(event.tensor.data));
      point.stage = PB_STAGE_LOGITS;
      return AppendRows(point, event.tensor);
    case host::Event::kPoint:
      point.stage = event.point.stage;
      point.layer = event.point.layer;
      break;
  }
  if (point.stage >= 0) return AppendRows(point, event.tensor);
  // An op that the adapter's table does not know: its rows need not be tokens, so it is taken as a whole.
  std::string name = event.point.native_name + "|" + event.point.op;
  if (event.point.occurrence > 0) name += fmt::format("#{}", event.point.occurrence);
  if (!filter_.Wants(name, point.layer, step_, point.first_position)) return {};
  point.native_name = name;
  return writer_.Append(point, event.tensor.shape, event.tensor.data);
}

// The rows that the filter wants, each run of neighbours as a record of its own.
Status Capture::AppendRows(const trace::Point& point, const host::TensorRef& tensor) {
  const char* stage = pb_vocabulary[point.stage].name;
  const int64_t n_rows = tensor.shape.empty() ? 0 : tensor.shape[0];
  const size_t width = n_rows > 0 ? tensor.data.size() / static_cast<size_t>(n_rows) : 0;
  auto wants = [&](int64_t row) {
    return filter_.Wants(stage, point.layer, step_, point.first_position + static_cast<int32_t>(row));
  };
  for (int64_t begin = 0, end = 0; begin < n_rows; begin = end) {
    const bool wanted = wants(begin);
    for (end = begin + 1; end < n_rows && wants(end) == wanted;) ++end;
    if (!wanted) continue;
    trace::Point part = point;
    part.first_position += static_cast<int32_t>(begin);
    std::vector<int64_t> shape = tensor.shape;
    shape[0] = end - begin;
    const auto rows =
        tensor.data.subspan(static_cast<size_t>(begin) * width, static_cast<size_t>(end - begin) * width);
    PB_TRY(writer_.Append(part, shape, rows));
  }
  return {};
}

Result<TraceSummary> RecordTrace(Participant& engine, const TraceRequest& request, trace::Writer& writer,
                                 const trace::PointFilter& filter) {
  auto summary = Recorder(engine, request, writer, filter).Run();
  if (!summary.ok()) (void)writer.Abandon(summary.error().message).ok();
  return summary;
}

}  // namespace pb::run

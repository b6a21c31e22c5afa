// Turns events into records as the filter wants them, and runs a sequence untapped and tapped.
#include "drive/capture.h"

#include <algorithm>
#include <chrono>

#include "drive/passes.h"

namespace pb::drive {
namespace {

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
  std::span<const int32_t> Prefill() const { return std::span(tokens_).first(n_prefill_); }

  Status RunUntapped() {
    int32_t greedy = -1;
    auto on_row = [&](int32_t, std::span<const float> row) -> Status {
      untapped_.Update(std::as_bytes(row));
      greedy = Greedy(row);
      return {};
    };
    auto next = [&](size_t index) -> Result<std::optional<int32_t>> {
      const size_t at = n_prefill_ + index;
      if (static_cast<int64_t>(index) + 1 == n_steps_) return std::optional<int32_t>();
      if (at == tokens_.size()) {
        if (greedy < 0) return MakeError(Code::kEngine, "no finite logit at position {}", at - 1);
        tokens_.push_back(greedy);
      }
      return std::optional(tokens_[at]);
    };
    return ForEachPass(Prefill(), kWholePrefill, next, [&](const Pass& pass) {
      if (request_.progress) request_.progress("without taps", pass.step, 2 * n_steps_);
      return engine_.Evaluate(pass.tokens, pass.position, on_row);
    });
  }

  Status RunTapped() {
    return ForEachPass(Prefill(), kWholePrefill, StepsOf(tokens_, n_prefill_),
                       [&](const Pass& pass) { return RecordPass(pass); });
  }

  Status RecordPass(const Pass& pass) {
    if (request_.progress) request_.progress("recording", n_steps_ + pass.step, 2 * n_steps_);
    PB_TRY(capture_.BeginStep(pass.position, pass.tokens));
    host::EvalRequest eval{
        {pass.tokens.begin(), pass.tokens.end()}, pass.position, 0, capture_.Tap(engine_.engine())};
    return engine_.Evaluate(eval, [&](const host::Event& event) { return capture_.OnEvent(event); });
  }

  Participant& engine_;
  const TraceRequest& request_;
  trace::Writer& writer_;
  TraceCapture capture_;
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
  // A trace travels: where the libraries lay, and which others there were, says nothing elsewhere;
  // their digests do. And what an engine promises of its next run is no promise of a recording.
  for (const trace::Fact& fact : record.description)
    if (!fact.key.starts_with("path.") && fact.key != kLibrariesFact && fact.key != kPromiseFact)
      manifest.engine_facts.push_back(fact);
  // A recording that is recorded again keeps the identity of the engine that computed it.
  if (!host::FindFact(record.description, kIdentityFact))
    manifest.engine_facts.push_back({std::string(kIdentityFact), record.identity, "observed"});
  manifest.model_facts = record.model;
  manifest.session_facts = record.session;
  manifest.model_path = record.model_path.string();
  manifest.model_sha256 = record.model_sha256;
  PB_ASSIGN(auto stages, engine.Stages());
  for (size_t i = 0; i < stages.size() && i < PB_STAGE_COUNT; ++i) {
    if (stages[i].visibility == PB_UNOBSERVABLE || !stages[i].layers.empty())
      manifest.unobservable.emplace_back(
          pb_vocabulary[i].name,
          stages[i].reason.empty() ? "ops that no stage shows stand before it" : stages[i].reason);
  }
  return manifest;
}

Status TraceCapture::BeginStep(int32_t first_position, std::span<const int32_t> tokens) {
  ++step_;
  return writer_.BeginStep(first_position, tokens);
}

host::TapFilter TraceCapture::Tap(const host::Engine& engine) const {
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

Status TraceCapture::OnEvent(const host::Event& event) {
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
  // An op that the adapter's table does not know: its rows need not be tokens, so it is taken as a
  // whole.
  std::string name = event.point.native_name + "|" + event.point.op;
  if (event.point.occurrence > 0) name += fmt::format("#{}", event.point.occurrence);
  if (!filter_.Wants(name, point.layer, step_, point.first_position)) return {};
  point.native_name = name;
  return writer_.Append(point, event.tensor.shape, event.tensor.data);
}

// The rows that the filter wants, each run of neighbours as a record of its own.
Status TraceCapture::AppendRows(const trace::Point& point, const host::TensorRef& tensor) {
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

}  // namespace pb::drive

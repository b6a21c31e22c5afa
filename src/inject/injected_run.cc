// Donors of tensors, and the evaluation that asks them at each point that is exchanged.
#include "inject/injected_run.h"

#include <fmt/format.h>

#include <algorithm>

namespace pb::inject {
namespace {

constexpr int64_t kMaxRecordedBytes = 2ll << 30;

bool MeansRefused(Code code) {
  return code == Code::kNotFound || code == Code::kUnsupported || code == Code::kUsage;
}

}  // namespace

Result<std::unique_ptr<TensorDonor>> TensorDonor::Record(host::Engine& engine,
                                                         const std::vector<drive::Pass>& passes,
                                                         std::vector<int32_t> stages) {
  auto donor = std::unique_ptr<TensorDonor>(new TensorDonor);
  PB_TRY(engine.Reset(0));
  for (const drive::Pass& pass : passes) {
    host::EvalRequest request{{pass.tokens.begin(), pass.tokens.end()},
                              pass.position,
                              static_cast<int32_t>(pass.tokens.size()),
                              {}};
    request.tap.stages = stages;
    request.tap.outputs = true;
    PB_TRY(engine.Eval(request, [&](const host::Event& e) -> Status {
      if (e.kind != host::Event::kPoint) return {};
      donor->n_bytes_ += static_cast<int64_t>(e.tensor.data.size_bytes());
      if (donor->n_bytes_ > kMaxRecordedBytes)
        return MakeError(Code::kUnsupported, "the tensors of {} positions exceed {} MiB: give fewer tokens",
                         pass.position + static_cast<int32_t>(pass.tokens.size()), kMaxRecordedBytes >> 20);
      donor->stages_.insert(e.point.stage);
      donor->tensors_[{e.point.stage, e.point.layer, e.point.first_position}] = {
          e.tensor.shape, {e.tensor.data.begin(), e.tensor.data.end()}};
      return {};
    }));
  }
  return donor;
}

Result<std::unique_ptr<TensorDonor>> TensorDonor::FromTrace(trace::Trace trace) {
  auto donor = std::unique_ptr<TensorDonor>(new TensorDonor);
  donor->trace_.emplace(std::move(trace));
  for (const trace::Record& record : donor->trace_->records()) {
    if (record.stage_id < 0 || record.payload_file.empty() || record.first_position < 0) continue;
    donor->records_[{record.stage_id, record.layer, record.first_position}] = &record;
    donor->stages_.insert(record.stage_id);
  }
  if (donor->records_.empty())
    return MakeError(Code::kUnsupported, "{}: holds no tensors: a trace of level full is needed",
                     donor->trace_->folder().string());
  return donor;
}

std::string TensorDonor::WhyNot(pb_stage stage) const {
  return stages_.contains(stage) ? "" : trace_ ? "not in the trace" : "the donor does not show it";
}

Result<std::vector<float>> TensorDonor::Give(const host::PointRef& point, const host::TensorRef& own,
                                             const diagnose::PassTensors&) {
  const Key key{point.stage, point.layer, point.first_position};
  auto differs = [&](const std::vector<int64_t>& shape) {
    return MakeError(Code::kNotFound, "shape ({}) against the recipient's ({})", fmt::join(shape, ", "),
                     fmt::join(own.shape, ", "));
  };
  if (auto kept = tensors_.find(key); kept != tensors_.end()) {
    if (kept->second.shape != own.shape) return differs(kept->second.shape);
    return kept->second.values;
  }
  auto record = records_.find(key);
  if (record == records_.end())
    return MakeError(Code::kNotFound, "the donor has no such tensor from position {} on",
                     point.first_position);
  if (record->second->shape != own.shape) return differs(record->second->shape);
  return trace_->Payload(*record->second);
}

Result<std::unique_ptr<OpDonor>> OpDonor::Create(host::Engine& engine,
                                                 std::unique_ptr<TensorDonor> embeddings) {
  if (!(engine.capabilities() & PB_CAP_REPLAY))
    return MakeError(Code::kUnsupported, "the donor cannot replay an op, so its ops cannot be put in");
  PB_ASSIGN(std::vector<host::StageVisibility> stages, engine.Stages());
  return std::unique_ptr<OpDonor>(
      new OpDonor(diagnose::Arbiter(engine, stages), stages, std::move(embeddings)));
}

std::string OpDonor::WhyNot(pb_stage stage) const {
  const host::StageVisibility& see = stages_[static_cast<size_t>(stage)];
  if (see.visibility == PB_ABSENT) return "the donor has no such op";
  if (see.visibility == PB_UNOBSERVABLE) return "the donor: " + see.reason + "; it is exchanged with that";
  if (stage != PB_STAGE_EMBEDDINGS) return "";
  return embeddings_ ? embeddings_->WhyNot(stage) : "the donor shows no tensors";
}

void OpDonor::AddInputs(pb_stage stage, std::set<int32_t>* stages) const {
  stages->insert({PB_STAGE_EMBEDDINGS, PB_STAGE_LAYER_OUT});  // what enters a layer
  for (const stages::Input& input : ops_.ReplayInputs(stage)) {
    stages->insert(input.stage);
    for (const stages::Input& ancestor : ops_.ReplayInputs(input.stage)) stages->insert(ancestor.stage);
  }
}

Result<std::vector<float>> OpDonor::Give(const host::PointRef& point, const host::TensorRef& own,
                                         const diagnose::PassTensors& recording) {
  if (point.stage == PB_STAGE_EMBEDDINGS) return embeddings_->Give(point, own, recording);
  PB_ASSIGN(diagnose::Expectation made,
            ops_.Expect(recording, static_cast<pb_stage>(point.stage), point.layer, ""));
  if (made.output.values.size() != own.data.size())
    return MakeError(Code::kNotFound, "shape ({}) against the recipient's ({})",
                     fmt::join(made.output.shape, ", "), fmt::join(own.shape, ", "));
  return std::move(made.output.values);
}

Status InjectedRun::AtPoint(const host::Event& event) {
  const host::PointRef& point = event.point;
  if (point.first_position != recording_.first_position()) recording_.BeginPass(point.first_position);
  const auto stage = static_cast<pb_stage>(point.stage);
  recording_.Enter(point.layer);
  std::vector<float> values(event.tensor.data.begin(), event.tensor.data.end());
  bool exchanged = points_->contains({point.stage, point.layer}) && !refused_.contains(point.stage);
  if (exchanged) {
    auto given = donor_.Give(point, event.tensor, recording_);
    if (given.ok()) {
      values = std::move(given).value();
    } else {
      if (!MeansRefused(given.error().code)) return std::move(given).error();
      refused_[point.stage] = given.error().message;
      exchanged = false;
    }
  }
  // A copy for the engine: the recording keeps the other.
  const std::vector<float> standing = values;
  recording_.Add(stage, point.layer, {event.tensor.shape, std::move(values)});
  return exchanged ? recipient_.Overwrite(standing) : recipient_.Continue();
}

Status InjectedRun::AtLogits(const host::Event& event, const drive::RowFn& on_row) {
  const host::TensorRef& rows = event.tensor;
  if (rows.shape.size() != 2 || rows.shape[1] <= 0) return MakeError(Code::kEngine, "logits without a shape");
  const auto width = static_cast<size_t>(rows.shape[1]);
  for (size_t i = 0; i * width < rows.data.size(); i++)
    PB_TRY(on_row(event.point.first_position + static_cast<int32_t>(i), rows.data.subspan(i * width, width)));
  return recipient_.Continue();
}

Status InjectedRun::Pass(const drive::Pass& pass, const host::TapFilter& tap, const drive::RowFn& on_row) {
  recording_.BeginPass(pass.position);
  PB_TRY(recipient_.BeginEval({{pass.tokens.begin(), pass.tokens.end()}, pass.position, 0, tap}));
  for (;;) {
    PB_ASSIGN(host::Event event, recipient_.Wait());
    if (event.kind == host::Event::kDone) return {};
    Status status = event.kind == host::Event::kPoint ? AtPoint(event) : AtLogits(event, on_row);
    if (status.ok()) continue;
    (void)recipient_.Stop().ok();  // the first failure is the one to tell
    return status;
  }
}

Status InjectedRun::Run(const std::set<InjectionPoint>& points, const drive::RowFn& on_row) {
  points_ = &points;
  host::TapFilter tap;
  std::set<int32_t> stages;
  for (const InjectionPoint& point : points) {
    stages.insert(point.stage);
    donor_.AddInputs(static_cast<pb_stage>(point.stage), &stages);
  }
  tap.stages.assign(stages.begin(), stages.end());
  tap.outputs = !stages.empty();
  recording_.Clear();
  PB_TRY(recipient_.Reset(0));
  for (const drive::Pass& pass : passes_) PB_TRY(Pass(pass, tap, on_row));
  return {};
}

}  // namespace pb::inject

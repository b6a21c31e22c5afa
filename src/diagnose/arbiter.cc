// What was recorded of a pass, and an engine that recomputes ops from it.
#include "diagnose/arbiter.h"

#include <algorithm>
#include <cmath>

namespace pb::diagnose {
namespace {

void AppendRows(Recorded& all, const Recorded& more) {
  if (all.shape.empty()) {
    all = more;
    return;
  }
  all.shape[0] += more.shape[0];
  all.values.insert(all.values.end(), more.values.begin(), more.values.end());
}

// Keys or values up to the last position of the pass, which may be computed again after a reset.
void KeepRows(Recorded& all, int64_t rows) {
  if (all.shape.empty() || all.shape[0] <= rows) return;
  all.values.resize(all.values.size() / static_cast<size_t>(all.shape[0]) * static_cast<size_t>(rows));
  all.shape[0] = rows;
}

}  // namespace

void PassTensors::BeginPass(int32_t first_position) {
  first_position_ = first_position;
  layer_ = -1;
  outputs_.clear(), outer_.clear(), entering_.clear();
  for (auto& [key, tensor] : positions_) KeepRows(tensor, first_position);
}

void PassTensors::Clear() {
  positions_.clear();
  BeginPass(0);
}

void PassTensors::Enter(int32_t layer) {
  if (layer < 0 || layer == layer_) return;
  if (layer_ >= 0) entering_.clear();
  if (auto out = outputs_.find(PB_STAGE_LAYER_OUT); out != outputs_.end())
    entering_[0] = std::move(out->second);
  outputs_.clear();
  layer_ = layer;
}

void PassTensors::Add(pb_stage stage, int32_t layer, Recorded tensor) {
  if (layer < 0) {
    if (stage == PB_STAGE_EMBEDDINGS) entering_[0] = tensor;
    outer_[stage] = std::move(tensor);
    return;
  }
  Enter(layer);
  if (stage == PB_STAGE_K_ROPE || stage == PB_STAGE_V_PROJ) AppendRows(positions_[{stage, layer}], tensor);
  outputs_[stage] = std::move(tensor);
}

PassTensors PassTensors::OuterRows(int64_t begin, int64_t n) const {
  PassTensors rows;
  rows.first_position_ = first_position_ + static_cast<int32_t>(begin);
  for (const auto& [stage, tensor] : outer_) {
    if (tensor.shape[0] < begin + n) continue;  // a piece itself
    Recorded part = tensor;
    const auto width = static_cast<int64_t>(tensor.values.size()) / tensor.shape[0];
    part.values.assign(tensor.values.begin() + begin * width, tensor.values.begin() + (begin + n) * width);
    part.shape[0] = n;
    rows.outer_[stage] = std::move(part);
  }
  return rows;
}

const Recorded* PassTensors::Output(pb_stage stage, int32_t layer) const {
  const auto& from = layer < 0 ? outer_ : outputs_;
  if (layer >= 0 && layer != layer_) return nullptr;
  auto found = from.find(stage);
  return found == from.end() ? nullptr : &found->second;
}

const Recorded* PassTensors::Find(const stages::Input& input, int32_t layer) const {
  if (input.previous_layer) {
    // Outside the layers (final_norm) the layer before is the last one, still at hand.
    if (layer < 0) return Output(PB_STAGE_LAYER_OUT, layer_);
    auto found = entering_.find(0);
    return layer != layer_ || found == entering_.end() ? nullptr : &found->second;
  }
  if (input.all_positions) {
    auto found = positions_.find({input.stage, layer});
    return found == positions_.end() ? nullptr : &found->second;
  }
  return Output(input.stage, layer);
}

Result<Recorded> Arbiter::Input(const PassTensors& recording, const stages::Input& input, pb_stage reader,
                                int32_t layer, const std::string& variation, Expectation* of) {
  const char* name = stages::Of(input.stage).name;
  if (const Recorded* r = recording.Find(input, layer)) return *r;
  // Keys and values of earlier passes cannot be recomputed from this pass alone.
  if (See(input.stage) == PB_ABSENT || input.previous_layer ||
      (input.all_positions && recording.first_position() > 0))
    return MakeError(Code::kNotFound, "{}: its input {} was not recorded", stages::Of(reader).name, name);
  PB_ASSIGN(Expectation e, Expect(recording, input.stage, layer, variation));
  const bool first = of->recomputed.empty();
  of->recomputed.push_back(name);
  of->recomputed.insert(of->recomputed.end(), e.recomputed.begin(), e.recomputed.end());
  if (first) of->inner_units = std::move(e.units);
  return std::move(e.output);
}

namespace {

// A product of two rows of which the first is recomputed, as it is no point of its own: what its
// units are beyond one rounding of it (a difference that cancels, a table) belongs to the product.
void AddInnerUnits(std::span<const float> a, std::span<const float> b, Expectation* e) {
  if (e->inner_units.size() != e->units.size() || a.size() != e->units.size() || b.size() != a.size()) return;
  for (size_t i = 0; i < a.size(); i++)
    e->units[i] += std::max(e->inner_units[i] - std::fabs(a[i]), 0.0f) * std::fabs(b[i]);
}

}  // namespace

Result<Expectation> Arbiter::Expect(const PassTensors& recording, pb_stage stage, int32_t layer,
                                    const std::string& variation) {
  Expectation e;
  host::ReplayRequest request;
  request.stage = stage, request.layer = layer, request.first_position = recording.first_position();
  request.variation = variation;
  request.units = (oracle_.capabilities() & PB_CAP_UNITS) != 0;
  for (const stages::Input& input : ReplayInputs(stage)) {
    PB_ASSIGN(Recorded r, Input(recording, input, stage, layer, variation, &e));
    request.inputs.emplace_back(std::move(r.shape), std::move(r.values));
  }
  if (request.inputs.empty())
    return MakeError(Code::kNotFound, "{}: has no recorded inputs", stages::Of(stage).name);
  PB_ASSIGN(host::TensorRef out, oracle_.Replay(request));
  e.output.shape = out.shape;
  e.output.values.assign(out.data.begin(), out.data.end());
  e.units.assign(out.units.begin(), out.units.end());
  if (stages::Of(stage).group == stages::Group::kGate && request.inputs.size() == 2)
    AddInnerUnits(request.inputs[0].second, request.inputs[1].second, &e);
  for (auto& [shape, values] : request.inputs) e.inputs.push_back({std::move(shape), std::move(values)});
  return e;
}

}  // namespace pb::diagnose

// Tensors of an undisturbed run, kept as far as memory allows.
#include "noise/point_store.h"

#include <algorithm>

namespace pb::noise {
namespace {

compare::PointNoise& Find(std::vector<compare::PointNoise>* noise, const host::PointRef& point,
                          compare::PositionClass positions) {
  // Points come in order, so the one wanted is near the end, if it is there.
  for (auto it = noise->rbegin(); it != noise->rend(); ++it)
    if (it->stage == point.stage && it->layer == point.layer && it->positions == positions) return *it;
  compare::PointNoise fresh;
  fresh.stage = point.stage, fresh.layer = point.layer, fresh.positions = positions;
  return noise->emplace_back(fresh);
}

}  // namespace

Result<PointStore> PointStore::Create(drive::Participant& engine, std::span<const int32_t> wanted,
                                      int64_t n_prefill, int64_t n_positions, int64_t max_bytes) {
  PB_ASSIGN(const auto stages, engine.Stages());
  const trace::ModelFacts model = engine.record().model_facts();
  PointStore store;
  int64_t row_bytes = 0;
  for (pb_stage stage : stages::kAll - stages::Set(PB_STAGE_LOGITS)) {
    const auto at = static_cast<size_t>(stage);
    if (at >= stages.size() || stages[at].visibility != PB_OBSERVED) continue;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), stage) == wanted.end()) continue;
    store.tap_.stages.push_back(stage);
    row_bytes += stages::RowWidth(stage, model.shape, n_positions) *
                 (stages::Of(stage).per_layer ? model.n_layers : 1) * static_cast<int64_t>(sizeof(float));
  }
  store.tap_.outputs = !store.tap_.stages.empty();
  const int64_t n_fit = max_bytes / std::max<int64_t>(row_bytes, 1);
  store.n_prefill_ = n_prefill;
  store.n_decode_kept_ = std::min(n_positions - n_prefill, std::max(n_fit / 2, n_fit - n_prefill));
  store.n_prefill_kept_ = std::min(n_prefill, n_fit - store.n_decode_kept_);
  return store;
}

Status PointStore::Keep(const host::Event& event) {
  if (event.kind != host::Event::kPoint || event.point.stage < 0) return {};
  const host::TensorRef& tensor = event.tensor;
  const int64_t n_rows = tensor.shape.empty() ? 0 : tensor.shape[0];
  if (n_rows <= 0 || tensor.data.size() % static_cast<size_t>(n_rows) != 0)
    return MakeError(Code::kEngine, "{} came without token rows", pb_vocabulary[event.point.stage].name);
  Rows& rows = points_[KeyOf(event.point)];
  rows = {n_rows, static_cast<int64_t>(tensor.data.size()) / n_rows, {}};
  int64_t n_kept = 0;
  for (int64_t r = 0; r < n_rows; ++r) n_kept += Keeps(event.point.first_position + r);
  rows.values.reserve(static_cast<size_t>(n_kept * rows.width));
  for (int64_t r = 0; r < n_rows; ++r) {
    if (!Keeps(event.point.first_position + r)) continue;
    const float* row = tensor.data.data() + r * rows.width;
    rows.values.insert(rows.values.end(), row, row + rows.width);
  }
  return {};
}

Status PointStore::Measure(const host::Event& event, std::vector<compare::PointNoise>* noise) const {
  using compare::PositionClass;
  if (event.kind != host::Event::kPoint || event.point.stage < 0) return {};
  const auto found = points_.find(KeyOf(event.point));
  const int64_t n_rows = event.tensor.shape.empty() ? 0 : event.tensor.shape[0];
  if (found == points_.end() || found->second.n_rows != n_rows ||
      found->second.width * n_rows != static_cast<int64_t>(event.tensor.data.size()))
    return MakeError(Code::kEngine, "{} of layer {} at position {} has another shape when it is disturbed",
                     pb_vocabulary[event.point.stage].name, event.point.layer, event.point.first_position);
  const Rows& rows = found->second;
  const auto width = static_cast<size_t>(rows.width);
  const float* kept = rows.values.data();
  for (int64_t r = 0; r < n_rows; ++r) {
    const int64_t position = event.point.first_position + r;
    if (!Keeps(position)) continue;
    const std::span<const float> disturbed(event.tensor.data.data() + r * rows.width, width),
        undisturbed(kept, width);
    kept += rows.width;
    const bool prefill = position < n_prefill_;
    Find(noise, event.point, prefill ? PositionClass::kPrefill : PositionClass::kDecode)
        .AddRow(disturbed, undisturbed);
    if (position == 0) Find(noise, event.point, PositionClass::kFirst).AddRow(disturbed, undisturbed);
  }
  return {};
}

}  // namespace pb::noise

// Keeps the op that a comparison judged worst, with all that goes into it.
#include "diagnose/capture.h"

namespace pb::diagnose {

void PointCapture::BeginPassIfNew(const drive::PointPair& pair) {
  const std::tuple pass(pair.row->prompt, pair.row->step, pair.point.first_position);
  const auto layer = stages::LayerOrder(pair.point.stage, pair.point.layer);
  if (pass_ == pass && layer >= layer_) {
    layer_ = layer, further_piece_ = false;
    return;
  }
  const bool same_step =
      pass_ && std::get<0>(*pass_) == pair.row->prompt && std::get<1>(*pass_) == pair.row->step;
  further_piece_ = same_step && layer >= layer_;
  if (further_piece_) return;
  if (!pass_ || std::get<0>(*pass_) != pair.row->prompt) recording_.Clear();
  recording_.BeginPass(pair.point.first_position), waiting_.clear();
  pass_ = pass, layer_ = layer;
}

bool PointCapture::IsWanted(const drive::PointPair& pair) const {
  const compare::PointRow& row = *pair.row;
  if (wanted_) {
    return row.prompt == wanted_->prompt && row.step == wanted_->step && row.stage == wanted_->stage &&
           row.layer == wanted_->layer;
  }
  return row.is_defect();
}

void PointCapture::Record(const drive::PointPair& pair) {
  const auto stage = static_cast<pb_stage>(pair.point.stage);
  const int32_t layer = pair.point.layer;
  if (layer >= 0 && !waiting_.empty() && waiting_.front().layer != layer) waiting_.clear();
  // Read beyond the layer: keys and values of all positions, and what enters the next one.
  const bool stays =
      layer < 0 || stage == PB_STAGE_K_ROPE || stage == PB_STAGE_V_PROJ || stage == PB_STAGE_LAYER_OUT;
  if (pair.lasting && !stays) {
    recording_.Enter(layer);
    waiting_.push_back({stage, layer, pair.shape, {}});
    waiting_.back().values.Hold(pair.reference, pair.lasting);
  } else {
    recording_.Add(stage, layer, {pair.shape, {pair.reference.begin(), pair.reference.end()}});
  }
}

// Engines show logits in pieces of their rows.
PassTensors PointCapture::Inputs(const drive::PointPair& pair) {
  for (const Waiting& w : waiting_) {
    const std::span<const float> values = w.values.values();
    recording_.Add(w.stage, w.layer, {w.shape, {values.begin(), values.end()}});
  }
  waiting_.clear();
  if (pair.point.stage != PB_STAGE_LOGITS) return recording_;
  return recording_.OuterRows(pair.point.first_position - recording_.first_position(), pair.shape[0]);
}

void PointCapture::OnPair(const drive::PointPair& pair) {
  const std::tuple<int32_t, int32_t, int32_t> point(pair.row->prompt, pair.row->step, pair.row->stage);
  AddSeen(*pair.row, pair.row->stage == PB_STAGE_LOGITS && last_ == point,
          &passes_[{pair.row->stage, pair.row->layer}]);
  last_ = point;
  if (done_) return;
  const auto before = layer_;
  BeginPassIfNew(pair);
  // A point that comes before in dependency order may still follow within the layer.
  if (culprit_ && !further_piece_ && (wanted_ || layer_ != before)) {
    done_ = true;
    recording_.Clear(), waiting_.clear();
    return;
  }
  const bool wanted = IsWanted(pair);
  if (further_piece_ && !wanted) return;
  if (!further_piece_) Record(pair);
  if (!wanted) return;
  // Of pieces the first that is wrong.
  if (culprit_ && further_piece_ && (culprit_->row.is_defect() || !pair.row->is_defect())) return;
  if (culprit_ && !further_piece_) {
    const int level = stages::Of(pair.point.stage).level, least = stages::Of(culprit_->place.stage).level;
    if (level > least || (level == least && !(pair.row->bound_ratio > culprit_->row.bound_ratio))) return;
  }
  culprit_ = Culprit{{pair.row->prompt, pair.row->step, pair.row->stage, pair.row->layer},
                     pair.point.first_position,
                     pair.shape,
                     {pair.candidate.begin(), pair.candidate.end()},
                     {pair.reference.begin(), pair.reference.end()},
                     *pair.row,
                     *pair.bound,
                     Inputs(pair)};
}

}  // namespace pb::diagnose

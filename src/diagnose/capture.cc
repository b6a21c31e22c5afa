// Keeps the op that a comparison judged worst, with all that goes into it.
#include "diagnose/capture.h"

namespace pb::diagnose {

void PointCapture::BeginPassIfNew(const drive::PointPair& pair) {
  const std::tuple pass(pair.row->prompt, pair.row->step, pair.point.first_position);
  const auto layer = stages::LayerOrder(pair.point.stage, pair.point.layer);
  if (pass_ == pass && layer >= layer_) {
    layer_ = layer;
    return;
  }
  const bool same_step =
      pass_ && std::get<0>(*pass_) == pair.row->prompt && std::get<1>(*pass_) == pair.row->step;
  if (same_step && layer >= layer_) {  // a further piece of a point's rows
    in_pieces_ = true;
    return;
  }
  if (!pass_ || std::get<0>(*pass_) != pair.row->prompt) recording_.Clear();
  recording_.BeginPass(pair.point.first_position);
  pass_ = pass, layer_ = layer, in_pieces_ = false;
}

bool PointCapture::IsWanted(const drive::PointPair& pair) const {
  const compare::PointRow& row = *pair.row;
  if (wanted_) {
    return row.prompt == wanted_->prompt && row.step == wanted_->step && row.stage == wanted_->stage &&
           row.layer == wanted_->layer;
  }
  return row.is_defect();
}

void PointCapture::OnPair(const drive::PointPair& pair) {
  if (done_) return;
  const auto before = layer_;
  BeginPassIfNew(pair);
  // A point that comes before in dependency order may still follow within the layer.
  if (culprit_ && (wanted_ || layer_ != before)) {
    done_ = true;
    recording_.Clear();
    return;
  }
  recording_.Add(static_cast<pb_stage>(pair.point.stage), pair.point.layer,
                 {pair.shape, {pair.reference.begin(), pair.reference.end()}});
  if (in_pieces_ || !IsWanted(pair)) return;
  if (culprit_) {
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
                     recording_};
}

}  // namespace pb::diagnose

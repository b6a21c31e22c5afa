// Takes one point out of a lock-step: both outputs on the reference's inputs, and those inputs.
#ifndef PARITYBIT_DIAGNOSE_CAPTURE_H_
#define PARITYBIT_DIAGNOSE_CAPTURE_H_

#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "diagnose/arbiter.h"
#include "diagnose/when.h"
#include "drive/held_values.h"
#include "drive/lock_step.h"

namespace pb::diagnose {

// One op's execution.
struct Place {
  int32_t prompt = 0, step = 0;  // step 0: the prefill
  int32_t stage = PB_STAGE_UNMAPPED, layer = -1;
};

// The captured point. All token rows of one evaluation, or of one that is shown in pieces the first
// piece that is wrong.
struct Culprit {
  Place place;
  int32_t first_position = 0;
  std::vector<int64_t> shape;
  std::vector<float> candidate, reference;  // outputs on equal inputs
  compare::PointRow row;                    // candidate against reference
  compare::LocalBound bound;
  PassTensors inputs;  // the reference's tensors up to here
  // The op in every pass of the run, those after this one too; threads are not told.
  std::vector<SeenPass> passes = {};
};

// Watches the pairs of a lock-step in order and keeps one: the point asked for, or the first in
// dependency order whose error is beyond its bound and not explained by codes (of siblings the one
// whose error is clearest), as the judge names it. Holds the layer at hand and all keys and
// values until then, copies of what does not last; nothing more once it is found.
class PointCapture {
 public:
  explicit PointCapture(std::optional<Place> wanted = std::nullopt) : wanted_(wanted) {}

  void OnPair(const drive::PointPair& pair);
  // nullptr: there was none.
  const Culprit* culprit() const { return culprit_ ? &*culprit_ : nullptr; }
  // An op in all passes so far.
  const std::vector<SeenPass>& PassesOf(int32_t stage, int32_t layer) { return passes_[{stage, layer}]; }

 private:
  void BeginPassIfNew(const drive::PointPair& pair);
  bool IsWanted(const drive::PointPair& pair) const;
  void Record(const drive::PointPair& pair);
  // What the pair at hand reads, and the rest of what was recorded.
  PassTensors Inputs(const drive::PointPair& pair);

  std::optional<Place> wanted_;
  std::optional<Culprit> culprit_;
  PassTensors recording_;  // but for what waits
  // Of the layer at hand, in order: tensors that last (drive::PointPair), copied when one is wanted.
  struct Waiting {
    pb_stage stage;
    int32_t layer;
    std::vector<int64_t> shape;
    drive::HeldValues values;
  };
  std::vector<Waiting> waiting_;
  std::map<std::pair<int32_t, int32_t>, std::vector<SeenPass>> passes_;  // by stage, layer
  std::optional<std::tuple<int32_t, int32_t, int32_t>> last_;  // the pair before: prompt, step, stage
  // (prompt, step, first position); then the layer in the pass: (embeddings, layers, outer), layer.
  // Within a layer engines go in orders of their own.
  std::optional<std::tuple<int32_t, int32_t, int32_t>> pass_;
  std::pair<int, int32_t> layer_{};
  bool further_piece_ = false;  // the pair at hand is not the first piece of its point's rows
  bool done_ = false;
};

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_CAPTURE_H_

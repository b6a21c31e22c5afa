// Recomputes any op of a model from recorded inputs through an engine that can replay (the oracle,
// or the other engine), whatever was recorded: inputs that were not shown are recomputed from their
// nearest recorded ancestors, and said so.
#ifndef PARITYBIT_DIAGNOSE_ARBITER_H_
#define PARITYBIT_DIAGNOSE_ARBITER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "compare/local.h"
#include "host/engine.h"
#include "stages/stages.h"

namespace pb::diagnose {

// A recorded tensor: shape[0] token rows.
struct Recorded {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// What was recorded of one pass over some token rows: outputs of the layer at hand, what enters it,
// and keys and values of all positions so far. Feed points in dependency order; a new layer forgets
// the layer before but for its output.
class PassTensors {
 public:
  // Begins a pass whose first row stands at this position; earlier positions' keys and values are
  // kept.
  void BeginPass(int32_t first_position);
  // Forgets everything: a new prompt.
  void Clear();
  // Makes a layer the one at hand; Add does it too. What the layer before gave is then what enters
  // this one.
  void Enter(int32_t layer);
  void Add(pb_stage stage, int32_t layer, Recorded tensor);

  // Of a point outside the layers that is shown in pieces of its rows: what one piece reads, rows
  // [begin, begin + n) of the pass.
  PassTensors OuterRows(int64_t begin, int64_t n) const;

  int32_t first_position() const { return first_position_; }
  // nullptr where it was not recorded. Inputs of a layer are known once a point of that layer was
  // added.
  const Recorded* Find(const stages::Input& input, int32_t layer) const;
  const Recorded* Output(pb_stage stage, int32_t layer) const;

 private:
  int32_t first_position_ = 0;
  int32_t layer_ = -1;
  std::map<int32_t, Recorded> outputs_;   // of the layer at hand, by stage
  std::map<int32_t, Recorded> outer_;     // embeddings, final_norm, logits
  std::map<int32_t, Recorded> entering_;  // key 0: what enters the layer
  std::map<std::pair<int32_t, int32_t>, Recorded>
      positions_;  // k_rope, v_proj of all positions, by (stage, layer)
};

// What an op should have given, and from what.
struct Expectation {
  Recorded output;
  // Of each output value: what float32 rounding of its terms and partial sums may move it by, over
  // the unit roundoff (docs/numerics.md, "Units"). Empty where the oracle does not tell them
  // (PB_CAP_UNITS).
  std::vector<float> units;
  std::vector<float> inner_units;  // of the first input, where it was recomputed
  std::vector<Recorded> inputs;    // what it was computed from, in the vocabulary's order
  // inputs that were not recorded and come from their ancestors
  std::vector<std::string> recomputed;

  // Views `units`: not beyond the life of this.
  compare::LocalBound Bound(pb_stage stage) const { return compare::BoundFromUnits(stage, units); }
};

class Arbiter {
 public:
  // `oracle`: an engine with PB_CAP_REPLAY and an open session; stages: its Stages(). In place of a
  // stage that it computes inside another op its replay takes that stage's own inputs.
  Arbiter(host::Engine& oracle, std::vector<host::StageVisibility> stages)
      : oracle_(oracle), stages_(std::move(stages)) {}

  // Recomputes one op from the recording. kNotFound: an input is neither recorded nor can be
  // recomputed. `variation`: empty, or "key=value" (PB_CAP_VARY), applied to the op and to inputs
  // recomputed for it.
  Result<Expectation> Expect(const PassTensors& recording, pb_stage stage, int32_t layer,
                             const std::string& variation);

  // What its replay of a stage takes, in order.
  std::vector<stages::Input> ReplayInputs(pb_stage stage) const {
    return stages::InputsOf(stage, [this](pb_stage s) { return See(s); });
  }

 private:
  Result<Recorded> Input(const PassTensors& recording, const stages::Input& input, pb_stage reader,
                         int32_t layer, const std::string& variation, Expectation* of);
  pb_visibility See(pb_stage stage) const { return stages_[static_cast<size_t>(stage)].visibility; }
  host::Engine& oracle_;
  std::vector<host::StageVisibility> stages_;
};

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_ARBITER_H_

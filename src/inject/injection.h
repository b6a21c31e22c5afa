// Injection: what one engine computed is put into the other at chosen points, which then goes on.
// The search finds the smallest set of points whose exchange brings the logits back to agreement
// within noise (docs/numerics.md, "Injection").
#ifndef PARITYBIT_INJECT_INJECTION_H_
#define PARITYBIT_INJECT_INJECTION_H_

#include <compare>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "compare/types.h"
#include "compare/verdict.h"
#include "drive/engine_spec.h"
#include "drive/progress.h"

namespace pb::inject {

// What is put in at a point.
enum class InjectionKind {
  // what the donor makes of this op from the recipient's own inputs: the op alone is exchanged, and
  // nothing upstream of
  kOp,
  // it is masked. The smallest set that restores agreement is the set of ops that differ.
  // the donor's tensor of its own free run: everything upstream is masked. Tells from where on the
  // engines agree.
  kTensor,
};
const char* InjectionKindName(InjectionKind kind);  // "op" "tensor"

struct InjectionPoint {
  int32_t stage = PB_STAGE_UNMAPPED, layer = -1;
  auto operator<=>(const InjectionPoint&) const = default;
};

struct InjectionRequest {
  drive::EngineSpec candidate, reference;
  std::filesystem::path model, reference_model;  // reference_model empty: the same file
  std::vector<int32_t> tokens;                   // evaluated from position 0
  InjectionKind kind = InjectionKind::kOp;
  bool into_reference = false;  // the reference is the recipient; else the candidate
  // The donor, where it is not the other engine: the arbiter, with the recipient's model (kOp
  // alone). Agreement is still that of candidate and reference.
  drive::EngineSpec oracle;
  // A stored trace of level full in place of the engine that does not receive; its tokens replace
  // those above. The donor is then the trace (kTensor) or the oracle (kOp).
  std::filesystem::path trace;
  std::vector<InjectionPoint> suspects;  // tried first, as one set; may be empty
  compare::UserLimits user;
  std::string calibration;  // text whose tokens join the noise floor
  int32_t n_noise_runs = 8;
  host::Limits limits;
  int64_t max_trials = 500;  // evaluations of the recipient
  drive::Progress progress;  // may be empty
};

// One evaluation of the recipient with some points exchanged, against the other engine's
// undisturbed logits.
struct InjectionTrial {
  std::vector<InjectionPoint> points;  // in order of layer and dependency
  int64_t n_positions = 0;
  double mean_kl = 0, worst_kl = 0;  // KL(reference || candidate), nats
  int32_t worst_position = -1;
  int64_t n_flips = 0;  // positions whose top-1 differs although the gap changed by more than noise
  bool finite = true;
  bool restores = false;  // every figure is within its limit
};

struct InjectionResult {
  enum class Outcome {
    kFound,  // `found` restores agreement and is 1-minimal
    // the logits agree within noise before anything is exchanged: there is nothing to restore
    kAgrees,
    kNotRestorable,  // not even exchanging everything restores them
    // max_trials were not enough; `found` is the smallest set that restored so far, if any
    kGaveUp
  };
  Outcome outcome = Outcome::kNotRestorable;
  InjectionKind kind = InjectionKind::kOp;
  std::string recipient, donor, other;  // "candidate", "reference", "oracle", "trace FOLDER"
  std::vector<compare::Limit> limits;
  InjectionTrial before, everything, found;
  // The found set less one point each, in its order; none where it has one point, which is the
  // least there can be.
  std::vector<InjectionTrial> without;
  std::vector<InjectionTrial> tried;  // all, in order
  // kTensor: the tensors that everything later hangs on, one by one
  std::vector<InjectionTrial> cuts;
  std::vector<std::string> left_out;  // stages that cannot be exchanged, and why
  int64_t n_layers = 0;
};
const char* InjectionOutcomeName(
    InjectionResult::Outcome outcome);  // "found" "agrees" "not-restorable" "gave-up"

// Tries the suspects; else every stage in all layers by itself; else all points, halved (Minimise).
// What restores is minimised over stages, then layers; of several stages that restore alone, the
// first in dependency order. An engine's failure is an Error. kUnsupported: an engine cannot be
// overwritten or cannot replay; the trace holds no values.
Result<InjectionResult> SearchInjection(const InjectionRequest& request);

}  // namespace pb::inject

#endif  // PARITYBIT_INJECT_INJECTION_H_

// Two engines over the same tokens, point by point: every tracepoint of the candidate compared with
// the reference's, and in lock-step then overwritten by it, so that each op's error is its own
// (ARCHITECTURE.md, "Verdicts").
#ifndef PARITYBIT_DRIVE_LOCK_STEP_H_
#define PARITYBIT_DRIVE_LOCK_STEP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/blake3.h"
#include "compare/local.h"
#include "drive/participant.h"
#include "host/engine.h"

namespace pb::drive {

// What both engines gave at one point; spans live until the callback returns.
struct PointPair {
  host::PointRef point;
  std::vector<int64_t> shape;
  std::span<const float> candidate, reference;
  compare::PointRow* row;  // may be annotated
  const compare::LocalBound* bound;
  // As host::TensorRef has it, of the reference's.
  std::shared_ptr<const void> lasting = nullptr;
};

using PairObserver = std::function<void(const PointPair&)>;

// What each of the candidate's tensors is overwritten with once it has been compared.
enum class Overwrite {
  kReference,  // the reference's: lock-step, errors are local
  // what it just showed: changes nothing in an engine that computes with what it shows; errors are
  // accumulated
  kItself,
  kNothing,  // errors are accumulated
};

struct LockStepOptions {
  stages::ModelShape shape;
  int64_t n_layers = 0;
  bool fused_attention = false;  // of either engine: the context is held against the bound of such
  Overwrite overwrite = Overwrite::kReference;
  // May be empty. Called for every pair, in the candidate's order.
  std::function<Status(const PointPair&)> on_pair;
  // May be empty. Called for everything an engine hands over, in its own order, before it is
  // compared; side 0 is the candidate. Then each engine is asked for all stages that it shows, not
  // only for those that both do.
  std::function<Status(int side, const host::Event&)> on_event;
  // May be empty. Called for values of the reference's that last (host::TensorRef) when they are no
  // longer needed.
  std::function<void(std::span<const float>)> on_used;
};

// Which points two engines are expected to show.
struct PointPlan {
  using Point = std::pair<int32_t, int32_t>;  // stage and layer, -1 of a stage that is of none
  std::vector<int32_t> compared;              // stages that both show, in a layer at least
  std::set<Point> points;                     // of those, that both show
  // Of those the ones whose inputs are not equal in lock-step though they are compared: an input that
  // is hidden in one of the engines was never overwritten. Their errors are not their own.
  std::set<Point> unequal;
  std::vector<int32_t> shown[2];  // stages each shows
  // "ffn_act: reference: computed inside the gated product", "q_proj in 3 of 4 layers: ..."
  std::vector<std::string> unobservable;
  // a stage one engine has and the other's architecture lacks
  std::vector<std::string> one_sided;
  // Points of one pass that are judged.
  int64_t Expected() const { return static_cast<int64_t>(points.size() - unequal.size()); }
};
PointPlan PlanPoints(const std::vector<host::StageVisibility>& candidate,
                     const std::vector<host::StageVisibility>& reference, int64_t n_layers);

// What one sequence gave.
struct LockStepResult {
  std::vector<compare::PointRow>
      rows;  // in dependency order, one for each point (or piece of its rows) of each pass
  // "prompt 0, step 0, layer 3, q_rope: the reference did not show it"
  std::vector<std::string> missing;
  // Candidate, reference: as evaluated here, all rows in order of position. In lock-step the digest
  // below tells what there is to tell: empty.
  std::string logits_sha256[2];
  Blake3Digest logits_blake3[2];
  // The reference's, as shown at the tracepoint `logits`; in lock-step what the candidate's was
  // overwritten with.
  Blake3Digest shown_blake3;
};

// Drives two open sessions (at position 0) over a sequence in passes. Where there are processors for
// both, the reference runs ahead of the candidate by at most one layer and then waits, and a point
// is compared while the candidate computes on; else one computes at a time. Positions, steps and chunks are the caller's:
// one call of Pass is one evaluation in both engines.
class LockStep {
 public:
  LockStep(Participant& candidate, Participant& reference, PointPlan plan, LockStepOptions options);
  ~LockStep();

  // Evaluates tokens at first_position in both engines; step 0 is the prefill. An engine's failure
  // is noted by its participant.
  Status Pass(std::span<const int32_t> tokens, int32_t first_position, int32_t prompt, int32_t step);
  // The result so far, complete after the last pass.
  LockStepResult Finish();

 private:
  struct State;
  Status Candidate(const host::Event& event);
  Status PullReference();
  Status OnReferenceEvent(const host::Event& event);
  void TakeLogits(int side, const host::Event& event);
  // point: stage, layer
  void Missing(const std::pair<int32_t, int32_t>& point, const std::string& why);
  Result<bool> CandidateReady();
  Status Observe(int side, const host::Event& event);
  bool IsCompared(const host::Event& event) const;
  Status GoOnWithReference();
  Status GoOnWithCandidate(const host::Event& event, std::span<const float> reference);
  Status CompareAndGoOn(const host::Event& event, std::span<const float> reference,
                        const std::shared_ptr<const void>& lasting);
  Status Compare(const host::Event& event, std::span<const float> reference,
                 const std::shared_ptr<const void>& lasting);

  Participant& candidate_;
  Participant& reference_;
  PointPlan plan_;
  LockStepOptions options_;
  // Both may compute at the same time; else each stands while the other does.
  bool side_by_side_;
  std::unique_ptr<State> state_;
};

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_LOCK_STEP_H_

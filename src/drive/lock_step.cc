// Two engines in lock-step: which points to expect of them, how their tensors meet, and what the
// candidate goes on with.
#include "drive/lock_step.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include "base/sha256.h"
#include "stages/stages.h"

namespace pb::drive {
namespace {

using Key = std::pair<int32_t, int32_t>;  // (stage, layer)

// Of the reference's, tensors of up to this many bytes are copied where they come before they are
// needed, so that it goes on computing meanwhile. Before a larger one it stands still.
constexpr size_t kCopiedBytes = 32 << 20;

int64_t Features(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (size_t i = 1; i < shape.size(); i++) n *= shape[i];
  return n;
}

// A point's rows as they arrive; an engine may show them in several pieces. Of rows that the
// candidate has been compared with none are held when the next piece arrives.
struct Tensor {
  std::vector<int64_t> shape;  // of all rows that have arrived
  int64_t first = 0;           // of these, the one that the values begin with
  std::vector<float> values;
  std::span<const float> in_place;      // in place of values, while they can be read where they lie
  std::shared_ptr<const void> lasting;  // what they are part of there, if they outlive their event
  int64_t n_taken = 0;                  // rows the candidate has been compared with

  std::span<const float> Rows(int64_t begin, int64_t n) const {
    const std::span<const float> held = in_place.empty() ? std::span(values) : in_place;
    const int64_t features = Features(shape);
    return held.subspan(static_cast<size_t>((begin - first) * features), static_cast<size_t>(n * features));
  }
  std::span<const float> Untaken() const { return Rows(n_taken, shape[0] - n_taken); }
};

bool SameRows(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  return a.size() == b.size() && std::equal(a.begin() + 1, a.end(), b.begin() + 1);
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

// Place of a layer among all: embeddings, layers, outer stages.
int32_t LayerOrder(int32_t stage, int32_t layer, int64_t n_layers) {
  if (layer >= 0) return layer + 1;
  return stage == PB_STAGE_EMBEDDINGS ? 0 : static_cast<int32_t>(n_layers) + 1;
}

// Ops of their own wherever they are hidden, with a rounding of their own, and no part of the op
// that reads them: what reads weights, the rotation before keys are cached, and the choice of experts.
constexpr stages::Set kStandAlone = stages::kProducts | stages::kExpertProducts | stages::kNorms |
                                    stages::kRotary | stages::OfGroup(stages::Group::kSelect) |
                                    stages::Set(PB_STAGE_EMBEDDINGS);

using Stages = std::vector<host::StageVisibility>;
using Point = PointPlan::Point;

// How two engines together show the stages of each layer.
class Seen {
 public:
  Seen(const Stages& candidate, const Stages& reference, int64_t n_layers)
      : of_{&candidate, &reference}, n_layers_(static_cast<int32_t>(n_layers)) {}

  pb_visibility OfSide(int side, const Point& at) const {
    return (*of_[side])[static_cast<size_t>(at.first)].At(static_cast<pb_stage>(at.first), at.second);
  }
  pb_visibility Of(const Point& at) const {
    const pb_visibility c = OfSide(0, at), r = OfSide(1, at);
    return c == r && c != PB_UNOBSERVABLE ? c : PB_UNOBSERVABLE;
  }
  // Whether both compute more before a point than the stages that they show; what one alone does is a difference to be judged.
  bool Apart(const Point& at) const {
    return std::ranges::all_of(of_, [&](const Stages* of) {
      return std::ranges::binary_search((*of)[static_cast<size_t>(at.first)].apart, at.second);
    });
  }
  // What is read where a stage reads another; what enters the first layer are the embeddings.
  Point Read(pb_stage stage, bool previous_layer, int32_t reader) const {
    if (!pb_vocabulary[stage].per_layer) return {stage, -1};
    const int32_t layer = !previous_layer ? reader : (reader < 0 ? n_layers_ : reader) - 1;
    return layer < 0 && previous_layer ? Point{PB_STAGE_EMBEDDINGS, -1} : Point{stage, layer};
  }
  std::vector<int32_t> Layers(int32_t stage) const {
    if (!pb_vocabulary[stage].per_layer) return {-1};
    std::vector<int32_t> layers(static_cast<size_t>(n_layers_));
    std::iota(layers.begin(), layers.end(), 0);
    return layers;
  }

 private:
  const Stages* of_[2];
  int32_t n_layers_;
};

// Which hidden stage keeps a point's inputs from being equal in both engines; unmapped: none does.
// In place of any other hidden stage, which is computed inside the op that reads it, stand that
// stage's own inputs, and so in place of one that neither engine has. `known`: points that were
// looked into.
Point HiddenInput(const Point& point, const Seen& seen, std::set<Point>* known) {
  for (const stages::InputSpec& spec : stages::Of(point.first).inputs) {
    const auto read = [&](int i) { return seen.Read(spec.stages[i], spec.previous_layer[i], point.second); };
    int chosen = 0;
    while (chosen + 1 < spec.n_stages && seen.Of(read(chosen)) == PB_ABSENT) chosen++;
    const Point input = read(chosen);
    if (seen.Of(input) == PB_OBSERVED || !known->insert(input).second) continue;
    if (seen.Of(input) == PB_UNOBSERVABLE && kStandAlone.Contains(input.first)) return input;
    if (const Point hidden = HiddenInput(input, seen, known); hidden.first != PB_STAGE_UNMAPPED)
      return hidden;
  }
  return {PB_STAGE_UNMAPPED, -1};
}

// "q_proj", or "q_proj in 3 of 4 layers".
std::string InLayers(int32_t stage, size_t n, size_t of) {
  const char* name = pb_vocabulary[stage].name;
  return n == of ? name : fmt::format("{} in {} of {} layers", name, n, of);
}

// Names the ops that are compared and cannot be judged.
void FindUnequal(const Seen& seen, PointPlan* plan) {
  for (const int32_t s : plan->compared) {
    size_t n_compared = 0, n_unequal = 0;
    std::string why;
    for (const int32_t layer : seen.Layers(s)) {
      if (!plan->points.contains({s, layer})) continue;
      ++n_compared;
      std::set<Point> known;
      const Point hidden = HiddenInput({s, layer}, seen, &known);
      if (hidden.first == PB_STAGE_UNMAPPED && !seen.Apart({s, layer})) continue;
      ++n_unequal;
      plan->unequal.insert({s, layer});
      if (!why.empty()) continue;
      why = hidden.first == PB_STAGE_UNMAPPED
                ? "neither engine shows all ops between it and what it reads"
                : fmt::format("it reads {}, which the {} does not show, so its inputs are not equal",
                              pb_vocabulary[hidden.first].name,
                              seen.OfSide(1, hidden) != PB_OBSERVED ? "reference" : "candidate");
    }
    if (n_unequal > 0)
      plan->unobservable.push_back(
          fmt::format("{}: not judged by its own error: {}", InLayers(s, n_unequal, n_compared), why));
  }
}

}  // namespace

PointPlan PlanPoints(const Stages& candidate, const Stages& reference, int64_t n_layers) {
  PointPlan plan;
  const Seen seen(candidate, reference, n_layers);
  for (int32_t s = 0; s < PB_STAGE_COUNT; s++) {
    const auto& c = candidate[static_cast<size_t>(s)];
    const auto& r = reference[static_cast<size_t>(s)];
    if (c.visibility == PB_OBSERVED) plan.shown[0].push_back(s);
    if (r.visibility == PB_OBSERVED) plan.shown[1].push_back(s);
    const std::vector<int32_t> layers = seen.Layers(s);
    size_t n_lacking[2] = {0, 0}, n_hidden[2] = {0, 0}, n_shown = 0;
    for (const int32_t layer : layers) {
      const pb_visibility of[2] = {seen.OfSide(0, {s, layer}), seen.OfSide(1, {s, layer})};
      if (of[0] == PB_OBSERVED && of[1] == PB_OBSERVED) {
        plan.points.insert({s, layer});
        n_shown++;
      } else if (of[0] == PB_ABSENT || of[1] == PB_ABSENT) {
        if (of[0] != of[1]) n_lacking[of[0] == PB_ABSENT ? 0 : 1]++;
      } else {
        n_hidden[of[1] != PB_OBSERVED ? 1 : 0]++;
      }
    }
    if (n_shown > 0) plan.compared.push_back(s);
    constexpr const char* kSides[] = {"candidate", "reference"};
    for (int side : {0, 1}) {
      const std::string& reason = (side == 0 ? c : r).reason;
      if (n_lacking[side] > 0)
        plan.one_sided.push_back(fmt::format("{}: {}: {}", InLayers(s, n_lacking[side], layers.size()),
                                             kSides[side], reason.empty() ? "has no such op" : reason));
      if (n_hidden[side] > 0)
        plan.unobservable.push_back(
            fmt::format("{}: {}: {}", InLayers(s, n_hidden[side], layers.size()), kSides[side], reason));
    }
  }
  FindUnequal(seen, &plan);
  return plan;
}

struct LockStep::State {
  LockStepResult result;
  Sha256 logits_sha256[2];
  Blake3 logits[2], shown;  // shown: by the reference
  // Of the pass at hand.
  int32_t prompt = 0, step = 0, first_position = 0;
  int64_t n_tokens = 0;
  std::map<Key, Tensor> waiting;   // reference tensors the candidate has not reached
  std::map<Key, int64_t> n_shown;  // rows of each that the reference has shown
  int32_t candidate_order = 0, reference_order = 0;
  bool reference_done = false;
  bool reference_stands = false;  // at an event that was taken, until more is needed of it
  std::optional<Key> stands_at;   // then: the tensor that is read in the engine's memory
  bool reference_lasts = false;   // what it shows need not be computed: nothing is gained ahead of need
  // Memory of tensors that are done with, for those to come.
  std::vector<std::vector<float>> spare;

  void Recycle(std::vector<float> values) {
    constexpr size_t kMost = 32;
    values.clear();
    if (values.capacity() > 0 && spare.size() < kMost) spare.push_back(std::move(values));
  }

  // Memory for n values of a tensor: where there is, what holds them without growing.
  std::vector<float> Spare(size_t n) {
    if (spare.empty()) return {};
    auto best = std::ranges::find_if(spare, [n](const auto& values) { return values.capacity() >= n; });
    if (best == spare.end()) --best;
    std::vector<float> values = std::move(*best);
    spare.erase(best);
    return values;
  }

  // Copies what lies in the engine's memory, before the engine goes on.
  void TakeOver(Tensor* t) {
    if (t->in_place.empty()) return;
    const std::span<const float> rows = t->Untaken();
    t->values = Spare(rows.size());
    t->values.assign(rows.begin(), rows.end());
    t->in_place = {};
    t->first = t->n_taken;
  }

  // Lets go of the rows that were taken.
  static void Drop(Tensor* t) {
    if (!t->in_place.empty()) return;
    t->values.erase(t->values.begin(), t->values.end() - static_cast<ptrdiff_t>(t->Untaken().size()));
    t->first = t->n_taken;
  }

  // Bytes of the reference's that wait for the candidate.
  size_t Waiting() const {
    size_t n = 0;
    for (const auto& [key, tensor] : waiting) n += tensor.values.size() * sizeof(float);
    return n;
  }
};

LockStep::LockStep(Participant& candidate, Participant& reference, PointPlan plan, LockStepOptions options)
    : candidate_(candidate),
      reference_(reference),
      plan_(std::move(plan)),
      options_(std::move(options)),
      side_by_side_(MayRunSideBySide(candidate.record(), reference.record())),
      state_(new State) {}

LockStep::~LockStep() = default;

// An error is of who watches, not of the engine.
Status LockStep::Observe(int side, const host::Event& event) {
  return options_.on_event && event.kind != host::Event::kDone ? options_.on_event(side, event) : Status();
}

bool LockStep::IsCompared(const host::Event& event) const {
  return plan_.points.contains({event.point.stage, event.point.layer});
}

void LockStep::Missing(const std::pair<int32_t, int32_t>& point, const std::string& why) {
  state_->result.missing.push_back(fmt::format("prompt {}, step {}, layer {}, {}: {}", state_->prompt,
                                               state_->step, point.second, pb_vocabulary[point.first].name,
                                               why));
}

void LockStep::TakeLogits(int side, const host::Event& event) {
  const auto bytes = std::as_bytes(event.tensor.data);
  state_->logits[side].Update(bytes);
  if (options_.overwrite != Overwrite::kReference) state_->logits_sha256[side].Update(bytes);
}

Status LockStep::GoOnWithReference() {
  state_->reference_stands = !side_by_side_;
  return side_by_side_ ? reference_.Noted(reference_.engine().Continue()) : Status();
}

Status LockStep::OnReferenceEvent(const host::Event& event) {
  State& s = *state_;
  if (event.kind == host::Event::kDone) {
    s.reference_done = true;
    return {};
  }
  if (event.kind == host::Event::kLogits) {
    TakeLogits(1, event);
    if (event.tensor.lasting && options_.on_used) options_.on_used(event.tensor.data);
  } else if (IsCompared(event)) {
    const auto& shape = event.tensor.shape;
    if (event.point.stage == PB_STAGE_LOGITS) s.shown.Update(std::as_bytes(event.tensor.data));
    // Only the last piece of a pass tells how far the reference is.
    if (event.point.first_position + shape[0] >= s.first_position + s.n_tokens) {
      s.reference_order =
          std::max(s.reference_order, LayerOrder(event.point.stage, event.point.layer, options_.n_layers));
    }
    // Each row once and in order, whether or not the candidate has been there already: what is
    // shown twice is no evidence.
    const Key key{event.point.stage, event.point.layer};
    int64_t& n_shown = s.n_shown[key];
    const int64_t begin = event.point.first_position - s.first_position;
    const auto before = s.waiting.find(key);
    if (before != s.waiting.end() && !SameRows(shape, before->second.shape)) {
      Missing(key, fmt::format("the reference showed rows of shape {} and of {}",
                               ShapeText(before->second.shape), ShapeText(shape)));
      return GoOnWithReference();
    }
    if (begin != n_shown || begin + shape[0] > s.n_tokens) {
      Missing(key, fmt::format("the reference showed rows {} to {} where row {} of {} was due", begin,
                               begin + shape[0], n_shown, s.n_tokens));
      return GoOnWithReference();
    }
    n_shown += shape[0];
    Tensor& t = s.waiting[key];
    if (t.shape.empty()) t.shape = shape, t.shape[0] = 0;
    const bool fresh = t.n_taken == t.shape[0];  // nothing of it is held that is still needed
    // Rows that lie behind those that are held, in memory that lasts, need not be moved to be held.
    if (!fresh && event.tensor.lasting && event.tensor.lasting == t.lasting && !t.in_place.empty() &&
        t.in_place.data() + t.in_place.size() == event.tensor.data.data()) {
      t.in_place = {t.in_place.data(), t.in_place.size() + event.tensor.data.size()};
      t.shape[0] += shape[0];
      return GoOnWithReference();
    }
    const bool small = side_by_side_ && event.tensor.data.size_bytes() <= kCopiedBytes;
    if (fresh) {
      t.first = begin;
      t.values.clear();
      t.in_place = {};
    } else {
      s.TakeOver(&t);
      s.Drop(&t);
    }
    t.shape[0] += shape[0];
    if (fresh && (event.tensor.lasting || !small)) {
      s.Recycle(std::move(t.values));
      t.in_place = event.tensor.data, t.lasting = event.tensor.lasting;
      if (event.tensor.lasting) return GoOnWithReference();
      s.reference_stands = true;
      s.stands_at = key;
      return {};
    }
    if (fresh && t.values.capacity() == 0) t.values = s.Spare(event.tensor.data.size());
    t.values.insert(t.values.end(), event.tensor.data.begin(), event.tensor.data.end());
  }
  return GoOnWithReference();
}

// Takes the reference's next event.
Status LockStep::PullReference() {
  if (state_->reference_stands) {
    state_->reference_stands = false;
    if (state_->stands_at) {
      auto found = state_->waiting.find(*state_->stands_at);
      if (found != state_->waiting.end()) state_->TakeOver(&found->second);
      state_->stands_at.reset();
    }
    PB_TRY(reference_.Noted(reference_.engine().Continue()));
  }
  auto event = reference_.engine().Wait();
  if (!event.ok()) return reference_.Noted(std::move(event).error());
  state_->reference_lasts = event->tensor.lasting != nullptr;
  PB_TRY(Observe(1, *event));
  return OnReferenceEvent(*event);
}

Status LockStep::Compare(const host::Event& event, std::span<const float> reference,
                         const std::shared_ptr<const void>& lasting) {
  State& s = *state_;
  const std::span<const float> candidate = event.tensor.data;
  const std::vector<int64_t>& shape = event.tensor.shape;
  const int64_t features = Features(shape);
  const auto stage = static_cast<pb_stage>(event.point.stage);
  const int64_t n_positions = s.first_position + s.n_tokens;
  const compare::LocalBound bound = options_.fused_attention && stage == PB_STAGE_ATTN_CONTEXT
                                        ? compare::FusedAttentionBound(n_positions)
                                        : compare::BoundOf(stage, options_.shape, n_positions);
  const compare::PointPlace place{s.prompt, s.step, stage, event.point.layer, event.point.first_position};
  PB_ASSIGN(compare::PointRow row, compare::ComparePoint({candidate, shape[0], features},
                                                         {reference, shape[0], features}, place, bound));
  // In a free run errors are described, whatever they come from.
  const bool judged =
      options_.overwrite != Overwrite::kReference || !plan_.unequal.contains({stage, event.point.layer});
  if (!judged) {
    row.bound = row.bound_ratio = 0;
    row.first_row_above = -1, row.feature_alone = false;
  }
  if (options_.on_pair)
    PB_TRY(options_.on_pair({event.point, shape, candidate, reference, &row, &bound, lasting}));
  if (judged) s.result.rows.push_back(std::move(row));
  return {};
}

// Lets the candidate go on from a point; `reference` is empty where there is nothing to put there.
Status LockStep::GoOnWithCandidate(const host::Event& event, std::span<const float> reference) {
  host::Engine& engine = candidate_.engine();
  if (options_.overwrite == Overwrite::kItself) return candidate_.Noted(engine.Overwrite(event.tensor.data));
  const bool goes_on = options_.overwrite == Overwrite::kNothing || reference.empty();
  return candidate_.Noted(goes_on ? engine.Continue() : engine.Overwrite(reference));
}

// Compares a point with rows of the reference's, and lets the candidate go on: before that, where
// both may run.
Status LockStep::CompareAndGoOn(const host::Event& event, std::span<const float> reference,
                                const std::shared_ptr<const void>& lasting) {
  if (side_by_side_) PB_TRY(GoOnWithCandidate(event, reference));
  PB_TRY(Compare(event, reference, lasting));
  return side_by_side_ ? Status() : GoOnWithCandidate(event, reference);
}

// Handles a point, or a piece of its rows, at which the candidate stands.
Status LockStep::Candidate(const host::Event& event) {
  State& s = *state_;
  const Key key{event.point.stage, event.point.layer};
  const auto& shape = event.tensor.shape;
  const int64_t begin = event.point.first_position - s.first_position, end = begin + shape[0];
  s.candidate_order = LayerOrder(event.point.stage, event.point.layer, options_.n_layers);
  auto arrived = [&] {
    auto found = s.waiting.find(key);
    return found != s.waiting.end() && found->second.shape[0] >= end;
  };
  // What the reference has not shown by the end of the next layer it will not show.
  while (!arrived() && !s.reference_done && s.reference_order <= s.candidate_order + 1)
    PB_TRY(PullReference());
  auto found = s.waiting.find(key);
  if (found == s.waiting.end()) {
    Missing(key, s.n_shown[key] == 0
                     ? "the reference did not show it"
                     : fmt::format("the candidate showed rows {} to {} once more", begin, end));
    return GoOnWithCandidate(event, {});
  }
  Tensor& t = found->second;
  if (!arrived() || !SameRows(shape, t.shape)) {
    Missing(key, fmt::format("rows {} to {} of shape {} against the reference's {}", begin, end,
                             ShapeText(shape), ShapeText(t.shape)));
    return GoOnWithCandidate(event, {});
  }
  if (begin != t.n_taken) {
    Missing(key,
            fmt::format("the candidate showed rows {} to {} where row {} was due", begin, end, t.n_taken));
    return GoOnWithCandidate(event, {});
  }
  const std::span<const float> reference = t.Rows(begin, shape[0]);
  const auto lasting = t.in_place.empty() ? nullptr : t.lasting;
  PB_TRY(CompareAndGoOn(event, reference, lasting));
  if (lasting && options_.on_used) options_.on_used(reference);
  t.n_taken += shape[0];
  if (t.n_taken == s.n_tokens) {
    s.Recycle(std::move(t.values));
    s.waiting.erase(found);
  }
  return {};
}

// Waits until the candidate has something to say, letting the reference run ahead by at most one
// layer, and a few tensors, meanwhile.
Result<bool> LockStep::CandidateReady() {
  State& s = *state_;
  for (; side_by_side_;) {
    const bool may_run = !s.reference_done && !s.reference_lasts &&
                         s.reference_order <= s.candidate_order + 1 && s.Waiting() < kCopiedBytes;
    pollfd fds[2] = {{candidate_.engine().ready_fd(), POLLIN, 0},
                     {reference_.engine().ready_fd(), POLLIN, 0}};
    const int n = ::poll(fds, may_run ? 2 : 1, 1000);
    if (n <= 0 || fds[0].revents) return true;  // on silence the candidate's own limit decides
    PB_TRY(PullReference());
  }
  return true;
}

Status LockStep::Pass(std::span<const int32_t> tokens, int32_t first_position, int32_t prompt, int32_t step) {
  State& s = *state_;
  s.prompt = prompt, s.step = step, s.first_position = first_position,
  s.n_tokens = static_cast<int64_t>(tokens.size());
  s.waiting.clear(), s.n_shown.clear();
  s.candidate_order = s.reference_order = 0;
  s.reference_done = s.reference_stands = false;
  s.stands_at.reset();
  host::EvalRequest request;
  request.tokens.assign(tokens.begin(), tokens.end());
  request.first_position = first_position;
  auto begin = [&](int side, Participant& engine) {
    request.tap.stages = options_.on_event ? plan_.shown[side] : plan_.compared;
    request.tap.outputs = !request.tap.stages.empty();
    return engine.Noted(engine.engine().BeginEval(request));
  };
  PB_TRY(begin(1, reference_));
  PB_TRY(begin(0, candidate_));
  for (bool done = false; !done;) {
    PB_TRY(CandidateReady());
    auto event = candidate_.engine().Wait();
    if (!event.ok()) return candidate_.Noted(std::move(event).error());
    PB_TRY(Observe(0, *event));
    switch (event->kind) {
      case host::Event::kDone:
        done = true;
        break;
      case host::Event::kLogits:
        TakeLogits(0, *event);
        PB_TRY(candidate_.Noted(candidate_.engine().Continue()));
        break;
      case host::Event::kPoint:
        PB_TRY(IsCompared(*event) ? Candidate(*event) : candidate_.Noted(candidate_.engine().Continue()));
        break;
    }
  }
  while (!s.reference_done) PB_TRY(PullReference());
  for (const auto& [key, tensor] : s.waiting)
    Missing(key, fmt::format("the candidate showed {} of {} rows", tensor.n_taken, s.n_tokens));
  return {};
}

LockStepResult LockStep::Finish() {
  LockStepResult result = std::move(state_->result);
  for (int side : {0, 1}) {
    if (options_.overwrite != Overwrite::kReference)
      result.logits_sha256[side] = state_->logits_sha256[side].Hex();
    result.logits_blake3[side] = state_->logits[side].Finish();
  }
  result.shown_blake3 = state_->shown.Finish();
  std::stable_sort(result.rows.begin(), result.rows.end(), compare::ComesBefore);
  return result;
}

}  // namespace pb::drive

// The search: what is tried in which order, how agreement is judged, and how the set is made
// minimal.
#include "inject/injection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>

#include "base/file.h"
#include "compare/logits.h"
#include "drive/lent_weights.h"
#include "drive/participant.h"
#include "inject/injected_run.h"
#include "inject/minimise.h"
#include "noise/meter.h"

namespace pb::inject {
namespace {

using Points = std::vector<InjectionPoint>;
constexpr int kCandidate = 0, kReference = 1;

// Embeddings, layers in order, outer stages; within a layer the order of the vocabulary, which is
// that of dependency.
bool Before(const InjectionPoint& a, const InjectionPoint& b) {
  auto place = [](const InjectionPoint& p) {
    return std::tuple(stages::LayerOrder(p.stage, p.layer), p.stage);
  };
  return place(a) < place(b);
}

// The donor's tensor in place of one of these hides everything before it.
bool IsCut(int32_t stage) { return stages::kCuts.Contains(stage); }

class InjectionSearch {
 public:
  explicit InjectionSearch(const InjectionRequest& request)
      : request_(request),
        to_(request.into_reference ? kReference : kCandidate),
        from_(1 - to_),
        sides_{{records_[0], request.limits}, {records_[1], request.limits}},
        oracle_(oracle_record_, request.limits) {}

  Result<InjectionResult> Run();

 private:
  Status Open();
  Status OpenEngine(drive::Participant& engine, const drive::EngineSpec& spec,
                    const std::filesystem::path& model, const char* role, host::Settings* session);
  Status OpenTrace();
  Status KeepOtherLogits();
  Status MeasureLimits();
  Status PrepareDonor();
  void ListPoints();
  Status Search();
  Result<std::optional<Points>> FirstThatRestores();
  Result<Points> Smallest(const Points& whole, bool by_stage);
  Status TryCuts();
  Status ShowNecessity();
  Result<bool> Restores(const Points& points) {
    PB_ASSIGN(const InjectionTrial* trial, Try(points));
    return trial->restores;
  }
  Result<const InjectionTrial*> Try(Points points);
  Status CompareRow(int32_t position, std::span<const float> row, InjectionTrial* trial);
  // The points of a set, stage by stage, in dependency order.
  std::vector<Points> ByStage(const Points& points) const;

  const InjectionRequest& request_;
  int to_, from_;
  drive::EngineRecord records_[2], oracle_record_;
  drive::Participant sides_[2], oracle_;
  host::Settings session_[2], oracle_session_;
  std::optional<trace::Trace> trace_;
  std::vector<int32_t> tokens_;
  std::vector<drive::Pass> passes_;       // of tokens_, or of the trace's steps
  std::optional<drive::RowStore> other_;  // the other engine's logits
  double mean_limit_ = 0, worst_limit_ = 0, gap_limit_ = 0;
  std::unique_ptr<Donor> donor_;
  std::optional<InjectedRun> run_;
  Points all_;
  std::map<Points, InjectionTrial> known_;
  bool gave_up_ = false;
  InjectionResult out_;
};

Status InjectionSearch::OpenEngine(drive::Participant& engine, const drive::EngineSpec& spec,
                                   const std::filesystem::path& model, const char* role,
                                   host::Settings* session) {
  const_cast<drive::EngineRecord&>(engine.record()).role = role;
  PB_TRY(engine.Start(spec));
  PB_TRY(engine.OpenModel(model));
  const size_t room = std::max<size_t>(tokens_.size(), compare::kMinNoisePositions);
  PB_ASSIGN(*session, engine.OpenSessionWishing(drive::SessionWishes(spec.settings, room)));
  return {};
}

// Tokens and passes are those of the trace.
Status InjectionSearch::OpenTrace() {
  PB_ASSIGN(trace::Trace trace, trace::Trace::Open(request_.trace));
  tokens_.clear();
  for (const trace::Step& step : trace.steps()) {
    if (step.first_position != static_cast<int32_t>(tokens_.size()))
      return MakeError(Code::kUnsupported, "{}: a step begins at position {} where {} is due",
                       request_.trace.string(), step.first_position, tokens_.size());
    tokens_.insert(tokens_.end(), step.tokens.begin(), step.tokens.end());
  }
  trace_.emplace(std::move(trace));
  for (const trace::Step& step : trace_->steps())
    passes_.push_back({step.seq, step.first_position, step.tokens});
  return {};
}

Status InjectionSearch::Open() {
  tokens_ = request_.tokens;
  if (!request_.trace.empty()) PB_TRY(OpenTrace());
  if (tokens_.empty()) return MakeError(Code::kUsage, "injection: there are no tokens to evaluate");
  const std::filesystem::path& second =
      request_.reference_model.empty() ? request_.model : request_.reference_model;
  const std::filesystem::path* models[2] = {&request_.model, &second};
  const drive::EngineSpec* specs[2] = {&request_.candidate, &request_.reference};
  const char* roles[2] = {"candidate", "reference"};
  for (int side : {kReference, kCandidate}) {
    if (trace_ && side == from_) continue;
    PB_TRY(OpenEngine(sides_[side], *specs[side], *models[side], roles[side], &session_[side]));
  }
  if (!request_.oracle.plugin.empty()) {
    drive::EngineSpec oracle = request_.oracle;
    const std::filesystem::path lenders[] = {specs[1]->plugin, specs[0]->plugin};
    if (auto model = drive::OpenModel(*models[to_], {}, lenders, request_.limits); model.ok())
      drive::PutDecoder(**model, &oracle.settings);
    PB_TRY(OpenEngine(oracle_, oracle, *models[to_], "oracle", &oracle_session_));
  }
  if (!trace_)
    PB_TRY(drive::ForEachPass(tokens_, drive::PassRows({&records_[0], &records_[1]}), drive::NoSteps(),
                              [&](const drive::Pass& pass) { return passes_.push_back(pass), Status(); }));
  if (!(sides_[to_].engine().capabilities() & PB_CAP_OVERWRITE))
    return MakeError(Code::kUnsupported, "the {} cannot be overwritten, so nothing can be put into it",
                     roles[to_]);
  out_.kind = request_.kind;
  out_.recipient = roles[to_];
  out_.other = trace_ ? "trace " + request_.trace.string() : roles[from_];
  out_.donor = request_.oracle.plugin.empty() ? out_.other : "oracle";
  out_.n_layers = records_[to_].model_facts().n_layers;
  return {};
}

// What the recipient's logits are compared with.
Status InjectionSearch::KeepOtherLogits() {
  if (!trace_) {
    PB_ASSIGN(drive::RowStore rows, drive::EvaluateAll(sides_[from_], session_[from_],
                                                       {tokens_, static_cast<int32_t>(tokens_.size())}));
    other_.emplace(std::move(rows));
    return {};
  }
  for (const trace::Record& record : trace_->records()) {
    if (record.stage_id != PB_STAGE_LOGITS || record.payload_file.empty() || record.shape.size() != 2)
      continue;
    if (!other_) {
      PB_ASSIGN(drive::RowStore rows,
                drive::RowStore::Create(static_cast<int64_t>(tokens_.size()), record.shape[1]));
      other_.emplace(std::move(rows));
    }
    if (record.first_position != other_->n_rows()) break;
    PB_ASSIGN(std::vector<float> values, trace_->Payload(record));
    PB_TRY(other_->Append(values));
  }
  if (other_ && other_->n_rows() == static_cast<int64_t>(tokens_.size())) return {};
  return MakeError(Code::kUnsupported, "{}: holds the logits of {} of {} positions", request_.trace.string(),
                   other_ ? other_->n_rows() : 0, tokens_.size());
}

Status InjectionSearch::MeasureLimits() {
  const compare::UserLimits& user = request_.user;
  auto by_user = [&](const char* name, double value) {
    return compare::Limit{name, value, "nats", user.origin, true};
  };
  std::optional<compare::NoiseFloor> floor;
  if (!user.kl_mean || !user.kl_worst || !user.gap_change) {
    // The reference's floor; beside its stored trace the engine that is at hand.
    const int side = trace_ ? to_ : kReference;
    noise::NoiseMeter meter(sides_[side], session_[side], request_.n_noise_runs, 0, false,
                            CacheDir() / "noise", request_.progress);
    PB_TRY(meter.Measure({tokens_, static_cast<int32_t>(tokens_.size())}, nullptr));
    PB_TRY(meter.Calibrate(request_.calibration));
    floor = meter.Floor();
    PB_TRY(compare::CheckNoiseFloor(*floor));
  }
  const auto n = static_cast<int64_t>(tokens_.size());
  out_.limits = {
      user.kl_mean ? by_user("kl.mean", *user.kl_mean) : compare::MeanKlLimit(*floor, n, "kl.mean"),
      user.kl_worst ? by_user("kl.worst", *user.kl_worst) : compare::WorstKlLimit(*floor),
      user.gap_change ? by_user("gap.change", *user.gap_change) : compare::GapLimit(*floor)};
  mean_limit_ = out_.limits[0].value, worst_limit_ = out_.limits[1].value, gap_limit_ = out_.limits[2].value;
  return {};
}

Status InjectionSearch::PrepareDonor() {
  const bool by_oracle = !request_.oracle.plugin.empty();
  if (request_.kind == InjectionKind::kTensor) {
    if (by_oracle)
      return MakeError(Code::kUsage,
                       "injection of tensors: they come from the other engine's free run, not the oracle");
    if (trace_) {
      PB_ASSIGN(donor_, TensorDonor::FromTrace(*trace_));
      return {};
    }
    PB_TRY(sides_[from_].OpenSession(session_[from_], false));
    PB_ASSIGN(donor_, TensorDonor::Record(sides_[from_].engine(), passes_, {}));
    return {};
  }
  if (trace_ && !by_oracle)
    return MakeError(
        Code::kUsage,
        "injection of ops beside a stored trace: name the oracle as donor, a trace computes nothing");
  drive::Participant& from = by_oracle ? oracle_ : sides_[from_];
  PB_TRY(from.OpenSession(by_oracle ? oracle_session_ : session_[from_], false));
  std::unique_ptr<TensorDonor> embeddings;
  if (from.engine().capabilities() & PB_CAP_OUTPUTS) {
    PB_ASSIGN(embeddings, TensorDonor::Record(from.engine(), passes_, {PB_STAGE_EMBEDDINGS}));
  }
  PB_ASSIGN(donor_, OpDonor::Create(from.engine(), std::move(embeddings)));
  return {};
}

// Every point that the recipient shows and the donor has.
void InjectionSearch::ListPoints() {
  auto stages = sides_[to_].engine().Stages();
  for (int32_t s = 0; stages.ok() && s < PB_STAGE_COUNT; s++) {
    const host::StageVisibility& see = (*stages)[static_cast<size_t>(s)];
    if (see.visibility == PB_ABSENT) continue;
    const std::string why = see.visibility == PB_UNOBSERVABLE ? "the recipient: " + see.reason
                                                              : donor_->WhyNot(static_cast<pb_stage>(s));
    if (!why.empty()) {
      out_.left_out.push_back(fmt::format("{}: {}", pb_vocabulary[s].name, why));
    } else if (!pb_vocabulary[s].per_layer) {
      all_.push_back({s, -1});
    } else {
      for (int32_t layer = 0; layer < out_.n_layers; layer++) all_.push_back({s, layer});
    }
  }
  std::sort(all_.begin(), all_.end(), Before);
}

Status InjectionSearch::CompareRow(int32_t position, std::span<const float> row, InjectionTrial* trial) {
  if (position < 0 || position >= other_->n_rows())
    return MakeError(Code::kEngine, "{}: logits of position {} of {}", out_.recipient, position,
                     other_->n_rows());
  const std::span<const float> theirs = other_->Row(position);
  const bool ours_is_candidate = to_ == kCandidate;
  PB_ASSIGN(compare::LogitsRow c,
            compare::CompareLogits(ours_is_candidate ? row : theirs, ours_is_candidate ? theirs : row));
  trial->n_positions++;
  if (!c.finite) return trial->finite = false, Status();
  trial->mean_kl += c.kl;
  trial->n_flips += c.flipped() && !(c.gap_change <= gap_limit_);
  if (c.kl > trial->worst_kl || trial->worst_position < 0)
    trial->worst_kl = c.kl, trial->worst_position = position;
  return {};
}

// One evaluation, unless it was made before.
Result<const InjectionTrial*> InjectionSearch::Try(Points points) {
  std::sort(points.begin(), points.end(), Before);
  if (auto found = known_.find(points); found != known_.end()) return &found->second;
  const auto n = static_cast<int64_t>(known_.size());
  if (n >= request_.max_trials) gave_up_ = true;
  if (gave_up_) return MakeError(Code::kInterrupted, "{} trials were not enough", request_.max_trials);
  if (request_.progress)
    request_.progress("injection: sets tried", n, std::max(n + 1, request_.max_trials / 8));
  InjectionTrial trial;
  trial.points = points;
  PB_TRY(run_->Run({points.begin(), points.end()},
                   [&](int32_t at, std::span<const float> row) { return CompareRow(at, row, &trial); }));
  if (trial.n_positions != static_cast<int64_t>(tokens_.size()))
    return MakeError(Code::kEngine, "{}: {} rows of logits for {} positions", out_.recipient,
                     trial.n_positions, tokens_.size());
  trial.mean_kl /= static_cast<double>(trial.n_positions);
  trial.restores =
      trial.finite && trial.mean_kl <= mean_limit_ && trial.worst_kl <= worst_limit_ && trial.n_flips == 0;
  out_.tried.push_back(trial);
  return &(known_[std::move(points)] = std::move(trial));
}

std::vector<Points> InjectionSearch::ByStage(const Points& points) const {
  std::map<int32_t, Points> stages;
  for (const InjectionPoint& p : points) stages[p.stage].push_back(p);
  std::vector<Points> groups;
  for (auto& [stage, group] : stages) groups.push_back(std::move(group));
  return groups;
}

// A set to begin with: the suspects, else one stage in all layers, else everything that is not a
// mere cut.
Result<std::optional<Points>> InjectionSearch::FirstThatRestores() {
  Points suspects;
  for (const InjectionPoint& p : request_.suspects)
    if (std::find(all_.begin(), all_.end(), p) != all_.end()) suspects.push_back(p);
  if (!suspects.empty()) {
    PB_ASSIGN(bool restores, Restores(suspects));
    if (restores) return std::optional(suspects);
  }
  Points worth_trying = all_;
  if (request_.kind == InjectionKind::kTensor)
    std::erase_if(worth_trying, [](const InjectionPoint& p) { return IsCut(p.stage); });
  for (const Points& group : ByStage(worth_trying)) {
    PB_ASSIGN(bool restores, Restores(group));
    if (restores) return std::optional(group);
  }
  PB_ASSIGN(bool restores, Restores(worth_trying));
  return restores ? std::optional(worth_trying) : std::nullopt;
}

// 1-minimal over stages, or over points.
Result<Points> InjectionSearch::Smallest(const Points& whole, bool by_stage) {
  std::vector<Points> units;
  if (by_stage) {
    units = ByStage(whole);
  } else {
    for (const InjectionPoint& p : whole) units.push_back({p});
  }
  auto points_of = [&](const Subset& subset) {
    Points points;
    for (size_t i : subset) points.insert(points.end(), units[i].begin(), units[i].end());
    return points;
  };
  Subset every;
  for (size_t i = 0; i < units.size(); i++) every.push_back(i);
  PB_ASSIGN(Subset least, Minimise(every, [&](const Subset& s) -> Result<bool> {
              const Points points = points_of(s);
              PB_ASSIGN(bool restores, Restores(points));
              if (restores) out_.found = known_.at(Try(points).value()->points);
              return restores;
            }));
  return points_of(least);
}

// Each tensor that everything later hangs on, alone: from which on do the engines agree?
Status InjectionSearch::TryCuts() {
  for (const InjectionPoint& p : all_) {
    if (!IsCut(p.stage) || p.stage == PB_STAGE_LOGITS) continue;
    PB_ASSIGN(const InjectionTrial* trial, Try({p}));
    out_.cuts.push_back(*trial);
  }
  return {};
}

// What each point of the set found is needed for.
Status InjectionSearch::ShowNecessity() {
  const Points& found = out_.found.points;
  for (size_t i = 0; found.size() > 1 && i < found.size(); i++) {
    Points rest = found;
    rest.erase(rest.begin() + static_cast<ptrdiff_t>(i));
    PB_ASSIGN(const InjectionTrial* trial, Try(rest));
    out_.without.push_back(*trial);
  }
  return {};
}

Status InjectionSearch::Search() {
  using Outcome = InjectionResult::Outcome;
  PB_ASSIGN(const InjectionTrial* before, Try({}));
  out_.before = *before;
  if (before->restores) return out_.outcome = Outcome::kAgrees, Status();
  // Everything at once shows which points the donor refuses.
  PB_ASSIGN(const InjectionTrial* everything, Try(all_));
  out_.everything = *everything;
  for (const auto& [stage, why] : run_->refused()) {
    out_.left_out.push_back(fmt::format("{}: {}", pb_vocabulary[stage].name, why));
    std::erase_if(all_, [stage = stage](const InjectionPoint& p) { return p.stage == stage; });
  }
  if (request_.kind == InjectionKind::kTensor) PB_TRY(TryCuts());
  PB_ASSIGN(std::optional<Points> whole, FirstThatRestores());
  if (!whole) return out_.outcome = Outcome::kNotRestorable, Status();
  PB_ASSIGN(const InjectionTrial* first, Try(*whole));
  out_.found = *first;
  PB_ASSIGN(Points stages, Smallest(*whole, true));
  PB_ASSIGN(Points least, Smallest(stages, false));
  PB_ASSIGN(const InjectionTrial* found, Try(least));
  out_.found = *found;
  PB_TRY(ShowNecessity());
  return out_.outcome = Outcome::kFound, Status();
}

Result<InjectionResult> InjectionSearch::Run() {
  PB_TRY(Open());
  PB_TRY(KeepOtherLogits());
  PB_TRY(MeasureLimits());
  PB_TRY(PrepareDonor());
  PB_TRY(sides_[to_].OpenSession(session_[to_], false));
  run_.emplace(sides_[to_].engine(), *donor_, passes_);
  ListPoints();
  Status status = Search();
  if (!status.ok() && !gave_up_) return std::move(status).error();
  if (!status.ok()) out_.outcome = InjectionResult::Outcome::kGaveUp;
  return std::move(out_);
}

}  // namespace

const char* InjectionKindName(InjectionKind kind) { return kind == InjectionKind::kOp ? "op" : "tensor"; }

const char* InjectionOutcomeName(InjectionResult::Outcome outcome) {
  switch (outcome) {
    case InjectionResult::Outcome::kFound:
      return "found";
    case InjectionResult::Outcome::kAgrees:
      return "agrees";
    case InjectionResult::Outcome::kNotRestorable:
      return "not-restorable";
    case InjectionResult::Outcome::kGaveUp:
      return "gave-up";
  }
  return "";
}

Result<InjectionResult> SearchInjection(const InjectionRequest& request) {
  return InjectionSearch(request).Run();
}

}  // namespace pb::inject

// The lock-step pass and the free passes of a prompt, their evidence, and the proofs that
// watching changes nothing.
#include "run/local_run.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <tuple>

#include "base/blake3.h"
#include "base/sha256.h"
#include "codes/code_steps.h"
#include "drive/passes.h"
#include "run/repeatability.h"

namespace pb::run {
namespace {

// The lengths of sums; where the engines tell different ones the shorter, whose bound is the
// tighter.
stages::ModelShape ShapeOf(const stages::ModelShape& candidate, const stages::ModelShape& reference) {
  stages::ModelShape shape = reference;
  for (const auto& [key, size] : trace::kShapeKeys)
    if (candidate.*size > 0) shape.*size = std::min(candidate.*size, shape.*size);
  shape.norms_rows |= candidate.norms_rows;
  return shape;
}

}  // namespace

LocalRun::LocalRun(drive::Participant& candidate, drive::Participant& reference,
                   const host::Settings (&session)[2], std::shared_ptr<const Model> (&models)[2],
                   const Request& request, ReferencePart& part)
    : sides_{&candidate, &reference},
      session_{&session[0], &session[1]},
      models_{models[0], models[1]},
      request_(request),
      part_(part) {}

Result<drive::PointPlan> LocalRun::OpenSessions() {
  std::vector<host::StageVisibility> stages[2];
  for (int side : {0, 1}) {
    PB_TRY(sides_[side]->OpenSession(*session_[side]));
    PB_ASSIGN(stages[side], sides_[side]->Stages());
  }
  return drive::PlanPoints(stages[0], stages[1], sides_[1]->record().model_facts().n_layers);
}

Result<drive::LockStepResult> LocalRun::Pass(const Walk& walk, PromptRecord& prompt, int32_t index,
                                             drive::Overwrite overwrite, bool keeps) {
  PB_ASSIGN(const drive::PointPlan plan, OpenSessions());
  drive::LockStepOptions options;
  const trace::ModelFacts reference = sides_[1]->record().model_facts();
  options.shape = ShapeOf(sides_[0]->record().model_facts().shape, reference.shape);
  options.n_layers = reference.n_layers;
  for (drive::Participant* side : sides_)
    options.fused_attention |= side->record().session_facts().flash.value == "on";
  options.overwrite = overwrite;
  std::optional<codes::CodeExplainer> explainer;
  const bool in_lock_step = overwrite == drive::Overwrite::kReference;
  if (in_lock_step) {
    PB_TRY(AskForSchemes());
    if (models_[0])
      explainer.emplace(models_[0], scheme_check_ ? &*scheme_check_ : nullptr, &precision_.differences,
                        !request_.user.precision.strict && !options.fused_attention && HaveF16Caches());
  }
  // Positions, of which each point is a share: a prefill's are many, a step's one.
  int64_t n_rows_done = 0;
  const auto n_points = static_cast<int64_t>(plan.points.size());
  const int64_t n_positions = walk.n_positions();
  const std::string doing = WhatIsDone(overwrite, index);
  options.on_pair = [&](const drive::PointPair& pair) -> Status {
    n_rows_done += pair.shape[0];
    if (request_.progress)
      request_.progress(doing, std::min(n_rows_done / std::max<int64_t>(n_points, 1), n_positions),
                        n_positions);
    if (explainer) explainer->OnPair(pair);
    if (request_.token_errors) KeepTokens(pair, in_lock_step);
    if (request_.observe && in_lock_step) request_.observe(pair);
    // Later steps only show the same products again.
    for (int side : {0, 1})
      if (!in_lock_step && observers_[side] && pair.row->step <= 1 && !(part_only_ && side == 1))
        observers_[side]->OnPoint(pair.point, pair.shape, side == 0 ? pair.candidate : pair.reference,
                                  pair.row->step > 0);
    return {};
  };
  std::unique_ptr<KeptPair> kept;
  if (keeps && !request_.keep.folder.empty()) {
    PB_ASSIGN(kept, KeptPair::Create(request_.keep, sides_, prompt, request_.prompts.size(), index));
    options.on_event = [&](int side, const host::Event& event) { return kept->OnEvent(side, event); };
  }
  options.on_used = [&](std::span<const float> values) {
    if (const drive::Tape* tape = part_.tape()) tape->Release(values);
  };
  n_expected_ = plan.Expected() * (1 + static_cast<int64_t>(walk.steps.size()));
  if (in_lock_step) {
    evidence_.unobservable = plan.unobservable;
    evidence_.unmapped = plan.one_sided;
  }
  drive::LockStep lock_step(*sides_[0], *sides_[1], plan, options);
  Status status = Steps(lock_step, walk, index, kept.get());
  if (kept && status.ok()) status = kept->Finish(&prompt);
  if (kept && !status.ok()) kept->Abandon(status.error().message);
  if (!status.ok()) return std::move(status).error();
  return lock_step.Finish();
}

void LocalRun::KeepTokens(const drive::PointPair& pair, bool in_lock_step) {
  const compare::PointRow& row = *pair.row;
  const compare::PointPlace place{row.prompt, row.step, row.stage, row.layer, row.first_position};
  const compare::RowErrors errors =
      compare::ErrorsOfRows({pair.candidate, row.n_rows, row.n_features},
                            {pair.reference, row.n_rows, row.n_features}, place, *pair.bound);
  if (in_lock_step)
    token_errors_.local.Add(place, errors.over_bound);
  else
    token_errors_.accumulated.Add(place, errors.rel_l2);
}

bool LocalRun::HaveF16Caches() const {
  return std::ranges::all_of(sides_, [](const drive::Participant* side) {
    return side->record().session_facts().kv_type.value == "f16";
  });
}

std::string LocalRun::WhatIsDone(drive::Overwrite overwrite, int32_t index) const {
  const char* pass = overwrite == drive::Overwrite::kReference ? "lock-step" : "run with taps";
  if (request_.prompts.size() < 2) return pass;
  return fmt::format("{}, prompt {} of {}", pass, index + 1, request_.prompts.size());
}

Status LocalRun::AskForSchemes() {
  if (!models_[0] || scheme_check_) return {};
  std::vector<ActQuant> act_quant;
  for (int side : {0, 1}) {
    auto parsed = ActQuant::Parse(sides_[side]->record().session_facts().act_quant.value);
    if (!parsed.ok()) return {};  // a scheme that is not known here explains nothing
    act_quant.push_back(request_.user.precision.strict ? *parsed
                                                       : codes::Observed(*parsed, precision_.classes[side]));
  }
  codes::SchemeCheck check(models_[0], act_quant[0], act_quant[1]);
  for (drive::Participant* side : sides_) PB_TRY(side->Noted(check.Ask(side->engine(), side->record().role)));
  scheme_check_ = std::move(check);
  return {};
}

void LocalRun::TakePrecision() {
  const drive::EngineRecord &candidate = sides_[0]->record(), &reference = sides_[1]->record();
  for (int side : {0, 1}) {
    if (observers_[side]) precision_.classes[side] = observers_[side]->Classes();
    observers_[side].reset();
  }
  // Files of other types have no products in common; and strictly what engines declare is all that
  // counts.
  if (SameWeightTypes(candidate, reference) && !request_.user.precision.strict)
    precision_.differences = codes::Differences(precision_.classes[0], precision_.classes[1]);
}

int64_t LocalRun::Rows() const { return drive::PassRows({&sides_[0]->record(), &sides_[1]->record()}); }

Result<std::string> LocalRun::Unwatched(int side, const Walk& walk) {
  drive::Participant& engine = *sides_[side];
  PB_TRY(engine.OpenSession(*session_[side]));
  Sha256 digest;
  const drive::RowFn on_row = [&](int32_t, std::span<const float> row) -> Status {
    digest.Update(std::as_bytes(row));
    return {};
  };
  PB_TRY(drive::ForEachPass(walk.prefill, Rows(), drive::StepsOf(walk.steps), [&](const drive::Pass& pass) {
    return engine.Evaluate(pass.tokens, pass.position, on_row);
  }));
  return digest.Hex();
}

Status LocalRun::Steps(drive::LockStep& lock_step, const Walk& walk, int32_t index, KeptPair* kept) {
  if (kept) PB_TRY(kept->BeginStep(0, walk.prefill));
  auto evaluate = [&](const drive::Pass& pass) -> Status {
    if (kept && pass.step > 0) PB_TRY(kept->BeginStep(pass.position, pass.tokens));
    return lock_step.Pass(pass.tokens, pass.position, index, pass.step);
  };
  return drive::ForEachPass(walk.prefill, Rows(), drive::StepsOf(walk.steps), evaluate);
}

void LocalRun::BeginObserving(int32_t index) {
  for (int side : {0, 1}) {
    auto declared = ActQuant::Parse(sides_[side]->record().session_facts().act_quant.value);
    if (index == 0 && models_[side] && declared.ok())
      observers_[side].emplace(models_[side], *declared, codes::MayGoByRows(sides_[side]->record()));
  }
}

bool LocalRun::MayWatchPart(const PromptRecord& prompt) const {
  // Where a part costs much less than the whole.
  constexpr int64_t kLong = 3 * kWatchedPositions;
  return request_.watch == Watch::kAuto && request_.keep.folder.empty() && !prompt.first_sha256.empty() &&
         Rows() >= kWatchedPass && static_cast<int64_t>(prompt.tokens.size()) >= kLong;
}

Status LocalRun::Record(const PromptRecord& prompt) {
  PB_ASSIGN(const drive::PointPlan plan, OpenSessions());
  if (plan.compared.empty() || !part_.BeginRecording(prompt)) return {};
  Sha256 logits;
  Blake3 delivered, shown;
  const auto take = [&](const host::Event& event) -> Status {
    const auto bytes = std::as_bytes(event.tensor.data);
    if (event.kind == host::Event::kLogits) logits.Update(bytes), delivered.Update(bytes);
    if (event.kind == host::Event::kPoint && event.point.stage == PB_STAGE_LOGITS) shown.Update(bytes);
    return {};
  };
  const auto n_positions = static_cast<int64_t>(prompt.tokens.size() + prompt.decoded.size());
  Status status = drive::ForEachPass(prompt.tokens, Rows(), drive::StepsOf(prompt.decoded),
                                     [&](const drive::Pass& pass) -> Status {
                                       if (request_.progress)
                                         request_.progress("reference with taps", pass.position, n_positions);
                                       host::EvalRequest request;
                                       request.tokens.assign(pass.tokens.begin(), pass.tokens.end());
                                       request.first_position = pass.position;
                                       request.tap.stages = plan.compared;
                                       request.tap.outputs = true;
                                       return sides_[1]->Evaluate(request, take);
                                     });
  part_.EndRecording(prompt, status.ok() ? logits.Hex() : "", shown.Finish() == delivered.Finish());
  return status;
}

void LocalRun::ObserveTape(const drive::Tape& tape) {
  bool seen[2] = {false, false};
  for (const drive::TapePass& pass : tape.passes()) {
    const bool decode = pass.tokens.size() == 1;
    if (std::exchange(seen[decode], true)) continue;
    // One row of each: the observer looks at no more.
    const auto row = pass.first_position + static_cast<int32_t>(pass.tokens.size() / 2);
    for (const drive::TapeItem& item : pass.items) {
      if (item.kind != host::Event::kPoint) continue;
      const int64_t at = row - item.point.first_position;
      if (at < 0 || at >= item.shape[0]) continue;
      host::PointRef point = item.point;
      point.first_position = row;
      std::vector<int64_t> shape = item.shape;
      shape[0] = 1;
      std::vector<float> values;
      tape.Expand(item, at, 1, shape.back(), &values);
      observers_[1]->OnPoint(point, shape, values, decode);
      tape.Release(tape.Stored(item, 0, item.shape[0]));  // with what is mapped around a row that is read
    }
  }
}

Status LocalRun::Add(PromptRecord& prompt, int32_t index) {
  // The free run comes first, as it shows how each engine rounds.
  BeginObserving(index);
  if (MayWatchPart(prompt) && !part_.served()) PB_TRY(Record(prompt));
  const bool part = MayWatchPart(prompt) && part_.served();
  PB_TRY(part ? AddPart(prompt, index) : AddAccumulated(prompt, index));
  if (observers_[0] || observers_[1]) TakePrecision();
  PB_ASSIGN(drive::LockStepResult result, InLockStep(prompt, index));
  const bool doubt = !result.missing.empty() ||
                     std::ranges::any_of(result.rows, [](const auto& row) { return row.above_bound(); });
  if (part && doubt) {
    BeginObserving(index);
    PB_TRY(WatchWhole(prompt, index));
    if (observers_[0] || observers_[1]) {
      TakePrecision();
      scheme_check_.reset();
    }
    PB_ASSIGN(result, InLockStep(prompt, index));
  }
  AddLocal(prompt, result);
  return {};
}

Status LocalRun::WatchWhole(PromptRecord& prompt, int32_t index) {
  std::erase_if(accumulated_, [&](const compare::PointRow& row) { return row.prompt == index; });
  prompt.n_watched = 0;
  return AddAccumulated(prompt, index);
}

Result<drive::LockStepResult> LocalRun::InLockStep(PromptRecord& prompt, int32_t index) {
  return Pass(WholeOf(prompt), prompt, index, drive::Overwrite::kReference, false);
}

void LocalRun::AddLocal(const PromptRecord& prompt, const drive::LockStepResult& result) {
  // A point is compared when all its rows were, in however many pieces they came.
  std::map<std::tuple<int32_t, int32_t, int32_t>, int64_t> rows;  // by step, stage, layer
  for (const compare::PointRow& row : result.rows) rows[{row.step, row.stage, row.layer}] += row.n_rows;
  for (const auto& [key, n] : rows) {
    evidence_.n_compared += n == (std::get<0>(key) == 0 ? static_cast<int64_t>(prompt.tokens.size()) : 1);
  }
  evidence_.n_expected += n_expected_;
  evidence_.points.insert(evidence_.points.end(), result.rows.begin(), result.rows.end());
  evidence_.missing.insert(evidence_.missing.end(), result.missing.begin(), result.missing.end());
  shown_not_used_[1] |= result.missing.empty() && result.shown_blake3 != result.logits_blake3[1];
  // The candidate's last tensor was overwritten too: what it delivers are then the reference's
  // logits.
  overwrite_ignored_ |= result.missing.empty() && result.logits_blake3[0] != result.shown_blake3;
}

Status LocalRun::AddPart(PromptRecord& prompt, int32_t index) {
  const bool rounds = !sides_[0]->record().session_facts().overwrite_exact;
  if (rounds) evidence_.shown_is_used = false;
  const auto first = prompt.tokens.begin();
  const Walk walk{{first, first + kWatchedPass}, {first + kWatchedPass, first + kWatchedPositions}};
  part_only_ = true;
  part_.ServeParts(true);
  auto pass =
      Pass(walk, prompt, index, rounds ? drive::Overwrite::kNothing : drive::Overwrite::kItself, false);
  part_.ServeParts(false);
  part_only_ = false;
  if (!pass.ok()) return std::move(pass).error();
  if (observers_[1]) ObserveTape(*part_.tape());
  // The reference's proof came with its recording, over the whole prompt.
  prompt.tapped_sha256[1] = prompt.untapped_sha256[1] = prompt.logits_sha256[1];
  prompt.tapped_sha256[0] = pass->logits_sha256[0];
  prompt.untapped_sha256[0] = prompt.first_sha256;
  // An engine's bits may depend on how many rows it is given at once.
  if (prompt.tapped_sha256[0] != prompt.untapped_sha256[0]) {
    PB_ASSIGN(prompt.untapped_sha256[0], Unwatched(0, walk));
  }
  prompt.n_watched = kWatchedPositions;
  if (prompt.observer_effect(0) || !pass->missing.empty()) return WatchWhole(prompt, index);
  accumulated_.insert(accumulated_.end(), pass->rows.begin(), pass->rows.end());
  return {};
}

Status LocalRun::AddAccumulated(PromptRecord& prompt, int32_t index) {
  // An engine that rounds what it gets back cannot prove that it computes with what it shows.
  const bool rounds = !sides_[0]->record().session_facts().overwrite_exact;
  if (rounds) evidence_.shown_is_used = false;
  const Walk whole = WholeOf(prompt);
  part_.BeginRecording(prompt);
  auto pass =
      Pass(whole, prompt, index, rounds ? drive::Overwrite::kNothing : drive::Overwrite::kItself, true);
  const bool complete = pass.ok() && pass->missing.empty();
  part_.EndRecording(prompt, complete ? pass->logits_sha256[1] : "",
                     complete && pass->shown_blake3 == pass->logits_blake3[1]);
  if (!pass.ok()) return std::move(pass).error();
  drive::LockStepResult result = std::move(pass).value();
  shown_not_used_[1] |= result.missing.empty() && result.shown_blake3 != result.logits_blake3[1];
  for (int side : {0, 1}) {
    prompt.untapped_sha256[side] = prompt.logits_sha256[side];
    if (result.logits_sha256[side] != prompt.logits_sha256[side] &&
        Rows() < static_cast<int64_t>(prompt.tokens.size())) {
      PB_ASSIGN(prompt.untapped_sha256[side], Unwatched(side, whole));
    }
  }
  if (!rounds && result.logits_sha256[0] != prompt.untapped_sha256[0]) {
    // Whether watching changes the logits, or only getting back what was shown.
    PB_ASSIGN(result, Pass(whole, prompt, index, drive::Overwrite::kNothing, false));
    shown_not_used_[0] |= result.logits_sha256[0] == prompt.untapped_sha256[0];
  }
  for (int side : {0, 1}) prompt.tapped_sha256[side] = result.logits_sha256[side];
  accumulated_.insert(accumulated_.end(), result.rows.begin(), result.rows.end());
  return Repeat(whole, prompt);
}

// Whether it is watching that changes an engine's logits, or nothing: the same again gives others, too.
Status LocalRun::Repeat(const Walk& walk, const PromptRecord& prompt) {
  for (int side : {0, 1}) {
    if (!prompt.observer_effect(side) || !not_repeatable_[side].empty()) continue;
    drive::Participant& engine = *sides_[side];
    std::vector<int32_t> tokens = walk.prefill;
    tokens.insert(tokens.end(), walk.steps.begin(), walk.steps.end());
    PB_ASSIGN(const std::string once, Unwatched(side, walk));
    PB_ASSIGN(const std::string again, Unwatched(side, walk));
    PB_ASSIGN(const auto found,
              FindUnrepeatable(engine, *session_[side], tokens, static_cast<int32_t>(walk.prefill.size())));
    if (once == again && !found) continue;
    not_repeatable_[side] =
        fmt::format("the {} is not repeatable: two equal runs of it differ{}", engine.record().role,
                    found ? ", " + found->Text() : ", though not while it is watched");
  }
  return {};
}

void LocalRun::Finish(const std::vector<PromptRecord>& prompts, compare::LocalEvidence* evidence,
                      std::vector<compare::PointRow>* accumulated,
                      std::vector<compare::Obstacle>* obstacles) {
  if (overwrite_ignored_)
    obstacles->push_back(
        {compare::ReasonCode::kOverwriteIgnored,
         "what the candidate's tensors were overwritten with does not come out as its logits, so "
         "its local errors are not those of single ops"});
  for (int side : {0, 1}) {
    if (shown_not_used_[side])
      obstacles->push_back(
          {compare::ReasonCode::kShownNotUsed,
           side == 0
               ? "the candidate's logits change when it gets back the very tensors that it showed, so it "
                 "computes with others"
               : "the reference delivers other logits than its tracepoint showed"});
    const bool changed = std::any_of(prompts.begin(), prompts.end(),
                                     [&](const PromptRecord& p) { return p.observer_effect(side); });
    if (!changed) continue;
    if (!not_repeatable_[side].empty()) {
      obstacles->push_back(
          {compare::Outcome::kIncomplete, compare::ReasonCode::kNotRepeatable, not_repeatable_[side]});
      continue;
    }
    obstacles->push_back(
        {compare::ReasonCode::kObserverEffect,
         fmt::format(
             "the {}'s logits change when its tracepoints are watched, so they do not show what it computes "
             "unwatched",
             side == 0 ? "candidate" : "reference")});
  }
  *evidence = std::move(evidence_);
  *accumulated = std::move(accumulated_);
}

std::vector<compare::PointRow> CondensePoints(const std::vector<compare::PointRow>& rows, bool judged) {
  std::vector<compare::PointRow> kept;
  // (prompt, stage, layer) -> index in kept
  std::map<std::tuple<int32_t, int32_t, int32_t>, size_t> decode;
  for (const compare::PointRow& row : rows) {
    if (row.step == 0 || (judged && row.above_bound())) {
      kept.push_back(row);
      continue;
    }
    auto [found, fresh] = decode.try_emplace({row.prompt, row.stage, row.layer}, kept.size());
    if (fresh) {
      kept.push_back(row);
      continue;
    }
    compare::PointRow& worst = kept[found->second];
    if (judged ? row.bound_ratio > worst.bound_ratio : row.rel_l2 > worst.rel_l2) worst = row;
  }
  return kept;
}

}  // namespace pb::run

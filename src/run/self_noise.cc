// SelfNoiseRun: opens the engine, evaluates the prompts, measures its floor and its axes, and
// judges its promises.
#include "run/self_noise.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/sha256.h"
#include "drive/context_room.h"
#include "drive/lent_weights.h"
#include "noise/floor.h"
#include "run/doubts.h"
#include "run/observed_precision.h"
#include "run/repeatability.h"

namespace pb::run {
namespace {

using compare::Outcome;
using compare::ReasonCode;

std::string WhoseTokens(int32_t prompt) {
  return prompt == compare::kCalibration ? "of the calibration text" : fmt::format("of prompt {}", prompt);
}

class SelfNoiseRun {
 public:
  explicit SelfNoiseRun(const SelfNoiseRequest& request)
      : request_(request), engine_(out_.run.reference, request.limits) {
    // The floor is measured as crossval measures that of its reference: the same sequences,
    // settings and cache entries.
    floor_.calibration = request.calibration;
    floor_.progress = request.progress;
  }

  Result<SelfNoise> Run();

 private:
  Status Measure();
  Status Open();
  Status OpenSession();
  Status EvaluatePrompts();
  void Keep(drive::Sequence sequence, drive::RowStore rows);
  Status EvaluateCalibration();
  Status MeasureFloor();
  Status ObserveProducts();
  std::span<const int32_t> FirstTokens() const;
  Status RunAxes();
  Status FindWhatVaries();
  void SetLimits();
  void TellOfDoubts();
  void JudgeFloor();
  void JudgeAxes();
  void JudgeRepeat(const noise::AxisRow& row, const std::string& name);
  void NoteFirst(const compare::LogitsRow& first);
  // An engine's failure becomes a reason; anything else is passed on.
  Status Absorb(Status status);
  template <typename... Args>
  void Add(Args&&... reason) {
    out_.run.verdict.reasons.emplace_back(std::forward<Args>(reason)...);
  }
  bool is_recording() const { return !noise::ReplayedFolder(out_.run.reference).empty(); }

  const SelfNoiseRequest& request_;
  SelfNoise out_;
  noise::FloorRequest floor_;
  drive::Participant engine_;
  host::Settings sessions_[2];  // of the floor's two sides: both are this engine
  std::vector<noise::Evaluated> undisturbed_;
  std::shared_ptr<const Model> model_;  // null: not read here
  std::vector<codes::ClassPrecision> precision_;
  std::string what_varies_;  // between equal runs; empty: nothing, or not seen
};

Status SelfNoiseRun::Absorb(Status status) {
  if (status.ok()) return status;
  std::optional<compare::Obstacle> obstacle = engine_.ObstacleOf(status.error());
  if (!obstacle) return status;
  Add(std::move(*obstacle));
  return {};
}

Status SelfNoiseRun::Open() {
  out_.run.reference.role = "engine";
  out_.run.reference.model_path = request_.model;
  PB_TRY(engine_.Start(request_.engine));
  return engine_.OpenModel(request_.model);
}

Status SelfNoiseRun::OpenSession() {
  size_t longest = static_cast<size_t>(compare::kMinNoisePositions);
  for (const PromptSpec& spec : request_.prompts) {
    PromptRecord prompt;
    prompt.text = spec.text, prompt.origin = spec.origin, prompt.steps_asked = request_.max_tokens;
    if (spec.text.empty()) {
      Add(ReasonCode::kEmptyPrompt,
          fmt::format("the prompt ({}) is empty: it has no position to measure", spec.origin));
      return {};
    }
    PB_ASSIGN(prompt.tokens, engine_.Tokenize(spec.text));
    PB_TRY(drive::CheckRoom(engine_.record(), prompt.tokens.size(), spec.origin));
    if (prompt.tokens.empty()) {
      Add(ReasonCode::kEmptyPrompt, fmt::format("the prompt ({}) has no tokens", spec.origin));
      return {};
    }
    prompt.tokens_of[0] = prompt.tokens_of[1] = prompt.tokens;
    longest = std::max(longest, prompt.tokens.size() + static_cast<size_t>(request_.max_tokens));
    out_.run.prompts.push_back(std::move(prompt));
  }
  PB_ASSIGN(sessions_[0],
            engine_.OpenSessionWishing(drive::SessionWishes(request_.engine.settings, longest)));
  sessions_[1] = sessions_[0];
  return {};
}

// Where a logit is not finite there is nothing to measure against, and decode steps may be missing.
void SelfNoiseRun::Keep(drive::Sequence sequence, drive::RowStore rows) {
  for (int64_t r = 0; r < rows.n_rows(); ++r) {
    const std::span<const float> row = rows.Row(r);
    if (std::all_of(row.begin(), row.end(), [](float v) { return std::isfinite(v); })) continue;
    Add(ReasonCode::kNonFinite,
        fmt::format("logits of position {} {} are NaN or infinite", r, WhoseTokens(sequence.prompt)));
    break;
  }
  undisturbed_.push_back({std::move(sequence), std::move(rows)});
}

Status SelfNoiseRun::EvaluatePrompts() {
  for (size_t i = 0; i < out_.run.prompts.size(); ++i) {
    PromptRecord& prompt = out_.run.prompts[i];
    drive::Sequence sequence{prompt.tokens, static_cast<int32_t>(prompt.tokens.size()),
                             static_cast<int32_t>(i)};
    PB_ASSIGN(drive::RowStore rows,
              drive::EvaluateGreedily(engine_, sessions_[1], prompt.steps_asked, &sequence));
    prompt.decoded.assign(sequence.tokens.begin() + sequence.n_prefill, sequence.tokens.end());
    Sha256 digest;
    for (int64_t r = 0; r < rows.n_rows(); ++r) digest.Update(std::as_bytes(rows.Row(r)));
    prompt.logits_sha256[1] = digest.Hex();
    Keep(std::move(sequence), std::move(rows));
  }
  return {};
}

Status SelfNoiseRun::EvaluateCalibration() {
  PB_ASSIGN(std::vector<drive::Sequence> sequences,
            drive::CalibrationSequences(engine_, request_.calibration));
  for (drive::Sequence& sequence : sequences) {
    PB_ASSIGN(drive::RowStore rows, drive::EvaluateAll(engine_, sessions_[1], sequence));
    out_.n_calibration += rows.n_rows();
    Keep(std::move(sequence), std::move(rows));
  }
  return {};
}

Status SelfNoiseRun::MeasureFloor() {
  noise::FloorSource source(engine_, engine_, sessions_, floor_);
  for (const noise::Evaluated& u : undisturbed_)
    if (u.sequence.prompt != compare::kCalibration) PB_TRY(source.Add(u.sequence, &u.rows));
  // Decides whose floor it is, where there was no prompt.
  PB_TRY(source.Calibrate());
  out_.floor = source.Take(&out_.run.floor);
  out_.run.floor.side = "engine";
  if (!out_.floor) Add(ReasonCode::kNoNoiseFloor, "there is no noise floor: " + source.why_none());
  return {};
}

std::span<const int32_t> SelfNoiseRun::FirstTokens() const {
  if (undisturbed_.empty()) return {};
  return undisturbed_.front().sequence.tokens;
}

// How the engine rounds the inputs of products: a fact of it, where the file is read here.
Status SelfNoiseRun::ObserveProducts() {
  const std::filesystem::path lenders[] = {request_.engine.plugin};
  auto model =
      drive::OpenModel(request_.model, DeclaredBy(request_.engine.settings), lenders, request_.limits);
  if (!model.ok() || undisturbed_.empty()) return {};
  model_ = *model;
  PB_ASSIGN(precision_, codes::ObservePrecision(engine_, sessions_[1], model_, FirstTokens()));
  NoteObserved(precision_, false, &out_.run.reference);
  return {};
}

Status SelfNoiseRun::RunAxes() {
  size_t longest = 0;
  for (const noise::Evaluated& u : undisturbed_) longest = std::max(longest, u.sequence.tokens.size());
  out_.axes = noise::PlanAxes(out_.run.reference, static_cast<int64_t>(longest));
  // Another CPU library may round the inputs of products otherwise, and be right by its own.
  auto explain = [&](drive::Participant& varied, const host::Settings& session, noise::AxisRow* row) {
    auto seen = codes::ObservePrecision(varied, session, model_, FirstTokens());
    const auto differences =
        seen.ok() ? codes::Differences(*seen, precision_) : std::vector<codes::PrecisionDifference>();
    for (const codes::PrecisionDifference& d : differences)
      row->why += fmt::format("{}products of {} weights round the input by {}, the engine as measured by {}",
                              row->why.empty() ? "" : "; ", codes::ClassName(precision_, d.of),
                              ActSchemeName(d.scheme[0]), ActSchemeName(d.scheme[1]));
    // llama.cpp's sums of it are float32 or f16 by rows at once, head and library.
    if (row->why.empty() && out_.run.reference.session_facts().flash.value == "on")
      row->why = "attention is one op (attn.flash), whose sums may be of other precision there";
  };
  for (size_t i = 0; i < out_.axes.size(); ++i) {
    if (request_.progress)
      request_.progress(fmt::format("{} {}", out_.axes[i].axis, out_.axes[i].value), static_cast<int64_t>(i),
                        static_cast<int64_t>(out_.axes.size()));
    drive::EngineRecord failed;
    Status status = noise::RunAxis(engine_, request_.engine, sessions_[1], undisturbed_,
                                   out_.floor ? &*out_.floor : nullptr, &out_.axes[i], &failed, explain);
    if (status.ok()) continue;
    drive::EngineRecord& record = out_.run.reference;
    if (!failed.error.empty()) record.error = failed.error, record.last_words = failed.last_words;
    if (record.error.empty()) record.error = status.error().message;
    record.error = fmt::format("{} {}: {}", out_.axes[i].axis, out_.axes[i].value, record.error);
    out_.axes.resize(i);  // what was run
    return status;
  }
  return {};
}

bool IsRepeat(const noise::AxisRow& row) { return row.axis == noise::kRepeatAxis; }

// Where the engine gave other bits for the same, in which tensor that begins.
Status SelfNoiseRun::FindWhatVaries() {
  const auto row = std::ranges::find_if(
      out_.axes, [](const noise::AxisRow& r) { return IsRepeat(r) && r.first_other.has_value(); });
  if (row == out_.axes.end()) return {};
  const compare::LogitsRow& first = row->rows[*row->first_other];
  for (const noise::Evaluated& u : undisturbed_) {
    if (u.sequence.prompt != first.prompt || u.rows.n_rows() <= first.position) continue;
    PB_ASSIGN(const auto found, FindUnrepeatable(engine_, sessions_[1], u.sequence.tokens,
                                                 static_cast<int32_t>(u.sequence.n_prefill)));
    if (found) what_varies_ = found->Text();
    break;
  }
  return {};
}

// The limits that crossval would set for these prompts; for the calibration text where there is
// none.
void SelfNoiseRun::SetLimits() {
  std::vector<compare::Limit>& limits = out_.run.verdict.limits;
  limits = {compare::WorstKlLimit(*out_.floor), compare::GapLimit(*out_.floor)};
  auto add_mean = [&](size_t n, const char* name) {
    if (n == 0) return;
    compare::Limit limit = compare::MeanKlLimit(*out_.floor, static_cast<int64_t>(n), name);
    const bool known = std::any_of(limits.begin(), limits.end(), [&](const compare::Limit& other) {
      return other.name == limit.name && other.origin == limit.origin;
    });
    if (!known) limits.push_back(std::move(limit));
  };
  for (const PromptRecord& prompt : out_.run.prompts) {
    add_mean(prompt.tokens.size(), "kl.prefill.mean");
    add_mean(prompt.decoded.size(), "kl.decode.mean");
  }
  if (out_.run.prompts.empty() && !undisturbed_.empty())
    add_mean(undisturbed_.front().sequence.tokens.size(), "kl.prefill.mean");
}

// An engine against itself says nothing about a key that nobody hears; but what it computes with is
// not what both files say.
void SelfNoiseRun::TellOfDoubts() {
  size_t longest = 0;
  for (const noise::Evaluated& u : undisturbed_) longest = std::max(longest, u.sequence.tokens.size());
  for (const PromptRecord& prompt : out_.run.prompts)
    NoteTokens(out_.run.reference, prompt.tokens, prompt.origin, &out_.run.notes);
  TellDoubts(out_.run.doubts, static_cast<int64_t>(longest), false, &out_.run.verdict.reasons,
             &out_.run.notes);
}

void SelfNoiseRun::JudgeFloor() {
  if (!out_.floor) return;
  if (Status usable = compare::CheckNoiseFloor(*out_.floor); !usable.ok()) {
    Add(ReasonCode::kNoiseFloorUnusable, "there is no noise floor: " + usable.error().message);
    return;
  }
  SetLimits();
  const std::string weakness = compare::WeaknessOf(*out_.floor);
  if (!weakness.empty()) Add(ReasonCode::kWeakerFloor, "the floor is weaker than usual: " + weakness);
  if (out_.floor->IsZero())
    Add(Outcome::kMatch, ReasonCode::kNoiseFloorZero,
        "disturbing the engine changed nothing, so its floor cannot tell noise from a defect");
}

void SelfNoiseRun::NoteFirst(const compare::LogitsRow& first) {
  compare::Verdict& verdict = out_.run.verdict;
  if (!verdict.first_divergence)
    verdict.first_divergence =
        compare::FirstDivergence{first.prompt, first.position, first.token, -1, {}, {}};
  verdict.blame = compare::Blame::kEngine;
}

// The same again is no variation: other bits are a finding, and what was measured as a floor has them
// in it.
void SelfNoiseRun::JudgeRepeat(const noise::AxisRow& row, const std::string& name) {
  const compare::LogitsRow& first = row.rows[*row.first_other];
  Add(Outcome::kDiverged, ReasonCode::kNotRepeatable,
      fmt::format(
          "{}: two equal runs differ in {} of {} positions, first in position {} {}, by a KL of {:.1e} "
          "at worst{}{}",
          name, static_cast<int64_t>(row.rows.size()) - row.n_equal, row.rows.size(), first.position,
          WhoseTokens(first.prompt), row.worst_kl, what_varies_.empty() ? "" : "; ", what_varies_));
  NoteFirst(first);
}

void SelfNoiseRun::JudgeAxes() {
  compare::Verdict& verdict = out_.run.verdict;
  verdict.coverage.unit = "positions";
  int64_t n_promised = 0;
  for (const noise::AxisRow& row : out_.axes) {
    const std::string name = fmt::format("{} {}", row.axis, row.value);
    if (!row.refused.empty()) {
      if (row.promised)
        Add(ReasonCode::kPromiseUnchecked,
            fmt::format("{}: the engine promises equal bits and does not offer it: {}", name, row.refused));
      continue;
    }
    verdict.coverage.compared += static_cast<int64_t>(row.rows.size());
    if (std::any_of(row.rows.begin(), row.rows.end(),
                    [](const compare::LogitsRow& r) { return !r.finite || !std::isfinite(r.kl); }))
      Add(ReasonCode::kNonFinite, name + ": logits are NaN or infinite");
    n_promised += row.promised;
    if (!row.first_other) continue;
    const compare::LogitsRow& first = row.rows[*row.first_other];
    if (IsRepeat(row)) JudgeRepeat(row, name);
    // An engine that rounds otherwise there, and is right by it, is not the same one.
    if (!IsRepeat(row) && row.inside == false && row.why.empty()) {
      Add(ReasonCode::kBeyondOwnFloor,
          fmt::format("{}: the logits move by a KL of {:.1e} on average, {:.1e} at worst (position {} {} is "
                      "the first with other bits), which is more than rounding moves them by",
                      name, row.mean_kl, row.worst_kl, first.position, WhoseTokens(first.prompt)));
      NoteFirst(first);
    }
    if (!row.promised) continue;
    Add(ReasonCode::kPromiseBroken,
        fmt::format("{}: {} of {} positions have other bits, the first is position {} {} (token {}), though "
                    "the engine promises equal bits",
                    name, static_cast<int64_t>(row.rows.size()) - row.n_equal, row.rows.size(),
                    first.position, WhoseTokens(first.prompt), first.token));
    NoteFirst(first);
  }
  verdict.coverage.expected = verdict.coverage.compared;
  const bool failed = std::any_of(verdict.reasons.begin(), verdict.reasons.end(),
                                  [](const compare::Reason& r) { return compare::ExitCode(r.outcome) != 0; });
  if (failed) return;
  if (is_recording())
    Add(ReasonCode::kRecorded,
        "this is the floor that was recorded; a recording computes nothing, so nothing else was varied");
  else if (verdict.coverage.compared == 0)
    Add(ReasonCode::kNothingCompared, "no position was compared");
  else if (n_promised > 0)
    Add(ReasonCode::kPromiseKept,
        fmt::format("the engine promises equal bits in {} of {} variations, and has them", n_promised,
                    out_.axes.size()));
  else
    Add(ReasonCode::kNothingPromised,
        "the engine promises equal bits nowhere, so its variations are information and set no limit");
}

Status SelfNoiseRun::Measure() {
  std::vector<compare::Reason>& reasons = out_.run.verdict.reasons;
  for (Status (SelfNoiseRun::*step)() :
       {&SelfNoiseRun::Open, &SelfNoiseRun::OpenSession, &SelfNoiseRun::EvaluatePrompts,
        &SelfNoiseRun::EvaluateCalibration, &SelfNoiseRun::MeasureFloor, &SelfNoiseRun::ObserveProducts,
        &SelfNoiseRun::RunAxes, &SelfNoiseRun::FindWhatVaries}) {
    // A recording computes nothing, so there is nothing else to vary, nor to read but what was
    // recorded.
    const bool needs_an_engine = step == &SelfNoiseRun::EvaluateCalibration ||
                                 step == &SelfNoiseRun::RunAxes || step == &SelfNoiseRun::FindWhatVaries;
    if (needs_an_engine && is_recording()) continue;
    PB_TRY(Absorb((this->*step)()));
    const bool stopped = std::any_of(reasons.begin(), reasons.end(), [](const compare::Reason& r) {
      return r.outcome == Outcome::kEngineFailed || r.outcome == Outcome::kInvalid ||
             r.code == ReasonCode::kUnsupported || r.code == ReasonCode::kUndeclared;
    });
    if (stopped) break;
  }
  return {};
}

Result<SelfNoise> SelfNoiseRun::Run() {
  const auto start = std::chrono::steady_clock::now();
  // A damaged file is no engine's failure.
  PB_TRY(CheckModelFile(request_.model, request_.engine.settings, &out_.run.doubts));
  PB_TRY(Measure());
  TellOfDoubts();
  JudgeFloor();
  JudgeAxes();
  compare::Settle(&out_.run.verdict);
  out_.run.choices = request_.choices;
  const auto& first = out_.run.verdict.first_divergence;
  if (first) {
    auto text = engine_.engine().Detokenize(std::span(&first->token, 1));
    if (text.ok()) out_.run.token_text[first->token] = std::move(text).value();
  }
  out_.run.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(out_);
}

}  // namespace

Result<SelfNoise> MeasureSelfNoise(const SelfNoiseRequest& request) { return SelfNoiseRun(request).Run(); }

}  // namespace pb::run

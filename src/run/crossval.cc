// CrossvalRun: opens both engines, tokenises, compares logits, then ops, measures the floor, and
// judges.
#include "run/crossval.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <set>

#include "base/blake3.h"
#include "base/file.h"
#include "base/sha256.h"
#include "compare/logits.h"
#include "compare/logits_judge.h"
#include "drive/context_room.h"
#include "drive/lent_weights.h"
#include "drive/local_scope.h"
#include "drive/participant.h"
#include "drive/row_store.h"
#include "model/model.h"
#include "noise/floor.h"
#include "noise/noise_file.h"
#include "run/doubts.h"
#include "run/local_run.h"
#include "run/observed_precision.h"
#include "run/open_side.h"
#include "run/precision_effect.h"
#include "run/reference_part.h"

namespace pb::run {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kCandidate = 0, kReference = 1;
constexpr int64_t kCalibrationPositions = compare::kMinNoisePositions;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<compare::Setting> FactsOf(const drive::EngineRecord& engine) {
  std::vector<compare::Setting> settings;
  for (const host::Facts* facts : {&engine.model, &engine.session})
    for (const host::Fact& fact : *facts) settings.push_back({fact.key, fact.value, fact.origin});
  return settings;
}

// Of logits rows in order of position: as reports and, where they are kept, as traces digest them.
struct RowsDigest {
  explicit RowsDigest(const Request& request) : for_traces(!request.keep.folder.empty()) {}
  const bool for_traces;
  Sha256 sha256;
  Blake3 blake3;
  void Update(std::span<const float> row) {
    sha256.Update(std::as_bytes(row));
    if (for_traces) blake3.Update(std::as_bytes(row));
  }
  void Store(int side, PromptRecord* prompt) const {
    prompt->logits_sha256[side] = sha256.Hex();
    if (for_traces) prompt->logits_blake3[side] = ToHex(blake3.Finish());
  }
};

noise::FloorRequest FloorAsked(const Request& request) {
  // A trace that is kept takes the whole floor along.
  const bool sparing = request.noise == NoiseRuns::kAuto && request.keep.folder.empty();
  return {request.scope == compare::Scope::kLocal,
          request.n_noise_runs,
          request.user.confidence,
          sparing,
          request.calibration,
          request.progress,
          request.noise_threads};
}

class CrossvalRun {
 public:
  explicit CrossvalRun(const Request& request)
      : request_(request),
        sides_{{out_.candidate, request.limits}, {out_.reference, request.limits}},
        floor_(sides_[kCandidate], sides_[kReference], session_, FloorAsked(request)) {}

  Result<Comparison> Run();

 private:
  Status OpenSessions();
  // Whether both engines read the same tokens.
  Result<bool> TokenizePrompts();
  Status ComparePrompt(size_t index);
  Result<drive::RowStore> RunReference(PromptRecord& prompt, compare::PromptEvidence& evidence);
  Status RunCandidate(PromptRecord& prompt, compare::PromptEvidence& evidence,
                      const drive::RowStore& reference);
  // Gives the memory of the reference's rows back; they are read again from their file.
  void Release(const drive::RowStore& rows) const;
  // Opens the candidate's session and lets it begin with the prompt, where there is a processor for
  // it beside the reference.
  Status BeginCandidate(const PromptRecord& prompt);
  // Lets the reference run watched at once where it was shown before that this changes nothing over
  // these tokens: if its logits have the bits that they had unwatched, the recording stands for it.
  Status RecordByProof(PromptRecord& prompt);
  Status CompareLocally(PromptRecord& prompt, int32_t index);
  void OpenLocalRun();
  void FinishLocally();
  void TellOfReuse();
  void CompareDefaultConfiguration();
  void CollectTokenText();
  // Whether all rows are within the limits of a floor.
  bool IsWithin(const compare::NoiseFloor& floor) const;
  Status TakeFloor();
  // Where logits lie beyond the floor of a comparison whose ops agree, watching may hide why.
  Status WatchWholeInDoubt();
  // Runs a second time what was not watched.
  Status Repeat();
  void TellOfDoubts();
  // Where ops are not compared: what the engines' products show, if that may be why the logits
  // part.
  void ObserveForLogits();
  void TellOfPrecision();
  void Judge();
  // Turns an engine's failure into an obstacle; anything else is passed on.
  Status Absorb(Status status);

  const Request& request_;
  Comparison out_;
  compare::Evidence evidence_;
  drive::Participant sides_[2];
  host::Settings session_[2];  // of the sessions compared
  noise::FloorSource floor_;
  std::optional<drive::RowStore> first_rows_;  // the reference's, of the first prompt
  std::optional<ReferencePart> part_;
  std::optional<LocalRun> local_run_;
  bool local_decided_ = false;
  std::optional<compare::LocalEvidence> local_;
  std::shared_ptr<const Model> model_;  // the candidate's
  ObservedPrecision precision_;
  bool failed_ = false;
  bool finite_ = true;  // all logits
};

Status CrossvalRun::Absorb(Status status) {
  if (status.ok()) return status;
  for (drive::Participant& engine : sides_) {
    const std::optional<compare::Obstacle> obstacle = engine.ObstacleOf(status.error());
    if (!obstacle) continue;
    evidence_.obstacles.push_back(*obstacle);
    failed_ = true;
    return {};
  }
  return status;
}

Result<bool> CrossvalRun::TokenizePrompts() {
  bool equal = true;
  out_.notes.insert(out_.notes.end(), request_.notes.begin(), request_.notes.end());
  for (size_t i = 0; i < request_.prompts.size() && !failed_; ++i) {
    PromptRecord prompt;
    compare::PromptEvidence evidence;
    prompt.text = request_.prompts[i].text;
    prompt.origin = request_.prompts[i].origin;
    prompt.steps_asked = request_.max_tokens;
    evidence.prompt = static_cast<int32_t>(i);
    evidence.n_decode_asked = request_.max_tokens;
    if (!prompt.text.empty()) {
      auto read = drive::TokenizeForBoth(sides_, prompt.text, request_.tokenize);
      if (!read) {
        PB_TRY(Absorb(std::move(read).error()));
      } else {
        for (int side : {kCandidate, kReference}) {
          PB_TRY(drive::CheckRoom(sides_[side].record(), read->ids[side].size(), prompt.origin));
          prompt.tokens_of[side] = evidence.tokens[side] = std::move(read->ids[side]);
        }
        if (!read->note.empty() && std::ranges::find(out_.notes, read->note) == out_.notes.end())
          out_.notes.push_back(std::move(read->note));
      }
    }
    if (prompt.tokens_of[0] == prompt.tokens_of[1])
      prompt.tokens = prompt.tokens_of[1];
    else
      equal = false;
    out_.prompts.push_back(std::move(prompt));
    evidence_.prompts.push_back(std::move(evidence));
  }
  return equal;
}

Status CrossvalRun::OpenSessions() {
  size_t longest = 1;
  for (const PromptRecord& prompt : out_.prompts)
    longest = std::max(longest, prompt.tokens.size() + static_cast<size_t>(prompt.steps_asked));
  longest = std::max<size_t>(longest, kCalibrationPositions);
  for (int side : {kCandidate, kReference}) {
    const drive::EngineSpec& spec = side == kCandidate ? request_.candidate : request_.reference;
    auto taken = sides_[side].OpenSessionWishing(drive::SessionWishes(spec.settings, longest));
    if (!taken)
      PB_TRY(Absorb(std::move(taken).error()));
    else
      session_[side] = std::move(taken).value();
  }
  return {};
}

// The reference's rows over the prompt and its greedy continuation, which becomes prompt.decoded.
Result<drive::RowStore> CrossvalRun::RunReference(PromptRecord& prompt, compare::PromptEvidence& evidence) {
  drive::Sequence sequence{prompt.tokens, static_cast<int32_t>(prompt.tokens.size())};
  auto start = Clock::now();
  PB_ASSIGN(drive::RowStore rows,
            drive::EvaluateGreedily(sides_[kReference], session_[kReference], prompt.steps_asked, &sequence));
  prompt.wall_seconds[kReference] = SecondsSince(start);
  // Where nothing finite was left to choose from the judge counts the missing steps.
  prompt.decoded.assign(sequence.tokens.begin() + sequence.n_prefill, sequence.tokens.end());
  evidence.n_prefill[kReference] = sequence.n_prefill;
  evidence.n_decode[kReference] = static_cast<int64_t>(prompt.decoded.size());
  evidence.n_vocab[kReference] = rows.n_columns();
  prompt.logits_sha256[kReference] = part_->ServedSha256();
  if (!prompt.logits_sha256[kReference].empty()) return rows;
  RowsDigest digest(request_);
  for (int64_t i = 0; i < rows.n_rows(); ++i) digest.Update(rows.Row(i));
  digest.Store(kReference, &prompt);
  return rows;
}

Status CrossvalRun::RunCandidate(PromptRecord& prompt, compare::PromptEvidence& evidence,
                                 const drive::RowStore& reference) {
  drive::Participant& engine = sides_[kCandidate];
  drive::Sequence sequence{prompt.tokens, static_cast<int32_t>(prompt.tokens.size())};
  sequence.tokens.insert(sequence.tokens.end(), prompt.decoded.begin(), prompt.decoded.end());
  RowsDigest digest(request_);
  auto compare_row = [&](int32_t position, std::span<const float> row) -> Status {
    bool prefill = position < sequence.n_prefill;
    ++(prefill ? evidence.n_prefill : evidence.n_decode)[kCandidate];
    evidence.n_vocab[kCandidate] = static_cast<int64_t>(row.size());
    digest.Update(row);
    if (position + 1 == kWatchedPositions) prompt.first_sha256 = digest.sha256.Hex();
    // Rows that cannot be paired are counted, and the judge says what is wrong with the count.
    if (position < 0 || position >= reference.n_rows() ||
        static_cast<int64_t>(row.size()) != reference.n_columns())
      return {};
    PB_ASSIGN(compare::LogitsRow compared, compare::CompareLogits(row, reference.Row(position)));
    if (const drive::Tape* tape = part_->tape()) tape->Release(reference.Row(position));
    compared.prompt = evidence.prompt;
    compared.position = position;
    compared.token = sequence.tokens[static_cast<size_t>(position)];
    compared.phase = prefill ? compare::Phase::kPrefill : compare::Phase::kDecode;
    evidence.rows.push_back(std::move(compared));
    return {};
  };
  auto start = Clock::now();
  Status status = drive::EvaluateSequence(engine, sequence, compare_row);
  prompt.wall_seconds[kCandidate] = SecondsSince(start);
  digest.Store(kCandidate, &prompt);
  return status;
}

Status CrossvalRun::BeginCandidate(const PromptRecord& prompt) {
  drive::Participant& engine = sides_[kCandidate];
  PB_TRY(engine.OpenSession(session_[kCandidate]));
  if (!drive::MayRunSideBySide(engine.record(), sides_[kReference].record())) return {};
  return engine.Begin(prompt.tokens, 0);
}

Status CrossvalRun::RecordByProof(PromptRecord& prompt) {
  prompt.reference_proof = part_->FindProof(prompt);
  if (!prompt.reference_proof) return {};
  if (!local_decided_) OpenLocalRun();
  if (!local_run_) {
    prompt.reference_proof.reset();
    return {};
  }
  prompt.decoded = prompt.reference_proof->decoded;
  prompt.logits_sha256[kReference] = prompt.reference_proof->logits_sha256;
  Status status = local_run_->Record(prompt);
  if (part_->served()) return status;
  prompt.reference_proof.reset();
  prompt.decoded.clear();
  prompt.logits_sha256[kReference].clear();
  return status;
}

Status CrossvalRun::ComparePrompt(size_t index) {
  PromptRecord& prompt = out_.prompts[index];
  compare::PromptEvidence& evidence = evidence_.prompts[index];
  if (prompt.tokens.empty()) return {};
  if (request_.progress)
    request_.progress("prompts", static_cast<int64_t>(index), static_cast<int64_t>(out_.prompts.size()));
  part_->Find(&prompt);
  PB_TRY(Absorb(RecordByProof(prompt)));
  if (failed_) return {};
  PB_TRY(Absorb(BeginCandidate(prompt)));
  if (failed_) return {};
  auto rows = RunReference(prompt, evidence);
  if (!rows) {
    sides_[kCandidate].GiveUpBegun();
    return Absorb(std::move(rows).error());
  }
  PB_TRY(Absorb(RunCandidate(prompt, evidence, *rows)));
  if (failed_) return {};
  drive::Sequence sequence{prompt.tokens, static_cast<int32_t>(prompt.tokens.size()),
                           static_cast<int32_t>(index)};
  sequence.tokens.insert(sequence.tokens.end(), prompt.decoded.begin(), prompt.decoded.end());
  // Nothing is judged by limits then, and noise upon NaN is NaN.
  if (std::any_of(evidence.rows.begin(), evidence.rows.end(), [](const auto& row) { return !row.finite; })) {
    floor_.GiveUp("logits are not finite");
    finite_ = false;
  }
  Release(*rows);  // while tensors are compared
  if (!evidence.rows.empty()) PB_TRY(Absorb(CompareLocally(prompt, static_cast<int32_t>(index))));
  if (failed_) return {};
  PB_TRY(Absorb(floor_.Add(sequence, &*rows)));
  if (index > 0) return {};
  first_rows_ = std::move(*rows);
  Release(*first_rows_);
  return {};
}

void CrossvalRun::Release(const drive::RowStore& rows) const {
  rows.Release();
  if (const drive::Tape* tape = part_->tape())
    for (int64_t i = 0; i < rows.n_rows(); ++i) tape->Release(rows.Row(i));
}

void CrossvalRun::OpenLocalRun() {
  local_decided_ = true;
  if (request_.scope != compare::Scope::kLocal) return;
  out_.why_logits_only = drive::WhyNoLocalScope(sides_[kCandidate], sides_[kReference]);
  if (!out_.why_logits_only.empty()) return;
  std::shared_ptr<const Model> models[2];
  const std::filesystem::path lenders[] = {sides_[kReference].record().plugin,
                                           sides_[kCandidate].record().plugin};
  for (int side : {kCandidate, kReference}) {
    const drive::EngineRecord& record = sides_[side].record();
    // Products need its weights alone, which are those of the file whatever the settings.
    if (side == kReference && record.model_path == sides_[kCandidate].record().model_path) {
      models[side] = models[kCandidate];
      continue;
    }
    auto model = drive::OpenModel(record.model_path, DeclaredBy(record.settings), lenders, request_.limits);
    if (!model.ok() && model.error().code == Code::kUnsupported) model = OpenProducts(sides_[side]);
    if (!model.ok()) continue;
    models[side] = *model;
    if (const std::string lent = drive::LentText(**model);
        !lent.empty() && std::ranges::find(out_.notes, lent) == out_.notes.end())
      out_.notes.push_back(lent);
  }
  model_ = models[kCandidate];
  local_run_.emplace(sides_[kCandidate], sides_[kReference], session_, models, request_, *part_);
}

// Local errors of every point, where both engines show their points.
Status CrossvalRun::CompareLocally(PromptRecord& prompt, int32_t index) {
  if (!local_decided_) OpenLocalRun();
  return local_run_ ? local_run_->Add(prompt, index) : Status();
}

void CrossvalRun::FinishLocally() {
  if (!local_run_) return;
  local_.emplace();
  local_run_->Finish(out_.prompts, &*local_, &out_.accumulated, &evidence_.obstacles);
  precision_ = local_run_->precision();
  if (request_.token_errors) out_.token_errors = local_run_->TakeTokenErrors();
  out_.points = CondensePoints(local_->points, true);
  out_.accumulated = CondensePoints(out_.accumulated, false);
}

// For information: the reference as it runs when nobody tells it anything about flash attention, at
// the first positions.
void CrossvalRun::CompareDefaultConfiguration() {
  const PromptRecord& prompt = out_.prompts.front();
  DefaultConfiguration row;
  if (part_->FindDefault(prompt, &row)) {
    out_.reference_default = std::move(row);
    return;
  }
  constexpr size_t kMostPositions = 128;
  const size_t n = std::min(prompt.tokens.size(), kMostPositions);
  drive::Sequence sequence{{prompt.tokens.begin(), prompt.tokens.begin() + static_cast<ptrdiff_t>(n)},
                           static_cast<int32_t>(n)};
  auto measure = [&]() -> Status {
    host::Settings automatic = session_[kReference];
    drive::PutSetting(automatic, "attn.flash", "auto");
    PB_ASSIGN(host::Facts facts, sides_[kReference].engine().OpenSession(automatic));
    row.flash = trace::ReadSessionFacts(facts).flash.value;
    PB_ASSIGN(drive::RowStore by_default, drive::EvaluateAll(sides_[kReference], automatic, sequence));
    for (int64_t i = 0; i < by_default.n_rows(); ++i) {
      PB_ASSIGN(compare::LogitsRow compared, compare::CompareLogits(by_default.Row(i), first_rows_->Row(i)));
      row.mean_kl += compared.kl;
      row.worst_kl = std::max(row.worst_kl, compared.kl);
      row.rel_l2 = std::max(row.rel_l2, compared.rel_l2);
      row.n_top1_differs += compared.top1[0] != compared.top1[1];
      ++row.n_positions;
    }
    row.mean_kl /= static_cast<double>(std::max<int64_t>(row.n_positions, 1));
    return {};
  };
  Status status = measure();
  // An engine that knows one kind of attention only has no other configuration to show.
  if (!status.ok() && (status.error().code == Code::kUsage || status.error().code == Code::kUnsupported))
    return;
  if (!status.ok()) row.error = status.error().message;
  part_->KeepDefault(prompt, row);
  out_.reference_default = std::move(row);
}

void CrossvalRun::CollectTokenText() {
  std::set<int32_t> ids;
  for (const PromptRecord& prompt : out_.prompts) {
    for (int side : {kCandidate, kReference})
      ids.insert(prompt.tokens_of[side].begin(), prompt.tokens_of[side].end());
    ids.insert(prompt.decoded.begin(), prompt.decoded.end());
  }
  for (const compare::PromptEvidence& prompt : evidence_.prompts)
    for (const compare::LogitsRow& row : prompt.rows)
      for (int side : {kCandidate, kReference}) ids.insert(row.top_k[side].begin(), row.top_k[side].end());
  for (int side : {kReference, kCandidate}) {
    if (sides_[side].failed() || out_.prompts.empty()) continue;
    for (int32_t id : ids) {
      auto text = sides_[side].engine().Detokenize(std::span(&id, 1));
      if (!text) break;
      out_.token_text[id] = std::move(text).value();
    }
    if (out_.token_text.size() == ids.size()) return;
  }
}

bool CrossvalRun::IsWithin(const compare::NoiseFloor& floor) const {
  compare::Evidence evidence;
  evidence.prompts = evidence_.prompts;
  evidence.user = request_.user;
  evidence.settings[kCandidate] = FactsOf(out_.candidate);
  evidence.settings[kReference] = FactsOf(out_.reference);
  return compare::IsWithin(floor, std::move(evidence));
}

// The floor, and a copy of it beside each of the reference's traces, which then bring their limits
// wherever they go.
Status CrossvalRun::TakeFloor() {
  evidence_.floor = floor_.Take(&out_.floor);
  evidence_.no_floor_reason = floor_.why_none();
  int64_t n_rows = 0;
  for (const compare::PromptEvidence& prompt : evidence_.prompts)
    n_rows += static_cast<int64_t>(prompt.rows.size());
  evidence_.noise_runs = floor_.NoiseRuns(n_rows, &evidence_.no_runs_reason);
  if (!evidence_.floor || out_.floor.side != "reference") return {};
  for (size_t i = 0; i < out_.prompts.size(); ++i) {
    const std::optional<KeptTrace>& trace = out_.prompts[i].traces[kReference];
    if (trace)
      PB_TRY(noise::WriteNoiseFloor(trace->folder / noise::kNoiseFile, *evidence_.floor,
                                    static_cast<int32_t>(i), trace->logits_blake3));
  }
  return {};
}

Status CrossvalRun::WatchWholeInDoubt() {
  if (!local_run_ || (evidence_.floor && IsWithin(*evidence_.floor))) return {};
  for (size_t i = 0; i < out_.prompts.size(); ++i)
    if (out_.prompts[i].n_watched > 0)
      PB_TRY(local_run_->WatchWhole(out_.prompts[i], static_cast<int32_t>(i)));
  return {};
}

Status CrossvalRun::Repeat() {
  bool repeats[2] = {true, true};
  for (size_t i = 0; i < out_.prompts.size(); ++i) {
    PromptRecord& prompt = out_.prompts[i];
    drive::Sequence sequence{prompt.tokens, static_cast<int32_t>(prompt.tokens.size())};
    sequence.tokens.insert(sequence.tokens.end(), prompt.decoded.begin(), prompt.decoded.end());
    for (int side : {kCandidate, kReference}) {
      if (!prompt.tapped_sha256[side].empty()) continue;
      if (side == kReference && prompt.reference_part) {
        prompt.repeated_sha256[side] = prompt.logits_sha256[side];
        continue;
      }
      if (request_.progress)
        request_.progress("a second run", static_cast<int64_t>(i), static_cast<int64_t>(out_.prompts.size()));
      PB_TRY(sides_[side].OpenSession(session_[side]));
      Sha256 digest;
      PB_TRY(
          drive::EvaluateSequence(sides_[side], sequence, [&](int32_t, std::span<const float> row) -> Status {
            digest.Update(std::as_bytes(row));
            return {};
          }));
      prompt.repeated_sha256[side] = digest.Hex();
      repeats[side] &= prompt.repeated_sha256[side] == prompt.logits_sha256[side];
    }
  }
  for (int side : {kCandidate, kReference})
    if (!repeats[side])
      evidence_.obstacles.push_back(
          {compare::Outcome::kIncomplete, compare::ReasonCode::kNotRepeatable,
           fmt::format("the {} is not repeatable: two equal runs of it give other logits",
                       sides_[side].record().role)});
  return {};
}

void CrossvalRun::TellOfDoubts() {
  size_t longest = 0;
  for (const PromptRecord& prompt : out_.prompts) {
    longest = std::max(longest, prompt.tokens.size() + static_cast<size_t>(prompt.steps_asked));
    NoteTokens(out_.candidate, prompt.tokens, prompt.origin, &out_.notes);
  }
  TellDoubts(out_.doubts, static_cast<int64_t>(longest),
             ReadsAsDeclared(out_.candidate) || ReadsAsDeclared(out_.reference), &evidence_.obstacles,
             &out_.notes);
}

// What this run does not show by itself is named, whatever the verdict.
void CrossvalRun::TellOfReuse() {
  for (size_t i = 0; i < out_.prompts.size(); ++i) {
    const std::optional<KeptPart>& part = out_.prompts[i].reference_part;
    if (const std::optional<KeptProof>& proof = out_.prompts[i].reference_proof) {
      out_.notes.push_back(
          fmt::format("the reference ran once over prompt {}, watched: its logits have the bits that the "
                      "same engine, with "
                      "the same settings, model file, tokens and processor, gave unwatched {} hours ago "
                      "({:.12}); --reuse "
                      "never runs it both ways",
                      i, (std::time(nullptr) - proof->recorded) / 3600, proof->logits_sha256));
    }
    if (!part) continue;
    out_.notes.push_back(fmt::format(
        "the reference did not run over prompt {}: its logits and tensors are those that the same engine, "
        "with the same settings, model file, tokens and processor, gave {} hours ago ({:.12}); so are the "
        "proofs that watching changes nothing and that it delivers what it shows; --reuse never runs it",
        i, (std::time(nullptr) - part->recorded) / 3600, part->data_blake3));
  }
}

void CrossvalRun::ObserveForLogits() {
  const bool may_round_otherwise = out_.verdict.Has(compare::ReasonCode::kKlWorstAboveLimit) ||
                                   out_.verdict.Has(compare::ReasonCode::kKlMeanAboveLimit) ||
                                   out_.verdict.Has(compare::ReasonCode::kTop1Flip) ||
                                   out_.verdict.Has(compare::ReasonCode::kDistinguishable) ||
                                   out_.verdict.Has(compare::ReasonCode::kSettingsDiffer);
  if (local_ || failed_ || !may_round_otherwise || request_.user.precision.strict) return;
  if (!SameWeightTypes(out_.candidate, out_.reference)) return;
  auto model = Model::Open(out_.candidate.model_path, DeclaredBy(out_.candidate.settings));
  const auto prompt =
      std::ranges::find_if(out_.prompts, [](const PromptRecord& p) { return !p.tokens.empty(); });
  if (!model.ok() || prompt == out_.prompts.end()) return;
  model_ = *model;
  drive::Participant* sides[2] = {&sides_[kCandidate], &sides_[kReference]};
  precision_ = ObserveBoth(sides, session_, model_, *prompt);
}

void CrossvalRun::TellOfPrecision() {
  const bool strict = request_.user.precision.strict;
  drive::Participant* sides[2] = {&sides_[kCandidate], &sides_[kReference]};
  std::string remedy;
  if (!failed_) remedy = FindRemedy(sides, session_, precision_);
  TellPrecision(precision_, !strict && SameWeightTypes(out_.candidate, out_.reference), remedy, &evidence_);
  NoteObserved(precision_.classes[kCandidate], strict, &out_.candidate);
  NoteObserved(precision_.classes[kReference], strict, &out_.reference);
  evidence_.settings[kCandidate] = FactsOf(out_.candidate);
  evidence_.settings[kReference] = FactsOf(out_.reference);
}

void CrossvalRun::Judge() {
  evidence_.n_prompts_asked = static_cast<int64_t>(request_.prompts.size());
  evidence_.user = request_.user;
  TellOfDoubts();
  TellOfReuse();
  auto judge = [&] {
    out_.verdict = local_ ? compare::JudgeLocal(&evidence_, *local_) : compare::JudgeLogits(&evidence_);
  };
  TellOfPrecision();
  judge();
  ObserveForLogits();
  if (!local_ && !precision_.classes[kCandidate].empty()) {
    TellOfPrecision();
    judge();
  }
  // Asked for only where the logits do not lie within the noise.
  if (model_ && out_.verdict.Has(compare::ReasonCode::kPrecisionEffectUnknown)) {
    std::string act_quant[2];
    for (const int side : {kCandidate, kReference}) {
      const host::Facts& session = side == kCandidate ? out_.candidate.session : out_.reference.session;
      act_quant[side] = host::FactText(session, "act.quant");
      const auto told = ActQuant::Parse(act_quant[side]);
      if (told.ok() && !request_.user.precision.strict)
        act_quant[side] = codes::ObservedOfPrefill(*told, precision_.classes[side]).Text();
    }
    const bool f16_attention = out_.verdict.Has(compare::ReasonCode::kFusedAttention);
    const bool attention = local_ && compare::AttentionRoundsDifferently(*local_);
    evidence_.effect = PredictEffect(request_, out_, *model_, act_quant, f16_attention, attention);
    judge();
    if (evidence_.effect && evidence_.effect->why_none.empty()) out_.effect = evidence_.effect;
  }
  for (compare::PromptEvidence& prompt : evidence_.prompts)
    out_.rows.insert(out_.rows.end(), prompt.rows.begin(), prompt.rows.end());
  out_.choices = request_.choices;
}

Result<Comparison> CrossvalRun::Run() {
  auto start = Clock::now();
  if (!request_.keep.folder.empty()) PB_TRY(CheckKeepFolder(request_.keep.folder));
  if (request_.prompts.empty() || !request_.no_reference.empty()) {
    PB_TRY(CheckModelFile(request_.model, request_.candidate.settings, &out_.doubts));
    out_.candidate.role = "candidate";
    out_.reference.role = "reference";
    out_.candidate.spec = request_.candidate.text, out_.reference.spec = request_.reference.text;
    out_.candidate.model_path = request_.model;
    if (!request_.no_reference.empty())
      evidence_.obstacles.push_back(compare::NoReference(request_.no_reference));
    Judge();
    return std::move(out_);
  }
  drive::EngineRecord* records[2] = {&out_.candidate, &out_.reference};
  for (int side : {kCandidate, kReference})
    if (!failed_)
      PB_TRY(
          Absorb(OpenSide(request_, side, sides_[side], records[side], &out_.doubts, &evidence_.obstacles)));
  bool go = false;
  if (!failed_) {
    PB_ASSIGN(const bool equal, TokenizePrompts());
    go = equal && !failed_;
  }
  if (go) PB_TRY(OpenSessions());
  if (go) part_.emplace(sides_[kCandidate], sides_[kReference], session_[kReference], request_);
  for (size_t i = 0; go && i < out_.prompts.size() && !failed_; ++i) PB_TRY(ComparePrompt(i));
  bool compared = std::any_of(evidence_.prompts.begin(), evidence_.prompts.end(),
                              [](const compare::PromptEvidence& prompt) { return !prompt.rows.empty(); });
  const bool whole = compared && !failed_;
  if (whole)
    PB_TRY(Absorb(floor_.Calibrate([this](const compare::NoiseFloor& floor) { return IsWithin(floor); })));
  if (compared && !failed_)
    PB_TRY(TakeFloor());
  else
    evidence_.no_floor_reason = failed_ ? "an engine failed" : "nothing was compared";
  if (compared && !failed_) PB_TRY(Absorb(WatchWholeInDoubt()));
  if (whole) FinishLocally();
  if (whole && request_.repeat) PB_TRY(Absorb(Repeat()));
  bool flash = drive::FindSetting(session_[kReference], "attn.flash") != nullptr;
  if (compared && !failed_ && finite_ && request_.default_row && flash && first_rows_)
    CompareDefaultConfiguration();
  CollectTokenText();
  out_.wall_seconds = SecondsSince(start);
  Judge();
  return std::move(out_);
}

}  // namespace

Result<Comparison> Crossval(const Request& request) { return CrossvalRun(request).Run(); }

}  // namespace pb::run

// Lets the reference choose, feeds its choices to the candidate, and holds every choice that differs
// against the noise floor.
#include "parity/greedy_parity.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/kept.h"
#include "base/sha256.h"
#include "base/text.h"
#include "drive/context_room.h"
#include "drive/sequence.h"
#include "noise/floor.h"
#include "parity/explained.h"
#include "parity/pair.h"
#include "parity/prompts.h"

namespace pb::parity {
namespace {

using compare::Outcome;
using compare::ReasonCode;
using Json = nlohmann::json;

bool IsConstant(std::span<const float> row) {
  return std::all_of(row.begin(), row.end(), [&](float v) { return v == row[0]; });
}

class GreedyRun {
 public:
  explicit GreedyRun(const GreedyRequest& request)
      : request_(request),
        random_(request.seed, request.pair.prompts.empty() ? request.examples : 0),
        pair_(request.pair, &out_.run) {}

  Result<GreedyParity> Run();

 private:
  std::vector<run::PromptSpec> Prompts() const;
  Status OpenSessions(const std::vector<run::PromptSpec>& prompts);
  Status MeasureFloor();
  Status ComparePrompts(const std::vector<run::PromptSpec>& prompts);
  // None: an engine failed or the texts have other ids, which is a reason.
  Result<std::optional<GreedyRow>> Compare(const run::PromptSpec& prompt);
  Status Walk(GreedyRow* row);
  Status WalkCandidate(const drive::RowStore& reference, const drive::Sequence& sequence, GreedyRow* row);
  void Explain(GreedyRow* row) const;
  // The noise over this prompt's own tokens joins the floor.
  Status Confirm(GreedyRow* row);
  Status Shrink(int index);
  Status AskCrossval();
  void TakeFloor();
  void Judge();
  void CollectTokenText();

  Json Provenance(const run::PromptSpec& prompt) const;
  std::filesystem::path Folder() const;
  std::filesystem::path Entry(const run::PromptSpec& prompt) const;
  bool Load(const run::PromptSpec& prompt, GreedyRow* row) const;
  void Keep(const run::PromptSpec& prompt, const GreedyRow& row) const;

  const GreedyRequest& request_;
  GreedyParity out_;
  RandomPrompts random_;
  Pair pair_;
  host::Settings sessions_[2];
  std::optional<noise::FloorSource> floor_;
  std::optional<compare::NoiseFloor> taken_;
  size_t room_ = 0;  // positions of a session
  // No row told one token from another: candidate, reference.
  bool constant_[2] = {true, true};
};

std::vector<run::PromptSpec> GreedyRun::Prompts() const {
  if (!request_.pair.prompts.empty()) return request_.pair.prompts;
  std::vector<run::PromptSpec> prompts;
  for (int i = 0; i < random_.size(); ++i)
    prompts.push_back({random_.At(i), fmt::format("example {} of seed {}", i, request_.seed)});
  return prompts;
}

Status GreedyRun::OpenSessions(const std::vector<run::PromptSpec>& prompts) {
  for (const run::PromptSpec& prompt : prompts) {
    PB_ASSIGN(const auto ids, pair_.Tokenize(prompt.text, prompt.origin));
    if (!ids) return {};
    for (int side : {0, 1}) PB_TRY(drive::CheckRoom(pair_.side(side).record(), ids->size(), prompt.origin));
    room_ = std::max(room_, ids->size() + static_cast<size_t>(request_.max_tokens));
  }
  room_ = std::max<size_t>(room_, compare::kMinNoisePositions);
  PB_TRY(pair_.OpenSessions(room_));
  for (int side : {0, 1}) sessions_[side] = pair_.session(side);
  return {};
}

Status GreedyRun::MeasureFloor() {
  noise::FloorRequest asked;
  asked.local = false;
  asked.n_runs = request_.pair.n_noise_runs;
  asked.calibration = request_.pair.calibration;
  asked.progress = request_.pair.progress;
  floor_.emplace(pair_.candidate(), pair_.reference(), sessions_, std::move(asked));
  PB_TRY(pair_.Absorb(floor_->Calibrate()));
  if (!pair_.failed()) TakeFloor();
  return {};
}

void GreedyRun::TakeFloor() {
  taken_ = floor_->Take(&out_.run.floor);
  if (taken_ && (!compare::CheckNoiseFloor(*taken_).ok() || taken_->IsZero())) taken_.reset();
  out_.gap_limit = taken_ ? compare::GapLimit(*taken_).value : 0;
}

// Evaluates prompt and greedy path in both.
Status GreedyRun::Walk(GreedyRow* row) {
  drive::Sequence sequence{row->tokens, static_cast<int32_t>(row->tokens.size()), 0};
  PB_ASSIGN(const drive::RowStore rows,
            drive::EvaluateGreedily(pair_.reference(), pair_.session(Pair::kReference),
                                    std::max(request_.max_tokens - 1, 0), &sequence));
  row->decoded.assign(sequence.tokens.begin() + sequence.n_prefill, sequence.tokens.end());
  if (const int32_t last = drive::Greedy(rows.Row(rows.n_rows() - 1)); last >= 0)
    row->decoded.push_back(last);
  // What comes after the end of the text nobody would see.
  const std::vector<int32_t> ends = pair_.reference().record().model_facts().ends;
  const auto end = std::find_first_of(row->decoded.begin(), row->decoded.end(), ends.begin(), ends.end());
  row->n_compared = static_cast<int32_t>(end - row->decoded.begin()) + (end == row->decoded.end() ? 0 : 1);
  if (row->n_compared == 0)
    return pair_.reference().Noted(MakeError(Code::kEngine, "no logit is finite after the prompt"));
  return WalkCandidate(rows, sequence, row);
}

Status GreedyRun::WalkCandidate(const drive::RowStore& reference, const drive::Sequence& sequence,
                                GreedyRow* row) {
  drive::Participant& engine = pair_.candidate();
  PB_TRY(engine.OpenSession(pair_.session(Pair::kCandidate)));
  int32_t next = 0;
  row->flips.clear();
  auto compare_row = [&](int32_t position, std::span<const float> logits) -> Status {
    if (position != next++ || position >= reference.n_rows() ||
        static_cast<int64_t>(logits.size()) != reference.n_columns())
      return MakeError(Code::kEngine,
                       "logits of position {} came out of turn, or {} of them where the "
                       "reference has {}",
                       position, logits.size(), reference.n_columns());
    const int32_t step = position - sequence.n_prefill + 1;
    if (step < 0 || step >= row->n_compared) return {};
    const auto theirs = reference.Row(position);
    constant_[0] = constant_[0] && IsConstant(logits);
    constant_[1] = constant_[1] && IsConstant(theirs);
    const int32_t chosen = drive::Greedy(logits);
    if (chosen < 0) return MakeError(Code::kEngine, "no logit of position {} is finite", position);
    if (chosen == drive::Greedy(theirs)) return {};
    PB_ASSIGN(const compare::LogitsRow compared, compare::CompareLogits(logits, theirs));
    row->flips.push_back({step,
                          position,
                          {chosen, drive::Greedy(theirs)},
                          compared.gap_reference,
                          compared.finite ? compared.gap_change : INFINITY,
                          false});
    return {};
  };
  PB_TRY(drive::EvaluateSequence(engine, sequence, compare_row));
  if (next != static_cast<int32_t>(sequence.tokens.size()))
    return engine.Noted(
        MakeError(Code::kEngine, "{} rows of logits for {} positions", next, sequence.tokens.size()));
  return {};
}

void GreedyRun::Explain(GreedyRow* row) const {
  for (Flip& flip : row->flips) flip.explained = taken_ && flip.change <= out_.gap_limit;
}

Status GreedyRun::Confirm(GreedyRow* row) {
  if (!row->failed() || !taken_) return {};
  drive::Sequence sequence{row->tokens, static_cast<int32_t>(row->tokens.size()), 0};
  sequence.tokens.insert(sequence.tokens.end(), row->decoded.begin(),
                         row->decoded.end() - (row->decoded.empty() ? 0 : 1));
  PB_TRY(floor_->Add(sequence, nullptr));
  TakeFloor();
  Explain(row);
  return {};
}

Result<std::optional<GreedyRow>> GreedyRun::Compare(const run::PromptSpec& prompt) {
  const std::optional<GreedyRow> none;
  GreedyRow row;
  row.text = prompt.text, row.origin = prompt.origin;
  PB_ASSIGN(auto ids, pair_.Tokenize(prompt.text, prompt.origin));
  if (!ids) return none;
  row.tokens = std::move(*ids);
  PB_TRY(pair_.Absorb(Walk(&row)));
  if (pair_.failed()) return none;
  Explain(&row);
  return std::optional(std::move(row));
}

Status GreedyRun::ComparePrompts(const std::vector<run::PromptSpec>& prompts) {
  const bool given = !request_.pair.prompts.empty();
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (request_.pair.progress)
      request_.pair.progress("prompts", static_cast<int64_t>(i), static_cast<int64_t>(prompts.size()));
    GreedyRow row;
    if (!request_.resume || !Load(prompts[i], &row)) {
      PB_ASSIGN(auto compared, Compare(prompts[i]));
      if (!compared) return {};
      row = std::move(*compared);
      PB_TRY(pair_.Absorb(Confirm(&row)));
      if (pair_.failed()) return {};
      if (!row.failed()) Keep(prompts[i], row);
    }
    out_.rows.push_back(std::move(row));
    if (given || !out_.rows.back().failed()) continue;
    return Shrink(static_cast<int>(i));
  }
  return {};
}

Status GreedyRun::Shrink(int index) {
  if (request_.pair.progress) request_.pair.progress("smaller prompts", 0, request_.max_shrinks);
  GreedyRow best = out_.rows.back();
  int n_tried = 0;
  auto fails = [&](const std::string& text) -> Result<bool> {
    if (request_.pair.progress) request_.pair.progress("smaller prompts", ++n_tried, request_.max_shrinks);
    PB_ASSIGN(auto row, Compare({text, fmt::format("shrunk from {}", out_.rows.back().origin)}));
    if (!row) return MakeError(Code::kEngine, "a smaller prompt cannot be compared");
    if (row->tokens.size() + static_cast<size_t>(request_.max_tokens) > room_ || !row->failed()) return false;
    best = std::move(*row);
    return true;
  };
  auto smallest = random_.Shrink(index, request_.max_shrinks, fails);
  if (pair_.failed()) return {};
  PB_ASSIGN(const RandomPrompts::Smallest found, std::move(smallest));
  out_.n_shrinks = found.n_tried, out_.is_minimal = found.is_minimal;
  // Its own noise is heard too; where that explains it, the prompt as it was found stands.
  PB_TRY(pair_.Absorb(Confirm(&best)));
  if (pair_.failed()) return {};
  Explain(&out_.rows.back());
  if (best.failed()) out_.smallest = std::move(best);
  return {};
}

Status GreedyRun::AskCrossval() {
  std::vector<compare::Reason>& reasons = out_.run.verdict.reasons;
  const auto flip = std::find_if(reasons.begin(), reasons.end(), [](const compare::Reason& reason) {
    return reason.code == ReasonCode::kTop1Flip;
  });
  if (flip == reasons.end()) return {};
  const auto failed =
      std::find_if(out_.rows.begin(), out_.rows.end(), [](const auto& row) { return row.failed(); });
  const GreedyRow& row = out_.smallest ? *out_.smallest : *failed;
  PB_ASSIGN(const std::optional<compare::Reason> why,
            WhatExplains(request_.pair, {row.text, row.origin}, std::max(request_.max_tokens - 1, 0)));
  if (!why) return {};
  out_.run.notes.push_back(flip->text);
  *flip = *why;
  return {};
}

void GreedyRun::Judge() {
  int64_t n_failed = 0, n_prompts = 0;
  const GreedyRow* first = nullptr;
  for (const GreedyRow& row : out_.rows) {
    out_.n_tokens += row.n_compared;
    out_.n_flips += static_cast<int64_t>(row.flips.size());
    ++n_prompts;
    n_failed += row.failed();
    if (row.failed() && !first) first = &row;
  }
  if (n_prompts == 0 || out_.n_tokens == 0)
    return pair_.Add(ReasonCode::kNothingCompared, "no token was chosen");
  for (int side : {0, 1})
    if (constant_[side] &&
        std::any_of(out_.rows.begin(), out_.rows.end(), [](const auto& r) { return !r.from_cache; }))
      return pair_.Add(ReasonCode::kConstantLogits,
                       fmt::format("the {} gives every token the same logit everywhere: nothing was computed",
                                   side ? "reference" : "candidate"));
  if (taken_) out_.run.verdict.limits.push_back(compare::GapLimit(*taken_));
  if (first && !taken_)
    return pair_.Add(ReasonCode::kNoNoiseFloor,
                     fmt::format("{} of {} prompts choose another token, and whether noise explains that "
                                 "cannot be told: {}",
                                 n_failed, n_prompts,
                                 floor_->why_none().empty() ? "disturbing the reference changes nothing"
                                                            : floor_->why_none()));
  if (first) {
    const GreedyRow& row = out_.smallest ? *out_.smallest : *first;
    const auto flip =
        std::find_if(row.flips.begin(), row.flips.end(), [](const Flip& f) { return !f.explained; });
    out_.run.verdict.first_divergence = compare::FirstDivergence{
        static_cast<int32_t>(first - out_.rows.data()), flip->position, flip->chosen[1], -1, {}, {}};
    return pair_.Add(
        Outcome::kDiverged, ReasonCode::kTop1Flip,
        fmt::format(
            "the engines choose other tokens than noise explains, first as token {} after the prompt: "
            "the gap changes by {:.1e} nats, limit {:.1e}",
            flip->step + 1, flip->change, out_.gap_limit));
  }
  if (out_.n_flips > 0)
    return pair_.Add(
        ReasonCode::kNearTie,
        fmt::format("{} of {} tokens differ, and each is as near a tie as the reference's own noise "
                    "decides otherwise",
                    out_.n_flips, out_.n_tokens));
  pair_.Add(ReasonCode::kEqual, fmt::format("all {} tokens after {} prompt{} are the same", out_.n_tokens,
                                            n_prompts, n_prompts == 1 ? "" : "s"));
}

void GreedyRun::CollectTokenText() {
  std::set<int32_t> ids;
  const auto add = [&](const GreedyRow& row) {
    ids.insert(row.decoded.begin(), row.decoded.end());
    for (const Flip& flip : row.flips) ids.insert(flip.chosen, flip.chosen + 2);
  };
  for (const GreedyRow& row : out_.rows)
    if (!row.flips.empty()) add(row);
  if (out_.smallest) add(*out_.smallest);
  for (int32_t id : ids) {
    auto text = pair_.reference().engine().Detokenize(std::span(&id, 1));
    if (!text.ok()) return;
    out_.run.token_text[id] = std::move(text).value();
  }
}

// ---- What an interrupted run leaves ----

Json GreedyRun::Provenance(const run::PromptSpec& prompt) const {
  Json out = {{"max_tokens", request_.max_tokens}, {"text", prompt.text}};
  const drive::EngineRecord* records[2] = {&out_.run.candidate, &out_.run.reference};
  for (int side : {0, 1}) {
    Json settings = Json::object();
    for (const auto* facts : {&records[side]->model, &records[side]->session})
      for (const host::Fact& fact : *facts) settings[fact.key] = fact.value;
    out[side ? "reference" : "candidate"] = {{"identity", records[side]->identity},
                                             {"model_sha256", records[side]->model_sha256},
                                             {"facts", settings}};
  }
  return EscapeInvalidIn(out);
}

std::filesystem::path GreedyRun::Folder() const {
  const run::PromptSpec any{"", ""};
  constexpr size_t kDigits = 24;
  return CacheDir() / "greedy" / Sha256Hex(DumpJson(Provenance(any))).substr(0, kDigits);
}

std::filesystem::path GreedyRun::Entry(const run::PromptSpec& prompt) const {
  constexpr size_t kDigits = 24;
  return Folder() / (Sha256Hex(prompt.text).substr(0, kDigits) + ".json");
}

bool GreedyRun::Load(const run::PromptSpec& prompt, GreedyRow* row) const {
  constexpr uint64_t kMaxBytes = 16 << 20;
  const std::optional<Json> entry = ReadCacheEntry(Entry(prompt), kMaxBytes);
  if (!entry || entry->value("provenance", Json()) != Provenance(prompt)) return false;
  try {
    row->text = prompt.text, row->origin = prompt.origin, row->from_cache = true;
    row->tokens = entry->at("tokens").get<std::vector<int32_t>>();
    row->decoded = entry->at("decoded").get<std::vector<int32_t>>();
    row->n_compared = entry->at("n_compared").get<int32_t>();
    for (const Json& flip : entry->at("flips"))
      row->flips.push_back({flip.at("step"),
                            flip.at("position"),
                            {flip.at("chosen").at(0), flip.at("chosen").at(1)},
                            flip.at("margin"),
                            flip.at("change"),
                            false});
  } catch (const Json::exception&) {
    return false;
  }
  Explain(row);
  return row->n_compared > 0 && !row->failed();
}

void GreedyRun::Keep(const run::PromptSpec& prompt, const GreedyRow& row) const {
  Json flips = Json::array();
  for (const Flip& flip : row.flips)
    flips.push_back({{"step", flip.step},
                     {"position", flip.position},
                     {"chosen", {flip.chosen[0], flip.chosen[1]}},
                     {"margin", flip.margin},
                     {"change", flip.change}});
  WriteCacheEntry(Entry(prompt), {{"schema", "paritybit.greedy/0"},
                                  {"provenance", Provenance(prompt)},
                                  {"tokens", row.tokens},
                                  {"decoded", row.decoded},
                                  {"n_compared", row.n_compared},
                                  {"flips", flips}});
}

Result<GreedyParity> GreedyRun::Run() {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<run::PromptSpec> prompts = Prompts();
  PB_TRY(pair_.Open());
  if (!pair_.failed() && prompts.empty())
    pair_.Add(ReasonCode::kNoPrompts, "there are no prompts, so nothing was compared");
  else if (!pair_.failed())
    PB_TRY(OpenSessions(prompts));
  if (!pair_.failed() && !prompts.empty()) PB_TRY(MeasureFloor());
  if (!pair_.failed() && !prompts.empty()) PB_TRY(ComparePrompts(prompts));
  if (!pair_.failed() && !prompts.empty()) {
    Judge();
    CollectTokenText();
    PB_TRY(AskCrossval());
    std::error_code ignored;
    std::filesystem::remove_all(Folder(), ignored);  // the run has come to its end
  }
  pair_.Finish(static_cast<int64_t>(room_ > compare::kMinNoisePositions ? room_ : 0));
  out_.run.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(out_);
}

}  // namespace

Result<GreedyParity> CompareGreedy(const GreedyRequest& request) { return GreedyRun(request).Run(); }

}  // namespace pb::parity

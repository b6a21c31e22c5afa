// Opens both sides, and turns what goes wrong into reasons.
#include "parity/pair.h"

#include "drive/context_room.h"
#include "run/doubts.h"
#include "run/open_side.h"

namespace pb::parity {

using compare::Outcome;
using compare::ReasonCode;

Status Pair::Absorb(Status status) {
  if (status.ok()) return status;
  for (drive::Participant& engine : sides_) {
    const std::optional<compare::Obstacle> obstacle = engine.ObstacleOf(status.error());
    if (!obstacle) continue;
    Add(*obstacle);
    failed_ = true;
    return {};
  }
  return status;
}

Status Pair::Open() {
  out_.candidate.role = "candidate", out_.reference.role = "reference";
  out_.candidate.spec = request_.candidate.text, out_.reference.spec = request_.reference.text;
  if (!request_.no_reference.empty()) {
    PB_TRY(run::CheckModelFile(request_.model, request_.candidate.settings, &out_.doubts));
    out_.candidate.model_path = request_.model;
    Add(compare::NoReference(request_.no_reference));
    failed_ = true;
    return {};
  }
  drive::EngineRecord* records[2] = {&out_.candidate, &out_.reference};
  for (int side : {kCandidate, kReference}) {
    if (failed_) break;
    PB_TRY(Absorb(run::OpenSide(request_, side, sides_[side], records[side], &out_.doubts, &obstacles_)));
  }
  return {};
}

Status Pair::OpenSessions(size_t n_ctx) {
  for (int side : {kCandidate, kReference}) {
    if (failed_) break;
    auto taken = sides_[side].OpenSessionWishing(drive::SessionWishes(spec(side).settings, n_ctx));
    if (taken.ok())
      session_[side] = std::move(taken).value();
    else
      PB_TRY(Absorb(std::move(taken).error()));
  }
  return {};
}

Result<std::optional<std::vector<int32_t>>> Pair::Tokenize(std::string_view text, std::string_view origin) {
  const std::optional<std::vector<int32_t>> none;
  auto read = drive::TokenizeForBoth(sides_, text, request_.tokenize);
  if (!read.ok()) {
    PB_TRY(Absorb(std::move(read).error()));
    return none;
  }
  Note(std::move(read->note));
  auto& ids = read->ids;
  if (ids[0] != ids[1]) {
    const size_t shorter = std::min(ids[0].size(), ids[1].size());
    size_t at = 0;
    while (at < shorter && ids[0][at] == ids[1][at]) ++at;
    const auto id = [&](int side) { return at < ids[side].size() ? std::to_string(ids[side][at]) : "none"; };
    Add(Outcome::kInvalid, ReasonCode::kTokensDiffer,
        fmt::format("{}: the engines read different tokens: {} and {}, first at position {}: candidate {}, "
                    "reference {}",
                    origin, ids[0].size(), ids[1].size(), at, id(0), id(1)));
    failed_ = true;
    return none;
  }
  if (ids[0].empty()) {
    Add(ReasonCode::kEmptyPrompt, fmt::format("{}: no tokens, so nothing can be compared", origin));
    failed_ = true;
    return none;
  }
  return std::optional(std::move(ids[0]));
}

void Pair::Finish(int64_t n_positions) {
  for (const compare::Obstacle& obstacle : obstacles_) Add(obstacle);
  std::vector<compare::Obstacle> doubts;
  run::TellDoubts(out_.doubts, n_positions,
                  run::ReadsAsDeclared(out_.candidate) || run::ReadsAsDeclared(out_.reference), &doubts,
                  &out_.notes);
  for (const compare::Obstacle& doubt : doubts) Add(doubt);
  for (const drive::EngineRecord* engine : {&out_.candidate, &out_.reference})
    for (std::string& finding : drive::FindingsOf(*engine, n_positions)) Note(std::move(finding));
  for (const std::string& note : request_.notes) Note(note);
  out_.choices = request_.choices;
  compare::Settle(&out_.verdict);
}

}  // namespace pb::parity

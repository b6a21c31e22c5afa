// Walks the reference's greedy path in both engines, then in the disturbed reference, and judges the
// order of the top tokens.
#include "parity/logit_parity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <set>

#include "compare/noise_floor.h"
#include "drive/context_room.h"
#include "drive/sequence.h"
#include "parity/explained.h"
#include "parity/pair.h"
#include "run/doubts.h"

namespace pb::parity {
namespace {

using compare::Outcome;
using compare::ReasonCode;

// A sequence with the reference's rows over it, and which of them are steps.
struct Walked {
  drive::Sequence sequence;
  drive::RowStore rows;
  int32_t first_step = 0;  // position of the first row that is judged; beyond the end: none is
};

bool AllFinite(std::span<const float> row) {
  return std::all_of(row.begin(), row.end(), [](float v) { return std::isfinite(v); });
}

class OrderRun {
 public:
  explicit OrderRun(const LogitParityRequest& request) : request_(request), pair_(request.pair, &out_.run) {}

  Result<LogitParity> Run();

 private:
  Status Walk();
  Status WalkPrompt(size_t index);
  Status WalkCandidate(const Walked& walked);
  Status MeasureNoise();
  Status Disturb(uint64_t seed, std::vector<double>* disorder);
  void CollectTokenText();
  void Summarise();
  void Judge();
  void JudgeNoise();
  Status Explain();
  double NoiseLimit() const { return compare::kWorstFactor * out_.noise.worst_spread; }

  const LogitParityRequest& request_;
  LogitParity out_;
  Pair pair_;
  std::vector<Walked> walked_;
  size_t longest_ = 0;
};

Status OrderRun::Walk() {
  const std::vector<run::PromptSpec>& prompts = request_.pair.prompts;
  for (const run::PromptSpec& spec : prompts) {
    if (pair_.failed()) return {};
    run::PromptRecord prompt;
    prompt.text = spec.text, prompt.origin = spec.origin;
    prompt.steps_asked = request_.tau.steps - 1;
    PB_ASSIGN(auto ids, pair_.Tokenize(spec.text, spec.origin));
    if (!ids) return {};
    for (int side : {0, 1}) PB_TRY(drive::CheckRoom(pair_.side(side).record(), ids->size(), spec.origin));
    prompt.tokens = prompt.tokens_of[0] = prompt.tokens_of[1] = std::move(*ids);
    longest_ = std::max(longest_, prompt.tokens.size() + static_cast<size_t>(request_.tau.steps));
    out_.run.prompts.push_back(std::move(prompt));
  }
  PB_TRY(pair_.OpenSessions(std::max<size_t>(longest_, compare::kMinNoisePositions)));
  for (size_t i = 0; i < out_.run.prompts.size() && !pair_.failed(); ++i) {
    if (request_.pair.progress)
      request_.pair.progress("prompts", static_cast<int64_t>(i), static_cast<int64_t>(prompts.size()));
    PB_TRY(pair_.Absorb(WalkPrompt(i)));
  }
  return {};
}

Status OrderRun::WalkPrompt(size_t index) {
  run::PromptRecord& prompt = out_.run.prompts[index];
  drive::Sequence sequence{prompt.tokens, static_cast<int32_t>(prompt.tokens.size()),
                           static_cast<int32_t>(index)};
  PB_ASSIGN(drive::RowStore rows, drive::EvaluateGreedily(pair_.reference(), pair_.session(Pair::kReference),
                                                          prompt.steps_asked, &sequence));
  prompt.decoded.assign(sequence.tokens.begin() + sequence.n_prefill, sequence.tokens.end());
  const int32_t first_step = sequence.n_prefill - 1;
  walked_.push_back({std::move(sequence), std::move(rows), first_step});
  return WalkCandidate(walked_.back());
}

Status OrderRun::WalkCandidate(const Walked& walked) {
  drive::Participant& engine = pair_.candidate();
  PB_TRY(engine.OpenSession(pair_.session(Pair::kCandidate)));
  int32_t next = 0;
  PB_TRY(drive::EvaluateSequence(
      engine, walked.sequence, [&](int32_t position, std::span<const float> row) -> Status {
        if (position != next++ || position >= walked.rows.n_rows())
          return MakeError(Code::kEngine, "logits of position {} came out of turn", position);
        if (static_cast<int64_t>(row.size()) != walked.rows.n_columns())
          return MakeError(Code::kEngine, "{} logits in a row, the reference has {}", row.size(),
                           walked.rows.n_columns());
        if (position < walked.first_step) return {};
        const std::span<const float> reference = walked.rows.Row(position);
        OrderRow out{
            walked.sequence.prompt, position, {drive::Greedy(row), drive::Greedy(reference)}, {}, false};
        if (AllFinite(row) && AllFinite(reference))
          out.order = CompareOrder(row, reference, request_.tau.top_k, request_.tau.tie);
        else
          pair_.Add(ReasonCode::kNonFinite,
                    fmt::format("prompt {}, position {}: logits are not finite in the {}", out.prompt,
                                position, AllFinite(reference) ? "candidate" : "reference"));
        out_.rows.push_back(out);
        return {};
      }));
  if (next != static_cast<int32_t>(walked.sequence.tokens.size()))
    return engine.Noted(
        MakeError(Code::kEngine, "{} rows of logits for {} positions", next, walked.sequence.tokens.size()));
  return {};
}

// One disturbed run: 1 - tau at every position of every sequence, in order; and the runs' own figures
// over the steps.
Status OrderRun::Disturb(uint64_t seed, std::vector<double>* disorder) {
  host::Settings session = pair_.session(Pair::kReference);
  drive::PutSetting(session, "noise.seed", std::to_string(seed));
  std::vector<double> of_steps;
  for (const Walked& walked : walked_) {
    PB_TRY(pair_.reference().OpenSession(session, false));
    auto compare_row = [&](int32_t position, std::span<const float> row) -> Status {
      if (position < 0 || position >= walked.rows.n_rows() ||
          static_cast<int64_t>(row.size()) != walked.rows.n_columns() || !AllFinite(row))
        return MakeError(Code::kEngine, "disturbed logits of position {} cannot be compared", position);
      const Order order = CompareOrder(row, walked.rows.Row(position), request_.tau.top_k, request_.tau.tie);
      out_.noise.worst_spread = std::max(out_.noise.worst_spread, order.spread);
      if (!order.tau) return {};
      disorder->push_back(1 - *order.tau);
      if (position >= walked.first_step) of_steps.push_back(*order.tau);
      return {};
    };
    PB_TRY(drive::EvaluateSequence(pair_.reference(), walked.sequence, compare_row));
  }
  if (of_steps.empty()) return {};
  out_.noise.least.push_back(*std::min_element(of_steps.begin(), of_steps.end()));
  out_.noise.median.push_back(Median(std::move(of_steps)));
  return {};
}

Status OrderRun::MeasureNoise() {
  OrderNoise& noise = out_.noise;
  const int32_t n_runs = request_.pair.n_noise_runs;
  if (n_runs <= 0) {
    noise.why_none = "it was not asked for";
    return {};
  }
  if (!(pair_.reference().engine().capabilities() & PB_CAP_NOISE)) {
    noise.why_none = "the reference cannot be disturbed";
    return {};
  }
  PB_ASSIGN(std::vector<drive::Sequence> calibration,
            drive::CalibrationSequences(pair_.reference(), request_.pair.calibration));
  for (drive::Sequence& sequence : calibration) {
    const auto n = static_cast<int32_t>(sequence.tokens.size());
    PB_ASSIGN(drive::RowStore rows,
              drive::EvaluateAll(pair_.reference(), pair_.session(Pair::kReference), sequence));
    walked_.push_back({std::move(sequence), std::move(rows), n});
  }
  const auto n_steps = std::max<int64_t>(out_.n_informative, 1);
  for (int32_t seed = 1; seed <= n_runs; ++seed) {
    if (request_.pair.progress) request_.pair.progress("noise", seed - 1, n_runs);
    std::vector<double> disorder;
    PB_TRY(Disturb(static_cast<uint64_t>(seed), &disorder));
    if (disorder.empty()) continue;
    noise.n_positions = static_cast<int64_t>(disorder.size());
    noise.mean_disorder = std::max(noise.mean_disorder, compare::LargestWindowMean(disorder, n_steps));
    ++noise.n_runs;
  }
  if (noise.n_runs == 0) noise.why_none = "no disturbed row has an order";
  return {};
}

void OrderRun::Summarise() {
  std::vector<double> taus;
  std::map<int32_t, int64_t> informative;
  for (const OrderRow& row : out_.rows) {
    if (!row.order.tau) continue;
    taus.push_back(*row.order.tau);
    ++informative[row.prompt];
    out_.n_exchanges += row.order.n_exchanges;
  }
  out_.n_informative = static_cast<int64_t>(taus.size());
  for (const run::PromptRecord& prompt : out_.run.prompts)
    out_.n_poor_prompts += informative[static_cast<int32_t>(&prompt - out_.run.prompts.data())] <
                           request_.tau.least_informative();
  if (taus.empty()) return;
  double sum = 0;
  for (double tau : taus) sum += 1 - tau;
  out_.mean_disorder = sum / static_cast<double>(taus.size());
  out_.least = *std::min_element(taus.begin(), taus.end());
  out_.median = Median(std::move(taus));
}

// What the reference's own noise makes of the order: an exchange that it does not explain, or more
// exchanges than it makes.
void OrderRun::JudgeNoise() {
  const OrderNoise& noise = out_.noise;
  if (noise.n_runs == 0) {
    if (request_.pair.n_noise_runs <= 0)
      out_.run.notes.emplace_back(
          "what noise exchanges was not measured (--noise-runs 0): the limit alone decides");
    else
      pair_.Add(ReasonCode::kNoNoiseFloor,
                "whether noise explains what is exchanged cannot be told: " + noise.why_none +
                    "; with --noise-runs 0 the limit alone decides");
    return;
  }
  const std::string runs = fmt::format("in {} runs of random rounding of the reference, {} positions",
                                       noise.n_runs, noise.n_positions);
  auto& limits = out_.run.verdict.limits;
  limits.push_back({"exchange.change", NoiseLimit(), "nats",
                    fmt::format("{:g} x the largest change of a difference of two logits of the top {} {}",
                                compare::kWorstFactor, request_.tau.top_k, runs)});
  limits.push_back({"disorder.mean", compare::kMeanFactor * noise.mean_disorder, "1 - tau",
                    fmt::format("{:g} x the largest mean of any {}-position window {}", compare::kMeanFactor,
                                std::max<int64_t>(out_.n_informative, 1), runs)});
  const OrderRow *first = nullptr, *worst = nullptr;
  for (OrderRow& row : out_.rows) {
    if (!row.order.worst || row.order.worst->change <= NoiseLimit()) continue;
    row.beyond_noise = true;
    ++out_.n_beyond;
    if (!first) first = &row;
    if (!worst || row.order.worst->change > worst->order.worst->change) worst = &row;
  }
  if (first) {
    pair_.Add(
        ReasonCode::kOrderBeyondNoise,
        fmt::format("tokens of the top {} stand in another order than noise explains at {} of {} steps, "
                    "first at prompt {}, position {}; the largest change is {:.1e}, limit {:.1e}",
                    request_.tau.top_k, out_.n_beyond, out_.rows.size(), first->prompt, first->position,
                    worst->order.worst->change, NoiseLimit()));
    out_.run.verdict.first_divergence =
        compare::FirstDivergence{first->prompt, first->position, first->top1[1], -1, {}, {}};
  } else if (*out_.mean_disorder > compare::kMeanFactor * noise.mean_disorder) {
    pair_.Add(ReasonCode::kOrderDrift,
              fmt::format("more tokens change places than rounding makes them: 1 - tau is {:.1e} on average, "
                          "limit {:.1e}; each exchange by itself is one that rounding makes",
                          *out_.mean_disorder, compare::kMeanFactor * noise.mean_disorder));
  }
}

void OrderRun::Judge() {
  const TauSettings& tau = request_.tau;
  const TauSettings documented;
  out_.run.verdict.limits.push_back(
      {"tau.median", tau.least_median, "",
       tau.least_median == documented.least_median ? "the documented limit (TAU_MIN)" : "given by the user",
       tau.least_median != documented.least_median});
  if (out_.n_informative == 0)
    return pair_.Add(ReasonCode::kNothingCompared,
                     fmt::format("none of {} steps has an order to compare", out_.rows.size()));
  if (out_.n_poor_prompts > 0)
    pair_.Add(ReasonCode::kTooFewSteps,
              fmt::format("{} of {} prompts have fewer than {} steps with an order to compare",
                          out_.n_poor_prompts, out_.run.prompts.size(), tau.least_informative()));
  const std::string told =
      fmt::format("the median tau-b over {} steps is {:.3f}", out_.n_informative, *out_.median);
  const double own =
      out_.noise.median.empty() ? 1 : *std::min_element(out_.noise.median.begin(), out_.noise.median.end());
  if (*out_.median >= tau.least_median)
    pair_.Add(ReasonCode::kWithinLimit, fmt::format("{}, limit {:.2f}", told, tau.least_median));
  else if (own < tau.least_median)
    pair_.Add(ReasonCode::kLimitWithinNoise,
              fmt::format("{}, below the limit {:.2f}, which the reference does not meet against itself "
                          "either ({:.3f}): the limit cannot decide here",
                          told, tau.least_median, own));
  else
    pair_.Add(ReasonCode::kTauBelowLimit, fmt::format("{}, below the limit {:.2f}", told, tau.least_median));
  JudgeNoise();
}

// Engines whose settings differ, or that round products by other schemes, are no fault of each other.
Status OrderRun::Explain() {
  std::vector<compare::Reason>& reasons = out_.run.verdict.reasons;
  const auto beyond = std::find_if(reasons.begin(), reasons.end(), [](const compare::Reason& reason) {
    return reason.code == ReasonCode::kOrderBeyondNoise;
  });
  if (beyond == reasons.end()) return {};
  const auto prompt = static_cast<size_t>(out_.run.verdict.first_divergence->prompt);
  PB_ASSIGN(const std::optional<compare::Reason> why,
            WhatExplains(request_.pair, request_.pair.prompts[prompt],
                         static_cast<int32_t>(out_.run.prompts[prompt].decoded.size())));
  if (!why) return {};
  out_.run.notes.push_back(beyond->text);
  *beyond = *why;
  return {};
}

void OrderRun::CollectTokenText() {
  std::set<int32_t> ids;
  for (const run::PromptRecord& prompt : out_.run.prompts)
    for (const auto* tokens : {&prompt.tokens, &prompt.decoded}) ids.insert(tokens->begin(), tokens->end());
  for (const OrderRow& row : out_.rows) {
    ids.insert(row.top1, row.top1 + 2);
    if (row.order.worst) ids.insert({row.order.worst->first, row.order.worst->second});
  }
  ids.erase(-1);
  for (int32_t id : ids) {
    auto text = pair_.reference().engine().Detokenize(std::span(&id, 1));
    if (!text.ok()) return;
    out_.run.token_text[id] = std::move(text).value();
  }
}

Result<LogitParity> OrderRun::Run() {
  const auto start = std::chrono::steady_clock::now();
  PB_TRY(pair_.Open());
  if (!pair_.failed() && request_.pair.prompts.empty())
    pair_.Add(ReasonCode::kNoPrompts, "there are no prompts, so nothing was compared");
  else if (!pair_.failed())
    PB_TRY(Walk());
  if (!pair_.failed()) CollectTokenText();
  if (!out_.rows.empty() && !pair_.failed()) {
    Summarise();
    if (out_.n_informative > 0) PB_TRY(pair_.Absorb(MeasureNoise()));
    if (!pair_.failed()) Judge();
    if (!pair_.failed()) PB_TRY(Explain());
  }
  pair_.Finish(static_cast<int64_t>(longest_));
  out_.run.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(out_);
}

}  // namespace

Result<LogitParity> CompareOrders(const LogitParityRequest& request) { return OrderRun(request).Run(); }

}  // namespace pb::parity

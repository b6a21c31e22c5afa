// Evaluates the windows of a text in both engines and judges the paired differences.
#include "parity/nll_parity.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/sha256.h"
#include "drive/perplexity.h"
#include "parity/pair.h"

namespace pb::parity {
namespace {

using compare::Outcome;
using compare::ReasonCode;

double MeanOf(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

class NllRun {
 public:
  explicit NllRun(const NllRequest& request) : request_(request), pair_(request.pair, &out_.run) {}

  Result<NllParity> Run() {
    const auto start = std::chrono::steady_clock::now();
    out_.text_sha256 = Sha256Hex(request_.text.text);
    PB_TRY(pair_.Open());
    if (!pair_.failed()) PB_TRY(Measure());
    if (!pair_.failed()) Judge();
    pair_.Finish(out_.window);
    out_.run.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(out_);
  }

 private:
  Status Measure();
  Status Evaluate(int side, std::span<const int32_t> tokens);
  void Summarise();
  void Judge();

  const NllRequest& request_;
  NllParity out_;
  Pair pair_;
  bool constant_[2] = {true, true};  // no row told one token from another
  int64_t n_non_finite_[2] = {0, 0};
};

Status NllRun::Measure() {
  PB_ASSIGN(auto ids, pair_.Tokenize(request_.text.text, request_.text.origin));
  if (!ids) return {};
  out_.n_tokens = static_cast<int64_t>(ids->size());
  int64_t context = 0;
  for (int side : {0, 1}) {
    const int64_t trained = pair_.side(side).record().model_facts().n_ctx_train;
    if (trained > 0) context = context > 0 ? std::min(context, trained) : trained;
  }
  PB_ASSIGN(const Windows windows, PlanWindows(out_.n_tokens, request_.window, context));
  out_.window = windows.window, out_.n_windows = windows.n_windows;
  out_.first_scored = windows.first_scored, out_.window_shrunk = windows.shrunk;
  PB_TRY(pair_.OpenSessions(static_cast<size_t>(windows.window)));
  const trace::ModelFacts facts = pair_.reference().record().model_facts();
  for (int64_t i = 0; i < windows.n_windows && !pair_.failed(); ++i) {
    if (request_.pair.progress) request_.pair.progress("windows", i, windows.n_windows);
    const auto first = ids->begin() + i * windows.window;
    std::vector<int32_t> tokens(first, first + windows.window);
    // A window in the middle of a text begins as the text does.
    if (facts.adds_bos && facts.bos >= 0) tokens[0] = facts.bos;
    for (int side : {0, 1})
      if (!pair_.failed()) PB_TRY(pair_.Absorb(Evaluate(side, tokens)));
  }
  if (!pair_.failed()) Summarise();
  return {};
}

Status NllRun::Evaluate(int side, std::span<const int32_t> tokens) {
  drive::Participant& engine = pair_.side(side);
  std::vector<double>& nll = out_.nll[side];
  PB_TRY(engine.Reset());
  const auto due = static_cast<int32_t>(out_.first_scored);
  int32_t next = due;
  PB_TRY(engine.EvaluateFrom(tokens, 0, due, [&](int32_t position, std::span<const float> row) -> Status {
    if (position != next++)
      return MakeError(Code::kEngine, "logits of position {} came where {} was due", position, next - 1);
    n_non_finite_[side] += std::count_if(row.begin(), row.end(), [](float v) { return !std::isfinite(v); });
    if (static_cast<size_t>(position) + 1 >= tokens.size()) return {};
    const auto [least, largest] = std::minmax_element(row.begin(), row.end());
    if (*least != *largest) constant_[side] = false;
    nll.push_back(drive::NegativeLogProbability(row, tokens[static_cast<size_t>(position) + 1]));
    return {};
  }));
  if (next != static_cast<int32_t>(tokens.size()))
    return engine.Noted(MakeError(Code::kEngine, "{} rows of logits came for {} positions", next - due,
                                  static_cast<int64_t>(tokens.size()) - due));
  return {};
}

void NllRun::Summarise() {
  for (int side : {0, 1}) {
    const std::vector<double>& nll = out_.nll[side];
    const double n = static_cast<double>(nll.size()), mean = MeanOf(nll);
    double squares = 0;
    for (double value : nll) squares += value * value;
    out_.mean[side] = mean;
    out_.perplexity[side] = std::exp(mean);
    out_.perplexity_error[side] =
        n > 1 ? std::sqrt(std::max(squares / n - mean * mean, 0.0) / (n - 1)) * out_.perplexity[side] : 0;
  }
  std::vector<double> differences;
  for (size_t i = 0; i < out_.nll[0].size(); ++i) differences.push_back(out_.nll[0][i] - out_.nll[1][i]);
  out_.difference = BatchMeans(differences, request_.confidence);
}

void NllRun::Judge() {
  out_.run.verdict.limits.push_back(
      {"nll.difference", request_.limit, "nats",
       request_.limit == kNllLimit ? "the documented limit" : "given by the user",
       request_.limit != kNllLimit});
  const char* const kRoles[] = {"candidate", "reference"};
  for (int side : {0, 1}) {
    const std::vector<double>& nll = out_.nll[side];
    if (nll.empty()) return pair_.Add(ReasonCode::kNothingCompared, "no token was predicted");
    if (n_non_finite_[side] > 0)
      return pair_.Add(ReasonCode::kNonFinite, fmt::format("the {} gives {} logits that are not finite",
                                                           kRoles[side], n_non_finite_[side]));
    if (constant_[side])
      return pair_.Add(ReasonCode::kConstantLogits,
                       fmt::format("the {} gives every token the same logit everywhere: nothing was computed",
                                   kRoles[side]));
  }
  const std::string confidence = fmt::format("{:g} %", 100 * request_.confidence);
  if (!out_.difference)
    return pair_.Add(
        ReasonCode::kTooFewTokens,
        fmt::format("{} predicted tokens are too few for an interval, which takes {} batches: give more text",
                    out_.nll[0].size(), kMinBatches));
  const Interval& d = *out_.difference;
  const std::string told = fmt::format("the NLL differs by {:+.2e} nats, between {:+.2e} and {:+.2e} with {}",
                                       d.mean, d.low, d.high, confidence);
  if (d.low >= -request_.limit && d.high <= request_.limit)
    pair_.Add(ReasonCode::kWithinLimit, fmt::format("{}: within the limit of {:.1e}", told, request_.limit));
  else if (d.low > request_.limit || d.high < -request_.limit)
    pair_.Add(ReasonCode::kNllBeyondLimit,
              fmt::format("{}: beyond the limit of {:.1e}", told, request_.limit));
  else
    pair_.Add(ReasonCode::kNllUndecided,
              fmt::format("{}: whether that is within the limit of {:.1e} is not decided: give more text",
                          told, request_.limit));
}

}  // namespace

Result<Windows> PlanWindows(int64_t n_tokens, int64_t asked, int64_t n_context) {
  constexpr int64_t kLeast = 4;
  Windows plan;
  plan.window = asked > 0 ? asked : kWindow;
  if (asked > 0 && n_context > 0 && asked > n_context)
    return MakeError(Code::kUsage, "--ctx-size {}: the model's context has {}", asked, n_context);
  if (asked > 0 && n_tokens < 2 * asked)
    return MakeError(Code::kUsage, "--ctx-size {}: the text has {} tokens, and two windows take {}", asked,
                     n_tokens, 2 * asked);
  if (asked == 0 && n_context > 0) plan.window = std::min(plan.window, n_context);
  while (asked == 0 && plan.window > kLeast && n_tokens < 2 * plan.window)
    plan.window /= 2, plan.shrunk = true;
  plan.first_scored = plan.window / 2;
  plan.n_windows = n_tokens / plan.window;
  if (plan.n_windows < 2)
    return MakeError(Code::kUsage, "the text has {} tokens, too few for two windows of {}", n_tokens,
                     plan.window);
  return plan;
}

Result<NllParity> MeasureNll(const NllRequest& request) { return NllRun(request).Run(); }

}  // namespace pb::parity

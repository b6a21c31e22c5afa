// Takes attention in one op apart by the arbiter's replays.
#include "diagnose/fused.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "stages/stages.h"

namespace pb::diagnose {

std::optional<FusedAttention> FusedAttention::Of(FileArbiter& arbiter, const Culprit& c) {
  if (c.place.stage != PB_STAGE_ATTN_CONTEXT || c.inputs.Output(PB_STAGE_ATTN_SCORES_SOFTMAX, c.place.layer))
    return std::nullopt;
  const std::vector<stages::Input> of_scores = arbiter.ReplayInputs(PB_STAGE_ATTN_SCORES),
                                   of_context = arbiter.ReplayInputs(PB_STAGE_ATTN_CONTEXT);
  if (of_scores.size() != 2 || of_context.size() != 2) return std::nullopt;
  const Recorded *q = c.inputs.Find(of_scores[0], c.place.layer),
                 *k = c.inputs.Find(of_scores[1], c.place.layer),
                 *v = c.inputs.Find(of_context[1], c.place.layer);
  if (!q || !k || !v || k->shape.front() != v->shape.front()) return std::nullopt;
  FusedAttention fused(arbiter, c);
  fused.queries = *q, fused.keys = *k, fused.values = *v;
  return fused;
}

Result<Recorded> FusedAttention::Scores(Recorded other_keys, const std::string& variation) const {
  PB_ASSIGN(Expectation e, arbiter_->Replay(PB_STAGE_ATTN_SCORES, layer_, first_position_,
                                            {queries, std::move(other_keys)}, variation));
  return std::move(e.output);
}

Result<Recorded> FusedAttention::Probabilities(Recorded scores) const {
  PB_ASSIGN(Expectation e,
            arbiter_->Replay(PB_STAGE_ATTN_SCORES_SOFTMAX, layer_, first_position_, {std::move(scores)}, ""));
  return std::move(e.output);
}

Result<Expectation> FusedAttention::Context(Recorded scores, Recorded other_values,
                                            const std::string& variation) const {
  PB_ASSIGN(Recorded probabilities, Probabilities(std::move(scores)));
  return arbiter_->Replay(PB_STAGE_ATTN_CONTEXT, layer_, first_position_,
                          {std::move(probabilities), std::move(other_values)}, variation);
}

double LogOfSum(std::span<const float> scores, std::span<const float> probabilities) {
  constexpr double kSink = 1e-3;  // a share that is no rounding
  const auto at = static_cast<size_t>(std::ranges::max_element(scores) - scores.begin());
  const double largest = scores[at];
  double sum = 0, share = 0;
  for (size_t j = 0; j < scores.size(); j++)
    sum += std::exp(double(scores[j]) - largest), share += double(probabilities[j]);
  return largest + (share > 1 - kSink ? std::log(sum) : -std::log(double(probabilities[at])));
}

std::optional<CellRun> FindCellRun(const MeanTable& t) {
  constexpr double kNoWeight = 1e-12;  // a mean over less than this is none
  constexpr double kEquallyNear = 1 - 1e-9;
  const auto n = static_cast<size_t>(t.n_values), width = static_cast<size_t>(t.width);
  // By ends, so that the values of one lie side by side.
  std::vector<double> top(n * (width + 1)), bottom(n * (width + 1));
  double square = 0;
  for (size_t v = 0; v < n; v++) {
    for (size_t j = 0; j < width; j++) {
      top[(j + 1) * n + v] = top[j * n + v] + t.top[v * width + j];
      bottom[(j + 1) * n + v] = bottom[j * n + v] + t.bottom[v * width + j];
    }
    square += (t.given[v] - t.declared[v]) * (t.given[v] - t.declared[v]);
  }
  std::optional<CellRun> best;
  double least = square;
  for (size_t length = 1; length <= width; length++)
    for (size_t a = 0; a + length <= width; a++) {
      const double *top_a = &top[a * n], *top_b = &top[(a + length) * n];
      const double *bottom_a = &bottom[a * n], *bottom_b = &bottom[(a + length) * n];
      double error = 0;
      for (size_t v = 0; v < n && error < least; v++) {
        const double weight = 1 + bottom_b[v] - bottom_a[v];
        if (!(weight > kNoWeight)) error = INFINITY;
        const double e = t.given[v] - (t.declared[v] + top_b[v] - top_a[v]) / weight;
        error += e * e;
      }
      if (!(error < kEquallyNear * least)) continue;
      least = error;
      best = {static_cast<int64_t>(a), static_cast<int64_t>(a + length) - 1, std::sqrt(error / square)};
    }
  return best;
}

}  // namespace pb::diagnose

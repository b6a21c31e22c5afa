// The chain of filters, in fp64.
#include "drive/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "drive/participant.h"

namespace pb::drive {
namespace {

using Candidates = std::vector<Sampler::Candidate>;

bool Likelier(const Sampler::Candidate& a, const Sampler::Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// exp(logit - largest), which need not be sorted, and their sum.
std::vector<double> Weights(const Candidates& candidates, double temperature, double* total) {
  double top = candidates[0].logit;
  for (const auto& c : candidates) top = std::max(top, c.logit);
  std::vector<double> weights;
  weights.reserve(candidates.size());
  *total = 0;
  for (const auto& c : candidates) *total += weights.emplace_back(std::exp((c.logit - top) / temperature));
  return weights;
}

void KeepTopK(int32_t k, Candidates* candidates) {
  const size_t n = k > 0 ? std::min(candidates->size(), static_cast<size_t>(k)) : candidates->size();
  std::partial_sort(candidates->begin(), candidates->begin() + static_cast<ptrdiff_t>(n), candidates->end(),
                    Likelier);
  candidates->resize(n);
}

void KeepTypical(double p, Candidates* candidates) {
  double total = 0;
  std::vector<double> chance = Weights(*candidates, 1, &total);
  double entropy = 0;
  for (double& c : chance) {
    c /= total;
    if (c > 0) entropy -= c * std::log(c);
  }
  std::vector<size_t> order(candidates->size());
  std::iota(order.begin(), order.end(), size_t{0});
  auto surprise = [&](size_t i) { return std::abs(-std::log(chance[i]) - entropy); };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return surprise(a) < surprise(b); });
  Candidates kept;
  double sum = 0;
  for (size_t i : order) {
    kept.push_back((*candidates)[i]);
    if ((sum += chance[i]) > p) break;
  }
  *candidates = std::move(kept);
}

void KeepTopP(double p, Candidates* candidates) {
  std::sort(candidates->begin(), candidates->end(), Likelier);
  double total = 0, sum = 0;
  const std::vector<double> weights = Weights(*candidates, 1, &total);
  size_t n = 0;
  while (n < weights.size() && (n == 0 || sum < p * total)) sum += weights[n++];
  candidates->resize(n);
}

void KeepMinP(double p, Candidates* candidates) {
  double top = candidates->front().logit;
  for (const auto& c : *candidates) top = std::max(top, c.logit);
  std::erase_if(*candidates, [&](const auto& c) { return c.logit < top + std::log(p); });
}

}  // namespace

void Sampler::Accept(int32_t token) {
  history_.push_back(token);
  ++in_window_[token];
  const auto window = static_cast<size_t>(std::max(sampling_.penalty_window, 0));
  if (sampling_.penalty_window < 0 || history_.size() <= window) return;
  const auto gone = in_window_.find(history_[history_.size() - 1 - window]);
  if (--gone->second == 0) in_window_.erase(gone);
}

std::vector<Sampler::Candidate> Sampler::Candidates(std::span<const float> row) const {
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < row.size(); ++i) {
    if (!std::isfinite(row[i])) continue;
    const auto id = static_cast<int32_t>(i);
    double logit = row[i];
    if (const auto found = in_window_.find(id); found != in_window_.end()) {
      logit = logit <= 0 ? logit * sampling_.repetition : logit / sampling_.repetition;
      logit -= found->second * sampling_.frequency + sampling_.presence;
    }
    candidates.push_back({logit, id});
  }
  if (candidates.empty()) return candidates;
  KeepTopK(sampling_.top_k, &candidates);
  if (sampling_.typical_p < 1) KeepTypical(sampling_.typical_p, &candidates);
  if (sampling_.top_p < 1) KeepTopP(sampling_.top_p, &candidates);
  if (sampling_.min_p > 0) KeepMinP(sampling_.min_p, &candidates);
  return candidates;
}

int32_t Sampler::Choose(std::span<const float> row) {
  const bool heeds_history = sampling_.repetition != 1 || sampling_.frequency != 0 || sampling_.presence != 0;
  if (sampling_.temperature <= 0 && sampling_.typical_p >= 1 && !heeds_history) return Greedy(row);
  const std::vector<Candidate> candidates = Candidates(row);
  if (candidates.empty()) return -1;
  if (sampling_.temperature <= 0) return std::min_element(candidates.begin(), candidates.end(), Likelier)->id;
  double total = 0;
  const std::vector<double> weights = Weights(candidates, sampling_.temperature, &total);
  double left = random_.Uniform() * total;
  for (size_t i = 0; i < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) return candidates[i].id;
  }
  return candidates.back().id;
}

}  // namespace pb::drive

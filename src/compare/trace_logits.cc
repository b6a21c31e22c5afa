// The logits of two traces, by values or by the likeliest tokens of each row.
#include "compare/trace_logits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compare/logits.h"

namespace pb::compare {
namespace {

using trace::Record;
using trace::TopTokens;

// The logit of a token, or nullptr where the row does not name it.
const float* Find(const TopTokens& row, int32_t id) {
  for (const auto& token : row.tokens)
    if (token.first == id) return &token.second;
  return nullptr;
}

// Weights relative to the largest logit: of all tokens, and of those that the other row does not
// name.
struct Weights {
  double all = 0, others = 0;
};
Weights WeightsOf(const TopTokens& row, const TopTokens& other) {
  Weights w;
  w.all = w.others = row.rest;
  for (const auto& [id, logit] : row.tokens) {
    const double weight = std::exp(double{logit} - double{row.tokens[0].second});
    w.all += weight;
    if (!Find(other, id)) w.others += weight;
  }
  return w;
}

double Kl(const TopTokens& candidate, const TopTokens& reference) {
  const Weights c = WeightsOf(candidate, reference), r = WeightsOf(reference, candidate);
  const double log_c = std::log(c.all) + candidate.tokens[0].second,
               log_r = std::log(r.all) + reference.tokens[0].second;
  double kl = r.others > 0 ? r.others / r.all * std::log((r.others / r.all) / (c.others / c.all)) : 0;
  for (const auto& [id, logit] : reference.tokens) {
    const float* other = Find(candidate, id);
    if (!other) continue;
    const double log_p = logit - log_r;
    kl += std::exp(log_p) * (log_p - (*other - log_c));
  }
  return std::max(0.0, kl);
}

// logit(a) - logit(b); where b is not named, what it is at least.
double Gap(const TopTokens& row, int32_t a, int32_t b) {
  const float least = row.tokens.back().second, *of_a = Find(row, a), *of_b = Find(row, b);
  return double{of_a ? *of_a : least} - double{of_b ? *of_b : least};
}

// The record of logits that holds a position, and which of its rows that is.
std::pair<const Record*, int64_t> LogitsAt(const trace::Trace& trace, int64_t position) {
  for (const Record& r : trace.records())
    if (r.stage_id == PB_STAGE_LOGITS && r.first_position >= 0 && position >= r.first_position &&
        position < r.first_position + r.n_rows())
      return {&r, position - r.first_position};
  return {nullptr, 0};
}

}  // namespace

LogitsRow CompareTops(const TopTokens& candidate, const TopTokens& reference) {
  LogitsRow row;
  const TopTokens* sides[2] = {&candidate, &reference};
  for (int side : {0, 1}) {
    row.n_non_finite[side] = !std::isfinite(sides[side]->rest) || sides[side]->tokens.empty();
    row.finite = row.finite && row.n_non_finite[side] == 0;
    for (const auto& [id, logit] : sides[side]->tokens) row.top_k[side].push_back(id);
  }
  if (!row.finite) {
    row.kl = row.gap_change = std::numeric_limits<double>::quiet_NaN();
    return row;
  }
  for (int side : {0, 1}) row.top1[side] = row.top_k[side][0];
  row.kl = Kl(candidate, reference);
  const std::vector<int32_t>& best = row.top_k[1];
  if (best.size() > 1) {
    row.gap_reference = Gap(reference, best[0], best[1]);
    row.gap_candidate = Gap(candidate, best[0], best[1]);
  }
  row.gap_change = std::abs(row.gap_candidate - row.gap_reference);
  if (row.flipped())
    row.gap_change =
        std::abs(Gap(candidate, row.top1[1], row.top1[0]) - Gap(reference, row.top1[1], row.top1[0]));
  return row;
}

Result<std::optional<TopTokens>> TopsAt(const trace::Trace& trace, int64_t position) {
  const auto [record, index] = LogitsAt(trace, position);
  if (!record) return std::optional<TopTokens>();
  if (static_cast<size_t>(index) < record->row_top.size())
    return std::optional(record->row_top[static_cast<size_t>(index)]);
  if (record->payload_file.empty()) return std::optional<TopTokens>();
  PB_ASSIGN(const std::vector<float> row, trace.PayloadRows(*record, index, 1));
  return std::optional(trace::TopTokensOf(row));
}

Result<std::vector<LogitsRow>> CompareTraceLogits(const trace::Trace& candidate,
                                                  const trace::Trace& reference, const TraceSpan& span,
                                                  bool* exact) {
  const trace::Trace* traces[2] = {&candidate, &reference};
  std::vector<LogitsRow> rows;
  for (int64_t i = 0; i < span.n_rows; ++i) {
    const int64_t position = span.first_position + i;
    std::pair<const Record*, int64_t> at[2];
    bool values = true;
    for (int side : {0, 1}) {
      at[side] = LogitsAt(*traces[side], position);
      values = values && at[side].first && !at[side].first->payload_file.empty();
    }
    LogitsRow row;
    if (values) {
      std::vector<float> logits[2];
      for (int side : {0, 1}) {
        PB_ASSIGN(logits[side], traces[side]->PayloadRows(*at[side].first, at[side].second, 1));
      }
      PB_ASSIGN(row, CompareLogits(logits[0], logits[1]));
    } else {
      PB_ASSIGN(const auto ours, TopsAt(candidate, position));
      PB_ASSIGN(const auto theirs, TopsAt(reference, position));
      if (!ours || !theirs) return std::vector<LogitsRow>();
      row = CompareTops(*ours, *theirs);
      *exact = false;
    }
    row.position = static_cast<int32_t>(position);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace pb::compare

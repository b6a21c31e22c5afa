// Hypotheses about attention that an engine computes as one op: cells of the cache that hold something
// else than was put into them, scores under another scale, and partial sums that are not rescaled where
// a larger score comes. Of equal inputs; hidden positions are mask_guesses.cc's.
#include <algorithm>
#include <cmath>
#include <optional>

#include "diagnose/attention.h"
#include "diagnose/cache_reading.h"
#include "diagnose/fused.h"
#include "diagnose/transformations.h"
#include "trace/facts.h"

namespace pb::diagnose {
namespace {

constexpr size_t kMostRows = 8;       // that cells are looked for in
constexpr int64_t kLeastValues = 2;   // wrong values that a hypothesis has to give
constexpr double kTableWork = 4e7;    // values of the search for a run, times positions squared
constexpr double kRunRest = 0.05;     // of the error that the cells found may leave
constexpr double kNoEvidence = 4;     // times its bound: too near to it to tell hypotheses apart
constexpr int64_t kMostHeads = 16;    // KV heads whose exchange is tried
constexpr double kMostWork = 1e9;     // of a replay: beyond, none is tried
constexpr double kColumnWork = 1e8;   // the same of columns, of which there are many
constexpr double kLargestScale = 32;  // of scores, either way
constexpr double kSameScale = 2e-3;   // a fitted scale that is a known one
constexpr int64_t kTiles[] = {1, 16, 32, 64, 128, 256};  // positions that a kernel takes at once

enum class Target { kKeys, kValues, kBoth };

// What is not rescaled where a larger score comes.
enum class Stuck { kValues, kSum, kBoth };

Recorded WithValues(const Recorded& of, std::vector<float> values) { return {of.shape, std::move(values)}; }

// The op with the reading of keys, values or both.
Result<Expectation> With(FileArbiter& arbiter, const Culprit& c, const Reading& r, Target target) {
  const auto fused = FusedAttention::Of(arbiter, c);
  if (!fused) return MakeError(Code::kNotFound, "attention's inputs were not recorded");
  Recorded keys = fused->keys, values = fused->values;
  if (target != Target::kValues) {
    PB_ASSIGN(keys.values, Spoiled(arbiter, c, keys, r));
  }
  if (target != Target::kKeys) {
    PB_ASSIGN(values.values, Spoiled(arbiter, c, values, r));
  }
  PB_ASSIGN(Recorded scores, fused->Scores(std::move(keys)));
  return fused->Context(std::move(scores), std::move(values));
}

Result<Expectation> Scaled(FileArbiter& arbiter, const Culprit& c, double scale) {
  return arbiter.Expect(c, {}, fmt::format("attn.scale={:.9g}", scale));
}

// One row of one head, whose scores are read from the first position on, some at a time.
void Running(std::span<const float> scores, std::span<const float> values, int64_t stride, Stuck stuck,
             int64_t tile, std::span<float> out) {
  const auto n = static_cast<int64_t>(scores.size());
  double last = -INFINITY, running = -INFINITY;
  for (const float s : scores) last = std::max(last, double(s));
  std::vector<double> sums(out.size());
  double sum = 0;
  for (int64_t j = 0; j < n; j++) {
    if (j % tile == 0)
      for (int64_t k = j; k < std::min(j + tile, n); k++)
        running = std::max(running, double(scores[static_cast<size_t>(k)]));
    const double score = scores[static_cast<size_t>(j)];
    if (!std::isfinite(score)) continue;
    const double right = std::exp(score - last), as_it_came = std::exp(score - running);
    sum += stuck == Stuck::kValues ? right : as_it_came;
    const double weight = stuck == Stuck::kSum ? right : as_it_came;
    for (size_t k = 0; k < sums.size(); k++)
      sums[k] += weight * double(values[static_cast<size_t>(j * stride) + k]);
  }
  for (size_t k = 0; k < sums.size(); k++) out[k] = static_cast<float>(sums[k] / sum);
}

Result<Expectation> NotRescaled(FileArbiter& arbiter, const Culprit& c, Stuck stuck, int64_t tile) {
  const auto fused = FusedAttention::Of(arbiter, c);
  if (!fused) return MakeError(Code::kNotFound, "attention's inputs were not recorded");
  PB_ASSIGN(const Recorded scores, fused->Scores(fused->keys));
  PB_ASSIGN(Expectation e, arbiter.Expect(c, {}, ""));
  const AttentionShape shape(arbiter, c);
  const int64_t n = fused->n_positions(), stride = shape.n_kv * shape.run;
  for (int64_t i = 0; i < shape.n; i++)
    for (int64_t h = 0; h < shape.n_heads; h++) {
      const auto row = static_cast<size_t>(i * shape.n_heads + h);
      const std::span<const float> values =
          std::span(fused->values.values).subspan(static_cast<size_t>(h / shape.group() * shape.run));
      Running(std::span(scores.values).subspan(row * static_cast<size_t>(n), static_cast<size_t>(n)), values,
              stride, stuck, tile,
              std::span(e.output.values)
                  .subspan(row * static_cast<size_t>(shape.run), static_cast<size_t>(shape.run)));
    }
  return e;
}

class FusedSearch {
 public:
  FusedSearch(const Subject& s, const WrongPart& part) : s_(s), part_(part), shape_(*s.arbiter, *s.culprit) {}

  std::vector<Guess> Run() {
    fused_ = FusedAttention::Of(*s_.arbiter, *s_.culprit);
    if (!fused_ || part_.rows.empty() || part_.n_values() < kLeastValues || !ReadDeclared()) return {};
    ratio_ = Ratio(s_.declared);
    if (ratio_ < kNoEvidence) return {};
    if (Work() > kMostWork) return {};
    for (const Target target : {Target::kKeys, Target::kValues, Target::kBoth}) {
      for (const Other what : {Other::kNothing, Other::kBefore, Other::kNext}) Try({what}, target);
      if (target != Target::kBoth) TryOwn(target);
      for (int64_t by = 1; by < std::min(shape_.n_kv, kMostHeads); by++) Try({Other::kHead, by}, target);
      if (trace::ReadSessionFacts(s_.arbiter->session()).kv_type.value == "f16") Try({Other::kCut}, target);
    }
    for (const bool computed : {true, false}) Try({Other::kUnrotated, 0, computed}, Target::kKeys);
    if (guesses_.empty()) TryColumns();
    TryScale();
    for (const Stuck stuck : {Stuck::kValues, Stuck::kSum, Stuck::kBoth})
      for (const int64_t tile : kTiles)
        if (tile < fused_->n_positions()) TryRunning(stuck, tile);
    return std::move(guesses_);
  }

 private:
  bool ReadDeclared() {
    auto scores = fused_->Scores(fused_->keys);
    if (!scores.ok()) return false;
    auto probabilities = fused_->Probabilities(*scores);
    if (!probabilities.ok()) return false;
    scores_ = std::move(scores->values), probabilities_ = std::move(probabilities->values);
    const auto n = static_cast<size_t>(shape_.n * shape_.n_heads * fused_->n_positions());
    return scores_.size() == n && probabilities_.size() == n;
  }

  double Ratio(std::span<const float> expected) const {
    return s_.arbiter->Compare(*s_.culprit, s_.output, expected, s_.units).row.bound_ratio;
  }

  // Multiply-adds of one replay.
  double Work() const {
    return static_cast<double>(shape_.n * fused_->n_positions()) *
           static_cast<double>(shape_.n_heads * shape_.run);
  }

  // A row's own cell. Of keys and values alike it is a variation of the op.
  void TryOwn(Target target) {
    constexpr const char* kOwn[][2] = {{"kv.own=zero", "reads its own {} before it is written"},
                                       {"kv.own=before", "reads a stale {} at its own position"},
                                       {"kv.own=twice", "has its own {} in two cells"}};
    for (const auto& [name, text] : kOwn) {
      const bool keys = target == Target::kKeys;
      Guess g{fmt::format("{}.{}", name, keys ? "keys" : "values"),
              fmt::format(fmt::runtime(text), keys ? "key" : "value"), "the own cell as it was made", 0};
      g.replay = [arbiter = s_.arbiter, keys, variation = name](const Culprit& c) -> Result<Expectation> {
        const auto fused = FusedAttention::Of(*arbiter, c);
        if (!fused) return MakeError(Code::kNotFound, "attention's inputs were not recorded");
        PB_ASSIGN(Recorded scores, fused->Scores(fused->keys, keys ? variation : ""));
        return fused->Context(std::move(scores), fused->values, keys ? "" : variation);
      };
      g.meaning = diagnose::MeaningOf(g.name, PB_STAGE_ATTN_CONTEXT);
      Add(std::move(g));
    }
  }

  void Try(Reading r, Target target) {
    r.part = {Axis::kAll};
    auto all = With(*s_.arbiter, *s_.culprit, r, target);
    if (!all.ok()) return;
    // All cells, or (Search) some heads; else a run of cells.
    if (Left(all->output.values) > 1) {
      const auto run = r.what == Other::kHead ? std::nullopt : CellsOf(r, target);
      if (!run) return;
      r.part = {Axis::kPositions, run->first, run->last, 1, fused_->n_positions()};
    }
    Push(r, target);
  }

  // Of each head the last or first columns left out, as a loop leaves them.
  void TryColumns() {
    const int64_t d = shape_.run;
    if (Work() > kColumnWork) return;
    for (const Target target : {Target::kKeys, Target::kValues, Target::kBoth})
      for (const int64_t n : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64})
        for (const int64_t first : {d - n, int64_t{0}}) {
          if (2 * n > d) continue;
          Reading r;
          r.part = {Axis::kAll}, r.columns = {Axis::kColumns, first, first + n - 1, 1, d};
          Push(r, target);
        }
  }

  // Of the error that is left, over its bound: with this as a whole, or in what is wrong alone.
  double Left(const std::vector<float>& output) const {
    return std::min({Ratio(output), Ratio(InRows(s_, part_, output)), Ratio(InPart(s_, part_, output))});
  }

  // The run of cells with which the weighted mean is the output.
  std::optional<CellRun> CellsOf(const Reading& r, Target target) const {
    std::vector<float> scores = scores_;
    const Recorded& values = fused_->values;
    std::vector<float> other = values.values;
    if (target != Target::kValues) {
      auto keys = Spoiled(*s_.arbiter, *s_.culprit, fused_->keys, r);
      if (!keys.ok()) return std::nullopt;
      auto spoiled = fused_->Scores(WithValues(fused_->keys, std::move(*keys)));
      if (!spoiled.ok()) return std::nullopt;
      scores = std::move(spoiled->values);
    }
    if (target != Target::kKeys) {
      auto spoiled = Spoiled(*s_.arbiter, *s_.culprit, values, r);
      if (!spoiled.ok()) return std::nullopt;
      other = std::move(*spoiled);
    }
    const int64_t n = fused_->n_positions(), d = shape_.run;
    MeanTable table{0, n, {}, {}, {}, {}};
    for (const auto& [i, h, k] : Values(n)) {
      const auto row = static_cast<size_t>(i * shape_.n_heads + h);
      const auto out = row * static_cast<size_t>(d) + static_cast<size_t>(k);
      table.given.push_back(s_.output[out]), ++table.n_values;
      const auto of_row = [&](const std::vector<float>& all) {
        return std::span(all).subspan(row * static_cast<size_t>(n), static_cast<size_t>(n));
      };
      const double log_sum = LogOfSum(of_row(scores_), of_row(probabilities_));
      double declared = 0;
      for (int64_t j = 0; j < n; j++) {
        const auto cell = static_cast<size_t>((j * shape_.n_kv + h / shape_.group()) * d + k);
        // What a position weighs, and what it would.
        const double a = std::exp(double(of_row(scores_)[static_cast<size_t>(j)]) - log_sum),
                     b = std::exp(double(of_row(scores)[static_cast<size_t>(j)]) - log_sum);
        declared += a * double(values.values[cell]);
        table.top.push_back(b * double(other[cell]) - a * double(values.values[cell]));
        table.bottom.push_back(b - a);
      }
      table.declared.push_back(declared);
    }
    const auto run = FindCellRun(table);
    return run && run->rest <= kRunRest ? run : std::nullopt;
  }

  struct At {
    int64_t row, head, k;
  };
  // Some values of some rows that are wrong, of all heads that are.
  std::vector<At> Values(int64_t n_positions) const {
    const Region& wrong = part_.region;
    const auto n_rows = static_cast<int64_t>(std::min(part_.rows.size(), kMostRows));
    const int64_t n_all = n_rows * shape_.n_heads * shape_.run;
    const auto most = std::clamp<int64_t>(
        static_cast<int64_t>(kTableWork / static_cast<double>(n_positions * n_positions)), 64, 2048);
    const int64_t step = std::max<int64_t>((n_all + most - 1) / most, 1) | 1;
    std::vector<At> values;
    int64_t at = 0;
    for (int64_t r = 0; r < n_rows; r++)
      for (int64_t h = 0; h < shape_.n_heads; h++)
        for (int64_t k = 0; k < shape_.run; k++) {
          if ((wrong.axis == Axis::kHeads && !Holds(wrong, h)) || at++ % step != 0) continue;
          values.push_back(
              {part_.rows[static_cast<size_t>((r + 1) * std::ssize(part_.rows) / n_rows - 1)], h, k});
        }
    return values;
  }

  void Push(const Reading& r, Target target) {
    Guess g;
    g.replay = [arbiter = s_.arbiter, r, target](const Culprit& c) { return With(*arbiter, c, r, target); };
    g.meaning = {Where::kCacheWritten, r.part, WhatKind::kOtherPart, 0};
    if (r.what == Other::kNothing || r.what == Other::kUnrotated) g.meaning.what = WhatKind::kAbsent;
    if (r.what == Other::kBefore) g.meaning.what = WhatKind::kStale;
    if (r.what == Other::kCut) g.meaning.what = WhatKind::kTruncation;
    const bool one_row = part_.n_rows == 1 && r.what != Other::kUnrotated;
    // Some query heads of a KV head: what is written is the same for all of them.
    const Region& wrong = part_.region;
    const int64_t group = shape_.group();
    const bool whole = wrong.axis != Axis::kHeads ||
                       (wrong.every == 1 && wrong.first % group == 0 && (wrong.last + 1) % group == 0);
    if (r.what == Other::kHead || (r.what == Other::kUnrotated && !r.computed) || one_row || !whole)
      g.meaning.where = Where::kCacheRead;
    // Written without them, read so, or multiplied so.
    if (r.columns.axis == Axis::kColumns) {
      g.meaning.where = Where::kUnknown;
      if (wrong.axis != Axis::kHeads) g.meaning.part = r.columns;
    }
    const char* noun = target == Target::kKeys     ? "keys"
                       : target == Target::kValues ? "values"
                                                   : "keys and values";
    g.name = ReadingName(r), g.text = ReadingWords(r, noun, r.part);
    if (target != Target::kBoth)
      g.name.insert(std::min(g.name.find('@'), g.name.size()), fmt::format(".{}", noun));
    g.short_text = fmt::format("{} as they were made", noun);
    Add(std::move(g));
  }

  void Add(Guess guess) {
    auto varied = Varied(s_, std::move(guess));
    if (varied && Left(varied->output) <= ratio_ / kNoEvidence) guesses_.push_back(std::move(*varied));
  }

  // What scores are multiplied by, fitted to every other value.
  void TryScale() {
    if (s_.arbiter->model().params().attention_sinks || part_.n_values() < 4 * kLeastValues) return;
    const std::vector<At> values = Values(fused_->n_positions());
    const double scale = BestScale(values);
    const HyperParameters& p = s_.arbiter->model().params();
    const double head = 1 / double(p.attention_scale), width = std::sqrt(static_cast<double>(p.d_model));
    Guess g{fmt::format("attn.scale={:.4g}", scale),
            fmt::format("multiplies scores by {:.4g} besides", scale), "scores as they are", 1};
    double value = scale;
    const auto known = [&](double of, const char* name, const char* text, const char* short_text) {
      if (std::fabs(scale / of - 1) <= kSameScale) g = {name, text, short_text, 0}, value = of;
    };
    known(head, "attn.scale=none", "does not divide scores by sqrt(head_dim)", "scores over sqrt(head_dim)");
    known(1 / head, "attn.scale=twice", "divides scores by head_dim", "scores scaled once");
    known(head / width, "attn.scale=d_model", "divides scores by sqrt(d_model)", "the scale of head_dim");
    g.replay = [arbiter = s_.arbiter, value](const Culprit& c) { return Scaled(*arbiter, c, value); };
    g.meaning = {Where::kFormula, {Axis::kAll}, WhatKind::kVariation, 0};
    Add(std::move(g));
  }

  double BestScale(const std::vector<At>& values) const {
    constexpr int kSteps = 100;
    const double most = std::log(kLargestScale);
    double best = 0, least = INFINITY;
    for (int k = -kSteps; k <= kSteps; k++) {
      const double at = most * k / kSteps, error = ErrorOfScale(values, std::exp(at));
      if (error < least) least = error, best = at;
    }
    double lo = best - most / kSteps, hi = best + most / kSteps;
    for (int k = 0; k < 60; k++) {
      const double a = lo + (hi - lo) / 3, b = hi - (hi - lo) / 3;
      if (ErrorOfScale(values, std::exp(a)) < ErrorOfScale(values, std::exp(b)))
        hi = b;
      else
        lo = a;
    }
    return std::exp((lo + hi) / 2);
  }
  double ErrorOfScale(const std::vector<At>& values, double scale) const {
    const int64_t n = fused_->n_positions(), d = shape_.run;
    double error = 0;
    std::vector<double> weights(static_cast<size_t>(n));
    int64_t of_row = -1;
    double sum = 0;
    for (size_t v = 0; v < values.size(); v += 2) {
      const auto [i, h, k] = values[v];
      const int64_t row = i * shape_.n_heads + h;
      if (row != of_row) {
        const auto scores = std::span(scores_).subspan(static_cast<size_t>(row * n), static_cast<size_t>(n));
        const double largest = *std::ranges::max_element(scores);
        sum = 0, of_row = row;
        for (size_t j = 0; j < weights.size(); j++)
          sum += weights[j] = std::exp(scale * (double(scores[j]) - largest));
      }
      double out = 0;
      for (int64_t j = 0; j < n; j++)
        out +=
            weights[static_cast<size_t>(j)] *
            double(
                fused_->values.values[static_cast<size_t>((j * shape_.n_kv + h / shape_.group()) * d + k)]);
      const double e = double(s_.output[static_cast<size_t>(row * d + k)]) - out / sum;
      error += e * e;
    }
    return error;
  }

  void TryRunning(Stuck stuck, int64_t tile) {
    if (s_.arbiter->model().params().attention_sinks) return;
    constexpr const char* kNames[] = {"values", "sum", "both"};
    constexpr const char* kWords[] = {"its sum of values", "its sum of exponentials", "its sums"};
    const auto which = static_cast<size_t>(stuck);
    Guess g{fmt::format("softmax.running={},{}", kNames[which], tile),
            fmt::format("does not rescale {} where a larger score comes{}", kWords[which],
                        tile > 1 ? fmt::format(", {} positions at a time", tile) : ""),
            "sums that are rescaled", 0};
    g.replay = [arbiter = s_.arbiter, stuck, tile](const Culprit& c) {
      return NotRescaled(*arbiter, c, stuck, tile);
    };
    g.meaning = {Where::kFormula, {Axis::kAll}, WhatKind::kVariation, 0};
    Add(std::move(g));
  }

  const Subject& s_;
  const WrongPart& part_;
  const AttentionShape shape_;
  std::optional<FusedAttention> fused_;
  std::vector<float> scores_, probabilities_;  // as declared: (n_rows, n_heads, n_positions)
  double ratio_ = 0;                           // of the error, as declared, over its bound
  std::vector<Guess> guesses_;
};

}  // namespace

std::vector<Guess> FusedGuesses(const Subject& subject, const WrongPart& part) {
  return FusedSearch(subject, part).Run();
}

}  // namespace pb::diagnose

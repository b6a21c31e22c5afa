// Hypotheses about which positions a mask hides besides: some that nothing sees, all but the last few,
// the last few. The rule is read off the rows that are wrong and holds for all of them.
#include <algorithm>
#include <cmath>
#include <optional>

#include "diagnose/attention.h"
#include "diagnose/fused.h"
#include "diagnose/transformations.h"
#include "stages/stages.h"

namespace pb::diagnose {
namespace {

// A probability that underflows in float32 is no sign of a mask.
constexpr float kSeen = 1e-30f;
// Of attention as one op: of its error what a rule may leave. Beyond so many times its bound it tells at
// all.
constexpr double kRunRest = 0.05, kNoEvidence = 4;
constexpr double kNoWeight = 1e-12;  // a mean over less than this is none
constexpr int64_t kMostFusedRows = 16, kMostShift = 8;
constexpr double kTableWork = 4e7;  // values that are looked at, times positions squared

enum class Kind { kPositions, kWindow, kShift };

// Which positions a row hides that it should see.
struct Rule {
  Kind kind = Kind::kPositions;
  int64_t n = 0;          // kWindow: positions that are seen; kShift: the last ones that are hidden
  Region positions = {};  // kPositions
  bool exempt = true;     // kPositions: a row sees itself; kShift: position 0 is seen
  bool Hides(int64_t own, int64_t j) const {
    switch (kind) {
      case Kind::kPositions:
        return pb::diagnose::Holds(positions, j) && !(exempt && j == own);
      case Kind::kWindow:
        return j <= own - n;
      case Kind::kShift:
        return j > own - n && !(exempt && j == 0);
    }
    return false;
  }
};

// The op under the rule.
Result<Expectation> With(FileArbiter& arbiter, const Culprit& c, const Rule& rule) {
  const AttentionShape shape(arbiter, c);
  const auto fused = FusedAttention::Of(arbiter, c);
  const int64_t n_positions = fused ? fused->n_positions() : shape.run;
  const auto hide = [&](std::vector<float>* scores) {
    for (int64_t i = 0; i < shape.n; i++)
      for (int64_t h = 0; h < shape.n_heads; h++)
        for (int64_t j = 0, own = c.first_position + i; j <= std::min(own, n_positions - 1); j++)
          if (rule.Hides(own, j))
            (*scores)[static_cast<size_t>((i * shape.n_heads + h) * n_positions + j)] = -INFINITY;
  };
  if (fused) {
    PB_ASSIGN(Recorded scores, fused->Scores(fused->keys));
    hide(&scores.values);
    return fused->Context(std::move(scores), fused->values);
  }
  if (shape.scores) {
    PB_ASSIGN(Expectation e, arbiter.Expect(c, {}, ""));
    hide(&e.output.values);
    return e;
  }
  PB_ASSIGN(std::vector<Recorded> inputs, arbiter.Inputs(c));
  if (inputs.size() != 1 || inputs.front().values.size() != c.reference.size())
    return MakeError(Code::kUnsupported, "scores of another shape");
  hide(&inputs.front().values);
  return arbiter.Replay(PB_STAGE_ATTN_SCORES_SOFTMAX, c.place.layer, c.first_position, std::move(inputs), "");
}

class MaskSearch {
 public:
  MaskSearch(const Subject& s, const WrongPart& part)
      : s_(s),
        part_(part),
        shape_(*s.arbiter, *s.culprit),
        fused_(FusedAttention::Of(*s.arbiter, *s.culprit)),
        n_positions_(fused_ ? fused_->n_positions() : shape_.run) {}

  std::vector<Guess> Run() {
    if (part_.rows.empty()) return {};
    if (fused_) return TryFused(), std::move(guesses_);
    if (!ReadRows()) return {};
    TryPositions();
    // A row whose hidden positions have two ends tells how many there are.
    const Row* row = nullptr;
    for (const Row& r : rows_)
      if (std::ranges::find(r.marks, Mark::kWrong) != r.marks.end()) row = &r;
    if (!row) return {};
    const auto& marks = row->marks;
    const auto first = std::ranges::find(marks, Mark::kWrong) - marks.begin();
    auto last = static_cast<int64_t>(marks.size()) - 1;
    while (marks[static_cast<size_t>(last)] != Mark::kWrong) --last;
    Try({Kind::kWindow, row->own - last});
    for (const bool exempt : {true, false}) Try({Kind::kShift, row->own - first + 1, {}, exempt});
    return std::move(guesses_);
  }

 private:
  // What a wrong row hides of the positions that it should see.
  struct Row {
    int64_t own;
    std::vector<Mark> marks;
  };

  // False: heads hide different positions, or some see what is hidden.
  bool ReadRows() {
    for (int64_t i : part_.rows) {
      Row row{s_.culprit->first_position + i, {}};
      row.marks.assign(static_cast<size_t>(std::min(row.own + 1, shape_.run)), Mark::kOpen);
      for (int64_t h = 0; h < shape_.n_heads; h++)
        for (int64_t j = 0; j < shape_.run; j++) {
          const auto at = static_cast<size_t>((i * shape_.n_heads + h) * shape_.run + j);
          const Mark mark = MarkOf(s_.output[at], s_.declared[at]);
          if (mark == Mark::kOpen) continue;
          if (j >= static_cast<int64_t>(row.marks.size())) return false;
          Mark& of = row.marks[static_cast<size_t>(j)];
          if (of != Mark::kOpen && of != mark) return false;
          of = mark;
        }
      rows_.push_back(std::move(row));
    }
    return true;
  }

  // Of attention as one op: the rules without whose positions the weighted means are the output.
  void TryFused() {
    const bool evidence =
        s_.arbiter->Compare(*s_.culprit, s_.output, s_.declared, s_.units).row.bound_ratio >= kNoEvidence;
    if (!evidence || !ReadMeans()) return;
    for (const bool exempt : {true, false}) {
      MeanTable table = means_;
      for (size_t v = 0; exempt && v < own_.size(); v++) {
        const auto own = v * static_cast<size_t>(n_positions_) + static_cast<size_t>(own_[v]);
        table.top[own] = table.bottom[own] = 0;
      }
      if (const auto run = FindCellRun(table); run && run->rest <= kRunRest)
        Try({Kind::kPositions, 0, {Axis::kPositions, run->first, run->last, 1, n_positions_}, exempt});
    }
    for (int64_t n = 1; n < n_positions_; n++)
      if (RestOf({Kind::kWindow, n}) <= kRunRest) Try({Kind::kWindow, n});
    for (int64_t n = 1; n <= std::min(kMostShift, n_positions_ - 1); n++)
      for (const bool exempt : {true, false})
        if (const Rule rule{Kind::kShift, n, {}, exempt}; RestOf(rule) <= kRunRest) Try(rule);
  }

  // Some values of the rows that are wrong, and what each position adds to them.
  bool ReadMeans() {
    auto scores = fused_->Scores(fused_->keys);
    if (!scores.ok()) return false;
    const auto probabilities = fused_->Probabilities(*scores);
    if (!probabilities.ok()) return false;
    const int64_t n = n_positions_, d = shape_.run, width = shape_.n_heads * d;
    const auto n_rows = std::min<int64_t>(std::ssize(part_.rows), kMostFusedRows);
    const auto most =
        std::clamp<int64_t>(static_cast<int64_t>(kTableWork / static_cast<double>(n * n)), 64, 2048);
    const int64_t step = std::max<int64_t>((n_rows * width + most - 1) / most, 1) | 1;
    means_ = {0, n, {}, {}, {}, {}};
    for (int64_t at = 0; at < n_rows * width; at += step) {
      const int64_t i =
          part_.rows[static_cast<size_t>((at / width + 1) * std::ssize(part_.rows) / n_rows - 1)];
      const int64_t h = at % width / d, k = at % d;
      const auto out = static_cast<size_t>(i * width + at % width);
      means_.given.push_back(s_.output[out]), ++means_.n_values;
      own_.push_back(std::min(s_.culprit->first_position + i, n - 1));
      const auto of_row = [&](const Recorded& all) {
        return std::span(all.values)
            .subspan(static_cast<size_t>((i * shape_.n_heads + h) * n), static_cast<size_t>(n));
      };
      const double log_sum = LogOfSum(of_row(*scores), of_row(*probabilities));
      double declared = 0;
      for (int64_t j = 0; j < n; j++) {
        const auto cell = static_cast<size_t>((j * shape_.n_kv + h / shape_.group()) * d + k);
        const double a = std::exp(double(of_row(*scores)[static_cast<size_t>(j)]) - log_sum);
        const double term = a * double(fused_->values.values[cell]);
        declared += term;
        means_.top.push_back(-term), means_.bottom.push_back(-a);
      }
      means_.declared.push_back(declared);
    }
    return means_.n_values > 0;
  }

  // Of the error what the rule leaves; rows of which it hides all tell nothing.
  double RestOf(const Rule& rule) const {
    double left = 0, all = 0;
    for (size_t v = 0; v < own_.size(); v++) {
      double top = means_.declared[v], bottom = 1;
      const size_t row = v * static_cast<size_t>(n_positions_);
      for (int64_t j = 0; j <= own_[v]; j++)
        if (rule.Hides(own_[v], j))
          top += means_.top[row + static_cast<size_t>(j)],
              bottom += means_.bottom[row + static_cast<size_t>(j)];
      const double as_declared = means_.given[v] - means_.declared[v];
      all += as_declared * as_declared;
      if (!(bottom > kNoWeight)) continue;
      const double e = means_.given[v] - top / bottom;
      left += e * e;
    }
    return all > 0 ? std::sqrt(left / all) : 1;
  }

  Mark MarkOf(float x, float y) const {
    if (shape_.scores) {
      if (std::isinf(x) && std::isinf(y)) return Mark::kOpen;
      return std::isinf(x) ? Mark::kWrong : Mark::kRight;
    }
    if (x == 0) return y > kSeen ? Mark::kWrong : Mark::kOpen;
    return Mark::kRight;
  }

  // Hidden in every row that should see them, or in every one but their own.
  void TryPositions() {
    for (const bool exempt : {true, false}) {
      std::vector<Mark> marks(static_cast<size_t>(shape_.run), Mark::kOpen);
      bool fits = true;
      for (const Row& row : rows_)
        for (size_t j = 0; j < row.marks.size(); j++) {
          if (row.marks[j] == Mark::kOpen || (exempt && static_cast<int64_t>(j) == row.own)) continue;
          fits &= marks[j] == Mark::kOpen || marks[j] == row.marks[j];
          marks[j] = row.marks[j];
        }
      // Those that no row shows are said to be seen.
      std::ranges::replace(marks, Mark::kOpen, Mark::kRight);
      if (!fits) continue;
      if (const auto region = FindRegion(marks, {Axis::kPositions});
          region && region->axis == Axis::kPositions)
        Try({Kind::kPositions, 0, *region, exempt});
    }
  }

  void Try(const Rule& rule) {
    if (rule.n < 0 || (rule.kind != Kind::kPositions && rule.n < 1)) return;
    for (const Row& row : rows_)
      for (size_t j = 0; j < row.marks.size(); j++) {
        const bool hides = rule.Hides(row.own, static_cast<int64_t>(j));
        if (row.marks[j] != Mark::kOpen && hides != (row.marks[j] == Mark::kWrong)) return;
      }
    Guess g;
    g.replay = [arbiter = s_.arbiter, rule](const Culprit& c) { return With(*arbiter, c, rule); };
    g.n_fitted = 1;
    g.meaning = {Where::kMask, rule.positions, WhatKind::kAbsent, 0};
    g.short_text = "those positions seen";
    switch (rule.kind) {
      case Kind::kPositions:
        g.name = "mask.hidden=" + PartText(rule.positions);
        g.text =
            fmt::format("hides {}{}", RegionWords(rule.positions), rule.exempt ? " from those behind" : "");
        break;
      case Kind::kWindow:
        g.name = fmt::format("attn.window={}", rule.n);
        g.text = fmt::format("sees the last {} positions alone", rule.n);
        break;
      case Kind::kShift:
        g.name = fmt::format("mask.shift=-{}", rule.n);
        g.meaning.what = WhatKind::kVariation;
        g.text = rule.n == 1 ? "hides a position from itself"
                             : fmt::format("hides the last {} positions, a row's own among them", rule.n);
        break;
    }
    if (auto varied = Varied(s_, std::move(g))) guesses_.push_back(std::move(*varied));
  }

  const Subject& s_;
  const WrongPart& part_;
  const AttentionShape shape_;
  const std::optional<FusedAttention> fused_;
  const int64_t n_positions_;
  std::vector<Row> rows_;
  MeanTable means_;           // of attention as one op
  std::vector<int64_t> own_;  // the position of each of its values
  std::vector<Guess> guesses_;
};

}  // namespace

std::vector<Guess> MaskGuesses(const Subject& subject, const WrongPart& part) {
  const int32_t stage = subject.culprit->place.stage;
  if (stage != PB_STAGE_ATTN_SCORES && stage != PB_STAGE_ATTN_SCORES_SOFTMAX &&
      !FusedAttention::Of(*subject.arbiter, *subject.culprit))
    return {};
  return MaskSearch(subject, part).Run();
}

}  // namespace pb::diagnose

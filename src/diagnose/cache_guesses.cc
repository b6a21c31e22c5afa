// Hypotheses about the cache: cells that hold something else than was put into them, and heads that
// read another's. Which cells or heads is found by holding what each would give against the output.
#include <algorithm>
#include <cmath>
#include <optional>

#include "diagnose/attention.h"
#include "diagnose/cache_reading.h"
#include "diagnose/terms.h"
#include "diagnose/transformations.h"
#include "stages/stages.h"
#include "trace/facts.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kMostHeads = 16;     // KV heads whose exchange is tried
constexpr int64_t kLeastValues = 2;    // wrong values that a hypothesis has to give
constexpr size_t kMostRows = 8;        // of a context, that cells are looked for in
constexpr int64_t kMostValues = 4096;  // the same in values
constexpr int kMostCells = 64;         // that are looked for one by one
constexpr double kLeftOver = 1e-4;     // of the squared error that the cells found may leave
constexpr double kColumnRest = 0.02;   // as of terms of a product
constexpr int64_t kLeastColumnValues = 4;
constexpr double kNoEffect = 1e-6;  // of the largest effect of a cell: one that shows nothing

// The op with the reading.
Result<Expectation> With(FileArbiter& arbiter, const Culprit& c, const Reading& r) {
  const auto stage = static_cast<pb_stage>(c.place.stage);
  PB_ASSIGN(std::vector<Recorded> inputs, arbiter.Inputs(c));
  if (inputs.size() != 2) return MakeError(Code::kUnsupported, "attention in one op");
  PB_ASSIGN(inputs.back().values, Spoiled(arbiter, c, inputs.back(), r));
  PB_ASSIGN(Expectation y, arbiter.Replay(stage, c.place.layer, c.first_position, std::move(inputs), ""));
  if (r.part.axis != Axis::kHeads) return y;
  PB_ASSIGN(Expectation declared, arbiter.Expect(c, {}, ""));
  const AttentionShape shape(arbiter, c);
  for (int64_t i = 0; i < shape.n; i++)
    for (int64_t h = 0; h < shape.n_heads; h++) {
      if (!Holds(r.part, h)) continue;
      const auto at = static_cast<ptrdiff_t>((i * shape.n_heads + h) * shape.run);
      std::copy_n(y.output.values.begin() + at, shape.run, declared.output.values.begin() + at);
      if (declared.units.size() == y.units.size())
        std::copy_n(y.units.begin() + at, shape.run, declared.units.begin() + at);
    }
  return declared;
}

// Which of some places are as the reading has them, in the rows that are wrong.
Mark MarkOf(bool as_read, bool as_declared) {
  return as_read && as_declared ? Mark::kOpen : as_read ? Mark::kWrong : Mark::kRight;
}

// Positions that are wrong, told by no more than those that are: of one alone it would be a guess
// that those which show nothing are wrong as well.
std::optional<Region> PositionsOf(const std::vector<Mark>& marks) {
  const auto n = static_cast<int64_t>(marks.size());
  const auto n_wrong = std::ranges::count(marks, Mark::kWrong),
             n_right = std::ranges::count(marks, Mark::kRight);
  if (n_wrong == 0) return std::nullopt;
  const auto first = std::ranges::find(marks, Mark::kWrong) - marks.begin();
  auto last = n - 1;
  while (marks[static_cast<size_t>(last)] != Mark::kWrong) --last;
  if (n_right == 0) return 2 * n_wrong >= n && n_wrong > 1 ? std::optional(Region{Axis::kAll}) : std::nullopt;
  if (std::find(marks.begin() + first, marks.begin() + last, Mark::kRight) == marks.begin() + last)
    return Region{Axis::kPositions, first, last, 1, n};
  return FindRegion(marks, {Axis::kPositions});
}

class CacheSearch {
 public:
  CacheSearch(const Subject& s, const WrongPart& part)
      : s_(s), part_(part), shape_(*s.arbiter, *s.culprit), limits_(s) {}

  std::vector<Guess> Run() {
    auto inputs = s_.arbiter->Inputs(*s_.culprit);
    if (!inputs.ok() || inputs->size() != 2 || part_.rows.empty()) return {};
    inputs_ = std::move(*inputs);
    for (const Other what : {Other::kNothing, Other::kBefore, Other::kNext}) Try({what});
    for (int64_t by = 1; by < std::min(shape_.n_kv, kMostHeads); by++) Try({Other::kHead, by});
    if (trace::ReadSessionFacts(s_.arbiter->session()).kv_type.value == "f16") Try({Other::kCut});
    if (shape_.scores)
      for (const bool computed : {true, false}) Try({Other::kUnrotated, 0, computed});
    if (shape_.scores && guesses_.empty()) TryColumns();
    return std::move(guesses_);
  }

 private:
  void Try(Reading r) {
    r.part = {Axis::kAll};
    const auto all = With(*s_.arbiter, *s_.culprit, r);
    if (!all.ok()) return;
    std::optional<Region> part = shape_.scores ? OfScores(*all) : HeadsOf(*all);
    if (!part && !shape_.scores && r.what != Other::kHead) part = CellsOf(r);
    if (!part || (r.what == Other::kHead && part->axis == Axis::kPositions)) return;
    r.part = *part;
    // Zeros for one query head of those that share a KV head are nothing that stands in the cache: the
    // head's output is told as the zeros that it is.
    if (r.what == Other::kNothing && !OfWholeGroups(*part)) return;
    Push(r);
  }
  bool OfWholeGroups(const Region& r) const {
    const int64_t group = shape_.group();
    return r.axis != Axis::kHeads || (r.every == 1 && r.first % group == 0 && (r.last + 1) % group == 0);
  }

  // A score is the sum over a head's columns: a run of these that is left out, in the heads that are
  // wrong.
  void TryColumns() {
    const Region& wrong = part_.region;
    const bool some = wrong.axis == Axis::kHeads;
    if (!some && wrong.axis != Axis::kAll) return;
    const Recorded &queries = inputs_.front(), &keys = inputs_.back();
    const int64_t d = s_.arbiter->model().params().head_dim, n = keys.shape[0];
    if (static_cast<int64_t>(queries.values.size()) != shape_.n * shape_.n_heads * d) return;
    TermTable table{0, d, {}};
    std::vector<double> residual;
    double dots = 0, square = 0;  // of what is declared, to tell the scale of the products
    const auto n_rows = static_cast<int64_t>(std::min(part_.rows.size(), kMostRows));
    for (int64_t r = 0; r < n_rows; r++)
      for (int64_t h = 0; h < shape_.n_heads; h++) {
        if (some && !Holds(wrong, h)) continue;
        const int64_t i = part_.rows[static_cast<size_t>((r + 1) * std::ssize(part_.rows) / n_rows - 1)];
        for (int64_t j = r % 4; j < std::min(n, shape_.run); j += 4) {
          const auto at = static_cast<size_t>((i * shape_.n_heads + h) * shape_.run + j);
          if (!std::isfinite(s_.declared[at]) || !std::isfinite(s_.output[at])) continue;
          double dot = 0;
          for (int64_t k = 0; k < d; k++) {
            const double q = queries.values[static_cast<size_t>((i * shape_.n_heads + h) * d + k)];
            table.t.push_back(
                q * double(keys.values[static_cast<size_t>((j * shape_.n_kv + h / shape_.group()) * d + k)]));
            dot += table.t.back();
          }
          dots += dot * double(s_.declared[at]), square += dot * dot;
          residual.push_back(double(s_.output[at]) - double(s_.declared[at]));
          ++table.n_values;
        }
      }
    if (table.n_values < 2 * kLeastColumnValues || square == 0) return;
    for (double& y : residual) y /= dots / square;
    const auto run = FindRun(table, nullptr, residual);
    if (!run || run->rest > kColumnRest || std::fabs(run->change + 1) > kColumnRest) return;
    if (run->first == 0 && run->last == d - 1) return;
    Reading reading{Other::kNothing};
    reading.part = wrong;
    reading.columns = {Axis::kColumns, run->first, run->last, 1, d};
    Push(reading);
  }

  // Each score is of one cell: by position, or by head.
  std::optional<Region> OfScores(const Expectation& read) const {
    std::vector<Mark> positions(static_cast<size_t>(shape_.run), Mark::kOpen),
        heads(static_cast<size_t>(shape_.n_heads), Mark::kOpen);
    bool by_position = true, by_head = true;
    const auto add = [](Mark mark, Mark* to) {
      if (mark == Mark::kOpen) return true;
      const bool fits = *to == Mark::kOpen || *to == mark;
      return *to = mark, fits;
    };
    for (int64_t h = 0; h < shape_.n_heads; h++)
      for (int64_t j = 0; j < shape_.run; j++) {
        const auto mark = MarkAt(read, h * shape_.run + j, 1);
        if (!mark) return std::nullopt;
        by_position &= add(*mark, &positions[static_cast<size_t>(j)]);
        by_head &= add(*mark, &heads[static_cast<size_t>(h)]);
      }
    if (by_position) return PositionsOf(positions);
    return by_head ? FindRegion(heads, {Axis::kHeads}) : std::nullopt;
  }

  std::optional<Region> HeadsOf(const Expectation& read) const {
    std::vector<Mark> heads;
    for (int64_t h = 0; h < shape_.n_heads; h++) {
      const auto mark = MarkAt(read, h * shape_.run, shape_.run);
      if (!mark) return std::nullopt;
      heads.push_back(*mark);
    }
    return FindRegion(heads, {Axis::kHeads});
  }

  // Columns `first` on, over the wrong rows; nothing: they are neither as declared nor as read.
  std::optional<Mark> MarkAt(const Expectation& read, int64_t first, int64_t n) const {
    LimitedError as_read, as_declared;
    for (int64_t i : part_.rows)
      for (int64_t at = i * part_.n_features + first; at < i * part_.n_features + first + n; at++) {
        const auto k = static_cast<size_t>(at);
        limits_.Add(s_.output[k], read.output.values[k], read.units.empty() ? 0 : read.units[k], &as_read);
        limits_.Add(s_.output[k], s_.declared[k], s_.units.empty() ? 0 : s_.units[k], &as_declared);
      }
    if (!as_read.within() && !as_declared.within()) return std::nullopt;
    return MarkOf(as_read.within(), as_declared.within());
  }

  // The cells whose change, weighted by the probabilities, is the error: the one that takes most of it
  // away, and so on.
  std::optional<Region> CellsOf(const Reading& r) const {
    const auto spoiled = Spoiled(*s_.arbiter, *s_.culprit, inputs_.back(), r);
    if (!spoiled.ok()) return std::nullopt;
    const int64_t n = inputs_.back().shape[0];
    std::vector<std::vector<double>> effects(static_cast<size_t>(n));
    std::vector<double> rest;
    Equations(*spoiled, &effects, &rest);
    std::vector<double> square(effects.size());
    double largest = 0;
    for (size_t j = 0; j < effects.size(); j++)
      largest = std::max(largest, square[j] = Dot(effects[j], effects[j]));
    const double all = Dot(rest, rest);
    std::vector<Mark> marks(effects.size(), Mark::kRight);
    for (size_t j = 0; j < marks.size(); j++)
      if (square[j] <= kNoEffect * largest) marks[j] = Mark::kOpen;
    for (int found = 0; found < kMostCells; found++) {
      double most = 0;
      size_t best = 0;
      for (size_t j = 0; j < effects.size(); j++) {
        if (marks[j] != Mark::kRight) continue;
        const double less = 2 * Dot(rest, effects[j]) - square[j];
        if (less > most) most = less, best = j;
      }
      if (most <= 0) return std::nullopt;
      marks[best] = Mark::kWrong;
      for (size_t k = 0; k < rest.size(); k++) rest[k] -= effects[best][k];
      if (Dot(rest, rest) <= kLeftOver * all) return PositionsOf(marks);
    }
    return std::nullopt;
  }

  static double Dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) sum += a[i] * b[i];
    return sum;
  }

  // What each cell's change makes of some values of the context, and their errors.
  void Equations(const std::vector<float>& spoiled, std::vector<std::vector<double>>* effects,
                 std::vector<double>* errors) const {
    const Recorded &weights = inputs_.front(), &cache = inputs_.back();
    const int64_t n = cache.shape[0], d = shape_.run, kv_width = shape_.n_kv * d;
    std::vector<int64_t> rows;
    const size_t n_rows = std::min(part_.rows.size(), kMostRows);
    for (size_t k = 0; k < n_rows; k++) rows.push_back(part_.rows[(k + 1) * part_.rows.size() / n_rows - 1]);
    const int64_t n_values = static_cast<int64_t>(n_rows) * shape_.n_heads * d;
    const int64_t step = std::max<int64_t>((n_values + kMostValues - 1) / kMostValues, 1);
    int64_t at = 0;
    for (int64_t i : rows)
      for (int64_t h = 0; h < shape_.n_heads; h++)
        for (int64_t k = 0; k < d; k++) {
          if (at++ % step != 0) continue;
          const auto out = static_cast<size_t>((i * shape_.n_heads + h) * d + k);
          errors->push_back(double(s_.output[out]) - double(s_.declared[out]));
          for (int64_t j = 0; j < n; j++) {
            const auto value = static_cast<size_t>(j * kv_width + h / shape_.group() * d + k);
            const double weight = weights.values[static_cast<size_t>((i * shape_.n_heads + h) * n + j)];
            (*effects)[static_cast<size_t>(j)].push_back(
                weight == 0 ? 0 : weight * (double(spoiled[value]) - double(cache.values[value])));
          }
        }
  }

  void Push(const Reading& r) {
    if (part_.n_values() < kLeastValues) return;
    Guess g;
    g.replay = [arbiter = s_.arbiter, r](const Culprit& c) { return With(*arbiter, c, r); };
    g.meaning = MeaningOf(r);
    g.name = ReadingName(r), g.text = ReadingWords(r, shape_.scores ? "keys" : "values", g.meaning.part);
    g.short_text = shape_.scores ? "keys as they were made" : "values as they were made";
    if (auto varied = Varied(s_, std::move(g))) guesses_.push_back(std::move(*varied));
  }

  Meaning MeaningOf(const Reading& r) const {
    Meaning m{Where::kCacheWritten, r.part, WhatKind::kOtherPart, 0};
    if (r.what == Other::kNothing || r.what == Other::kUnrotated) m.what = WhatKind::kAbsent;
    if (r.what == Other::kBefore) m.what = WhatKind::kStale;
    if (r.what == Other::kCut) m.what = WhatKind::kTruncation;
    // What is wrong for every row and every head that reads it stands so in the cache.
    const int64_t group = shape_.group();
    const bool of_heads = r.part.axis == Axis::kHeads, whole = OfWholeGroups(r.part);
    const bool one_row = part_.n_rows == 1 && r.what != Other::kUnrotated;
    // Written without them, read so, or multiplied so.
    if (r.columns.axis == Axis::kColumns) {
      m.where = Where::kUnknown;
      if (!of_heads) m.part = r.columns;
      return m;
    }
    if (r.what == Other::kHead || (r.what == Other::kUnrotated && !r.computed) || !whole || one_row)
      m.where = Where::kCacheRead;
    else if (of_heads)
      m.part = {Axis::kHeads, r.part.first / group, r.part.last / group, 1, shape_.n_kv};
    return m;
  }

  const Subject& s_;
  const WrongPart& part_;
  const AttentionShape shape_;
  const Limits limits_;
  std::vector<Recorded> inputs_;
  std::vector<Guess> guesses_;
};

}  // namespace

std::vector<Guess> CacheGuesses(const Subject& subject, const WrongPart& part) {
  const int32_t stage = subject.culprit->place.stage;
  if (stage != PB_STAGE_ATTN_SCORES && stage != PB_STAGE_ATTN_CONTEXT) return {};
  return CacheSearch(subject, part).Run();
}

}  // namespace pb::diagnose

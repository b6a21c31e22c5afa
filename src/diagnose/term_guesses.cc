// What a product takes of its terms: columns of K, blocks, places in each block, or stored sums that
// are left out, taken several times, or taken from elsewhere, solved for from the output.
#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "diagnose/part.h"
#include "diagnose/product_terms.h"
#include "diagnose/transformations.h"
#include "diagnose/wrong_part.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kRows = 8;           // token rows that are solved over
constexpr double kValuesPerTerm = 2;   // values of the output for each term, where there are so many
constexpr double kLargestFit = 2.5e7;  // terms times values: of more the tail alone is looked for
constexpr double kTailRest = 0.05, kAbsent = 0.01;
constexpr int64_t kLeastTaken = 4;  // values of the input that a factor is told of

// Of runs: values of the output that they are looked for in, and what may be left of those.
constexpr int64_t kRunValues = 64, kLeastRunValues = 4;
constexpr double kLargestScan = 1.2e9;  // values times terms squared
constexpr double kRunRest = 0.02, kLikeRest = 1.5;
constexpr int64_t kMostEvery = 64;

// Evenly spaced where there are more than n.
std::vector<int64_t> Spaced(const std::vector<int64_t>& all, int64_t n) {
  const auto n_all = static_cast<int64_t>(all.size());
  if (n >= n_all) return all;
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < n; i++) chosen.push_back(all[static_cast<size_t>(i * n_all / n)]);
  return chosen;
}

bool Holds(const Region& r, int64_t k, int64_t block) {
  const int64_t at = r.axis == Axis::kBlocks ? k / block : r.axis == Axis::kCode ? k % block : k;
  return r.axis == Axis::kAll || (at >= r.first && at <= r.last && (at - r.first) % r.every == 0);
}

// What is taken otherwise: columns of a region, by one change; in their place those `by` before.
struct Change {
  Region region;
  double change = 0;
  int64_t by = 0;  // 0: none are
  TermRule rule = TermRule::kWhole;
  double rest = 1;
  bool of_sums = false;  // stored sums alone; the region is of the columns that they are of
};

class TermSearch {
 public:
  TermSearch(const Subject& s, const WrongPart& part, const ProductTerms& product)
      : s_(s), part_(part), product_(product) {}

  std::vector<Guess> Run() {
    rows_ = part_.rows;
    if (static_cast<int64_t>(rows_.size()) > kRows) {
      rows_ = ChooseRows(s_.output, s_.declared, product_.n_rows(), kRows);
      std::erase_if(rows_, [&](int64_t i) { return !std::ranges::binary_search(part_.rows, i); });
    }
    LookForRuns();
    LookForOtherSums();
    LookForOtherScales();
    for (const TermRule rule : {TermRule::kWhole, TermRule::kCodes})
      if (rule == TermRule::kWhole || has_sums()) Fit(rule);
    if (has_sums()) FitSums();
    return std::move(guesses_);
  }

 private:
  // Stored sums that count here: in one feature alone an offset's would make another weight of a term,
  // and that is told as the cell that it is.
  bool has_sums() const {
    return product_.group() > 0 && (product_.has_minima() || part_.features.size() > 1);
  }
  int64_t width() const { return product_.width(); }
  int64_t block() const { return product_.block() < width() ? product_.block() : 0; }
  AxisLayout Layout() const { return {Axis::kColumns, block(), Axis::kBlocks, Axis::kCode}; }

  // Runs of columns, of places in each block, every nth column, and runs of stored sums.
  void LookForRuns() {
    const double squared = static_cast<double>(width()) * static_cast<double>(width());
    const auto most = std::min<int64_t>(kRunValues, static_cast<int64_t>(kLargestScan / squared));
    const auto n_rows = static_cast<int64_t>(rows_.size());
    const std::vector<int64_t> outputs = Spaced(part_.features, std::max<int64_t>(kRunValues / n_rows, 1));
    const std::vector<double> residual = product_.Residual(rows_, outputs);
    const auto n = static_cast<int64_t>(residual.size());
    if (n < kLeastRunValues) return;
    const bool scans = n <= most;
    std::vector<Change> found;
    const auto keep = [&](const std::optional<TermRun>& run, const Region& region, TermRule rule,
                          bool of_sums = false) {
      if (run && run->rest < kRunRest)
        found.push_back(
            {region, run->change, run->from < 0 ? 0 : run->first - run->from, rule, run->rest, of_sums});
    };
    const auto columns = [&](const TermRun& r) {
      return Region{Axis::kColumns, r.first, r.last, 1, width()};
    };
    const TermTable sums = has_sums() ? product_.SumsTable(rows_, outputs) : TermTable{};
    for (const TermRule rule : {TermRule::kWhole, TermRule::kCodes, TermRule::kGroups}) {
      if (rule != TermRule::kWhole && !has_sums()) break;
      const TermTable table = product_.Table(rule, rows_, outputs);
      const TermTable* groups = rule == TermRule::kGroups ? &sums : nullptr;
      if (scans) {
        if (auto run = FindRun(table, groups, residual)) keep(run, columns(*run), rule);
        if (auto run = FindRepeatedRun(table, groups, residual)) keep(run, columns(*run), rule);
      }
      if (block() > 0) {
        const bool by_groups = groups && block() % product_.group() == 0;
        const TermTable places = Folded(table, block());
        TermTable group_places;
        if (by_groups) group_places = Folded(sums, block() / product_.group());
        if (auto run = FindRun(places, by_groups ? &group_places : nullptr, residual))
          keep(run, {Axis::kCode, run->first, run->last, 1, block()}, rule);
      }
      if (rule == TermRule::kGroups) continue;
      for (int64_t every = 2; every <= std::min(kMostEvery, width() / 2); every++)
        if (auto run = FindRun(Folded(table, every), nullptr, residual); run && run->first == run->last)
          keep(run, {Axis::kColumns, run->first, LastOf(run->first, every), every, width()}, rule);
    }
    if (has_sums()) {
      const int64_t group = product_.group();
      if (auto run = FindRun(sums, nullptr, residual))
        keep(run, {Axis::kColumns, run->first * group, (run->last + 1) * group - 1, 1, width()},
             TermRule::kGroups, true);
      if (block() > group) {
        if (auto run = FindRun(Folded(sums, block() / group), nullptr, residual))
          keep(run, {Axis::kCode, run->first * group, (run->last + 1) * group - 1, 1, block()},
               TermRule::kGroups, true);
      }
    }
    // The best, and those that come as near: which of them it is all values of the output say.
    std::ranges::stable_sort(found, {}, &Change::rest);
    for (const Change& change : found)
      if (change.rest <= kLikeRest * found.front().rest + 1e-6) Push(change);
  }
  int64_t LastOf(int64_t first, int64_t every) const { return first + (width() - 1 - first) / every * every; }

  // A change of its own for each column.
  void Fit(TermRule rule) {
    const std::vector<int64_t> outputs = Enough(width());
    const Terms terms = product_.Take(rule, rows_, outputs);
    const std::vector<double> residual = product_.Residual(rows_, outputs);
    if (const Tail tail = FindTail(terms, residual, kTailRest); tail.n > 0 && tail.n < width()) {
      const Region region{Axis::kColumns, width() - tail.n, width() - 1, 1, width()};
      return Push({region, tail.change, 0, rule, 0, false});
    }
    const auto change = ChangeOf(terms, residual, Layout());
    if (change) Push({change->region, change->change, 0, rule, 0, false});
  }
  void FitSums() {
    const std::vector<int64_t> outputs = Enough(product_.n_groups());
    const Terms terms = product_.TakeSums(rows_, outputs);
    auto change = ChangeOf(terms, product_.Residual(rows_, outputs), {Axis::kColumns});
    if (!change || change->region.every > 1) return;
    Region& r = change->region;
    r = {Axis::kColumns, r.first * product_.group(), (r.last + 1) * product_.group() - 1, 1, width()};
    Push({r, change->change, 0, TermRule::kGroups, 0, true});
  }
  std::vector<int64_t> Enough(int64_t n_terms) const {
    const auto n = static_cast<int64_t>(
        std::ceil(kValuesPerTerm * static_cast<double>(n_terms) / static_cast<double>(rows_.size())));
    return Spaced(part_.features, std::max<int64_t>(n, 16));
  }
  std::optional<Change> ChangeOf(const Terms& terms, const std::vector<double>& residual,
                                 const AxisLayout& layout) const {
    if (static_cast<double>(residual.size()) * static_cast<double>(terms.width) > kLargestFit)
      return std::nullopt;
    const auto fit = FitChanges(terms, residual, product_.Noise());
    if (!fit || fit->rest > kTailRest) return std::nullopt;
    const TermMarks marks = MarksOf(*fit);
    const auto region = FindRegion(marks.marks, layout);
    if (!region || marks.change == 0 || region->axis == Axis::kAll) return std::nullopt;
    return Change{*region, marks.change, 0, TermRule::kWhole, fit->rest, false};
  }

  // Values of the input in a region that are not zero, or stored sums.
  int64_t n_taken(const Region& region, bool of_sums) const {
    const int64_t size = of_sums ? product_.group() : 1, n_all = of_sums ? product_.n_groups() : width();
    int64_t n = 0;
    for (int64_t i : part_.rows)
      for (int64_t k = 0; k < n_all; k++) {
        const auto at = static_cast<size_t>(k);
        const double value = of_sums ? product_.StoredSums(i)[at] : product_.Values(i)[at];
        n += Holds(region, k * size, product_.block()) && value != 0;
      }
    return n;
  }
  // Whether a column adds nothing in any row: taken otherwise it would look the same.
  bool IsSilent(int64_t k) const {
    for (int64_t i : part_.rows)
      if (product_.Values(i)[static_cast<size_t>(k)] != 0) return false;
    return true;
  }
  // The region with the silent columns at its ends, where one region alone may be meant: up to the
  // end of K or of whole blocks. Nothing: it may end in several places.
  std::optional<Region> Told(const Region& region) const {
    if (region.axis != Axis::kColumns || region.every > 1) return region;
    std::vector<Mark> marks(static_cast<size_t>(width()), Mark::kRight);
    for (int64_t k = 0; k < width(); k++)
      if (IsSilent(k))
        marks[static_cast<size_t>(k)] = Mark::kOpen;
      else if (Holds(region, k, 0))
        marks[static_cast<size_t>(k)] = Mark::kWrong;
    const auto told = FindRegion(marks, Layout());
    if (!told) return std::nullopt;
    if (told->axis != Axis::kColumns) return told;
    const auto open = [&](int64_t k) {
      return k >= 0 && k < width() && marks[static_cast<size_t>(k)] == Mark::kOpen;
    };
    if (open(told->first - 1) || open(told->last + 1)) return std::nullopt;
    return told;
  }

  // Of one output: whether a change is of one column or, as the weights of the others there are zeros,
  // comes to that.
  bool IsOneWeight(const Change& c) const {
    if (c.region.axis == Axis::kColumns && c.region.first == c.region.last) return true;
    if (c.by != 0 || c.of_sums) return false;
    const TermTable table = product_.Table(c.rule, rows_, part_.features);
    int64_t n = 0;
    for (int64_t k = 0; k < width() && n < 2; k++) {
      bool counts = false;
      for (int64_t v = 0; v < table.n_values && Holds(c.region, k, product_.block()) && !counts; v++)
        counts = table.t[static_cast<size_t>(v * table.width + k)] != 0;
      n += counts;
    }
    return n < 2;
  }

  // A run of columns of one output: its weights. Places in each block, or every nth column, lie as the
  // lanes of a product do. Of several outputs, or all: what multiplies them.
  Where WhereOf(const Change& c) const {
    if (c.of_sums) return Where::kSums;
    const bool run = c.region.every == 1 && c.region.axis != Axis::kCode;
    return part_.features.size() == 1 && run ? Where::kWeights : Where::kProduct;
  }

  void Push(const Change& c) {
    if (part_.features.size() == 1 && IsOneWeight(c)) return;  // which FittedVariations tells by its value
    const bool absent = c.by == 0 && std::fabs(c.change + 1) < kAbsent;
    std::vector<double> change(static_cast<size_t>(width()));
    for (int64_t k = 0; k < width(); k++) {
      if (!Holds(c.region, k, product_.block())) continue;
      change[static_cast<size_t>(k)] += c.by == 0 ? 1 : -1;
      if (c.by != 0) change[static_cast<size_t>(k - c.by)] += 1;
    }
    const std::vector<double> effect = EffectOf(product_, c, change);
    const double times = c.by != 0 ? 1 : absent ? -1 : Refined(effect);
    Guess g;
    g.meaning.where = WhereOf(c);
    g.meaning.what = c.by != 0 ? WhatKind::kOtherPart : absent ? WhatKind::kAbsent : WhatKind::kFactor;
    g.meaning.value = g.meaning.what == WhatKind::kFactor ? 1 + times : 0;
    // One value of the input, taken otherwise, is so in all outputs: of few a factor tells nothing.
    if (g.meaning.what == WhatKind::kFactor && n_taken(c.region, c.of_sums) < kLeastTaken) return;
    const auto told = Told(c.region);
    if (InFeatures()) {
      g.meaning.part = part_.region;
    } else if (told) {
      g.meaning.part = *told;
    }
    Name(c, told.value_or(c.region), 1 + times, &g);
    for (size_t at = 0; at < effect.size(); at++)
      g.output.push_back(static_cast<float>(double(s_.declared[at]) + times * effect[at]));
    g.replay = [arbiter = s_.arbiter, c, change, times,
                outputs = InFeatures() ? part_.features : std::vector<int64_t>{}](const Culprit& op) {
      return Replayed(*arbiter, op, c, change, times, outputs);
    };
    guesses_.push_back(std::move(g));
  }
  // The same of other rows. `outputs`: in which the terms are taken otherwise; empty: in all.
  static Result<Expectation> Replayed(FileArbiter& arbiter, const Culprit& op, const Change& c,
                                      const std::vector<double>& change, double times,
                                      const std::vector<int64_t>& outputs) {
    PB_ASSIGN(Expectation e, arbiter.Expect(op, {}, ""));
    const Subject s{"", &op, &arbiter, e.output.values, e.output.values, e.units, {}};
    const auto product = ProductTerms::Of(s);
    if (!product) return MakeError(Code::kUnsupported, "the op's terms are not at hand");
    const std::vector<double> effect = EffectOf(*product, c, change);
    for (size_t at = 0; at < effect.size(); at++) {
      const auto output = static_cast<int64_t>(at) % product->n_outputs();
      if (outputs.empty() || std::ranges::binary_search(outputs, output))
        e.output.values[at] += static_cast<float>(times * effect[at]);
    }
    return e;
  }
  // Whether some outputs alone are wrong: these are the part then.
  bool InFeatures() const {
    return part_.region.axis == Axis::kFeatures || part_.region.axis == Axis::kHeads;
  }

  void Name(const Change& c, const Region& region, double factor, Guess* g) const {
    const std::string words = (c.of_sums ? "the stored sums of " : "") + RegionWords(region),
                      which = (c.of_sums ? "sums@" : "") + PartText(region);
    const bool tail = region.axis == Axis::kColumns && region.last == width() - 1 && region.every == 1;
    if (c.by != 0) {
      g->name = fmt::format("repeated={}", which);
      g->text = fmt::format("takes in the product the columns {} in place of {}",
                            c.by > 0 ? "before" : "behind", words);
      g->short_text = words + " in their place";
    } else if (g->meaning.what == WhatKind::kAbsent) {
      g->name = tail && !c.of_sums ? fmt::format("drop.columns={}", width() - region.first) : "drop=" + which;
      g->text = fmt::format("leaves out {} in the product", words);
      g->short_text = words + " left out";
    } else {
      g->name = fmt::format("factor={:.6g}@{}", factor, which);
      g->text = fmt::format("takes {} {:.5g} times in the product", words, factor);
      g->short_text = fmt::format("{} {:.5g} times", words, factor);
      g->n_fitted = 1;
    }
    if (has_sums() && !c.of_sums && c.rule == TermRule::kCodes)
      g->text += fmt::format(", and not what their {} adds", product_.has_minima() ? "minimum" : "offset");
    if (InFeatures()) g->text += fmt::format(" of {}", RegionWords(part_.region));
  }

  static std::vector<double> EffectOf(const ProductTerms& product, const Change& c,
                                      const std::vector<double>& change) {
    if (!c.of_sums) return product.Effect(c.rule, change);
    std::vector<std::vector<double>> more;
    for (int64_t i = 0; i < product.n_rows(); i++) {
      more.push_back(product.StoredSums(i));
      for (size_t g = 0; g < more.back().size(); g++)
        more.back()[g] *= change[g * static_cast<size_t>(product.group())];
    }
    return product.EffectOfSums(more);
  }

  // Stored sums of other groups, and of the values in place of their codes.
  void LookForOtherSums() {
    if (!has_sums()) return;
    const auto n = static_cast<size_t>(product_.n_groups());
    const auto push = [&](Guess g, WhatKind what, const std::function<double(int64_t, size_t)>& sum) {
      g.meaning = {Where::kSums, {Axis::kAll}, what, 0};
      if (InFeatures()) return;
      std::vector<std::vector<double>> more;
      for (int64_t i = 0; i < product_.n_rows(); i++) {
        std::vector<double>& row = more.emplace_back();
        for (size_t b = 0; b < n; b++) row.push_back(sum(i, b) - product_.StoredSums(i)[b]);
      }
      const std::vector<double> effect = product_.EffectOfSums(more);
      for (size_t at = 0; at < effect.size(); at++)
        g.output.push_back(static_cast<float>(double(s_.declared[at]) + effect[at]));
      guesses_.push_back(std::move(g));
    };
    for (const bool round : {false, true})
      for (const int by : {1, -1}) {
        const std::string name = fmt::format("sums.shift={}{}", by, round ? "" : ";sums.end=0");
        push({name,
              fmt::format("multiplies {} with the stored sums of the group {}",
                          product_.has_minima() ? "minima" : "offsets", by > 0 ? "before" : "behind"),
              "sums in their place", 0},
             WhatKind::kOtherPart, [&, by, round](int64_t i, size_t b) {
               const auto from = static_cast<int64_t>(b) - by, all = static_cast<int64_t>(n);
               if (!round && (from < 0 || from >= all)) return 0.0;
               return product_.StoredSums(i)[static_cast<size_t>((from + all) % all)];
             });
      }
    const auto group = static_cast<size_t>(product_.group());
    push({"sums.of=values", "stores sums of its input in place of those of its codes", "sums of codes", 0},
         WhatKind::kUnknown, [&](int64_t i, size_t b) {
           double sum = 0;
           for (float x : product_.Raw(i).subspan(b * group, group)) sum += double(x);
           return product_.scheme() == ActScheme::kQ8_1 ? double(F16ToF32(F32ToF16(static_cast<float>(sum))))
                                                        : sum;
         });
  }

  // Blocks of the input with the scale of the block, or of the token row, before or behind.
  void LookForOtherScales() {
    if (!IsIntegerScheme(product_.scheme()) || block() == 0 || InFeatures()) return;
    const int64_t n_blocks = width() / block(), n = product_.n_rows();
    std::vector<std::vector<double>> scales;
    for (int64_t i = 0; i < n; i++) {
      std::vector<double>& row = scales.emplace_back();
      for (int64_t b = 0; b < n_blocks; b++)
        row.push_back(codes::ActBlockOf(product_.Raw(i).subspan(static_cast<size_t>(b * block()),
                                                                static_cast<size_t>(block())),
                                        product_.scheme())
                          .from_code);
    }
    for (const bool of_rows : {false, true})
      for (const int by : {1, -1}) {
        if ((of_rows ? n : n_blocks) < 2) continue;
        std::vector<std::vector<double>> more;
        for (int64_t i = 0; i < n; i++) {
          std::vector<double>& row = more.emplace_back(static_cast<size_t>(width()));
          for (int64_t b = 0; b < n_blocks; b++) {
            const int64_t from_row = of_rows ? i - by : i, from = of_rows ? b : b - by;
            if (from_row < 0 || from_row >= n || from < 0 || from >= n_blocks) continue;
            const double own = scales[static_cast<size_t>(i)][static_cast<size_t>(b)],
                         other = scales[static_cast<size_t>(from_row)][static_cast<size_t>(from)];
            for (int64_t k = b * block(); own != 0 && k < (b + 1) * block(); k++)
              row[static_cast<size_t>(k)] = product_.Values(i)[static_cast<size_t>(k)] * (other / own - 1);
          }
        }
        const std::vector<double> effect = product_.EffectOfInput(more);
        const char* which = by > 0 ? "before" : "behind";
        Guess g{fmt::format("scales.{}={}", of_rows ? "row" : "shift", by),
                of_rows ? fmt::format("multiplies by the scales of the token row {}", which)
                        : fmt::format("multiplies blocks of its input by the scale of the block {}", which),
                "scales in their place", 0};
        g.meaning = {Where::kProduct, {Axis::kAll}, WhatKind::kOtherPart, 0};
        for (size_t at = 0; at < effect.size(); at++)
          g.output.push_back(static_cast<float>(double(s_.declared[at]) + effect[at]));
        guesses_.push_back(std::move(g));
      }
  }

  // The change of these terms, by every other value of the wrong part.
  double Refined(const std::vector<double>& effect) const {
    double dot = 0, square = 0;
    size_t n = 0;
    for (int64_t i : part_.rows)
      for (int64_t j : part_.features) {
        if (n++ % 2 == 1) continue;
        const auto at = static_cast<size_t>(i * part_.n_features + j);
        dot += effect[at] * (double(s_.output[at]) - double(s_.declared[at]));
        square += effect[at] * effect[at];
      }
    return square > 0 ? dot / square : 0;
  }

  const Subject& s_;
  const WrongPart& part_;
  const ProductTerms& product_;
  std::vector<int64_t> rows_;
  std::vector<Guess> guesses_;
};

}  // namespace

std::vector<Guess> OtherTerms(const Subject& subject, const WrongPart& part) {
  const auto product = ProductTerms::Of(subject);
  if (!product || part.features.empty() || part.rows.empty()) return {};
  return TermSearch(subject, part, *product).Run();
}

}  // namespace pb::diagnose

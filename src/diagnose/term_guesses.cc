// What a product takes of its terms: columns of K, blocks, places in each block, or stored sums that
// are left out or taken several times, solved for from the output.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "codes/act_scheme.h"
#include "diagnose/op_weights.h"
#include "diagnose/part.h"
#include "diagnose/terms.h"
#include "diagnose/transformations.h"
#include "diagnose/wrong_part.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kRows = 8;           // token rows that are solved over
constexpr double kValuesPerTerm = 2;   // values of the output for each term, where there are so many
constexpr double kLargestFit = 2.5e7;  // terms times values: of more the tail alone is looked for
constexpr double kTailRest = 0.05, kAbsent = 0.01;

// What a term is.
enum class Kind {
  kWhole,  // an input value times its weight
  kCodes,  // the same without the weight's minimum, which meets the stored sum
  kSums,   // the stored sum of a block times the minimum
};

class ProductTerms {
 public:
  static std::optional<ProductTerms> Of(const Subject& s) {
    const Culprit& c = *s.culprit;
    ProductTerms p(s);
    p.weights_ = WeightsOf(s.arbiter->model(), c.place.stage, c.place.layer);
    if (!p.weights_.matrix || !stages::kProducts.Contains(c.place.stage)) return std::nullopt;
    const auto inputs = s.arbiter->Inputs(c);
    if (!inputs.ok() || inputs->size() != 1) return std::nullopt;
    p.scheme_ = s.arbiter->SchemeOf(*p.weights_.matrix, c.place.stage);
    p.width_ = p.weights_.matrix->n_columns, p.n_rows_ = c.shape[0];
    p.n_outputs_ = static_cast<int64_t>(s.output.size()) / p.n_rows_;
    p.block_ = ActBlockValues(p.scheme_, p.width_);
    const bool whole = inputs->front().values.size() == static_cast<size_t>(p.width_ * p.n_rows_);
    if (!whole || p.n_outputs_ != p.weights_.matrix->n_rows || (p.block_ > 0 && p.width_ % p.block_ != 0))
      return std::nullopt;
    for (int64_t i = 0; i < p.n_rows_; i++)
      p.rounded_.push_back(
          codes::RoundRow(std::span(inputs->front().values)
                              .subspan(static_cast<size_t>(i * p.width_), static_cast<size_t>(p.width_)),
                          p.scheme_));
    p.n_minima_ = static_cast<int64_t>(BlockMinima(*p.weights_.matrix, 0).size());
    return p;
  }

  // Terms of these rows and outputs.
  Terms Take(Kind kind, std::span<const int64_t> rows, std::span<const int64_t> outputs) const {
    Terms t;
    t.n_rows = static_cast<int64_t>(rows.size()), t.n_outputs = static_cast<int64_t>(outputs.size());
    t.width = kind == Kind::kSums ? n_minima_ : width_;
    for (int64_t i : rows) {
      const std::vector<double> x = Input(kind, i);
      t.x.insert(t.x.end(), x.begin(), x.end());
    }
    for (int64_t j : outputs) {
      const std::vector<float> w = Weights(kind, j);
      t.w.insert(t.w.end(), w.begin(), w.end());
    }
    return t;
  }

  // What the terms of a region add to each output.
  std::vector<double> PartOf(Kind kind, const std::vector<bool>& in) const {
    std::vector<double> part(s_.declared.size());
    std::vector<std::vector<double>> x;
    for (int64_t i = 0; i < n_rows_; i++) x.push_back(Input(kind, i));
    for (int64_t j = 0; j < n_outputs_; j++) {
      const std::vector<float> w = Weights(kind, j);
      for (int64_t i = 0; i < n_rows_; i++) {
        double sum = 0;
        for (size_t k = 0; k < w.size(); k++)
          if (in[k]) sum += x[static_cast<size_t>(i)][k] * double(w[k]);
        part[static_cast<size_t>(i * n_outputs_ + j)] = sum * double(weights_.scale);
      }
    }
    return part;
  }

  std::vector<double> Residual(std::span<const int64_t> rows, std::span<const int64_t> outputs) const {
    std::vector<double> r;
    for (int64_t i : rows)
      for (int64_t j : outputs) {
        const auto at = static_cast<size_t>(i * n_outputs_ + j);
        r.push_back((double(s_.output[at]) - double(s_.declared[at])) / double(weights_.scale));
      }
    return r;
  }
  // What rounding makes of one value, as a root mean square.
  double Noise() const {
    double square = 0;
    for (size_t at = 0; at < s_.output.size(); at++) {
      const double unit = s_.units.empty() ? double(s_.declared[at]) : double(s_.units[at]);
      square += unit * unit;
    }
    return 6 * 0x1p-24 * std::sqrt(square / static_cast<double>(s_.output.size())) /
           std::fabs(double(weights_.scale));
  }

  int64_t width(Kind kind) const { return kind == Kind::kSums ? n_minima_ : width_; }
  int64_t n_rows() const { return n_rows_; }
  int64_t n_outputs() const { return n_outputs_; }
  bool has_minima() const { return n_minima_ > 0 && IsIntegerScheme(scheme_); }
  AxisLayout Layout(Kind kind) const {
    if (kind == Kind::kSums) return {Axis::kBlocks};
    return {Axis::kColumns, block_ < width_ ? block_ : 0, Axis::kBlocks, Axis::kCode};
  }

 private:
  explicit ProductTerms(const Subject& s) : s_(s) {}

  std::vector<double> Input(Kind kind, int64_t i) const {
    const codes::RoundedRow& row = rounded_[static_cast<size_t>(i)];
    if (kind != Kind::kSums) return row.values;
    std::vector<double> sums(static_cast<size_t>(n_minima_));
    for (int64_t k = 0; k < width_; k++)
      sums[static_cast<size_t>(k * n_minima_ / width_)] += row.values[static_cast<size_t>(k)];
    for (size_t b = 0; b < sums.size() && row.sum_error.size() == sums.size(); b++)
      sums[b] += row.sum_error[b];
    return sums;
  }
  std::vector<float> Weights(Kind kind, int64_t j) const {
    const std::vector<double> minima =
        kind == Kind::kWhole ? std::vector<double>{} : BlockMinima(*weights_.matrix, j);
    if (kind == Kind::kSums) return {minima.begin(), minima.end()};
    std::vector<float> w(static_cast<size_t>(width_));
    DecodeRow(*weights_.matrix, j, w.data());
    for (size_t k = 0; k < w.size() && !minima.empty(); k++)
      w[k] -= static_cast<float>(minima[k * minima.size() / w.size()]);
    return w;
  }

  const Subject& s_;
  OpWeights weights_;
  ActScheme scheme_ = ActScheme::kNone;
  int64_t width_ = 0, n_rows_ = 0, n_outputs_ = 0, block_ = 0, n_minima_ = 0;
  std::vector<codes::RoundedRow> rounded_;
};

// Outputs to solve over: those that are wrong, evenly spaced where there are more than it takes.
std::vector<int64_t> ChooseOutputs(const std::vector<int64_t>& wrong, int64_t n) {
  const auto n_all = static_cast<int64_t>(wrong.size());
  if (n >= n_all) return wrong;
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < n; i++) chosen.push_back(wrong[static_cast<size_t>(i * n_all / n)]);
  return chosen;
}

std::vector<bool> Members(const Region& r, int64_t width, int64_t block) {
  std::vector<bool> in(static_cast<size_t>(width));
  for (int64_t k = 0; k < width; k++) {
    int64_t at = k;
    if (r.axis == Axis::kBlocks && block > 0) at = k / block;
    if (r.axis == Axis::kCode) at = k % block;
    in[static_cast<size_t>(k)] =
        r.axis == Axis::kAll || (at >= r.first && at <= r.last && (at - r.first) % r.every == 0);
  }
  return in;
}

class TermSearch {
 public:
  TermSearch(const Subject& s, const WrongPart& part, const ProductTerms& product)
      : s_(s), part_(part), product_(product) {}

  std::vector<Guess> Run() {
    rows_ = ChooseRows(s_.output, s_.declared, product_.n_rows(), kRows);
    Look(Kind::kWhole);
    if (product_.has_minima()) Look(Kind::kCodes), Look(Kind::kSums);
    return std::move(guesses_);
  }

 private:
  void Look(Kind kind) {
    const int64_t width = product_.width(kind);
    const auto n = static_cast<int64_t>(
        std::ceil(kValuesPerTerm * static_cast<double>(width) / static_cast<double>(rows_.size())));
    const std::vector<int64_t> outputs = ChooseOutputs(part_.features, std::max<int64_t>(n, 16));
    const Terms terms = product_.Take(kind, rows_, outputs);
    const std::vector<double> residual = product_.Residual(rows_, outputs);
    if (const Tail tail = FindTail(terms, residual, kTailRest); tail.n > 0 && tail.n < width)
      return Push(kind, {product_.Layout(kind).axis, width - tail.n, width - 1, 1, width}, tail.change);
    if (static_cast<double>(residual.size()) * static_cast<double>(width) > kLargestFit) return;
    const auto fit = FitChanges(terms, residual, product_.Noise());
    if (!fit || fit->rest > kTailRest) return;
    const TermMarks marks = MarksOf(*fit);
    const auto region = FindRegion(marks.marks, product_.Layout(kind));
    if (region && marks.change != 0 && region->axis != Axis::kAll) Push(kind, *region, marks.change);
  }

  void Push(Kind kind, const Region& region, double change) {
    const int64_t width = product_.width(kind);
    const std::vector<double> terms =
        product_.PartOf(kind, Members(region, width, product_.Layout(kind).block));
    const bool absent = std::fabs(change + 1) < kAbsent;
    const double factor = absent ? 0 : 1 + Refined(terms);
    Guess g;
    g.meaning = {Where::kProduct, region, absent ? WhatKind::kAbsent : WhatKind::kFactor, factor};
    if (kind == Kind::kSums) g.meaning.where = Where::kSums;
    std::string words = RegionWords(region);
    if (kind == Kind::kSums) words = "the stored sums of " + words;
    const bool tail = region.axis == Axis::kColumns && region.last == width - 1 && region.every == 1;
    const std::string which = PartText(region);
    if (absent) {
      g.name = tail ? fmt::format("drop.columns={}", width - region.first) : "drop=" + which;
      g.text = fmt::format("leaves out {} in the product", words);
      g.short_text = words + " left out";
    } else {
      g.name = fmt::format("factor={:.6g}@{}", factor, which);
      g.text = fmt::format("takes {} {:.5g} times in the product", words, factor);
      g.short_text = fmt::format("{} {:.5g} times", words, factor);
      g.n_fitted = 1;
    }
    if (kind == Kind::kCodes) g.text += ", and not what their minimum adds";
    for (size_t at = 0; at < terms.size(); at++)
      g.output.push_back(static_cast<float>(double(s_.declared[at]) + (factor - 1) * terms[at]));
    guesses_.push_back(std::move(g));
  }

  // The change of these terms, by every other value of the output.
  double Refined(const std::vector<double>& terms) const {
    double dot = 0, square = 0;
    for (size_t at = 0; at < terms.size(); at += 2) {
      dot += terms[at] * (double(s_.output[at]) - double(s_.declared[at]));
      square += terms[at] * terms[at];
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
  if (!product || part.features.empty()) return {};
  return TermSearch(subject, part, *product).Run();
}

}  // namespace pb::diagnose

// Rounds the input as its scheme does, decodes weights, and adds up terms.
#include "diagnose/product_terms.h"

#include <algorithm>
#include <cmath>

namespace pb::diagnose {

std::optional<ProductTerms> ProductTerms::Of(const Subject& s) {
  const Culprit& c = *s.culprit;
  ProductTerms p(s);
  p.weights_ = WeightsOf(s.arbiter->model(), c.place.stage, c.place.layer);
  if (!p.weights_.matrix || !stages::kProducts.Contains(c.place.stage)) return std::nullopt;
  auto inputs = s.arbiter->Inputs(c);
  if (!inputs.ok() || inputs->size() != 1) return std::nullopt;
  p.scheme_ = s.arbiter->SchemeOf(*p.weights_.matrix, c.place.stage);
  p.width_ = p.weights_.matrix->n_columns, p.n_rows_ = c.shape[0];
  p.n_outputs_ = static_cast<int64_t>(s.output.size()) / p.n_rows_;
  p.block_ = ActBlockValues(p.scheme_, p.width_);
  p.raw_ = std::move(inputs->front().values);
  const bool whole = p.raw_.size() == static_cast<size_t>(p.width_ * p.n_rows_);
  if (!whole || p.n_outputs_ != p.weights_.matrix->n_rows || (p.block_ > 0 && p.width_ % p.block_ != 0))
    return std::nullopt;
  p.has_minima_ = !BlockMinima(*p.weights_.matrix, 0).empty();
  const auto n_minima = static_cast<int64_t>(p.OwnMinima(0).size());
  if (n_minima > 0 && IsIntegerScheme(p.scheme_))
    p.group_ = p.scheme_ == ActScheme::kQ8_K ? 16 : p.width_ / n_minima;
  for (int64_t i = 0; i < p.n_rows_; i++) {
    const codes::RoundedRow& row = p.rounded_.emplace_back(codes::RoundRow(p.Raw(i), p.scheme_));
    std::vector<double>& sums = p.sums_.emplace_back(static_cast<size_t>(p.n_groups()));
    for (size_t k = 0; k < row.values.size() && p.group_ > 0; k++)
      sums[k / static_cast<size_t>(p.group_)] += row.values[k];
    for (size_t g = 0; g < sums.size() && row.sum_error.size() == sums.size(); g++)
      sums[g] += row.sum_error[g];
  }
  return p;
}

std::span<const float> ProductTerms::Raw(int64_t row) const {
  return std::span(raw_).subspan(static_cast<size_t>(row * width_), static_cast<size_t>(width_));
}
std::span<const double> ProductTerms::Values(int64_t row) const {
  return rounded_[static_cast<size_t>(row)].values;
}
const std::vector<double>& ProductTerms::StoredSums(int64_t row) const {
  return sums_[static_cast<size_t>(row)];
}

std::vector<double> ProductTerms::WholeWeights(int64_t output) const {
  std::vector<float> w(static_cast<size_t>(width_));
  DecodeRow(*weights_.matrix, output, w.data());
  return {w.begin(), w.end()};
}
// Of a type whose blocks are wider than a group, one for all of its groups.
std::vector<double> ProductTerms::OwnMinima(int64_t output) const {
  if (has_minima_) return BlockMinima(*weights_.matrix, output);
  return scheme_ == ActScheme::kQ8_K ? BlockOffsets(*weights_.matrix, output) : std::vector<double>{};
}
std::vector<double> ProductTerms::GroupMinima(int64_t output) const {
  std::vector<double> minima(static_cast<size_t>(n_groups()));
  const std::vector<double> own = OwnMinima(output);
  for (size_t g = 0; g < minima.size(); g++) minima[g] = own[g * own.size() / minima.size()];
  return minima;
}
std::vector<double> ProductTerms::CodeWeights(int64_t output) const {
  std::vector<double> w = WholeWeights(output);
  const std::vector<double> minima = GroupMinima(output);
  for (size_t k = 0; k < w.size() && !minima.empty(); k++) w[k] -= minima[k * minima.size() / w.size()];
  return w;
}

Terms ProductTerms::Take(TermRule rule, std::span<const int64_t> rows,
                         std::span<const int64_t> outputs) const {
  Terms t{static_cast<int64_t>(rows.size()), static_cast<int64_t>(outputs.size()), width_, {}, {}};
  for (int64_t i : rows) t.x.insert(t.x.end(), Values(i).begin(), Values(i).end());
  for (int64_t j : outputs) {
    const std::vector<double> w = rule == TermRule::kWhole ? WholeWeights(j) : CodeWeights(j);
    t.w.insert(t.w.end(), w.begin(), w.end());
  }
  return t;
}
Terms ProductTerms::TakeSums(std::span<const int64_t> rows, std::span<const int64_t> outputs) const {
  Terms t{static_cast<int64_t>(rows.size()), static_cast<int64_t>(outputs.size()), n_groups(), {}, {}};
  for (int64_t i : rows) t.x.insert(t.x.end(), StoredSums(i).begin(), StoredSums(i).end());
  for (int64_t j : outputs) {
    const std::vector<double> minima = GroupMinima(j);
    t.w.insert(t.w.end(), minima.begin(), minima.end());
  }
  return t;
}

namespace {

TermTable TableOf(const Terms& terms) {
  TermTable table{terms.n_rows * terms.n_outputs, terms.width, {}};
  const auto width = static_cast<size_t>(terms.width);
  for (size_t i = 0; i < static_cast<size_t>(terms.n_rows); i++)
    for (size_t j = 0; j < static_cast<size_t>(terms.n_outputs); j++)
      for (size_t k = 0; k < width; k++)
        table.t.push_back(terms.x[i * width + k] * double(terms.w[j * width + k]));
  return table;
}

}  // namespace

TermTable ProductTerms::Table(TermRule rule, std::span<const int64_t> rows,
                              std::span<const int64_t> outputs) const {
  return TableOf(Take(rule, rows, outputs));
}
TermTable ProductTerms::SumsTable(std::span<const int64_t> rows, std::span<const int64_t> outputs) const {
  return TableOf(TakeSums(rows, outputs));
}

std::vector<double> ProductTerms::Residual(std::span<const int64_t> rows,
                                           std::span<const int64_t> outputs) const {
  std::vector<double> r;
  for (int64_t i : rows)
    for (int64_t j : outputs) {
      const auto at = static_cast<size_t>(i * n_outputs_ + j);
      r.push_back((double(s_->output[at]) - double(s_->declared[at])) / double(weights_.scale));
    }
  return r;
}

double ProductTerms::Noise() const {
  double square = 0;
  for (size_t at = 0; at < s_->output.size(); at++) {
    const double unit = s_->units.empty() ? double(s_->declared[at]) : double(s_->units[at]);
    square += unit * unit;
  }
  return 6 * 0x1p-24 * std::sqrt(square / static_cast<double>(s_->output.size())) /
         std::fabs(double(weights_.scale));
}

std::vector<double> ProductTerms::Effect(TermRule rule, std::span<const double> change) const {
  const auto group = static_cast<size_t>(group_), n_outputs = static_cast<size_t>(n_outputs_);
  // A sum goes with columns that are all taken alike.
  std::vector<double> of_group(static_cast<size_t>(n_groups()));
  for (size_t g = 0; g < of_group.size() && rule != TermRule::kCodes; g++) {
    const auto own = change.subspan(g * group, group);
    if (std::ranges::all_of(own, [&](double c) { return c == own[0]; })) of_group[g] = own[0];
  }
  std::vector<double> more(s_->declared.size());
  for (int64_t j = 0; j < n_outputs_; j++) {
    const std::vector<double> w = rule == TermRule::kWhole ? WholeWeights(j) : CodeWeights(j),
                              minima = GroupMinima(j);
    for (int64_t i = 0; i < n_rows_; i++) {
      const std::span<const double> x = Values(i);
      double sum = 0;
      for (size_t k = 0; k < w.size(); k++)
        if (change[k] != 0) sum += change[k] * x[k] * w[k];
      for (size_t g = 0; g < minima.size(); g++) {
        if (of_group[g] == 0) continue;
        double stored = StoredSums(i)[g];
        // Whole terms have their part of the sum with them, but for how it is rounded.
        for (size_t k = g * group; k < (g + 1) * group && rule == TermRule::kWhole; k++) stored -= x[k];
        sum += of_group[g] * stored * minima[g];
      }
      more[static_cast<size_t>(i) * n_outputs + static_cast<size_t>(j)] = sum * double(weights_.scale);
    }
  }
  return more;
}

std::vector<double> ProductTerms::EffectOfInput(const std::vector<std::vector<double>>& more) const {
  std::vector<double> effect(s_->declared.size());
  for (int64_t j = 0; j < n_outputs_; j++) {
    const std::vector<double> w = WholeWeights(j);
    for (int64_t i = 0; i < n_rows_; i++) {
      const std::vector<double>& x = more[static_cast<size_t>(i)];
      double sum = 0;
      for (size_t k = 0; k < w.size(); k++) sum += x[k] * w[k];
      effect[static_cast<size_t>(i * n_outputs_ + j)] = sum * double(weights_.scale);
    }
  }
  return effect;
}

std::vector<double> ProductTerms::EffectOfSums(const std::vector<std::vector<double>>& more) const {
  std::vector<double> effect(s_->declared.size());
  for (int64_t j = 0; j < n_outputs_; j++) {
    const std::vector<double> minima = GroupMinima(j);
    for (int64_t i = 0; i < n_rows_; i++) {
      double sum = 0;
      for (size_t g = 0; g < minima.size(); g++) sum += more[static_cast<size_t>(i)][g] * minima[g];
      effect[static_cast<size_t>(i * n_outputs_ + j)] = sum * double(weights_.scale);
    }
  }
  return effect;
}

}  // namespace pb::diagnose

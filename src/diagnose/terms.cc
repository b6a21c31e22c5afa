// Least squares by conjugate gradients over the terms of a product, and the scan for a tail.
#include "diagnose/terms.h"

#include <algorithm>
#include <cmath>

namespace pb::diagnose {
namespace {

constexpr double kValuesPerTerm = 1.25;  // that a fit needs
constexpr int kMostSteps = 150;
constexpr double kLeastRest = 1e-10;  // of the gradient: where the iteration ends
constexpr double kLeastChange = 1e-3, kOpenSpread = 0.05, kSpreads = 6;
constexpr double kSameChange = 0.02;  // of changes that are one

double Dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += a[i] * b[i];
  return sum;
}

// The matrix of all values by all terms, each column of length 1, applied without being stored.
class Columns {
 public:
  explicit Columns(const Terms& t) : t_(t), length_(static_cast<size_t>(t.width)) {
    std::vector<double> x2(length_.size()), w2(length_.size());
    Add(t.x, &x2), Add(t.w, &w2);
    for (size_t k = 0; k < length_.size(); k++) length_[k] = std::sqrt(x2[k] * w2[k]);
  }
  double length(size_t k) const { return length_[k]; }
  // values = A c
  void Apply(std::span<const double> c, std::vector<double>* values) {
    for (int64_t i = 0; i < t_.n_rows; i++) {
      const std::vector<double> x = Scaled(i, c);
      for (int64_t j = 0; j < t_.n_outputs; j++) {
        const float* w = t_.w.data() + j * t_.width;
        double sum = 0;
        for (size_t k = 0; k < x.size(); k++) sum += x[k] * double(w[k]);
        (*values)[static_cast<size_t>(i * t_.n_outputs + j)] = sum;
      }
    }
  }
  // c = A^T values
  void ApplyTransposed(std::span<const double> values, std::vector<double>* c) {
    std::fill(c->begin(), c->end(), 0);
    std::vector<double> sum(length_.size());
    for (int64_t i = 0; i < t_.n_rows; i++) {
      std::fill(sum.begin(), sum.end(), 0);
      for (int64_t j = 0; j < t_.n_outputs; j++) {
        const float* w = t_.w.data() + j * t_.width;
        const double value = values[static_cast<size_t>(i * t_.n_outputs + j)];
        for (size_t k = 0; k < sum.size(); k++) sum[k] += value * double(w[k]);
      }
      const std::vector<double> x = Scaled(i, {});
      for (size_t k = 0; k < sum.size(); k++) (*c)[k] += sum[k] * x[k];
    }
  }

 private:
  template <class Number>
  void Add(const std::vector<Number>& rows, std::vector<double>* squares) const {
    for (size_t i = 0; i < rows.size(); i++)
      (*squares)[i % length_.size()] += double(rows[i]) * double(rows[i]);
  }
  // Row i of x over the columns' lengths, times c where it is given.
  std::vector<double> Scaled(int64_t i, std::span<const double> c) const {
    std::vector<double> x(length_.size());
    for (size_t k = 0; k < x.size(); k++) {
      if (length_[k] == 0) continue;
      x[k] = t_.x[static_cast<size_t>(i) * x.size() + k] / length_[k] * (c.empty() ? 1 : c[k]);
    }
    return x;
  }

  const Terms& t_;
  std::vector<double> length_;
};

}  // namespace

std::optional<Coefficients> FitChanges(const Terms& terms, std::span<const double> residual, double noise) {
  const auto width = static_cast<size_t>(terms.width);
  const double norm = std::sqrt(Dot(residual, residual));
  if (static_cast<double>(residual.size()) < kValuesPerTerm * static_cast<double>(width) || norm == 0)
    return std::nullopt;
  Columns a(terms);
  std::vector<double> c(width), rest(residual.begin(), residual.end()), gradient(width), applied(rest.size());
  a.ApplyTransposed(rest, &gradient);
  std::vector<double> direction = gradient;
  double square = Dot(gradient, gradient);
  const double enough = square * kLeastRest * kLeastRest;
  for (int step = 0; step < kMostSteps && square > enough; step++) {
    a.Apply(direction, &applied);
    const double length = Dot(applied, applied);
    if (!(length > 0)) break;
    const double alpha = square / length;
    for (size_t k = 0; k < width; k++) c[k] += alpha * direction[k];
    for (size_t i = 0; i < rest.size(); i++) rest[i] -= alpha * applied[i];
    a.ApplyTransposed(rest, &gradient);
    const double next = Dot(gradient, gradient);
    for (size_t k = 0; k < width; k++) direction[k] = gradient[k] + next / square * direction[k];
    square = next;
  }
  Coefficients fit;
  fit.rest = std::sqrt(Dot(rest, rest)) / norm;
  fit.change.resize(width), fit.spread.assign(width, INFINITY);
  for (size_t k = 0; k < width; k++) {
    if (a.length(k) == 0) continue;
    fit.change[k] = c[k] / a.length(k), fit.spread[k] = noise / a.length(k);
  }
  return fit;
}

TermMarks MarksOf(const Coefficients& fit) {
  TermMarks out;
  std::vector<double> wrong;
  for (size_t k = 0; k < fit.change.size(); k++) {
    const double change = fit.change[k], spread = kSpreads * fit.spread[k];
    if (!(fit.spread[k] < kOpenSpread)) {
      out.marks.push_back(Mark::kOpen);
    } else if (std::fabs(change) > std::max(kLeastChange, spread)) {
      out.marks.push_back(Mark::kWrong);
      wrong.push_back(change);
    } else {
      out.marks.push_back(Mark::kRight);
    }
  }
  if (wrong.empty()) return out;
  std::nth_element(wrong.begin(), wrong.begin() + static_cast<ptrdiff_t>(wrong.size() / 2), wrong.end());
  const double middle = wrong[wrong.size() / 2];
  for (size_t k = 0; k < fit.change.size(); k++) {
    if (out.marks[k] != Mark::kWrong) continue;
    const double apart = std::fabs(fit.change[k] - middle);
    if (apart > std::max(kSameChange * std::fabs(middle), kSpreads * fit.spread[k])) return out;
  }
  out.change = middle;
  return out;
}

Tail FindTail(const Terms& terms, std::span<const double> residual, double rest) {
  const double square = Dot(residual, residual);
  if (residual.size() < 4 || square == 0) return {};
  std::vector<double> tail(residual.size());
  Tail best;
  double least = rest * rest;
  for (int64_t n = 1; n <= terms.width; n++) {
    const auto k = static_cast<size_t>(terms.width - n), width = static_cast<size_t>(terms.width);
    double dot = 0, length = 0;
    for (size_t at = 0, i = 0; i < static_cast<size_t>(terms.n_rows); i++) {
      const double x = terms.x[i * width + k];
      for (size_t j = 0; j < static_cast<size_t>(terms.n_outputs); j++, at++) {
        tail[at] += x * double(terms.w[j * width + k]);
        dot += residual[at] * tail[at], length += tail[at] * tail[at];
      }
    }
    if (!(length > 0)) continue;
    const double left = std::max(square - dot * dot / length, 0.0) / square;
    // Terms that are 0 change nothing: the fewest count.
    if (left < least * 0.99) best = {n, dot / length}, least = left;
  }
  return best;
}

namespace {

// Sums over the first k terms of a table, k from 0 to its width: row k holds those of all values.
class PrefixSums {
 public:
  PrefixSums(const TermTable& table, const TermTable* groups)
      : n_(static_cast<size_t>(table.n_values)), width_(table.width) {
    columns_ = Sums(table);
    if (groups && groups->width > 0) group_ = table.width / groups->width, groups_ = Sums(*groups);
  }
  int64_t width() const { return width_; }
  int64_t group() const { return group_; }
  // What is taken off, and added, by terms from `begin`, and up to `end`.
  std::vector<double> Before(int64_t begin) const {
    return At(begin, group_ ? (begin + group_ - 1) / group_ : 0);
  }
  std::vector<double> UpTo(int64_t end) const { return At(end, group_ ? end / group_ : 0); }
  bool Holds(int64_t begin, int64_t end) const {
    return group_ == 0 ? end > begin : end / group_ > (begin + group_ - 1) / group_;
  }

 private:
  std::vector<double> Sums(const TermTable& t) const {
    std::vector<double> sums(static_cast<size_t>(t.width + 1) * n_);
    for (size_t k = 0; k < static_cast<size_t>(t.width); k++)
      for (size_t v = 0; v < n_; v++)
        sums[(k + 1) * n_ + v] = sums[k * n_ + v] + t.t[v * static_cast<size_t>(t.width) + k];
    return sums;
  }
  std::vector<double> At(int64_t column, int64_t group) const {
    const auto from = columns_.begin() + column * static_cast<ptrdiff_t>(n_);
    std::vector<double> sums(from, from + static_cast<ptrdiff_t>(n_));
    for (size_t v = 0; v < n_ && group_ > 0; v++) sums[v] += groups_[static_cast<size_t>(group) * n_ + v];
    return sums;
  }

  size_t n_;
  int64_t width_, group_ = 0;
  std::vector<double> columns_, groups_;
};

double RestOf(double square, double dot, double length) {
  return length > 0 ? std::sqrt(std::max(square - dot * dot / length, 0.0) / square) : 1;
}

}  // namespace

TermTable Folded(const TermTable& table, int64_t period) {
  TermTable out{table.n_values, period, {}};
  out.t.resize(static_cast<size_t>(table.n_values * period));
  for (int64_t v = 0; v < table.n_values; v++)
    for (int64_t k = 0; k < table.width; k++)
      out.t[static_cast<size_t>(v * period + k % period)] +=
          table.t[static_cast<size_t>(v * table.width + k)];
  return out;
}

std::optional<TermRun> FindRun(const TermTable& table, const TermTable* groups,
                               std::span<const double> residual) {
  const double square = Dot(residual, residual);
  if (!(square > 0)) return std::nullopt;
  const PrefixSums sums(table, groups);
  const auto width = static_cast<size_t>(sums.width());
  const size_t n = residual.size();
  // Ends by values, so that those of all ends lie side by side.
  std::vector<double> ends(n * (width + 1)), end_square(width + 1), end_dot(width + 1), product(width + 1);
  for (size_t b = 0; b <= width; b++) {
    const std::vector<double> end = sums.UpTo(static_cast<int64_t>(b));
    end_square[b] = Dot(end, end), end_dot[b] = Dot(end, residual);
    for (size_t v = 0; v < n; v++) ends[v * (width + 1) + b] = end[v];
  }
  std::optional<TermRun> best;
  for (size_t a = 0; a < width; a++) {
    const std::vector<double> begin = sums.Before(static_cast<int64_t>(a));
    const double begin_square = Dot(begin, begin), begin_dot = Dot(begin, residual);
    std::fill(product.begin(), product.end(), 0);
    for (size_t v = 0; v < n; v++) {
      const double x = begin[v];
      const double* row = ends.data() + v * (width + 1);
      for (size_t b = a; b <= width; b++) product[b] += x * row[b];
    }
    std::optional<TermRun> here;
    for (size_t b = a + 1; b <= width; b++) {
      if (!sums.Holds(static_cast<int64_t>(a), static_cast<int64_t>(b))) continue;
      const double length = begin_square + end_square[b] - 2 * product[b], dot = end_dot[b] - begin_dot;
      const double rest = RestOf(square, dot, length);
      if (rest < (here ? here->rest : 1))
        here = TermRun{static_cast<int64_t>(a), static_cast<int64_t>(b) - 1, dot / length, -1, rest};
    }
    // Of equal ones the shorter, which begins later.
    if (here && (!best || here->rest <= best->rest)) best = here;
  }
  return best;
}

std::optional<TermRun> FindRepeatedRun(const TermTable& table, const TermTable* groups,
                                       std::span<const double> residual) {
  const double square = Dot(residual, residual);
  if (!(square > 0)) return std::nullopt;
  const PrefixSums sums(table, groups);
  const int64_t width = sums.width();
  std::vector<std::vector<double>> begins, ends;
  for (int64_t k = 0; k <= width; k++) begins.push_back(sums.Before(k)), ends.push_back(sums.UpTo(k));
  std::optional<TermRun> best;
  for (int64_t length = 1; 2 * length <= width; length++) {
    if (sums.group() > 0 && length % sums.group() != 0) continue;
    for (int64_t a = 0; a + 2 * length <= width; a++) {
      // The run at a, and the one behind it.
      const auto at = static_cast<size_t>(a), next = static_cast<size_t>(a + length),
                 end = static_cast<size_t>(a + 2 * length);
      double left[2] = {0, 0};
      for (size_t v = 0; v < residual.size(); v++) {
        const double change = ends[next][v] - begins[at][v] - (ends[end][v] - begins[next][v]);
        const double before = residual[v] - change, behind = residual[v] + change;
        left[0] += before * before, left[1] += behind * behind;
      }
      for (const bool from_behind : {false, true}) {
        const double rest = std::sqrt(left[from_behind] / square);
        if (best && !(rest < best->rest)) continue;
        best = from_behind ? TermRun{a, a + length - 1, -1, a + length, rest}
                           : TermRun{a + length, a + 2 * length - 1, -1, a, rest};
      }
    }
  }
  return best;
}

}  // namespace pb::diagnose

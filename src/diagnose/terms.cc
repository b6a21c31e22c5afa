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

}  // namespace pb::diagnose

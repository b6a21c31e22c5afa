// Chooses rows and cuts an op down to them.
#include "diagnose/part.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "diagnose/op_weights.h"

namespace pb::diagnose {
namespace {

constexpr int64_t kMinRows = 2;  // a fit over rows needs two

// Rows of a tensor, in this order.
std::vector<float> Take(std::span<const float> values, int64_t n_rows, std::span<const int64_t> rows) {
  const size_t width = values.size() / static_cast<size_t>(n_rows);
  std::vector<float> taken;
  taken.reserve(width * rows.size());
  for (int64_t row : rows) {
    const auto from = values.subspan(static_cast<size_t>(row) * width, width);
    taken.insert(taken.end(), from.begin(), from.end());
  }
  return taken;
}

// Squared and relative; a row that is not finite is infinitely far.
std::vector<double> RowErrors(std::span<const float> output, std::span<const float> declared,
                              int64_t n_rows) {
  const size_t width = output.size() / static_cast<size_t>(n_rows);
  std::vector<double> errors;
  for (size_t i = 0; i < static_cast<size_t>(n_rows); i++) {
    double error = 0, norm = 0;
    for (size_t j = i * width; j < (i + 1) * width; j++) {
      const double e = double(output[j]) - double(declared[j]);
      error += e * e, norm += double(declared[j]) * double(declared[j]);
    }
    errors.push_back(error == 0 ? 0 : std::isfinite(error / norm) ? error / norm : INFINITY);
  }
  return errors;
}

}  // namespace

double ProductWork(const Subject& subject) {
  const Place& place = subject.culprit->place;
  const OpWeights w = WeightsOf(subject.arbiter->model(), place.stage, place.layer);
  if (!w.matrix || place.stage == PB_STAGE_EMBEDDINGS) return 0;
  return static_cast<double>(subject.output.size()) * static_cast<double>(w.matrix->n_columns);
}

std::vector<int64_t> ChooseRows(std::span<const float> output, std::span<const float> declared,
                                int64_t n_rows, int64_t n) {
  std::vector<int64_t> rows(static_cast<size_t>(n_rows));
  std::iota(rows.begin(), rows.end(), 0);
  if (n >= n_rows) return rows;
  const std::vector<double> errors = RowErrors(output, declared, n_rows);
  const auto worst = rows.begin() + (n + 1) / 2;
  std::stable_sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) {
    return errors[static_cast<size_t>(a)] > errors[static_cast<size_t>(b)];
  });
  std::sort(worst, rows.end());
  const int64_t n_rest = rows.end() - worst, n_spaced = n - (n + 1) / 2;
  for (int64_t k = 0; k < n_spaced; k++) worst[k] = worst[k * n_rest / n_spaced];
  rows.resize(static_cast<size_t>(n));
  std::sort(rows.begin(), rows.end());
  return rows;
}

std::optional<Part> Part::Of(const Subject& whole, double work) {
  const Culprit& c = *whole.culprit;
  const int64_t n_rows = c.shape[0];
  const auto fitting = static_cast<int64_t>(work / ProductWork(whole) * static_cast<double>(n_rows));
  const std::vector<stages::Input> reads = whole.arbiter->ReplayInputs(static_cast<pb_stage>(c.place.stage));
  if (std::max(fitting, kMinRows) >= n_rows || reads.size() != 1) return std::nullopt;
  const Recorded* input = c.inputs.Find(reads.front(), c.place.layer);
  if (!input || input->shape[0] != n_rows) return std::nullopt;
  const std::vector<int64_t> rows =
      ChooseRows(whole.output, whole.declared, n_rows, std::max(fitting, kMinRows));

  Part part;
  part.whole_ = whole;
  part.culprit_.place = c.place, part.culprit_.bound = c.bound;
  part.culprit_.first_position = c.first_position;
  part.culprit_.shape = c.shape, part.culprit_.shape[0] = static_cast<int64_t>(rows.size());
  if (!c.candidate.empty()) part.culprit_.candidate = Take(c.candidate, n_rows, rows);
  part.culprit_.reference = Take(c.reference, n_rows, rows);
  part.culprit_.inputs.BeginPass(c.first_position);
  Recorded some{input->shape, Take(input->values, n_rows, rows)};
  some.shape[0] = static_cast<int64_t>(rows.size());
  const pb_stage stage = reads.front().stage;
  part.culprit_.inputs.Add(stage, stages::Of(stage).per_layer ? c.place.layer : -1, std::move(some));
  part.output_ = Take(whole.output, n_rows, rows), part.declared_ = Take(whole.declared, n_rows, rows);
  if (!whole.units.empty()) part.units_ = Take(whole.units, n_rows, rows);
  return part;
}

Subject Part::subject() const {
  Subject s = whole_;
  s.culprit = &culprit_;
  s.output = output_, s.declared = declared_, s.units = units_;
  return s;
}

}  // namespace pb::diagnose

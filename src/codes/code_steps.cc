// Explains a product's error by how its input is rounded: by another scheme, or to codes on a
// rounding boundary; and an activation's by how its table was rounded.
#include "codes/code_steps.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "codes/boundary_codes.h"

namespace pb::codes {
namespace {

double RoundF16(double x) { return F16ToF32(F32ToF16(static_cast<float>(x))); }

// How far apart two makers of ggml's table of tanh-GELU may be at x: an entry is computed in float32,
// whose last places depend on the compiler and its libm, before it is rounded to f16
// (docs/numerics.md, "Codes").
double TableStep(float x) {
  constexpr double kRoot = 0.79788456080286535588, kCubic = 0.044715;
  if (!(std::fabs(x) < 10)) return 0;
  const double h = RoundF16(double(x)), gelu = 0.5 * h * (1 + std::tanh(kRoot * h * (1 + kCubic * h * h)));
  const double error = std::fabs(h) * 0x1p-23 + std::fabs(gelu) * 0x1p-22;
  return RoundF16(gelu + error) - RoundF16(gelu - error);
}

}  // namespace

int64_t CodeExplainer::TakeSteps(const drive::PointPair& pair, const ProductWeights& product,
                                 ActScheme scheme, std::span<const float> input,
                                 std::vector<float>* candidate) const {
  const WeightView& w = *product.weights;
  const int64_t n_rows = pair.shape[0], n_columns = w.n_columns, n_features = w.n_rows;
  int64_t n_steps = 0;
  for (int64_t i = 0; i < n_rows; i++) {
    float* a = candidate->data() + i * n_features;
    const float* b = pair.reference.data() + i * n_features;
    std::vector<double> difference(static_cast<size_t>(n_features));
    double error = 0, norm = 0;
    for (int64_t j = 0; j < n_features; j++) {
      const double e = double(a[j]) - double(b[j]);
      difference[static_cast<size_t>(j)] = e, error += e * e, norm += double(b[j]) * double(b[j]);
    }
    const double bound_norm =
        pair.bound->OfRow(i, n_features, pair.point.first_position + i, std::sqrt(norm));
    if (!(std::sqrt(error) > bound_norm)) continue;
    BoundaryCodes codes(input.subspan(static_cast<size_t>(i * n_columns), static_cast<size_t>(n_columns)),
                        scheme, w, product.scale);
    const compare::CodeExplanation found = codes.Explain(difference, bound_norm);
    codes.Subtract(found.steps, a);
    n_steps += static_cast<int64_t>(found.steps.size());
  }
  return n_steps;
}

std::optional<compare::PointRow> CodeExplainer::Rest(const drive::PointPair& pair,
                                                     std::span<const float> candidate,
                                                     const compare::LocalBound& bound) const {
  const compare::PointRow& row = *pair.row;
  const int64_t n_rows = pair.shape[0], width = static_cast<int64_t>(candidate.size()) / n_rows;
  auto rest = compare::ComparePoint({candidate, n_rows, width}, {pair.reference, n_rows, width},
                                    {row.prompt, row.step, row.stage, row.layer, row.first_position}, bound);
  if (!rest.ok() || !(rest->bound_ratio <= 1)) return std::nullopt;
  return std::move(rest).value();
}

// Takes out what the engines' different schemes make of the input, then steps of boundary codes of
// either.
void CodeExplainer::ByPrecision(const drive::PointPair& pair, const ProductWeights& product,
                                PrecisionDifference* difference, std::span<const float> input) {
  std::vector<float> candidate(pair.candidate.begin(), pair.candidate.end());
  const std::vector<float> expected =
      SchemeDifference(*product.weights, product.scale, input, difference->scheme[0], difference->scheme[1]);
  for (size_t i = 0; i < candidate.size(); i++) candidate[i] -= expected[i];
  const bool f16_sums =
      difference->scheme[0] == ActScheme::kF16Sums || difference->scheme[1] == ActScheme::kF16Sums;
  const compare::LocalBound bound =
      f16_sums ? compare::F16SumsBound(product.weights->n_columns) : *pair.bound;
  auto rest = Rest(pair, candidate, bound);
  for (ActScheme scheme : difference->scheme) {
    if (rest || !IsIntegerScheme(scheme)) continue;
    TakeSteps(pair, product, scheme, input, &candidate);
    rest = Rest(pair, candidate, bound);
  }
  if (!rest) return;
  difference->n_products++;
  if (f16_sums && (!difference->bound || difference->bound->sum_length < bound.sum_length))
    difference->bound = bound;
  pair.row->explained_by_precision = true;
  pair.row->explanation = fmt::format(
      "the candidate rounds the input by {}, the reference by {}; but for that the error is {:.1e}, bound {}",
      ActSchemeName(difference->scheme[0]), ActSchemeName(difference->scheme[1]), rest->rel_l2,
      compare::BoundText(rest->bound));
}

void CodeExplainer::ByCodes(const drive::PointPair& pair, const ProductWeights& product,
                            std::span<const float> input) const {
  const auto scheme = check_->SchemeOf(pair.point.stage, *product.weights);
  if (!scheme || !check_->Contradiction(pair.point.stage, *product.weights).empty()) return;
  std::vector<float> candidate(pair.candidate.begin(), pair.candidate.end());
  const int64_t n_steps = TakeSteps(pair, product, *scheme, input, &candidate);
  const auto rest = Rest(pair, candidate, *pair.bound);
  if (n_steps == 0 || !rest) return;
  pair.row->explained_by_codes = true;
  pair.row->explanation = fmt::format(
      "{} of {} activation codes lie on a rounding boundary and went the other way; without them the "
      "error is {:.1e} ({})",
      n_steps, input.size(), rest->rel_l2, check_->Basis(pair.point.stage, *product.weights));
}

void CodeExplainer::ByTable(const drive::PointPair& pair) const {
  const bool gated = pair.point.stage == PB_STAGE_FFN_GATED;
  const size_t n = pair.reference.size();
  if (gate_.size() != n || (gated && up_.size() != n)) return;
  std::vector<float> candidate(pair.candidate.begin(), pair.candidate.end());
  int64_t n_entries = 0;
  for (size_t i = 0; i < n; i++) {
    if (candidate[i] == pair.reference[i]) continue;
    const double step = TableStep(gate_[i]) * (gated ? std::fabs(double(up_[i])) : 1);
    const double rounding = gated ? std::fabs(double(pair.reference[i])) * 0x1p-23 : 0;
    const double error = std::fabs(double(candidate[i]) - double(pair.reference[i]));
    if (step == 0 || error > step + rounding) continue;
    candidate[i] = pair.reference[i], n_entries++;
  }
  const auto rest = Rest(pair, candidate, *pair.bound);
  if (n_entries == 0 || !rest) return;
  pair.row->explained_by_codes = true;
  pair.row->explanation = fmt::format(
      "{} of {} values come from entries of the table of tanh-GELU that lie between two f16 and were rounded "
      "the other way; without them the error is {:.1e}",
      n_entries, n, rest->rel_l2);
}

void CodeExplainer::OnPair(const drive::PointPair& pair) {
  const compare::PointRow& row = *pair.row;
  const auto& activation = model_->params().ffn_activation;
  const bool activates = pair.point.stage == PB_STAGE_FFN_ACT || pair.point.stage == PB_STAGE_FFN_GATED;
  if (activates && row.bound_ratio > 1 && activation && activation->value == Activation::kGeluTanh)
    ByTable(pair);
  if (pair.point.stage == PB_STAGE_GATE_PROJ) gate_.assign(pair.reference.begin(), pair.reference.end());
  if (pair.point.stage == PB_STAGE_UP_PROJ) up_.assign(pair.reference.begin(), pair.reference.end());
  const ProductWeights product = ProductOf(*model_, pair.point.stage, pair.point.layer);
  if (row.bound_ratio > 1 && row.n_non_finite[0] + row.n_non_finite[1] == 0 && product.weights &&
      static_cast<int64_t>(pair.reference.size()) == pair.shape[0] * product.weights->n_rows) {
    const auto input = inputs_.Find(product, pair.point.first_position, pair.shape[0]);
    PrecisionDifference* difference = nullptr;
    if (differences_) difference = FindDifference(*differences_, *product.weights);
    if (!input.empty() && difference)
      ByPrecision(pair, product, difference, input);
    else if (!input.empty() && check_)
      ByCodes(pair, product, input);
  }
  inputs_.OnPoint(pair.point, pair.reference);
}

}  // namespace pb::codes

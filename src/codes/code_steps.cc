// Explains a product's error by how its input is rounded: by another scheme, or to codes on a
// rounding boundary; and an activation's by how its table was rounded.
#include "codes/code_steps.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/half.h"
#include "codes/boundary_steps.h"

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

bool IsExpert(float id, int64_t n) { return id >= 0 && id < static_cast<float>(n) && id == std::floor(id); }

// A row that a product reads, and how.
struct RowProduct {
  std::span<const float> input;
  const WeightView* weights;
  double scale;
  ActScheme scheme;
  Finish finish = {};
};

// What the error of one row may be, and whether it is more. A column's error is beyond its bound only
// where a single value of it is beyond its own.
struct RowError {
  double bound_norm = 0;  // of the row, or of one value where only such are beyond
  bool beyond = false;
};
RowError ErrorOfRow(std::span<const double> difference, std::span<const float> reference,
                    const compare::LocalBound& bound, int64_t index, int32_t position) {
  const auto n = static_cast<int64_t>(reference.size());
  double error = 0, norm = 0;
  for (size_t j = 0; j < reference.size(); j++)
    error += difference[j] * difference[j], norm += double(reference[j]) * double(reference[j]);
  const double of_row = bound.OfRow(index, n, position, std::sqrt(norm)),
               of_value = of_row / std::sqrt(static_cast<double>(n));
  if (!(std::sqrt(error) <= of_row)) return {of_row, true};
  bool beyond = false;
  for (size_t j = 0; j < reference.size() && !beyond; j++) {
    const size_t at = static_cast<size_t>(index) * reference.size() + j;
    const double own = bound.units.empty() ? of_value : bound.c * bound.roundoff * double(bound.units[at]);
    beyond = !(std::fabs(difference[j]) <= own);
  }
  return {of_value, beyond};
}

// Adds to an output what is added to it before its finish.
void Move(const Finish& finish, float change, float* output) {
  const double y = finish.Undo(*output);
  *output += finish.any() ? static_cast<float>(finish.Of(y + double(change)) - finish.Of(y)) : change;
}

// Takes from one row of the candidate what steps on rounding boundaries explain of its difference.
// `index`: of the row in the bound.
StepCounts TakeSteps(const RowProduct& product, const compare::LocalBound& bound, int64_t index,
                     int32_t position, std::span<const float> reference, float* candidate) {
  std::vector<double> difference(reference.size());
  for (size_t j = 0; j < reference.size(); j++) difference[j] = double(candidate[j]) - double(reference[j]);
  const RowError error = ErrorOfRow(difference, reference, bound, index, position);
  if (!error.beyond) return {};
  BoundarySteps boundary(product.input, product.scheme, *product.weights, product.scale);
  // Steps move what the product gives, before its finish.
  const Finish& finish = product.finish;
  for (size_t j = 0; finish.any() && j < reference.size(); j++)
    difference[j] = finish.Undo(candidate[j]) - finish.Undo(reference[j]);
  const compare::CodeExplanation found = boundary.Explain(difference, error.bound_norm);
  std::vector<float> change(reference.size());
  boundary.Subtract(found.steps, change.data());
  for (size_t j = 0; j < reference.size(); j++) Move(finish, change[j], &candidate[j]);
  return boundary.Count(found.steps);
}

// The same of all rows of a product.
StepCounts TakeSteps(const drive::PointPair& pair, const ProductWeights& product, ActScheme scheme,
                     std::span<const float> input, std::vector<float>* candidate) {
  const WeightView& w = *product.weights;
  const int64_t n_rows = pair.shape[0], n_columns = w.n_columns, n_features = w.n_rows;
  StepCounts counts;
  for (int64_t i = 0; i < n_rows; i++)
    counts.Add(TakeSteps(
        {input.subspan(static_cast<size_t>(i * n_columns), static_cast<size_t>(n_columns)), &w, product.scale,
         scheme, product.finish},
        *pair.bound, i, pair.point.first_position + static_cast<int32_t>(i),
        pair.reference.subspan(static_cast<size_t>(i * n_features), static_cast<size_t>(n_features)),
        candidate->data() + i * n_features));
  return counts;
}

}  // namespace

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

PrecisionDifference* CodeExplainer::DifferenceAt(const drive::PointPair& pair) const {
  const auto of = differences_ ? ClassAt(*model_, pair.point.stage, pair.point.layer) : std::nullopt;
  return of ? FindDifference(*differences_, *of, pair.shape[0]) : nullptr;
}

// Takes out what the engines' different schemes make of the input, then steps on rounding boundaries
// of either.
void CodeExplainer::ByPrecision(const drive::PointPair& pair, const ProductWeights& product,
                                PrecisionDifference* difference, std::span<const float> input) {
  std::vector<float> candidate(pair.candidate.begin(), pair.candidate.end());
  const std::vector<float> expected =
      SchemeDifference(*product.weights, product.scale, input, difference->scheme[0], difference->scheme[1]);
  for (size_t i = 0; i < candidate.size(); i++) Move(product.finish, -expected[i], &candidate[i]);
  TakePrecision(pair, difference, product.weights->n_columns, &candidate,
                [&](ActScheme scheme) { TakeSteps(pair, product, scheme, input, &candidate); });
}

void CodeExplainer::TakePrecision(const drive::PointPair& pair, PrecisionDifference* difference,
                                  int64_t n_columns, const std::vector<float>* candidate,
                                  const std::function<void(ActScheme)>& take_steps) {
  const bool f16_sums =
      difference->scheme[0] == ActScheme::kF16Sums || difference->scheme[1] == ActScheme::kF16Sums;
  const compare::LocalBound bound = f16_sums ? compare::F16SumsBound(n_columns) : *pair.bound;
  auto rest = Rest(pair, *candidate, bound);
  for (ActScheme scheme : difference->scheme) {
    if (rest || !IsIntegerScheme(scheme)) continue;
    take_steps(scheme);
    rest = Rest(pair, *candidate, bound);
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
  const StepCounts steps = TakeSteps(pair, product, *scheme, input, &candidate);
  const auto rest = Rest(pair, candidate, *pair.bound);
  if (steps.all() == 0 || !rest) return;
  const auto n_codes = static_cast<int64_t>(input.size());
  pair.row->explained_by_codes = true;
  pair.row->explanation = fmt::format(
      "{} lie on a rounding boundary and went the other way; without them the error is {:.1e} ({})",
      steps.Text(n_codes, n_codes / ActBlockValues(*scheme, product.weights->n_columns)), rest->rel_l2,
      check_->Basis(pair.point.stage, *product.weights));
}

void CodeExplainer::ByAttention(const drive::PointPair& pair) const {
  const bool of_scores = pair.point.stage == PB_STAGE_ATTN_SCORES;
  const auto& [layer, first, n_rows] = std::tuple(pair.point.layer, pair.point.first_position, pair.shape[0]);
  const std::vector<float> rounding =
      of_scores ? attention_->OfScores(layer, first, n_rows) : attention_->OfContext(layer, first, n_rows);
  if (rounding.size() != pair.candidate.size()) return;
  for (const int side : {0, 1}) {
    std::vector<float> candidate(pair.candidate.begin(), pair.candidate.end());
    for (size_t i = 0; i < candidate.size(); i++) candidate[i] += side == 0 ? -rounding[i] : rounding[i];
    const auto rest = Rest(pair, candidate, *pair.bound);
    if (!rest) continue;
    pair.row->explained_by_precision = true;
    pair.row->explanation = fmt::format(
        "the {} rounds its {} to f16, the {} does not; but for that the error is {:.1e}, bound {}",
        side == 0 ? "candidate" : "reference", of_scores ? "queries" : "probabilities",
        side == 0 ? "reference" : "candidate", rest->rel_l2, compare::BoundText(rest->bound));
    return;
  }
}

void CodeExplainer::ByTie(const drive::PointPair& pair) const {
  const Experts& e = model_->params().experts;
  const int64_t n_rows = pair.shape[0];
  const auto logits = inputs_.Rows(PB_STAGE_ROUTER_LOGITS, pair.point.first_position, n_rows, e.n);
  if (logits.empty() || static_cast<int64_t>(pair.candidate.size()) != n_rows * e.n_used) return;
  int64_t n_tokens = 0;
  double largest_gap = 0;
  for (int64_t t = 0; t < n_rows; t++) {
    const auto row = logits.subspan(static_cast<size_t>(t * e.n), static_cast<size_t>(e.n));
    double largest = row.front();
    for (const float x : row)
      if (std::isnan(x) || x > largest) largest = x;
    std::set<int64_t> used;
    bool differs = false;
    for (int64_t j = t * e.n_used; j < (t + 1) * e.n_used; j++) {
      const auto at = static_cast<size_t>(j);
      const float a = pair.candidate[at], b = pair.reference[at];
      if (!IsExpert(a, e.n) || !IsExpert(b, e.n) || !used.insert(static_cast<int64_t>(a)).second) return;
      const double ours = row[static_cast<size_t>(a)], theirs = row[static_cast<size_t>(b)];
      if (!RouterTies(ours, theirs, largest)) return;
      if (a != b) differs = true, largest_gap = std::max(largest_gap, std::fabs(ours - theirs));
    }
    n_tokens += differs;
  }
  if (n_tokens == 0) return;
  pair.row->explained_by_tie = true;
  pair.row->explanation = fmt::format(
      "of {} of {} tokens other experts are chosen, whose logits differ by {:.1e} at most, which a router "
      "that compares their exponentials may not see",
      n_tokens, n_rows, largest_gap);
}

void CodeExplainer::ByTerms(const drive::PointPair& pair, const ProductWeights& product,
                            std::span<const float> input) const {
  const WeightView& w = *product.weights;
  std::vector<float> row(static_cast<size_t>(w.n_columns)), units;
  DecodeRow(w, 0, row.data());
  for (int64_t i = 0; i < pair.shape[0]; i++) {
    double sum = 0, squares = 0, terms = 0;
    for (size_t k = 0; k < row.size(); k++) {
      const double term = double(row[k]) * double(input[static_cast<size_t>(i) * row.size() + k]);
      sum += term, squares += sum * sum, terms += term * term;
    }
    // Partial sums in the order of the inputs, and on average over all orders (docs/numerics.md).
    squares += static_cast<double>(w.n_columns + 1) * (terms / 6 + sum * sum / 3);
    units.push_back(static_cast<float>(std::sqrt(squares) * std::fabs(product.scale)));
  }
  // Two engines, each within the bound against the exact result.
  compare::LocalBound bound = compare::BoundFromUnits(static_cast<pb_stage>(pair.point.stage), units);
  bound.c *= 2;
  if (auto rest = Rest(pair, pair.candidate, bound)) *pair.row = std::move(*rest);
}

void CodeExplainer::ByExperts(const drive::PointPair& pair) {
  const Experts& e = model_->params().experts;
  const int64_t n_rows = pair.shape[0], n_parts = n_rows * e.n_used;
  const ExpertWeights any = ExpertOf(*model_, pair.point.stage, pair.point.layer, 0);
  if (!any.matrix.data || static_cast<int64_t>(pair.reference.size()) != n_parts * any.matrix.n_rows) return;
  const bool own_rows = pair.point.stage == PB_STAGE_EXPERT_DOWN;  // each expert has its own input
  const int64_t n_columns = any.matrix.n_columns, width = any.matrix.n_rows;
  const auto input =
      inputs_.Rows(any.input, pair.point.first_position, n_rows, own_rows ? e.n_used * n_columns : n_columns);
  const auto ids = inputs_.Rows(PB_STAGE_EXPERT_IDS, pair.point.first_position, n_rows, e.n_used);
  if (input.empty() || ids.empty()) return;
  std::vector<float> candidate(pair.candidate.begin(), pair.candidate.end());
  std::map<int64_t, std::vector<int64_t>> parts;  // of each expert
  for (int64_t part = 0; part < n_parts; part++) {
    const float id = ids[static_cast<size_t>(part)];
    if (!IsExpert(id, e.n)) return;
    parts[static_cast<int64_t>(id)].push_back(part);
  }
  auto expert_of = [&](int64_t id) {
    return ExpertOf(*model_, pair.point.stage, pair.point.layer, static_cast<float>(id));
  };
  auto input_of = [&](int64_t part) {
    return input.subspan(static_cast<size_t>((own_rows ? part : part / e.n_used) * n_columns),
                         static_cast<size_t>(n_columns));
  };
  auto take_steps = [&](ActScheme scheme) {
    StepCounts steps;
    for (const auto& [id, own] : parts) {
      const ExpertWeights w = expert_of(id);
      for (int64_t part : own)
        steps.Add(
            TakeSteps({input_of(part), &w.matrix, w.scale, scheme, {}}, *pair.bound, part,
                      pair.point.first_position + static_cast<int32_t>(part / e.n_used),
                      pair.reference.subspan(static_cast<size_t>(part * width), static_cast<size_t>(width)),
                      candidate.data() + part * width));
    }
    return steps;
  };
  if (PrecisionDifference* difference = DifferenceAt(pair)) {
    for (const auto& [id, own] : parts) {
      const ExpertWeights w = expert_of(id);
      std::vector<float> rows;
      for (int64_t part : own) rows.insert(rows.end(), input_of(part).begin(), input_of(part).end());
      const std::vector<float> expected =
          SchemeDifference(w.matrix, w.scale, rows, difference->scheme[0], difference->scheme[1]);
      for (size_t i = 0; i < expected.size(); i++)
        candidate[static_cast<size_t>(own[i / static_cast<size_t>(width)] * width) +
                  i % static_cast<size_t>(width)] -= expected[i];
    }
    return TakePrecision(pair, difference, n_columns, &candidate, take_steps);
  }
  const auto scheme = check_ ? check_->SchemeOf(pair.point.stage, any.matrix) : std::nullopt;
  if (!scheme || !check_->Contradiction(pair.point.stage, any.matrix).empty()) return;
  const StepCounts steps = take_steps(*scheme);
  const auto rest = Rest(pair, candidate, *pair.bound);
  if (steps.all() == 0 || !rest) return;
  const int64_t n_codes = n_parts * n_columns;
  pair.row->explained_by_codes = true;
  pair.row->explanation = fmt::format(
      "{} of its experts' inputs lie on a rounding boundary and went the other way; without them the error "
      "is {:.1e} ({})",
      steps.Text(n_codes, n_codes / ActBlockValues(*scheme, n_columns)), rest->rel_l2,
      check_->Basis(pair.point.stage, any.matrix));
}

void CodeExplainer::ByTable(const drive::PointPair& pair) const {
  const bool gated = pair.point.stage == PB_STAGE_FFN_GATED;
  const size_t n = pair.reference.size();
  const std::span<const float> gate = gate_.values(), up = up_.values();
  if (gate.size() != n || (gated && up.size() != n)) return;
  std::vector<float> candidate(pair.candidate.begin(), pair.candidate.end());
  int64_t n_entries = 0;
  for (size_t i = 0; i < n; i++) {
    if (candidate[i] == pair.reference[i]) continue;
    const double step = TableStep(gate[i]) * (gated ? std::fabs(double(up[i])) : 1);
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
  const bool finite = row.n_non_finite[0] + row.n_non_finite[1] == 0;
  if (pair.point.stage == PB_STAGE_EXPERT_IDS && row.bound_ratio > 1 && finite) ByTie(pair);
  if (stages::kExpertProducts.Contains(pair.point.stage) && row.bound_ratio > 1 && finite) ByExperts(pair);
  const bool attends = pair.point.stage == PB_STAGE_ATTN_SCORES || pair.point.stage == PB_STAGE_ATTN_CONTEXT;
  if (attention_ && attends && row.bound_ratio > 1 && finite) ByAttention(pair);
  const bool activates = pair.point.stage == PB_STAGE_FFN_ACT || pair.point.stage == PB_STAGE_FFN_GATED;
  if (activates && row.bound_ratio > 1 && activation && activation->value == Activation::kGeluTanh)
    ByTable(pair);
  if (pair.point.stage == PB_STAGE_GATE_PROJ) gate_.Hold(pair.reference, pair.lasting);
  if (pair.point.stage == PB_STAGE_UP_PROJ) up_.Hold(pair.reference, pair.lasting);
  const ProductWeights product = ProductOf(*model_, pair.point.stage, pair.point.layer);
  if (row.bound_ratio > 1 && finite && product.weights &&
      static_cast<int64_t>(pair.reference.size()) == pair.shape[0] * product.weights->n_rows) {
    const auto input = inputs_.Find(product, pair.point.first_position, pair.shape[0]);
    if (product.weights->n_rows == 1 && !input.empty()) ByTerms(pair, product, input);
    PrecisionDifference* difference = DifferenceAt(pair);
    if (!input.empty() && difference && row.bound_ratio > 1)
      ByPrecision(pair, product, difference, input);
    else if (!input.empty() && check_ && row.bound_ratio > 1)
      ByCodes(pair, product, input);
  }
  inputs_.OnPoint(pair.point, pair.reference, pair.lasting);
  if (attention_) attention_->OnPoint(pair.point, pair.reference, pair.lasting);
}

}  // namespace pb::codes

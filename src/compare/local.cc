// Errors of one op on identical inputs, their bounds, and what steps of activation codes explain of
// them.
#include "compare/local.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "base/cholesky.h"
#include "compare/pair_sums.h"

namespace pb::compare {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The constants of a class. Between two engines: fixed once from benign runs, llama.cpp v0.5.0 zen4
// against haswell, sse42 and x64, and the native engine against each of them; none exceeds 30 times
// its class's worst benign error (docs/numerics.md has the figures). With true partial sums,
// against the exact result: from the same engines, each against the oracle. A single value may err
// by all of its roundings: an exponential of the vector libraries by 4, its sum, quotient and
// product by 1 each; a rotation by those of two products, of their sum, and of cosine and sine.
struct ClassRow {
  const char* name;
  double c, c_of_units;
};
constexpr ClassRow kCopy{"copy", 2, 2}, kElementwise{"elementwise", 16, 10}, kNorm{"norm", 2, 3},
    kProduct{"product", 12, 6}, kRotary{"rotary", 4, 6}, kAttention{"attention", 6, 6},
    kSoftmax{"softmax", 4, 4}, kFusedAttention{"fused attention", 2, 6},
    kF16Sums{"product with sums in f16", 2, 6};

const ClassRow& ClassOf(int32_t stage) {
  if (!stages::IsStage(stage)) return kElementwise;
  switch (stages::Of(stage).group) {
    case stages::Group::kEmbedding:
      return kCopy;
    case stages::Group::kNorm:
      return kNorm;
    case stages::Group::kProduct:
      return kProduct;
    case stages::Group::kRotary:
      return kRotary;
    case stages::Group::kScores:
    case stages::Group::kContext:
      return kAttention;
    case stages::Group::kSoftmax:
      return kSoftmax;
    case stages::Group::kActivation:
    case stages::Group::kGate:
    case stages::Group::kSum:
    case stages::Group::kShared:
    case stages::Group::kMixture:
      return kElementwise;
    case stages::Group::kSelect:
      return kCopy;
    case stages::Group::kRouting:
      return kSoftmax;
    case stages::Group::kExpertProduct:
      return kProduct;
  }
  return kElementwise;
}

// Scores alone have places that are hidden; -inf anywhere else is a defect.
bool Masked(int32_t stage, float a, float b) {
  return stage == PB_STAGE_ATTN_SCORES && std::isinf(a) && a < 0 && std::isinf(b) && b < 0;
}

// A score that one engine hides and the other does not: an error without measure, and nothing that
// was computed wrongly as a number.
bool HiddenInOne(int32_t stage, float a, float b) {
  const auto hidden = [](float v) { return std::isinf(v) && v < 0; };
  return stage == PB_STAGE_ATTN_SCORES &&
         ((hidden(a) && std::isfinite(b)) || (hidden(b) && std::isfinite(a)));
}

// Sums over one tensor pair that all errors are made of.
struct Sums {
  std::vector<double> row_error, row_norm;        // squared, per token row
  std::vector<int64_t> row_count;                 // values not masked
  std::vector<double> column_error, column_norm;  // squared, per feature
  std::vector<double> row_units, column_units;    // squared, where there are units
  double dot = 0, candidate_norm = 0, sum_a = 0, sum_b = 0, max_abs = 0;
  float largest = 0;
  int64_t count = 0;
  int64_t non_finite[2] = {0, 0};
  bool masks_differ = false;
};

// What the lanes of a row add up to.
double SumOf(const double (&lanes)[kPairLanes]) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// Adds row i of both tensors.
void AddRow(int32_t stage, const PointTensor& a, const PointTensor& b, int64_t i, Sums* s) {
  static const PairSumsTarget& loops = *PairSumsTargets()[0];
  const auto n = static_cast<size_t>(a.n_features);
  const float* x = a.values.data() + i * a.n_features;
  const float* y = b.values.data() + i * a.n_features;
  PairLanes row{};
  bool infinite = false;
  int64_t count = 0;
  for (size_t j = 0; j < n;) {
    const size_t run = loops.add_finite(x + j, y + j, n - j, &row, s->column_error.data() + j,
                                        s->column_norm.data() + j, &s->largest);
    count += static_cast<int64_t>(run);
    j += run;
    if (stage == PB_STAGE_ATTN_SCORES) j += loops.masked_run(x + j, y + j, n - j);
    for (; j < n && !(std::isfinite(x[j]) && std::isfinite(y[j])); j++) {
      if (Masked(stage, x[j], y[j])) continue;
      infinite = true;
      s->column_error[j] = kInfinity;
      if (HiddenInOne(stage, x[j], y[j])) {
        s->masks_differ = true;
        continue;
      }
      s->non_finite[0] += !std::isfinite(x[j]), s->non_finite[1] += !std::isfinite(y[j]);
    }
  }
  const auto at = static_cast<size_t>(i);
  const double ee = SumOf(row.ee), qq = SumOf(row.qq), pp = SumOf(row.pp);
  s->row_error[at] = infinite ? kInfinity : ee;
  s->row_norm[at] = qq;
  s->row_count[at] = count;
  s->count += count;
  s->dot += (pp + qq - ee) / 2, s->candidate_norm += pp;
  s->sum_a += SumOf(row.p), s->sum_b += SumOf(row.q);
  // The root of a square that does not overflow is the number itself.
  s->max_abs = std::max(s->max_abs, std::sqrt(*std::ranges::max_element(row.max_ee)));
}

Sums Accumulate(int32_t stage, const PointTensor& a, const PointTensor& b, std::span<const float> units) {
  Sums s;
  if (!units.empty()) {
    s.row_units.resize(static_cast<size_t>(a.n_rows)),
        s.column_units.resize(static_cast<size_t>(a.n_features));
    for (size_t i = 0; i < units.size(); i++) {
      const double square = double(units[i]) * double(units[i]);
      s.row_units[i / s.column_units.size()] += square, s.column_units[i % s.column_units.size()] += square;
    }
  }
  s.row_error.resize(static_cast<size_t>(a.n_rows)), s.row_norm = s.row_error;
  s.row_count.resize(static_cast<size_t>(a.n_rows));
  s.column_error.resize(static_cast<size_t>(a.n_features)), s.column_norm = s.column_error;
  for (int64_t i = 0; i < a.n_rows; i++) AddRow(stage, a, b, i, &s);
  return s;
}

// Error over norm; 0 over 0 is equal, anything else over 0 infinitely far.
double Ratio(double error, double norm) {
  if (error == 0) return 0;
  return norm > 0 ? std::sqrt(error / norm) : kInfinity;
}

// What squared units allow, relative to a squared norm. Against a norm of 0 an error is 0 or
// infinite, whatever the limit.
double RelativeLimit(const LocalBound& bound, double units, double norm) {
  return bound.c * bound.roundoff * (norm > 0 ? std::sqrt(units / norm) : 1);
}

// An error in units of its limit; without error it is within any limit.
double Over(double error, double limit) { return error == 0 ? 0 : limit > 0 ? error / limit : kInfinity; }

// The square of what a row's error is held against: its norm. A single value may be next to nothing by chance, as what it sums cancels;
// it is the gate of a shared expert, which a sigmoid reads, so that its error counts as it stands where it is less than one.
double NormOf(const Sums& s, int64_t i, const PointTensor& t, const LocalBound& bound) {
  const double norm = s.row_norm[static_cast<size_t>(i)];
  return t.n_features == 1 && bound.units.empty() ? std::max(norm, 1.0) : norm;
}

// What the error of row i may reach, relative to its norm.
double LimitOfRow(const Sums& s, int64_t i, const PointPlace& place, const LocalBound& bound) {
  const auto at = static_cast<size_t>(i);
  return s.row_units.empty() ? bound.At(place.first_position + i)
                             : RelativeLimit(bound, s.row_units[at], s.row_norm[at]);
}

// Whether most of the error lies in one column and no other has a tenth of its share: two rows that
// changed places err alike.
bool IsAlone(const std::vector<double>& column_error, int64_t column) {
  double total = 0, second = 0;
  for (size_t j = 0; j < column_error.size(); j++) {
    total += column_error[j];
    if (j != static_cast<size_t>(column)) second = std::max(second, column_error[j]);
  }
  const double worst = column_error[static_cast<size_t>(column)];
  return column_error.size() > 1 && worst > 0.5 * total && second < 0.1 * worst;
}

// Scale and offset of the least-squares line candidate = scale * reference + offset.
void Fit(const Sums& s, double reference_norm, PointRow* row) {
  const double n = static_cast<double>(s.count),
               spread = reference_norm - s.sum_b * s.sum_b / std::max(n, 1.0);
  if (s.count < 2 || !(spread > 0)) return;
  row->scale = (s.dot - s.sum_a * s.sum_b / n) / spread;
  row->offset = (s.sum_a - row->scale * s.sum_b) / n;
}

double Dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (size_t j = 0; j < a.size(); j++) sum += a[j] * b[j];
  return sum;
}

void Take(int steps, const std::vector<double>& effect, std::vector<double>* rest) {
  for (size_t j = 0; steps != 0 && j < rest->size(); j++) (*rest)[j] -= steps * effect[j];
}

// The whole steps nearest to what least squares gives; all 0 where there are too many codes or
// their effects are not independent. Where steps explain the difference at all this finds them,
// however alike their effects are.
std::vector<int> NearestSteps(std::span<const double> difference, std::span<const BoundaryCode> codes) {
  constexpr size_t kMostCodes = 256;
  const size_t n = codes.size();
  std::vector<int> steps(n);
  if (n > std::min(kMostCodes, difference.size())) return steps;
  std::vector<double> a(n * n), x(n);
  for (size_t i = 0; i < n; i++) {
    x[i] = Dot(difference, codes[i].effect);
    for (size_t j = 0; j <= i; j++) a[i * n + j] = Dot(codes[i].effect, codes[j].effect);
  }
  if (!Factorise(n, &a)) return steps;
  x = Solve(a, std::move(x));
  for (size_t i = 0; i < n; i++) steps[i] = x[i] > 0.5 ? 1 : x[i] < -0.5 ? -1 : 0;
  return steps;
}

}  // namespace

double LocalBound::At(int64_t position) const {
  const double angle = by_position ? 1 + static_cast<double>(position) : 1;
  return c * roundoff * std::sqrt(static_cast<double>(std::max<int64_t>(sum_length, 1))) * angle;
}

double LocalBound::OfRow(int64_t index, int64_t n_features, int64_t position, double norm) const {
  if (units.empty()) return At(position) * norm;
  double squares = 0;
  for (float unit : units.subspan(static_cast<size_t>(index * n_features), static_cast<size_t>(n_features)))
    squares += double(unit) * double(unit);
  return c * roundoff * std::sqrt(squares);
}

std::string LocalBound::Origin() const {
  if (!units.empty())
    return fmt::format("{} x 2^{:g} x root sum of squared units, op class {}", c, std::log2(roundoff),
                       op_class);
  return fmt::format("{} x 2^{:g} x sqrt({}){}, op class {}", c, std::log2(roundoff), sum_length,
                     by_position ? " x (1 + position)" : "", op_class);
}

LocalBound BoundOf(pb_stage stage, const stages::ModelShape& shape, int64_t n_positions) {
  const ClassRow& row = ClassOf(stage);
  const int64_t k = stages::IsStage(stage) ? stages::SumLength(stage, shape, n_positions) : 1;
  return {row.name, row.c, k, stages::kRotary.Contains(stage), {}};
}

LocalBound FusedAttentionBound(int64_t n_positions) {
  return {kFusedAttention.name, kFusedAttention.c, n_positions, false, {}, kF16Roundoff};
}

LocalBound F16SumsBound(int64_t sum_length) {
  return {kF16Sums.name, kF16Sums.c, sum_length, false, {}, kF16Roundoff};
}

LocalBound F16SumsFromUnits(std::span<const float> units) {
  LocalBound bound = F16SumsBound(1);
  bound.c = kF16Sums.c_of_units, bound.units = units;
  return bound;
}

LocalBound BoundFromUnits(pb_stage stage, std::span<const float> units) {
  // What one output sums is in the units.
  LocalBound bound = BoundOf(stage, {}, 1);
  bound.c = ClassOf(stage).c_of_units;
  bound.units = units;
  return bound;
}

std::string BoundText(double bound) {
  constexpr double kUnderflow = 1e-30;  // far above what underflow allows, far below any rounding
  return bound < kUnderflow ? "none, as exact zeros are expected here" : fmt::format("{:.1e}", bound);
}

Result<PointRow> ComparePoint(const PointTensor& a, const PointTensor& b, const PointPlace& place,
                              const LocalBound& bound) {
  if (a.n_rows != b.n_rows || a.n_features != b.n_features) {
    return MakeError(Code::kUsage, "shapes differ: {} x {} against {} x {}", a.n_rows, a.n_features, b.n_rows,
                     b.n_features);
  }
  for (const PointTensor* t : {&a, &b})
    if (t->n_rows <= 0 || t->n_features <= 0 ||
        t->values.size() != static_cast<size_t>(t->n_rows * t->n_features))
      return MakeError(Code::kUsage, "a tensor of {} values is no {} x {}, or empty: nothing to compare",
                       t->values.size(), t->n_rows, t->n_features);
  if (!bound.units.empty() && bound.units.size() != a.values.size())
    return MakeError(Code::kUsage, "{} units for {} values", bound.units.size(), a.values.size());
  const Sums s = Accumulate(place.stage, a, b, bound.units);
  PointRow row;
  row.prompt = place.prompt, row.step = place.step, row.stage = place.stage, row.layer = place.layer;
  row.first_position = place.first_position;
  row.n_rows = a.n_rows, row.n_features = a.n_features;
  row.n_non_finite[0] = s.non_finite[0], row.n_non_finite[1] = s.non_finite[1];
  row.largest = s.largest;
  double error = 0, norm = 0, bound_norm = 0, rms_sum = 0;
  for (int64_t i = 0; i < a.n_rows; i++) {
    const size_t at = static_cast<size_t>(i);
    const double held = NormOf(s, i, a, bound);
    const double rel = Ratio(s.row_error[at], held), limit = LimitOfRow(s, i, place, bound);
    const double mean_square = held / static_cast<double>(std::max<int64_t>(s.row_count[at], 1));
    error += s.row_error[at], norm += s.row_norm[at];
    rms_sum += mean_square, bound_norm += limit * limit * mean_square;
    if (rel > row.worst_row || row.worst_row_position < 0) {
      row.worst_row = rel, row.worst_row_position = static_cast<int32_t>(place.first_position + i);
    }
    if (rel > limit && row.first_row_above < 0)
      row.first_row_above = static_cast<int32_t>(place.first_position + i);
    if (Over(rel, limit) > row.bound_ratio || row.bound == 0)
      row.bound_ratio = Over(rel, limit), row.bound = limit;
  }
  const double mean_bound = rms_sum > 0 ? std::sqrt(bound_norm / rms_sum) : bound.At(place.first_position);
  for (int64_t j = 0; j < a.n_features; j++) {
    const size_t at = static_cast<size_t>(j);
    const double norm_j = std::max(rms_sum, s.column_norm[at]), rel = Ratio(s.column_error[at], norm_j);
    const double limit =
        s.column_units.empty() ? mean_bound : RelativeLimit(bound, s.column_units[at], norm_j);
    if (rel > row.worst_feature || row.worst_feature_index < 0)
      row.worst_feature = rel, row.worst_feature_index = j;
    if (Over(rel, limit) > row.bound_ratio) row.bound_ratio = Over(rel, limit), row.bound = limit;
  }
  row.feature_alone =
      row.above_bound() && std::isfinite(error) && IsAlone(s.column_error, row.worst_feature_index);
  row.rel_l2 = Ratio(error, norm);
  row.max_abs = s.masks_differ || s.non_finite[0] + s.non_finite[1] ? kInfinity : s.max_abs;
  row.cosine =
      s.candidate_norm > 0 && norm > 0 ? s.dot / std::sqrt(s.candidate_norm * norm) : (error == 0 ? 1 : 0);
  Fit(s, norm, &row);
  return row;
}

RowErrors ErrorsOfRows(const PointTensor& a, const PointTensor& b, const PointPlace& place,
                       const LocalBound& bound) {
  const Sums s = Accumulate(place.stage, a, b, bound.units);
  RowErrors errors;
  for (int64_t i = 0; i < a.n_rows; i++) {
    const auto at = static_cast<size_t>(i);
    errors.rel_l2.push_back(Ratio(s.row_error[at], NormOf(s, i, a, bound)));
    errors.over_bound.push_back(Over(errors.rel_l2.back(), LimitOfRow(s, i, place, bound)));
  }
  return errors;
}

CodeExplanation ExplainByCodes(std::span<const double> difference, std::span<const BoundaryCode> codes,
                               double bound_norm) {
  std::vector<int> steps = NearestSteps(difference, codes);
  std::vector<double> rest(difference.begin(), difference.end());
  for (size_t k = 0; k < codes.size(); k++) Take(steps[k], codes[k].effect, &rest);
  // From there, each time the change of one step that shortens the remainder most.
  while (Dot(rest, rest) > bound_norm * bound_norm) {
    double best_gain = 0;
    size_t best = 0;
    int best_change = 0;
    for (size_t k = 0; k < codes.size(); k++) {
      const double dot = Dot(rest, codes[k].effect), square = Dot(codes[k].effect, codes[k].effect);
      for (int step : {-1, 0, 1}) {
        const int change = step - steps[k];
        const double gain = change * (2 * dot - change * square);  // what |rest|^2 loses by it
        if (gain > best_gain) best_gain = gain, best = k, best_change = change;
      }
    }
    // Gains of rounding errors alone would go on for ever.
    if (!(best_gain > 1e-12 * Dot(rest, rest))) break;
    steps[best] += best_change;
    Take(best_change, codes[best].effect, &rest);
  }
  CodeExplanation found;
  for (size_t k = 0; k < codes.size(); k++)
    if (steps[k] != 0) found.steps.emplace_back(codes[k].id, steps[k]);
  const double norm = std::sqrt(Dot(rest, rest));
  found.remainder_ratio = norm == 0 ? 0 : norm / bound_norm < kInfinity ? norm / bound_norm : kInfinity;
  return found;
}

bool ComesBefore(const PointRow& a, const PointRow& b) {
  auto key = [](const PointRow& r) {
    return std::tuple(r.prompt, r.step, r.first_position, stages::Order(r.stage, r.layer));
  };
  return key(a) < key(b);
}

}  // namespace pb::compare

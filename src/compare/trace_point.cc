// Errors of one point by values, sketches or digests, and whether its inputs were equal.
#include "compare/trace_point.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/blake3.h"
#include "trace/measure.h"

namespace pb::compare {
namespace {

using trace::Record;
using trace::Sketch;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUnknown = -1;  // a distance or norm that is not known

bool IsScores(const Record& r) { return r.shape.size() == 3 && stages::kOverPositions.Contains(r.stage_id); }

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

// Shape without leading ones, which foreign traces have for a batch, and with what follows the rows
// as one axis; four axes are another layout and stay.
std::vector<int64_t> Plain(std::vector<int64_t> shape) {
  if (shape.size() > 3) return shape;
  while (shape.size() > 2 && shape[0] == 1) shape.erase(shape.begin());
  while (shape.size() > 2) shape[shape.size() - 2] *= shape.back(), shape.pop_back();
  return shape;
}

// What the rows of a record have in common with those of another that they can be compared with.
// The keys of attention scores depend on how rows were batched.
std::vector<int64_t> RowShape(const Record& r) {
  std::vector<int64_t> shape(r.shape.begin() + 1, r.shape.end());
  if (IsScores(r)) shape.pop_back();
  return shape;
}

double Relative(double distance, double norm) {
  return distance == 0 ? 0 : norm > 0 ? distance / norm : kInfinity;
}

// Stages that one of the engines computes inside another op.
stages::Set Unobservable(const trace::Trace& a, const trace::Trace& b) {
  stages::Set set;
  for (const trace::Trace* t : {&a, &b})
    for (const auto& [name, reason] : t->manifest().unobservable)
      if (const pb_stage stage = stages::Find(name); stage != PB_STAGE_UNMAPPED) set |= stage;
  return set;
}

int32_t LayerCount(const trace::Trace& a, const trace::Trace& b) {
  int32_t n = 0;
  for (const trace::Trace* t : {&a, &b})
    for (const Record& r : t->records()) n = std::max(n, r.layer + (r.layer < INT32_MAX));
  return n;
}

// Calls f(begin, end) for each run of true.
template <typename F>
void ForRuns(const std::vector<bool>& rows, F f) {
  for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    for (end = begin + 1; end < rows.size() && rows[end] == rows[begin];) ++end;
    if (rows[begin]) f(begin, end);
  }
}

}  // namespace

void EqualRows::Add(int32_t stage, int32_t layer, int64_t first_position, const std::vector<bool>& equal) {
  std::vector<bool>& rows = rows_[{stage, layer}];
  const size_t first = static_cast<size_t>(first_position);
  if (rows.size() < first + equal.size()) rows.resize(first + equal.size());
  std::copy(equal.begin(), equal.end(), rows.begin() + static_cast<ptrdiff_t>(first));
}

// What the traces show of a stage at a layer. A documented trace declares nothing: an activation
// that it does not show is computed inside the gated product, as in most engines.
pb_visibility EqualRows::See(pb_stage stage, int32_t layer) const {
  if (rows_.count({stage, layer}) > 0) return PB_OBSERVED;
  if (unobservable_.Contains(stage) || stages::kActivations.Contains(stage)) return PB_UNOBSERVABLE;
  return stages::Of(stage).optional ? PB_ABSENT : PB_OBSERVED;
}

std::vector<bool> EqualRows::InputsEqual(int32_t stage, int32_t layer, int64_t first_position,
                                         int64_t n_rows) const {
  std::vector<bool> rows(static_cast<size_t>(n_rows), true);
  if (unobservable_.Contains(stage))
    return std::vector<bool>(rows.size(), false);  // shown in part, or behind ops that are not
  const auto see = [&](pb_stage s) { return See(s, layer); };
  for (const stages::Input& input : stages::InputsOf(static_cast<pb_stage>(stage), see)) {
    const int32_t at = input.Layer(layer, n_layers_);
    const pb_stage from = at < 0 && input.previous_layer ? PB_STAGE_EMBEDDINGS : input.stage;
    const auto found = rows_.find({from, at});
    if (found == rows_.end()) return std::vector<bool>(rows.size(), false);
    const std::vector<bool>& known = found->second;
    const size_t prefix = static_cast<size_t>(std::find(known.begin(), known.end(), false) - known.begin());
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t position = static_cast<size_t>(first_position) + i;
      const bool equal =
          position < known.size() && known[position] && (!input.all_positions || position < prefix);
      rows[i] = rows[i] && equal;
    }
  }
  return rows;
}

bool EqualRows::IsAlone(int32_t stage, int32_t layer) const {
  const auto see = [&](pb_stage s) { return See(s, layer); };
  return (stages::InsideOf(static_cast<pb_stage>(stage), see) - stages::kElementwise).empty();
}

struct PointComparer::Rows {
  std::vector<std::string> digest;  // empty: not known
  std::vector<std::optional<Sketch>> sketch;
  std::vector<double> norm;
  double total_norm = kUnknown;
};

struct PointComparer::Distances {
  std::vector<bool> equal;       // rows
  std::vector<double> row;       // estimated; kUnknown where it is not
  std::vector<double> at_least;  // from the norms; kUnknown where they are not known
  double total = kUnknown, total_at_least = kUnknown;
  double floor = 0;  // absolute: distances below are lost in the rounding of sketches
};

PointComparer::PointComparer(const trace::Trace& candidate, const trace::Trace& reference)
    : traces_{&candidate, &reference},
      equal_(LayerCount(candidate, reference), Unobservable(candidate, reference)),
      sketcher_(reference.manifest().sketch_seed),
      same_seed_(candidate.manifest().sketch_seed == reference.manifest().sketch_seed) {
  const stages::ModelShape ours = trace::ReadModelFacts(candidate.manifest().model_facts).shape;
  shape_ = trace::ReadModelFacts(reference.manifest().model_facts).shape;
  for (const auto& [key, size] : trace::kShapeKeys)
    if (shape_.*size == 0) shape_.*size = ours.*size;
}

std::optional<LocalBound> PointComparer::BoundFor(const TraceSpan& span) const {
  const bool known = shape_.d_model > 0 && shape_.d_ff > 0 && shape_.n_heads > 0 && shape_.head_dim > 0;
  if (!span.placed || !known) return std::nullopt;
  return BoundOf(static_cast<pb_stage>(span.first->stage_id), shape_, span.first_position + span.n_rows);
}

Result<std::optional<TracePoint>> PointComparer::Compare(const TraceSpan& span, std::string* shape_problem) {
  const Record& first = *span.first;
  for (int side : {0, 1}) {
    for (const Record* r : span.records[side]) {
      const bool same = r->shape.empty() ? first.shape.empty()
                        : span.placed    ? !first.shape.empty() && RowShape(*r) == RowShape(first)
                                         : Plain(r->shape) == Plain(first.shape);
      if (same && r->num_elements > 0) continue;
      *shape_problem = fmt::format("{}: {} against {}", r->name, ShapeText(span.records[0][0]->shape),
                                   ShapeText(first.shape));
      return std::optional<TracePoint>();
    }
  }
  TracePoint point;
  point.stage = first.stage;
  point.row.step = first.seq, point.row.stage = first.stage_id, point.row.layer = first.layer;
  point.row.first_position = span.first_position, point.row.n_rows = span.n_rows;
  for (int side : {0, 1}) point.blake3[side] = span.records[side][0]->blake3;
  auto has_values = [&span](int side) {
    return std::all_of(span.records[side].begin(), span.records[side].end(),
                       [](const Record* r) { return !r->payload_file.empty(); });
  };
  std::vector<bool> equal;
  if (has_values(0) && has_values(1)) {
    PB_TRY(CompareValues(span, &point, &equal));
  } else {
    PB_TRY(CompareRecords(span, &point, &equal));
  }
  // The bound is that of the op alone: what else is computed inside it, and is not done value by
  // value, rounds as well.
  if (point.own == OwnError::kAbove && !equal_.IsAlone(first.stage_id, first.layer))
    point.own = OwnError::kUnknown;
  point.equal = std::find(equal.begin(), equal.end(), false) == equal.end();
  if (span.placed) equal_.Add(first.stage_id, first.layer, span.first_position, equal);
  return std::optional(std::move(point));
}

// The span's rows, one after the other; scores get n_keys columns a head, the added ones hidden.
Result<std::vector<float>> PointComparer::Values(const TraceSpan& span, int side, int64_t n_keys) const {
  std::vector<float> out;
  for (const Record* r : span.records[side]) {
    PB_ASSIGN(std::vector<float> values, traces_[side]->Payload(*r));
    const int64_t begin = span.placed ? std::max<int64_t>(span.first_position - r->first_position, 0) : 0;
    const int64_t end = span.placed
                            ? std::min(span.first_position + span.n_rows - r->first_position, r->n_rows())
                            : r->n_rows();
    const auto width = static_cast<int64_t>(values.size()) / r->n_rows();
    const int64_t keys = n_keys > 0 ? r->shape[2] : width;
    const float hidden = r->stage_id == PB_STAGE_ATTN_SCORES ? -std::numeric_limits<float>::infinity() : 0.0f;
    for (int64_t at = begin * width; at < end * width; at += keys) {
      out.insert(out.end(), values.begin() + at, values.begin() + at + keys);
      if (n_keys > keys) out.insert(out.end(), static_cast<size_t>(n_keys - keys), hidden);
    }
  }
  return out;
}

Status PointComparer::CompareValues(const TraceSpan& span, TracePoint* point, std::vector<bool>* equal) {
  int64_t n_keys = 0;
  for (int side : {0, 1})
    for (const Record* r : span.records[side])
      if (IsScores(*r)) n_keys = std::max(n_keys, r->shape[2]);
  std::vector<float> values[2];
  for (int side : {0, 1}) {
    PB_ASSIGN(values[side], Values(span, side, n_keys));
  }
  const int64_t n_features = static_cast<int64_t>(values[1].size()) / span.n_rows;
  const PointTensor tensors[2] = {{values[0], span.n_rows, n_features}, {values[1], span.n_rows, n_features}};
  const PointPlace place{0, point->row.step, point->row.stage, point->row.layer, span.first_position};
  PB_ASSIGN(point->row, ComparePoint(tensors[0], tensors[1], place, LocalBound{"none", 1, 1, false, {}}));
  // These are errors that arrived: no bound holds for them.
  point->row.bound = point->row.bound_ratio = 0;
  point->row.first_row_above = -1;
  point->row.feature_alone = false;
  point->confidence = Confidence::kExact;
  const size_t width = static_cast<size_t>(n_features);
  double largest = -1;
  for (size_t i = 0; i < values[0].size(); ++i) {
    if (i % width == 0)
      equal->push_back(std::memcmp(&values[0][i], &values[1][i], width * sizeof(float)) == 0);
    const double e = std::fabs(static_cast<double>(values[0][i]) - values[1][i]);
    if (!(e > largest)) continue;
    largest = e;
    point->max_abs_position = span.first_position + static_cast<int32_t>(i / width);
    point->max_abs_feature = static_cast<int64_t>(i % width);
  }
  return JudgeValues(span, tensors, point);
}

Status PointComparer::JudgeValues(const TraceSpan& span, const PointTensor (&tensors)[2],
                                  TracePoint* point) const {
  const auto bound = BoundFor(span);
  if (!bound) return {};
  double worst = -1;
  Status status;
  const auto own = equal_.InputsEqual(point->row.stage, point->row.layer, span.first_position, span.n_rows);
  ForRuns(own, [&](size_t begin, size_t end) {
    const auto n = static_cast<int64_t>(end - begin);
    const size_t width = static_cast<size_t>(tensors[0].n_features);
    PointTensor part[2];
    for (int side : {0, 1})
      part[side] = {tensors[side].values.subspan(begin * width, static_cast<size_t>(n) * width), n,
                    tensors[side].n_features};
    const PointPlace place{0, point->row.step, point->row.stage, point->row.layer,
                           span.first_position + static_cast<int32_t>(begin)};
    auto row = ComparePoint(part[0], part[1], place, *bound);
    if (!row.ok()) {
      status = std::move(row).error();
      return;
    }
    point->n_own_rows += n;
    if (!(row->bound_ratio > worst)) return;
    worst = row->bound_ratio;
    point->own = row->above_bound() ? OwnError::kAbove : OwnError::kWithin;
    point->own_error = std::max(row->worst_row, row->worst_feature);
    point->own_bound = row->bound;
    point->own_position = row->first_row_above >= 0 ? row->first_row_above : row->worst_row_position;
    point->own_feature.reset();
    if (row->feature_alone) point->own_feature = row->worst_feature_index;
    point->own_origin = bound->Origin();
  });
  return status;
}

// Digest, sketch and norm of each row; of a tensor alone where its rows are not recorded.
Result<PointComparer::Rows> PointComparer::RowsOf(const TraceSpan& span, int side) {
  Rows rows;
  double sum = 0;
  for (const Record* r : span.records[side]) {
    const int64_t n = r->n_rows();
    const int64_t begin = span.placed ? std::max<int64_t>(span.first_position - r->first_position, 0) : 0;
    const int64_t end = span.placed ? std::min(span.first_position + span.n_rows - r->first_position, n) : n;
    const int64_t n_bad = r->n_nan + r->n_positive_inf + r->n_negative_inf;
    sum += r->rms * r->rms * static_cast<double>(r->num_elements - n_bad);
    if (!span.placed) break;
    std::vector<float> values;
    if (n > 1 && r->row_blake3.empty() && !r->payload_file.empty()) {
      PB_ASSIGN(values, traces_[side]->Payload(*r));
    }
    const int64_t width = r->num_elements / n;
    for (int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<size_t>(i);
      std::string digest = n == 1 ? r->blake3 : "";
      std::optional<Sketch> sketch;
      if (n == 1) sketch = r->sketch;
      if (at < r->row_blake3.size()) digest = r->row_blake3[at];
      if (at < r->row_sketch.size()) sketch = r->row_sketch[at];
      if (!values.empty()) {
        const auto row =
            std::span(values).subspan(at * static_cast<size_t>(width), static_cast<size_t>(width));
        digest = ToHex(Blake3Of(std::as_bytes(row)));
        sketch = trace::SketchOf(sketcher_, row, 1, trace::SketchHeads(r->stage_id, r->shape),
                                 r->first_position + i);
      }
      const int64_t hidden =
          IsScores(*r) ? std::max<int64_t>(r->shape[2] - (r->first_position + i + 1), 0) * r->shape[1] : 0;
      const bool counted = r->stage_id == PB_STAGE_ATTN_SCORES;
      const auto n_values = static_cast<double>(counted ? width - hidden : width);
      rows.digest.push_back(std::move(digest));
      rows.sketch.push_back(sketch);
      rows.norm.push_back(at < r->row_rms.size() ? r->row_rms[at] * std::sqrt(n_values) : kUnknown);
    }
  }
  if (span.whole) rows.total_norm = std::sqrt(sum);
  if (!span.whole && std::find(rows.norm.begin(), rows.norm.end(), kUnknown) == rows.norm.end()) {
    double squares = 0;
    for (double norm : rows.norm) squares += norm * norm;
    rows.total_norm = std::sqrt(squares);
  }
  return rows;
}

PointComparer::Distances PointComparer::Measure(const TraceSpan& span, const Rows (&rows)[2]) const {
  Distances d;
  const std::vector<const Record*>(&records)[2] = span.records;
  // Digests of rows that differ in hidden keys alone say nothing.
  bool same_width = true;
  for (const Record* a : records[0])
    for (const Record* b : records[1])
      same_width = same_width && (!IsScores(*a) || a->shape[2] == b->shape[2]);
  const bool same_tensor = span.whole && records[0].size() == 1 && records[1].size() == 1 &&
                           records[0][0]->blake3 == records[1][0]->blake3;
  const size_t n = span.placed ? rows[1].norm.size() : static_cast<size_t>(0);
  double rounding = 0, sum = 0, least = 0;
  bool all = n > 0, all_least = n > 0;
  for (size_t i = 0; i < n; ++i) {
    const bool equal =
        same_tensor || (same_width && !rows[0].digest[i].empty() && rows[0].digest[i] == rows[1].digest[i]);
    d.equal.push_back(equal);
    d.row.push_back(equal ? 0 : kUnknown);
    if (!equal && same_seed_ && rows[0].sketch[i] && rows[1].sketch[i]) {
      trace::SketchSum difference;
      difference.Add(*rows[0].sketch[i]);
      difference.Add(*rows[1].sketch[i], -1);
      d.row[i] = std::sqrt(difference.SquaredNorm());
      rounding += difference.RoundingFloor();
    }
    // Sizes are recorded as float32: less what that rounds.
    const double a = rows[0].norm[i], b = rows[1].norm[i];
    const bool known = a >= 0 && b >= 0;
    d.at_least.push_back(equal ? 0 : known ? std::max(0.0, std::fabs(a - b) - 0x1p-23 * (a + b)) : kUnknown);
    all = all && d.row[i] >= 0;
    all_least = all_least && d.at_least[i] >= 0;
    sum += d.row[i] * d.row[i];
    least += d.at_least[i] * d.at_least[i];
  }
  if (same_tensor && n == 0) d.equal.push_back(true);
  if (all) d.total = std::sqrt(sum);
  if (all_least) d.total_at_least = std::sqrt(least);
  bool sketched = same_seed_ && span.whole;
  for (int side : {0, 1})
    for (const Record* r : records[side]) sketched = sketched && r->sketch.has_value();
  if (!all && sketched) {
    trace::SketchSum difference;
    for (int side : {0, 1})
      for (const Record* r : records[side]) difference.Add(*r->sketch, side ? -1 : 1);
    d.total = std::sqrt(difference.SquaredNorm());
    rounding = difference.RoundingFloor();
  }
  if (d.total_at_least < 0 && rows[0].total_norm >= 0 && rows[1].total_norm >= 0) {
    const double a = rows[0].total_norm, b = rows[1].total_norm;
    d.total_at_least = std::max(0.0, std::fabs(a - b) - 0x1p-23 * (a + b));
  }
  d.floor = std::max(trace::kSketchFloor * std::max(rows[1].total_norm, 0.0), 2 * std::sqrt(rounding));
  return d;
}

Status PointComparer::CompareRecords(const TraceSpan& span, TracePoint* point, std::vector<bool>* equal) {
  Rows rows[2];
  for (int side : {0, 1}) {
    PB_ASSIGN(rows[side], RowsOf(span, side));
  }
  const Distances d = Measure(span, rows);
  *equal = d.equal;
  if (equal->empty()) equal->push_back(false);
  PointRow& row = point->row;
  row.n_features = span.first->num_elements / std::max<int64_t>(span.first->n_rows(), 1);
  const double norm = rows[1].total_norm;
  const bool all_equal = std::find(equal->begin(), equal->end(), false) == equal->end();
  if (all_equal) {
    point->confidence = Confidence::kExact;
    row.cosine = 1;
  } else if (d.total >= 0) {
    point->confidence = Confidence::kSketch;
    row.rel_l2 = Relative(d.total, norm);
    point->below_floor = d.total < d.floor;
  } else {
    point->confidence = Confidence::kDigest;
    row.rel_l2 = d.total_at_least >= 0 ? Relative(d.total_at_least, norm) : 0;
  }
  for (size_t i = 0; i < d.row.size(); ++i) {
    const double distance = point->confidence == Confidence::kDigest ? d.at_least[i] : d.row[i];
    const double rel = distance < 0 ? kUnknown : Relative(distance, rows[1].norm[i]);
    if (rel > row.worst_row || (row.worst_row_position < 0 && rel >= 0)) {
      row.worst_row = rel;
      row.worst_row_position = span.first_position + static_cast<int32_t>(i);
    }
  }
  JudgeRows(span, rows[1], d, point);
  return {};
}

// A row that differs is judged where its distance, less what a sketch may err, is above bound and
// floor: below the floor rounding and defect look alike.
void PointComparer::JudgeRows(const TraceSpan& span, const Rows& reference, const Distances& d,
                              TracePoint* point) const {
  const auto bound = BoundFor(span);
  if (!bound || d.row.empty()) return;
  const auto own = equal_.InputsEqual(point->row.stage, point->row.layer, span.first_position, span.n_rows);
  double allowed = 0, worst = 0;
  for (size_t i = 0; i < own.size(); ++i) {
    if (!own[i]) continue;
    ++point->n_own_rows;
    const auto position = span.first_position + static_cast<int64_t>(i);
    const double norm = std::max(reference.norm[i], 0.0), limit = bound->At(position) * norm;
    const double told = std::max(limit, trace::kSketchFloor * norm);
    allowed += told * told;
    if (point->own == OwnError::kNone) point->own = OwnError::kWithin;
    if (d.equal[i]) continue;
    const bool above =
        reference.norm[i] >= 0 && (d.row[i] / (1 + trace::kSketchError) > told || d.at_least[i] > limit);
    if (point->own != OwnError::kAbove) point->own = above ? OwnError::kAbove : OwnError::kUnknown;
    const double rel = Relative(std::max(d.row[i], d.at_least[i]), norm);
    if (!above || rel <= worst) continue;
    if (point->own_position < 0) point->own_position = static_cast<int32_t>(position);
    point->own_error = worst = rel;
    point->own_bound = bound->At(position);
    point->own_origin = bound->Origin();
  }
  const bool all_own = point->n_own_rows == span.n_rows;
  const bool rows_known = std::find(d.row.begin(), d.row.end(), kUnknown) == d.row.end();
  if (rows_known || !all_own || point->own == OwnError::kAbove || d.total < 0) return;
  if (d.total / (1 + trace::kSketchError) <= std::sqrt(allowed)) return;
  point->own = OwnError::kAbove;
  point->own_error = Relative(d.total, reference.total_norm);
  point->own_bound = bound->At(span.first_position);
  point->own_position = span.first_position;
  point->own_origin = bound->Origin();
}

}  // namespace pb::compare

// One point of two traces: how far apart, and which part of that is the op's own.
#ifndef PARITYBIT_COMPARE_TRACE_POINT_H_
#define PARITYBIT_COMPARE_TRACE_POINT_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "compare/local.h"
#include "compare/trace_diff.h"
#include "compare/trace_pairing.h"
#include "stages/stages.h"

namespace pb::compare {

// Which rows of which points have equal bits. Points are added in dependency order.
class EqualRows {
 public:
  // `unobservable`: what an engine computes inside another op, in whose place stand its own inputs.
  EqualRows(int32_t n_layers, stages::Set unobservable) : n_layers_(n_layers), unobservable_(unobservable) {}
  // Notes that a point was compared: rows from first_position on, equal or not.
  void Add(int32_t stage, int32_t layer, int64_t first_position, const std::vector<bool>& equal);
  // For rows from first_position on: whether all inputs of the op (vocabulary) have equal bits
  // there.
  std::vector<bool> InputsEqual(int32_t stage, int32_t layer, int64_t first_position, int64_t n_rows) const;
  // Whether nothing but elementwise ops is computed inside the op.
  bool IsAlone(int32_t stage, int32_t layer) const;

 private:
  using Key = std::pair<int32_t, int32_t>;  // stage, layer
  pb_visibility See(pb_stage stage, int32_t layer) const;

  int32_t n_layers_;
  stages::Set unobservable_;
  std::map<Key, std::vector<bool>> rows_;  // by position
};

// Compares the points of a pairing in its order.
class PointComparer {
 public:
  PointComparer(const trace::Trace& candidate, const trace::Trace& reference);

  // nothing: shape_problem says why the tensors cannot be compared.
  Result<std::optional<TracePoint>> Compare(const TraceSpan& span, std::string* shape_problem);

 private:
  struct Rows;       // what records tell of a span's rows, one side
  struct Distances;  // and of how far the two sides are apart
  Status CompareValues(const TraceSpan& span, TracePoint* point, std::vector<bool>* equal);
  Status CompareRecords(const TraceSpan& span, TracePoint* point, std::vector<bool>* equal);
  Result<std::vector<float>> Values(const TraceSpan& span, int side, int64_t n_keys) const;
  Result<Rows> RowsOf(const TraceSpan& span, int side);
  Distances Measure(const TraceSpan& span, const Rows (&rows)[2]) const;
  std::optional<LocalBound> BoundFor(const TraceSpan& span) const;
  Status JudgeValues(const TraceSpan& span, const PointTensor (&tensors)[2], TracePoint* point) const;
  void JudgeRows(const TraceSpan& span, const Rows& reference, const Distances& distances,
                 TracePoint* point) const;

  const trace::Trace* traces_[2];
  stages::ModelShape shape_;
  EqualRows equal_;
  trace::Sketcher sketcher_;
  bool same_seed_;
};

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_TRACE_POINT_H_

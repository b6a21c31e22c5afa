// What hypotheses about attention share: how its rows fall into heads, and errors held against what
// rounding allows.
#ifndef PARITYBIT_DIAGNOSE_ATTENTION_H_
#define PARITYBIT_DIAGNOSE_ATTENTION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "diagnose/hypotheses.h"
#include "diagnose/region.h"

namespace pb::diagnose {

// Rows of scores, probabilities or the context: n_heads runs of `run` values, over positions or in a head.
struct AttentionShape {
  AttentionShape(const FileArbiter& arbiter, const Culprit& c)
      : n(c.shape[0]),
        n_heads(std::max<int64_t>(arbiter.model().params().n_heads, 1)),
        n_kv(std::max<int64_t>(arbiter.model().params().n_kv_heads, 1)),
        scores(c.place.stage == PB_STAGE_ATTN_SCORES) {
    run = static_cast<int64_t>(c.reference.size()) / (n * n_heads);
  }
  int64_t group() const { return std::max<int64_t>(n_heads / n_kv, 1); }
  int64_t n, n_heads, n_kv, run = 0;
  bool scores;
};

// Squared error of some values and the square of what it may be.
struct LimitedError {
  double error = 0, limit = 0;
  bool within() const { return error <= limit; }
};

// The bound of an op, value by value.
class Limits {
 public:
  explicit Limits(const Subject& s) {
    if (s.units.empty()) {
      relative_ = s.culprit->bound.At(s.culprit->first_position + s.culprit->shape[0]);
    } else {
      const compare::LocalBound own =
          compare::BoundFromUnits(static_cast<pb_stage>(s.culprit->place.stage), s.units);
      per_unit_ = own.c * own.roundoff;
    }
  }
  // `unit`: of `y`; what is hidden in both is no error.
  void Add(float x, float y, float unit, LimitedError* to) const {
    const double e = x == y ? 0 : double(x) - double(y);
    const double limit = !std::isfinite(y) ? 0
                         : per_unit_ > 0   ? per_unit_ * double(unit)
                                           : relative_ * double(y);
    to->error += e * e, to->limit += limit * limit;
  }

 private:
  double relative_ = 0, per_unit_ = 0;
};

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_ATTENTION_H_

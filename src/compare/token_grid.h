// What each token has of a run's errors, at every stage and layer: what a picture of tokens and
// layers is drawn from. Judges nothing.
#ifndef PARITYBIT_COMPARE_TOKEN_GRID_H_
#define PARITYBIT_COMPARE_TOKEN_GRID_H_

#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "compare/local.h"

namespace pb::compare {

// One figure for each token at each point. What would take more than kMostValues of them is left
// out, and counted.
class TokenGrid {
 public:
  static constexpr int64_t kMostValues = int64_t{16} << 20;

  // Of the rows of a point, from place.first_position on.
  void Add(const PointPlace& place, std::span<const double> rows);

  // (prompt, stage, layer) -> figures by position; NaN: there is none.
  using Points = std::map<std::tuple<int32_t, int32_t, int32_t>, std::vector<float>>;
  const Points& points() const { return points_; }
  int64_t n_left_out() const { return n_left_out_; }

 private:
  Points points_;
  int64_t n_values_ = 0, n_left_out_ = 0;
};

// Both figures of a run, where they were asked for.
struct TokenErrors {
  TokenGrid local;        // over its bound, on equal inputs
  TokenGrid accumulated;  // rel-L2 as it arrived, in a free run
};

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_TOKEN_GRID_H_

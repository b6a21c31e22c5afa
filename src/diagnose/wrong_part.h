// Which part of an op's output is beyond its bound.
#ifndef PARITYBIT_DIAGNOSE_WRONG_PART_H_
#define PARITYBIT_DIAGNOSE_WRONG_PART_H_

#include <cstdint>
#include <span>
#include <vector>

#include "diagnose/hypotheses.h"
#include "diagnose/region.h"

namespace pb::diagnose {

struct WrongPart {
  // Columns and token rows whose error is beyond their bound, in order.
  std::vector<int64_t> features, rows;
  int64_t n_features = 0, n_rows = 0;
  bool all_features() const { return static_cast<int64_t>(features.size()) == n_features; }
  bool all_rows() const { return static_cast<int64_t>(rows.size()) == n_rows; }
  // Whether all rows behind the first wrong one are wrong.
  bool rows_are_last() const {
    return !rows.empty() && n_rows - rows.front() == static_cast<int64_t>(rows.size());
  }
  // Values that are in a wrong row and a wrong column.
  int64_t n_values() const { return static_cast<int64_t>(features.size() * rows.size()); }
  bool Holds(int64_t row, int64_t feature) const;
  // As one region: of features or heads; where all of these are wrong, of token rows.
  Region region;
  Region some_rows;  // the token rows that are wrong; unknown where they are all, or in no order
};

WrongPart FindWrongPart(const Subject& subject);

// Where a mistake in a part of an op is: of a product in the weights of these outputs, unless they
// are all, or the last ones, as a loop leaves them.
Where WhereOfPart(int32_t stage, const WrongPart& part);

// The declared values with those of `values` in the wrong rows.
std::vector<float> InRows(const Subject& subject, const WrongPart& part, std::span<const float> values);
// The declared values with those of `values` in the wrong part.
std::vector<float> InPart(const Subject& subject, const WrongPart& part, std::span<const float> values);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_WRONG_PART_H_

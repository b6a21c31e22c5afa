// How errors add up over the layers when nobody corrects them.
#ifndef PARITYBIT_REPORT_GROWTH_H_
#define PARITYBIT_REPORT_GROWTH_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "run/record.h"

namespace pb::report {

struct GrowthRow {
  int32_t layer = 0;
  // of the layer's output in the free run, prefill; the largest over prompts and pieces
  double rel_l2 = 0;
  double worst_row = 0;  // likewise, of a single token row
  // The reference's own noise at the same tensors: of the runs' rel-L2, median and largest, the
  // largest over prompts.
  struct Noise {
    double median = 0, largest = 0;
  };
  std::optional<Noise> noise;
};

// By layer, in order; empty where no layer's output was compared.
std::vector<GrowthRow> GrowthOf(const run::Comparison& comparison);

// One character a layer, or of several neighbours the largest, in at most `columns`: eight heights,
// one for each decade from 1e-8 to 1 (1e-7 and below are lowest); "_" is zero and "?" is not
// finite.
std::string GrowthCurve(std::span<const double> by_layer, size_t columns);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_GROWTH_H_

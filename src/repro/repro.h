// The smallest piece of a captured op that still shows what is wrong with it: one token row, of one
// head where there are heads, and a few of its output values; with all that these are computed
// from. Data for a stand-alone program (src/repro/program_main.cc).
#ifndef PARITYBIT_REPRO_REPRO_H_
#define PARITYBIT_REPRO_REPRO_H_

#include <string>
#include <utility>
#include <vector>

#include "diagnose/diagnose.h"

namespace pb::repro {

struct Repro {
  std::string formula;  // "product": which of the program's
  int32_t position = 0, token = -1;
  std::vector<int64_t> features;  // output columns, of n_features
  int64_t n_features = 0;
  bool two_files =
      false;  // the sides declare different things of this piece: there are fields "reference.NAME"
  compare::Blame shows =
      compare::Blame::kNone;  // what the program finds: candidate, reference, both or model-file
  // inputs that the arbiter computed, as an engine does not show them
  std::vector<std::string> recomputed;
  std::vector<std::pair<std::string, std::string>> fields;  // name and values, in order
};

// Whether there is a defect of an op to show: blame is candidate, reference, both, or a model file
// beside a good one.
bool HasRepro(const diagnose::Diagnosis& diagnosis);

// Cuts the piece out of a point that `diagnosis` explains: the values furthest beyond their own
// bounds c u unit (docs/numerics.md, "Diagnosis") at which the engine that is not to blame agrees.
// A value's bound is that of a tensor of this value alone, so where a tensor is beyond its bound
// one of its values is. kNotFound: nothing to show (HasRepro), or no value that tells the engines
// apart.
Result<Repro> BuildRepro(const diagnose::Culprit& culprit, const run::Comparison& comparison,
                         const diagnose::Diagnosis& diagnosis, const drive::EngineSpec& arbiter,
                         const host::Limits& limits);

}  // namespace pb::repro

#endif  // PARITYBIT_REPRO_REPRO_H_

// The generator: seeded defects over stage, part, time and amount, each with what is true of it,
// written down before anything looks for it.
#ifndef PARITYBIT_PLUGINS_MUTANT_DRAW_H_
#define PARITYBIT_PLUGINS_MUTANT_DRAW_H_

#include <string>
#include <vector>

#include "plugins/mutant/fault.h"

namespace pb::mutant {

// Of what is drawn and of the truths; to be raised with any change of either, as the first
// measurement of a version alone is one of defects that nobody knew (docs/held_out.md).
inline constexpr int kGeneratorVersion = 1;

struct Drawn {
  Fault fault;
  pb_stage stage;
  int32_t layer;     // -1: outside the layers
  std::string when;  // as mutant.when takes it
  // In the words of a finding's conclusion; alternatives that nothing outside the engine can tell
  // from each other stand between " | ". A variation's name that ends with "=" stands for its
  // beginning.
  std::string truth;
};

// The first n of the stream that `seed` begins for this model: more of them are the same and more.
std::vector<Drawn> Draw(const Model& model, uint64_t seed, int64_t n);
// What is true of a fault at an op, at such a time.
std::string TruthOf(const Fault& fault, const Op& op, const std::string& when);

}  // namespace pb::mutant

#endif  // PARITYBIT_PLUGINS_MUTANT_DRAW_H_

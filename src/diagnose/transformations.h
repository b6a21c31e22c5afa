// Hypotheses that no variation of the op expresses: its output transformed, with numbers fitted to what the engine gave.
#ifndef PARITYBIT_DIAGNOSE_TRANSFORMATIONS_H_
#define PARITYBIT_DIAGNOSE_TRANSFORMATIONS_H_

#include <string>
#include <vector>

#include "diagnose/hypotheses.h"

namespace pb::diagnose {

// What the output would be under a hypothesis; fields as in Trial.
struct Guess {
  std::string name, text, short_text;
  int n_fitted = 0;
  std::vector<float> output;
  std::vector<float> units;  // empty: those of what the op should give
};

// Those that apply to the op. Each is a guess: whether it explains the output is the caller's to verify.
std::vector<Guess> Transformations(const Subject& subject);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_TRANSFORMATIONS_H_

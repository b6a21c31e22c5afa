// When a mistake is made, from the passes in which its op was judged.
#ifndef PARITYBIT_DIAGNOSE_WHEN_H_
#define PARITYBIT_DIAGNOSE_WHEN_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compare/types.h"
#include "diagnose/conclusion.h"

namespace pb::diagnose {

// The op in one evaluation.
struct SeenPass {
  int64_t n_tokens = 0, first_position = 0;
  bool wrong = false;
  int64_t first_wrong = -1;  // position of the first wrong row; -1: not known, or none is
  int64_t threads = 1;
  int64_t end() const { return first_position + n_tokens; }
};

SeenPass SeenAs(const compare::PointRow& row);

// What tells the wrong passes from the right ones, where one thing alone does; always, where all are
// wrong, a single token's and five sizes of several. `positions`: whether rows that are right in a wrong pass are
// so by their position, and not because the mistake does not show in them.
When WhenOf(std::span<const SeenPass> passes, bool positions);

// "in decode only"; empty: always, or not known.
std::string WhenWords(const When& when);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_WHEN_H_

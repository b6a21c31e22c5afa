// When a mistake is made, from the passes in which its op was judged.
#ifndef PARITYBIT_DIAGNOSE_WHEN_H_
#define PARITYBIT_DIAGNOSE_WHEN_H_

#include <cstdint>
#include <optional>
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
  // Before the first wrong row the last that is right although the mistake would show in it; -1: there
  // is none.
  int64_t last_right = -1;
  bool mixed = false;         // such a row stands behind the first wrong one
  bool shows = false;         // it is known that the mistake would show in this pass
  bool other_tokens = false;  // than the run had at these positions
  bool differs = false;       // evaluated once more on equal inputs, the op gave something else
  int64_t end() const { return first_position + n_tokens; }
};

// Adds the pass in which an op gave these rows. `further`: they are a further piece of the pass before.
void AddSeen(const compare::PointRow& row, bool further, std::vector<SeenPass>* passes);

// What tells the wrong passes from the right ones, where one thing alone does; always, where all are
// wrong, a single token's and five sizes of several. `positions`: whether rows that are right in a wrong
// pass are so by their position, and not because the mistake does not show in them; it need not be known
// where other tokens part at the same position.
When WhenOf(std::span<const SeenPass> passes, bool positions);

// The position from which on rows are wrong, if it is that which tells them from right ones; -1: there is
// none.
int64_t FirstWrongPosition(std::span<const SeenPass> passes);

// How many tokens a pass from position 0 on should have to narrow down a size that parts wrong passes
// from right ones; nothing: it is known, or no size parts them.
std::optional<int64_t> NextSize(std::span<const SeenPass> passes);

// "in decode only"; empty: always, or not known.
std::string WhenWords(const When& when);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_WHEN_H_

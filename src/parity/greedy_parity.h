// Do two engines choose the same tokens? Prompts given or made at random; the first token that
// differs, the margin there, and whether the reference's noise explains it (docs/numerics.md, "Greedy
// tokens").
#ifndef PARITYBIT_PARITY_GREEDY_PARITY_H_
#define PARITYBIT_PARITY_GREEDY_PARITY_H_

#include <optional>
#include <string>
#include <vector>

#include "run/record.h"
#include "run/request.h"

namespace pb::parity {

struct GreedyRequest {
  run::Request pair;  // its prompts, all of which are compared; none: random ones
  int examples = 40;  // random prompts; the first that fails is shrunk and ends the search
  uint64_t seed = 0;
  int max_tokens = 32;
  int max_shrinks = 200;  // prompts tried in search of a smaller one
  bool resume = true;     // prompts that an interrupted run found equal are not run again
};

// A position where the engines choose differently.
struct Flip {
  int32_t step = 0, position = 0;  // step 0 chooses the first token after the prompt
  int32_t chosen[2] = {-1, -1};    // candidate, reference
  double margin = 0;               // log p of the reference's choice less that of its second, there
  double change = 0;               // of the gap between the two chosen tokens (LogitsRow::gap_change)
  bool explained = false;          // change is within the noise's limit
};

struct GreedyRow {
  std::string text, origin;
  std::vector<int32_t> tokens, decoded;  // ids of the prompt; the reference's choices
  int32_t n_compared = 0;                // tokens chosen, up to one that ends the text
  std::vector<Flip> flips;               // along the reference's path
  bool from_cache = false;               // an interrupted run compared it
  bool failed() const {
    for (const Flip& flip : flips)
      if (!flip.explained) return true;
    return false;
  }
};

struct GreedyParity {
  run::Comparison run;  // no prompts, no rows
  std::vector<GreedyRow> rows;
  // The smallest prompt found that still fails; none: nothing fails, or prompts were given.
  std::optional<GreedyRow> smallest;
  int n_shrinks = 0;
  bool is_minimal = true;
  double gap_limit = 0;  // in force at the end; nats
  int64_t n_tokens = 0, n_flips = 0;
};

Result<GreedyParity> CompareGreedy(const GreedyRequest& request);

}  // namespace pb::parity

#endif  // PARITYBIT_PARITY_GREEDY_PARITY_H_

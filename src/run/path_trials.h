// The comparisons that go through code paths which another one left out: what each is of, apart from
// the engines and the model (crossval --paths all, self-check --generated).
#ifndef PARITYBIT_RUN_PATH_TRIALS_H_
#define PARITYBIT_RUN_PATH_TRIALS_H_

#include <optional>
#include <string>
#include <vector>

#include "run/record.h"

namespace pb::run {

struct PathTrial {
  std::string name;  // "two threads"
  std::string prompt;
  int32_t steps = 0;       // decode steps
  std::string key, value;  // a setting of both engines; empty: none
  // After how long it is given up; 0: not at all.
  double seconds = 0;
};

// Those that may go through a path that is left, the cheapest first. `text`: what long prompts are cut
// from.
std::vector<PathTrial> PathTrials(const Comparison& plain, const std::string& text);
// The same of a shorter prompt, for where it is longer than the model's context, which is known only
// once it was tokenised; nothing: any model takes it.
std::optional<PathTrial> Shorter(const PathTrial& trial);
// Whether what a comparison says is about the engines, and not that it could not be made.
bool FindsInEngines(const compare::Verdict& verdict);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_PATH_TRIALS_H_

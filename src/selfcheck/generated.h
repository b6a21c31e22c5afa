// How much is seen of defects that nobody listed: what a self-check of generated defects comes to.
#ifndef PARITYBIT_SELFCHECK_GENERATED_H_
#define PARITYBIT_SELFCHECK_GENERATED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "diagnose/conclusion.h"
#include "selfcheck/self_check.h"

namespace pb::selfcheck {

// Alternatives of a truth, between " | "; kUsage: one is no conclusion.
Result<std::vector<diagnose::Conclusion>> ParseTruth(const std::string& text);
// What was said against the alternative that it fits best. A true name of a variation that ends with
// "=" stands for its beginning.
diagnose::Match MatchTruth(const diagnose::Conclusion& said, const std::vector<diagnose::Conclusion>& truths);
const char* MatchName(diagnose::Match match);  // "right" "partial" "nothing" "wrong"

// The upper end of the one-sided 95 % interval for a share of which n trials showed x (Clopper,
// Pearson 1934); 1 where nothing was tried.
double UpperLimit(int64_t x, int64_t n);

// One line of the table. Counts are of defects that count.
struct GeneratedRow {
  std::string kind;
  int64_t n = 0, plain = 0, found = 0, placed = 0, blamed = 0, both = 0;  // both: placed and blamed
  int64_t right = 0, partial = 0, nothing = 0, wrong = 0;
  int64_t skipped = 0, failed = 0;
};
struct Goal {
  std::string text;
  bool holds = false;
};
struct GeneratedTable {
  std::vector<GeneratedRow> rows;  // by kind
  GeneratedRow total;
  int64_t n_benign = 0, n_unchanged = 0, n_alarms = 0, n_benign_failed = 0;
  std::vector<const SelfResult*> misses;  // what is not as a goal has it
  std::vector<Goal> goals;
  bool complete() const { return total.n + total.skipped > 0 && total.failed + n_benign_failed == 0; }
};
// `results` outlive it.
GeneratedTable CountGenerated(const std::vector<SelfResult>& results);

}  // namespace pb::selfcheck

#endif  // PARITYBIT_SELFCHECK_GENERATED_H_

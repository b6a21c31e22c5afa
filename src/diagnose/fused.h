// Attention that an engine computes as one op, taken apart: its scores, probabilities and context as the
// arbiter has them of the same queries, keys and values.
#ifndef PARITYBIT_DIAGNOSE_FUSED_H_
#define PARITYBIT_DIAGNOSE_FUSED_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "diagnose/hypotheses.h"

namespace pb::diagnose {

class FusedAttention {
 public:
  // nullopt: the op is none, or its inputs were not recorded.
  static std::optional<FusedAttention> Of(FileArbiter& arbiter, const Culprit& culprit);

  // Of other keys than the recorded ones: (n_rows, n_heads, n_positions), hidden ones minus infinity.
  Result<Recorded> Scores(Recorded keys, const std::string& variation = "") const;
  Result<Recorded> Probabilities(Recorded scores) const;
  // (n_rows, n_heads * head_dim)
  Result<Expectation> Context(Recorded scores, Recorded values, const std::string& variation = "") const;

  int64_t n_positions() const { return keys.shape.front(); }

  Recorded queries, keys, values;  // keys and values: of all positions

 private:
  FusedAttention(FileArbiter& arbiter, const Culprit& c)
      : arbiter_(&arbiter), layer_(c.place.layer), first_position_(c.first_position) {}
  FileArbiter* arbiter_;
  int32_t layer_, first_position_;
};

// Of a row: the logarithm of what the exponentials of its scores are divided by to make the probabilities,
// among them those of a sink.
double LogOfSum(std::span<const float> scores, std::span<const float> probabilities);

// Values of weighted means, and what each cell adds to their sums where it is otherwise.
struct MeanTable {
  int64_t n_values = 0, width = 0;
  std::vector<double> top, bottom;      // (n_values, width): of the weighted values, of the weights
  std::vector<double> declared, given;  // (n_values); declared: over weights whose sum is 1
};
// The run of cells which, all of them otherwise, comes nearest to what is given; the shortest of those
// that come equally near. Nothing: none comes nearer than what is declared.
struct CellRun {
  int64_t first = 0, last = 0;
  double rest = 1;  // ||given - with the run|| / ||given - declared||
};
std::optional<CellRun> FindCellRun(const MeanTable& table);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_FUSED_H_

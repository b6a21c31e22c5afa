// Some of a product's token rows: what many hypotheses are tried on where a replay of all rows
// takes too long.
#ifndef PARITYBIT_DIAGNOSE_PART_H_
#define PARITYBIT_DIAGNOSE_PART_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "diagnose/hypotheses.h"

namespace pb::diagnose {

// Multiply-adds of the op where it is a product, which the arbiter does in fp64; 0 where it is
// none.
double ProductWork(const Subject& subject);

// Which rows to try `n` on, in order: half of them those whose output is farthest from the declared
// one (relative error in l2), the others evenly spaced among the rest. All rows where there are no
// more than n.
std::vector<int64_t> ChooseRows(std::span<const float> output, std::span<const float> declared,
                                int64_t n_rows, int64_t n);

// Some rows of a product as a subject of its own. The rows of a product do not depend on each other
// nor on their positions.
class Part {
 public:
  // As many rows as `work` multiply-adds do, two at least. nullopt: that is all of them, or the
  // product's input was not recorded.
  static std::optional<Part> Of(const Subject& whole, double work);

  // Views this.
  Subject subject() const;

 private:
  Subject whole_;
  Culprit culprit_;
  std::vector<float> output_, declared_, units_;
};

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_PART_H_

// A product as the sum of its terms: which of them, taken otherwise, make the output that an engine
// gave. Pure linear algebra on matrices that are given.
#ifndef PARITYBIT_DIAGNOSE_TERMS_H_
#define PARITYBIT_DIAGNOSE_TERMS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "diagnose/region.h"

namespace pb::diagnose {

// Output (i, j) is the sum over k of x(i, k) w(j, k).
struct Terms {
  int64_t n_rows = 0, n_outputs = 0, width = 0;
  std::vector<double> x;  // (n_rows, width)
  std::vector<float> w;   // (n_outputs, width)
};

// How the terms of each k are taken, over how they should be: 0 is right, -1 leaves them out.
struct Coefficients {
  std::vector<double> change;  // (width), by least squares
  std::vector<double> spread;  // (width): what `noise` may move it by
  double rest = 1;             // ||residual - that of the changes|| / ||residual||
};

// Fits the changes that give `residual` (n_rows, n_outputs). `noise`: what rounding makes of one
// value of it. Nothing: there are too few values for so many terms.
std::optional<Coefficients> FitChanges(const Terms& terms, std::span<const double> residual, double noise);

// The marks of all k, and the change that those have in common which are wrong: 0 where they have
// none.
struct TermMarks {
  std::vector<Mark> marks;
  double change = 0;
};
TermMarks MarksOf(const Coefficients& fit);

// The last n terms whose like change gives the residual to within `rest` of it, the fewest; n is 0
// where none do. Takes as many values as there are, one at least twice.
struct Tail {
  int64_t n = 0;
  double change = 0;
};
Tail FindTail(const Terms& terms, std::span<const double> residual, double rest);

// What each term adds to each of some values of the output.
struct TermTable {
  int64_t n_values = 0, width = 0;
  std::vector<double> t;  // (n_values, width)
};
// Terms k, k + period, ... as one.
TermTable Folded(const TermTable& table, int64_t period);

// A run of terms that are taken otherwise.
struct TermRun {
  int64_t first = 0, last = 0;
  double change = 0;  // as Coefficients::change
  int64_t from = 0;   // the first of the terms that are taken in their place; -1: none are
  double rest = 1;    // as Coefficients::rest
};
// The run whose like change comes nearest to the residual, the shortest of those that come equally
// near. `groups`: terms that go with all terms of a group alone, width / groups.width each (a stored
// sum); null: there are none, else runs that hold no whole group are not looked at.
std::optional<TermRun> FindRun(const TermTable& table, const TermTable* groups,
                               std::span<const double> residual);
// The same of runs in whose place the terms as many before, or behind, are taken.
std::optional<TermRun> FindRepeatedRun(const TermTable& table, const TermTable* groups,
                                       std::span<const double> residual);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_TERMS_H_

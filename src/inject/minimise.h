// The smallest part of a whole that still does what the whole does: delta debugging.
#ifndef PARITYBIT_INJECT_MINIMISE_H_
#define PARITYBIT_INJECT_MINIMISE_H_

#include <cstddef>
#include <functional>
#include <vector>

#include "base/result.h"

namespace pb::inject {

// Indices in rising order.
using Subset = std::vector<size_t>;
using SubsetTest = std::function<Result<bool>(const Subset&)>;

// Shrinks `whole`, for which `test` holds, to a subset for which it holds and which is 1-minimal:
// without any one of its elements the test fails, and has been seen to fail (ddmin: Zeller,
// Hildebrandt 2002). Assumes nothing about the test, least of all that more elements are better. At
// most O(n^2) tests, O(log n) where one element decides. The caller keeps results it does not want
// to compute twice. An error of the test ends the search.
Result<Subset> Minimise(Subset whole, const SubsetTest& test);

}  // namespace pb::inject

#endif  // PARITYBIT_INJECT_MINIMISE_H_

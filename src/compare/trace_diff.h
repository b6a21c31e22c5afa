// Two traces against each other. What they tell of a point is stated with its confidence; an error
// is judged only where its op had bit-equal inputs in both traces, or where the user set a limit:
// any other error arrived and proves nothing. What has arrived at the logits is held against the
// reference's noise floor, where there is one.
#ifndef PARITYBIT_COMPARE_TRACE_DIFF_H_
#define PARITYBIT_COMPARE_TRACE_DIFF_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "compare/noise_floor.h"
#include "compare/types.h"
#include "trace/filter.h"
#include "trace/reader.h"

namespace pb::compare {

// What two traces can tell of a point's distance.
enum class Confidence {
  kExact,   // both hold the values, or digests are equal
  kSketch,  // within +-25 % in 99 of 100 cases, above a floor of 1e-3
  kDigest,  // equal or not; of the distance a lower bound from the sizes
};
const char* ConfidenceName(Confidence c);  // "exact" "sketch" "digest"

// What is known of a point's own error, on the rows whose inputs have equal bits in both traces.
enum class OwnError {
  kNone,
  kWithin,
  kAbove,
  kUnknown
};                                     // no such row; rounding; more than that; cannot be told
const char* OwnErrorName(OwnError e);  // "unjudged" "within" "above" "unknown"

// One point, or piece of its rows. `row` has the figures of docs/numerics.md; from sketches rel_l2
// and worst_row are estimates and the others are not known; from digests rel_l2 is a lower bound.
struct TracePoint {
  PointRow row;
  std::string stage;  // name; of the vocabulary or the engine's own
  Confidence confidence = Confidence::kDigest;
  bool equal = false;        // all rows have equal bits
  bool below_floor = false;  // from sketches: too near to tell how far
  int32_t max_abs_position = -1;
  int64_t max_abs_feature = -1;
  std::string blake3[2];  // candidate, reference, of the first record each

  int64_t n_own_rows = 0;  // with equal inputs
  OwnError own = OwnError::kNone;
  double own_error = 0, own_bound = 0;  // of the worst such row or feature
  int32_t own_position = -1;
  std::optional<int64_t> own_feature;  // where one column alone is wrong
  std::string own_origin;              // of the bound
};

struct TraceDiffOptions {
  // the largest rel-L2 of a row (of a tensor where rows are not known)
  std::optional<double> max_rel_l2;
  bool different_models = false;  // two model files on purpose
  trace::PointFilter filter;      // points to compare
  // The reference's noise floor over its first n tokens; asked for where points differ and no op's
  // own error decides. An Error says why there is none. Empty: there is none.
  std::function<Result<NoiseFloor>(int64_t n_tokens)> floor = {};
};

struct TraceDiff {
  // coverage counts points; a piece of a point's rows counts by itself
  Verdict verdict;
  std::vector<TracePoint> points;  // in dependency order, step by step
  int64_t n_equal = 0;
  // index of the first point that differs; diverged only where the verdict says so
  std::optional<size_t> first_difference;
  std::vector<LogitsRow> logits;  // of every shared position; empty: the traces do not tell them
  // from values; else by the likeliest tokens of each row (CompareTops)
  bool logits_exact = true;
  std::vector<std::string> shapes, dtypes;  // points whose shape or dtype differs
  std::vector<std::string> notes;
};

// kMalformed or kIo: a payload that is cut off or holds other values than its record says.
Result<TraceDiff> DiffTraces(const trace::Trace& candidate, const trace::Trace& reference,
                             const TraceDiffOptions& options);

}  // namespace pb::compare

#endif  // PARITYBIT_COMPARE_TRACE_DIFF_H_

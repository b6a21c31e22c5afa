// A quantised product taken apart: the codes that each engine makes of the op's input, told by the
// engines themselves, the integer sums that follow from them, and whether an engine's output is
// what its own codes make.
#ifndef PARITYBIT_DIAGNOSE_CODE_EVIDENCE_H_
#define PARITYBIT_DIAGNOSE_CODE_EVIDENCE_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "diagnose/capture.h"
#include "host/engine.h"
#include "model/model.h"

namespace pb::diagnose {

// One engine at the op.
struct CodeSide {
  std::string role;                  // "candidate" "reference" "arbiter"
  std::optional<host::Codes> codes;  // of all rows of the op
  std::string why_none;              // where there are none
  // Output against the exact sum over its codes and the weights of its file, in the rows that were
  // summed; -1: not compared.
  double sum_error = -1, sum_bound_ratio = -1;
  bool FollowsFromCodes() const { return sum_bound_ratio >= 0 && sum_bound_ratio <= 1; }
  // Outputs that have the very bits of the library's scalar product of the codes
  // (pb_codes.products), of those compared.
  int64_t n_products = 0, n_products_equal = 0;
  double product_bound_ratio = -1;
};

// Codes of two engines for the same input.
struct CodePair {
  std::string first, second;  // roles
  int64_t block[2] = {0, 0};
  bool comparable = false;  // blocks of one length; else the figures below are 0
  int64_t n_codes = 0, n_differ = 0;
  // of those that differ: by one step, at a value on a rounding boundary
  int64_t n_on_boundary = 0;
  int64_t largest_step = 0;
  // the first that differs and is not on a boundary; -1: none
  int64_t off_row = -1, off_column = -1;
  int64_t n_scales = 0, n_scales_equal = 0, n_scales_on_boundary = 0;
  // sums stored with the block (q8_1), where both have them
  int64_t n_stored = 0, n_stored_equal = 0, n_stored_on_boundary = 0;
  // int32 sums of codes x integer weights, one for each block of each output, in the rows that were
  // summed.
  int64_t n_sums = 0, n_sums_differ = 0;

  // Nothing differs but what two correct quantisers may round differently.
  bool OnlyBoundaries() const {
    return comparable && n_codes > 0 && n_differ == n_on_boundary &&
           n_scales == n_scales_equal + n_scales_on_boundary &&
           n_stored == n_stored_equal + n_stored_on_boundary;
  }
};

struct CodeEvidence {
  std::vector<CodeSide> sides;
  std::vector<CodePair> pairs;
  std::vector<int64_t> rows;  // indices of the op's rows that were summed
  std::vector<std::string> Sentences() const;
};

// What an op is judged by: an engine's output, the file it read, and units of the exact result (may
// be empty: the culprit's bound).
struct CodeSubject {
  std::string role;
  Result<host::Codes> codes;
  const Model* model = nullptr;
  std::span<const float> output;
  std::span<const float> units;
};

// Compares all subjects with each other. `input`: (n_rows, K). Nothing: the op is no product, or no
// subject has codes.
std::optional<CodeEvidence> CompareCodes(const Culprit& culprit, std::span<const float> input,
                                         std::span<const CodeSubject> subjects);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_CODE_EVIDENCE_H_

// Finds NaN and infinity in a file's tensors, by their floats alone: of block formats these are the
// scales.
#ifndef PARITYBIT_FORMATS_NON_FINITE_H_
#define PARITYBIT_FORMATS_NON_FINITE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "formats/gguf.h"

namespace pb {

struct NonFiniteTensor {
  std::string tensor;
  bool one_row = false;               // a vector: its columns are told instead of rows
  int64_t n_rows = 0;                 // rows (of a vector: columns) that hold any
  std::vector<int64_t> rows;          // the first of them
  int64_t n_nan = 0, n_infinite = 0;  // floats that are so
  // "token_embd.weight, row 300, holds NaN"; "..., rows 3, 7 and 12 more, hold NaN and infinity"
  std::string Text() const;
};

// In order of the file. Types whose layout is not known are passed over; each float is looked at
// once, a few GB a second.
std::vector<NonFiniteTensor> FindNonFinite(const GgufFile& file);

}  // namespace pb

#endif  // PARITYBIT_FORMATS_NON_FINITE_H_

// Which of a quantiser's codes, scales or stored sums are wrong, and what they are instead.
#ifndef PARITYBIT_DIAGNOSE_CODE_PART_H_
#define PARITYBIT_DIAGNOSE_CODE_PART_H_

#include <span>

#include "diagnose/conclusion.h"
#include "host/engine.h"

namespace pb::diagnose {

// Of codes: columns, or places in every block, and an offset; all, where they end at a magnitude, or
// are cut off. Of scales: blocks and a factor; all,
// where they are another function of the input (cut off to f16: truncation); the places of every
// block that the largest value is taken of. Of sums: blocks, absent; the places of every block that
// are left out; all, shifted. What: where all that are wrong agree on it. Unknown where no region
// holds them. Both of one op, with blocks of one length, of `input` (n_rows, K); `where`: kCodes,
// kScales or kSums. Rows in which nothing differs do not count.
struct CodePart {
  Region part;
  WhatKind what = WhatKind::kUnknown;
  double value = 0;
};
CodePart FindCodePart(const host::Codes& wrong, const host::Codes& right, std::span<const float> input,
                      Where where);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_CODE_PART_H_

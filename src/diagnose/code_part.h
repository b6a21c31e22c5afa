// Which of a quantiser's codes, scales or stored sums are wrong, and what they are instead.
#ifndef PARITYBIT_DIAGNOSE_CODE_PART_H_
#define PARITYBIT_DIAGNOSE_CODE_PART_H_

#include "diagnose/conclusion.h"
#include "host/engine.h"

namespace pb::diagnose {

// Of codes: columns, or places in every block; of scales and sums: blocks. What: an offset of codes, a
// factor of scales, absent sums, where all that are wrong agree on it. Unknown where no region holds
// them. Both of one op, with blocks of one length; `where`: kCodes, kScales or kSums.
struct CodePart {
  Region part;
  WhatKind what = WhatKind::kUnknown;
  double value = 0;
};
CodePart FindCodePart(const host::Codes& wrong, const host::Codes& right, Where where);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_CODE_PART_H_

// What a finding comes to, in a closed vocabulary: where inside the op, which part of it, when, and
// what. Each member says no more than the evidence does; "unknown" is a member's honest value.
#ifndef PARITYBIT_DIAGNOSE_CONCLUSION_H_
#define PARITYBIT_DIAGNOSE_CONCLUSION_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pb::diagnose {

// Where inside the engine's op the mistake is made.
enum class Where : uint8_t {
  kUnknown,
  kTokens,        // ids are made of the text otherwise
  kCodes,         // the quantiser of a product's input: its codes
  kScales,        // its scales
  kSums,          // the sums that it stores beside the codes (Q8_1, Q8_K)
  kProduct,       // the product is not what its own codes and weights make
  kWeights,       // weights are read as others than the file holds
  kFormula,       // an elementwise formula, a norm, a softmax, a rotation
  kCacheWritten,  // keys or values are put into the cache otherwise than they were made
  kCacheRead,     // what is right in the cache is read as something else
  kMask,          // positions are seen, or hidden, that the model does not
  kThread,        // the share of one thread
  kCount
};

// What a part is counted in.
enum class Axis : uint8_t {
  kUnknown,
  kAll,        // every value
  kColumns,    // of the weight: values of the op's input, 0 to K - 1
  kBlocks,     // of the quantised input row
  kCode,       // the same place in every block
  kFeatures,   // output columns of the op (rows of the weight)
  kHeads,      //
  kRows,       // token rows of the pass
  kPositions,  // of keys, where a row is over positions
  kCount
};

// A range of an axis, by steps: first, first + every, ... up to last.
struct Region {
  Axis axis = Axis::kUnknown;
  int64_t first = 0, last = 0;  // inclusive; of no meaning for kUnknown and kAll
  int64_t every = 1;
  int64_t of = 0;  // length of the axis; 0: not known
  bool operator==(const Region&) const = default;
};

enum class WhenKind : uint8_t {
  kUnknown,
  kAlways,
  kPrefill,        // in passes of several tokens alone
  kDecode,         // in passes of one token alone
  kFromBatch,      // in passes of n tokens and more
  kUpToBatch,      // in passes of n tokens and fewer, more than one among them
  kOddBatch,       // in passes whose tokens are no multiple of n
  kFromPosition,   // at positions n and above
  kThreads,        // with n threads and more alone
  kNotRepeatable,  // equal evaluations differ
  kCount
};
struct When {
  WhenKind kind = WhenKind::kUnknown;
  int64_t n = 0;
  bool operator==(const When&) const = default;
};

enum class WhatKind : uint8_t {
  kUnknown,
  kVariation,    // a named one: Conclusion::name
  kFactor,       // the part is `value` times what it should be
  kOffset,       // `value` is added to the part
  kSaturation,   // magnitudes end at `value`
  kTruncation,   // rounding is towards zero or down
  kAbsent,       // the part is left out, or the op is
  kOtherPart,    // the part is another part of the same tensor: permuted, shifted, repeated
  kOtherTensor,  // another tensor stands in its place
  kStale,        // values of an earlier pass or position
  kNonFinite,    // NaN or infinite
  kCount
};

struct Conclusion {
  Where where = Where::kUnknown;
  Region part;
  When when;
  WhatKind what = WhatKind::kUnknown;
  double value = 0;  // of a factor, an offset, a saturation; else 0
  std::string name;  // of the variation that explains it: "ffn.activation=silu"; empty: none
  // The nearest variation where none explains it, and its residual over the bound.
  std::string nearest;
  double nearest_ratio = 0;
};

// Words of the vocabulary as they stand in JSON: "cache-written", "columns", "from-batch", ...
const char* WhereName(Where where);
const char* AxisName(Axis axis);
const char* WhenName(WhenKind when);
const char* WhatName(WhatKind what);

// A part as it stands there: "columns:3-63%4/64"; a time: "from-batch:32".
std::string PartText(const Region& part);
std::string WhenText(const When& when);
// One line: "where=product part=columns:60-63/64 when=decode what=absent". A part's step stands
// behind "%": "columns:3-63%4/64"; numbers of `when` and `what` behind ":": "from-batch:32",
// "factor:1.05", and a variation's name: "variation:ffn.activation=silu". Members that are unknown
// are left out; "unknown" when all are.
std::string ConclusionText(const Conclusion& conclusion);
// The inverse. Errors: kUsage, with the word.
Result<Conclusion> ParseConclusion(std::string_view text);

// A conclusion against the truth, written down beforehand.
enum class Match : uint8_t {
  kRight,    // all members
  kPartial,  // where and part; the others right or unknown
  kNothing,  // no member false, too few said
  kWrong,    // a false member
};
// Numbers are equal within a relative 1e-3; an axis whose length is not known on one side is not
// compared in it; a truth's unknown member accepts what is said.
Match Compare(const Conclusion& said, const Conclusion& truth);

}  // namespace pb::diagnose

#endif  // PARITYBIT_DIAGNOSE_CONCLUSION_H_

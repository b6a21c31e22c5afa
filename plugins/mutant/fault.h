// Defects that are spelled rather than listed: what, upon which part, by how much. The generator
// (draw.h) draws them; a spelling commits the same defect again.
//
//   NAME[@FIRST[-LAST][%EVERY]][:AMOUNT]      columns_absent@252-255, codes_off@7:1
#ifndef PARITYBIT_PLUGINS_MUTANT_FAULT_H_
#define PARITYBIT_PLUGINS_MUTANT_FAULT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/mutant/plain.h"

namespace pb::mutant {

// What the places of a fault's part are counted in.
enum class FaultAxis { kNone, kColumns, kBlocks, kCode, kFeatures, kHeads, kPositions };

// Places first, first + every, ... up to last. Without a part: all of the axis.
struct FaultPart {
  int64_t first = 0, last = -1, every = 1;
  bool all() const { return last < 0; }
  bool Contains(int64_t at) const {
    return all() || (at >= first && at <= last && (at - first) % every == 0);
  }
};

enum class FaultId {
  // The quantiser of a product's input.
  kCodesOff,
  kCodesTruncated,
  kCodesFloored,
  kCodesClamped,
  kAmaxOfPart,  // the largest magnitude is looked for in this part of a block
  kLevels,      // 128 for 127
  kScalesFactor,
  kScalesUnrounded,
  kScalesTruncated,
  kSumsAbsent,
  kSumsShifted,
  kSumsWithout,  // these places of a block
  kSumsOfValues,
  // The product.
  kColumnsAbsent,
  kCodeAbsent,
  kBlocksAbsent,
  kColumnsRepeated,  // those before them stand in their place
  kFeaturesAbsent,
  kLanesLost,  // of these features one accumulator of AMOUNT
  kProductFactor,
  // Weights as they are read.
  kRowsShifted,   // of these outputs the row AMOUNT further on
  kWeightBlock,   // this block of row AMOUNT is zeros
  kNibbles,       // exchanged in each byte
  kNoMinimum,     // what the format adds to scale times code is not added
  kOthersScale,   // each block has the next one's scale
  kWeightFactor,  // these rows are AMOUNT times themselves
  // Elementwise: any op's output values.
  kFactor,
  kHeadFactor,
  kOffset,
  kSaturated,
  kTruncated,  // to 8 bits of mantissa
  kHalf,       // through f16
  kLeftOut,    // the op is
  kHeadLeftOut,
  kOtherPart,  // features AMOUNT further on stand there
  // The cache.
  kCellAbsent,
  kCellOfBefore,
  kCellOfNext,
  kHeadUnwritten,
  kUnrotated,
  kOwnOfBefore,
  kReadBefore,
  kOtherHead,
  // The mask.
  kPositionHidden,
  kMaskShifted,
  kWindow,
  // The last share of two threads: features.
  kShareAbsent,
  kShareRepeated,
  // Spelled alone: the generator draws none of these.
  kGroupSumsWithout,    // these places of a block, of the sums that lower codes of weights
  kGroupSumsSaturated,  // at AMOUNT, in codes
  kMinimaOf,            // each group of weights has the minimum of that AMOUNT further on in its block of 256
  kBitsLost,            // of these bytes of each block of weights the bits AMOUNT
  kGroupScale,          // these bytes of each block are those AMOUNT further on
  kHeadColumnsAbsent,   // of each head's keys
  kSquaresWithout,      // these values, of a norm's mean of squares
  kEpsOutside,          // of the root
  kUnweighted,          // these features of a norm
  kPairFrequency,       // that of the pair AMOUNT further on
  kPairsLeft,           // the last AMOUNT of each head are not rotated
  kNotRescaled,         // where a larger score comes: the sum of values (AMOUNT 1), that of exponentials (2)
};

struct FaultKind {
  FaultId id;
  const char* name;
  const char* kind;  // a row of the table of results
  stages::Set at;
  FaultAxis axis;
  bool needs_part;
  bool has_amount;
  bool drawn = true;  // by the generator
};

struct Fault {
  const FaultKind* kind = nullptr;
  FaultPart part;
  double amount = 0;
};

std::span<const FaultKind> FaultKinds();
// kUsage: no such fault, a part or an amount that it does not take, or none where it needs one.
Result<Fault> ParseFault(std::string_view text);
std::string FaultText(const Fault& fault);
// Places of the fault's axis at an op; 0 where they are not fixed (positions) or there are none.
int64_t AxisLength(const Fault& fault, const Op& op);
// Why the fault does not exist at this op of this model; empty: it does.
std::string Obstacle(const Fault& fault, const Op& op);
// Changes op.out, which holds what is right.
void Commit(const Fault& fault, Op& op);

// A row as a product sees it under a fault of the quantiser, or under a harmless change of it.
struct CodedRow {
  int64_t block = 0;
  std::vector<double> codes;
  std::vector<double> scales;  // one a block
  int64_t sum_group = 0;       // values of a stored sum; 0: the scheme stores none
  std::vector<double> sums;
};
// Whether it changes codes, scales or sums, so that an engine that has it tells others.
bool ChangesCodes(const Fault& fault);
CodedRow CodeRow(const float* x, int64_t n, ActScheme scheme, const Fault* fault);

// Other right ways for a quantiser: docs/numerics.md, "What rounds where".
enum class Harmless { kReciprocal, kDouble, kSumsReordered };
CodedRow CodeRow(const float* x, int64_t n, ActScheme scheme, Harmless how);
// The product of the right weights with an input that is rounded so; and in float32 as a compiler
// sums it that may reorder and fuse.
void HarmlessProduct(Op& op, Harmless how);
void FastProduct(Op& op);

// fault_product.cc and fault_values.cc: by the fault's kind.
void CommitProductFault(const Fault& fault, Op& op);
void CommitValueFault(const Fault& fault, Op& op);
void CommitAttentionFault(const Fault& fault, Op& op);

}  // namespace pb::mutant

#endif  // PARITYBIT_PLUGINS_MUTANT_FAULT_H_

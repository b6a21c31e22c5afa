// The one walk over a sequence in an engine: its prefill in passes of so many rows, then a pass for
// each decode step.
#ifndef PARITYBIT_DRIVE_PASSES_H_
#define PARITYBIT_DRIVE_PASSES_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "drive/engine_record.h"

namespace pb::drive {

// One evaluation.
struct Pass {
  int32_t step = 0;      // 0: of the prefill; from 1: the decode steps
  int32_t position = 0;  // of its first row
  std::span<const int32_t> tokens;
};

// Where tensors are compared or overwritten they must come in the same rows from every engine, and
// a pass of them must fit: as many rows as the smallest batch of these engines (the fact ubatch),
// and never more than 512.
int64_t PassRows(std::initializer_list<const EngineRecord*> engines);
// Where only logits are compared, the engine cuts the prefill into batches itself, as in ordinary
// use.
inline constexpr int64_t kWholePrefill = INT64_MAX;

// The token of decode step `index` + 1; none: there is no such step.
using NextToken = std::function<Result<std::optional<int32_t>>(size_t index)>;
// The tokens of a vector from `first` on; also those that are added while passes run. Outlived by
// it.
NextToken StepsOf(const std::vector<int32_t>& tokens, size_t first = 0);

// There are none.
NextToken NoSteps();

// Hands each pass to `evaluate`, until one fails.
Status ForEachPass(std::span<const int32_t> prefill, int64_t rows, const NextToken& next,
                   const std::function<Status(const Pass&)>& evaluate);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_PASSES_H_

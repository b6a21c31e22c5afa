// Evaluates sequences of tokens in one engine, prefill and decode steps, and keeps or compares
// their logits row by row.
#ifndef PARITYBIT_DRIVE_SEQUENCE_H_
#define PARITYBIT_DRIVE_SEQUENCE_H_

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "compare/logits.h"
#include "compare/noise_floor.h"
#include "drive/participant.h"
#include "drive/row_store.h"

namespace pb::drive {

// A sequence of tokens as the reference evaluates it: prefill of the first n_prefill, then one step
// for each of the rest.
struct Sequence {
  std::vector<int32_t> tokens;
  int32_t n_prefill = 0;
  int32_t prompt = compare::kCalibration;  // whose tokens they are
};

// Evaluates a sequence from an empty session; a row for every position.
Status EvaluateSequence(Participant& engine, const Sequence& sequence, const RowFn& on_row,
                        const Taps& taps = {});

// The same with a session of its own, all rows kept. kEngine when rows are missing, out of turn or
// of unequal length.
Result<RowStore> EvaluateAll(Participant& engine, const host::Settings& session, const Sequence& sequence,
                             const Taps& taps = {});
// Goes on from there with n_steps greedy tokens, which are appended to the sequence; with fewer
// where nothing finite is left to choose from.
Result<RowStore> EvaluateGreedily(Participant& engine, const host::Settings& session, int32_t n_steps,
                                  Sequence* sequence);

// Evaluates a sequence in a session of its own and hands on every row with its comparison against
// the one of `undisturbed` at its position. kEngine when rows are missing or out of turn.
using ComparedFn = std::function<Status(std::span<const float> row, compare::LogitsRow compared)>;
Status EvaluateAgainst(Participant& engine, const host::Settings& session, const Sequence& sequence,
                       std::span<const compare::ReferenceRow> undisturbed, const ComparedFn& on_row,
                       const Taps& taps = {});

// The first 400 tokens of a text, in sequences no longer than the model was trained for.
Result<std::vector<Sequence>> CalibrationSequences(Participant& engine, std::string_view text);

}  // namespace pb::drive

#endif  // PARITYBIT_DRIVE_SEQUENCE_H_

// Runs two engines over prompts and judges the candidate's logits by the reference's: the main job.
#ifndef PARITYBIT_RUN_CROSSVAL_H_
#define PARITYBIT_RUN_CROSSVAL_H_

#include "run/record.h"
#include "run/request.h"

namespace pb::run {

// Tokenises in each engine, feeds both the same ids (prefill, then decode steps forced by the
// reference's greedy choice), compares every row, measures the reference's noise floor and judges.
// Whatever an engine does is part of the record and its verdict. An Error is only what ends the
// command before there is anything to judge: a setting that an engine does not know (kUsage), a
// model file that is missing or damaged (kNotFound, kIo, kMalformed), no room for the rows (kIo).
Result<Comparison> Crossval(const Request& request);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_CROSSVAL_H_

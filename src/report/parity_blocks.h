// What the reports of the -parity commands share: the two engines, the limits and the verdict.
#ifndef PARITYBIT_REPORT_PARITY_BLOCKS_H_
#define PARITYBIT_REPORT_PARITY_BLOCKS_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "report/crossval_report.h"
#include "report/json.h"

namespace pb::report {

// The model, the engines, and the facts on which they part.
std::string PairHead(const run::Comparison& run, const TextOptions& options);
// Limits, notes, last words, reasons, the verdict and what to go on with. `sentence`: of a pass; else
// the worst reason is told.
std::string PairTail(const run::Comparison& run, const Context& context, const TextOptions& options,
                     const std::string& sentence);

// The fields that every JSON object of these commands begins with, then engines and model.
nlohmann::ordered_json PairJson(const char* schema, const run::Comparison& run, JsonWriter* writer);
// Limits, notes and host, behind what the command adds.
void FinishPairJson(const run::Comparison& run, const Context& context, JsonWriter* writer,
                    nlohmann::ordered_json* out);

// The text of a token as "\" the\""; its id where that is not known.
std::string TokenName(const run::Comparison& run, int32_t id);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_PARITY_BLOCKS_H_

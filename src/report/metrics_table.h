// The two tables of a comparison's text: positions one by one, and every metric's mean and worst
// for prefill and decode.
#ifndef PARITYBIT_REPORT_METRICS_TABLE_H_
#define PARITYBIT_REPORT_METRICS_TABLE_H_

#include <string>

#include "report/crossval_report.h"

namespace pb::report {

// Positions beyond a limit first of all, else the worst by KL, in order of position; all of them
// with options.all. A legend follows.
std::string PositionTable(const run::Comparison& comparison, const TextOptions& options);
// All metrics of prefill and decode; the same in a line or two each.
std::string MetricsTable(const run::Comparison& comparison);
std::string MetricsLines(const run::Comparison& comparison, const TextOptions& options);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_METRICS_TABLE_H_

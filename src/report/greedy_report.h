// Greedy tokens of two engines, as text and as JSON. Strings out, no printing.
#ifndef PARITYBIT_REPORT_GREEDY_REPORT_H_
#define PARITYBIT_REPORT_GREEDY_REPORT_H_

#include <string>

#include "parity/greedy_parity.h"
#include "report/crossval_report.h"

namespace pb::report {

std::string RenderGreedyText(const parity::GreedyParity& greedy, const Context& context,
                             const TextOptions& options);
// Schema paritybit.greedy-parity/0.
std::string RenderGreedyJson(const parity::GreedyParity& greedy, const Context& context);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_GREEDY_REPORT_H_

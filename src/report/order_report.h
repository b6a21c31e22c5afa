// The order of the next tokens in two engines, as text and as JSON. Strings out, no printing.
#ifndef PARITYBIT_REPORT_ORDER_REPORT_H_
#define PARITYBIT_REPORT_ORDER_REPORT_H_

#include <string>

#include "parity/logit_parity.h"
#include "report/crossval_report.h"

namespace pb::report {

std::string RenderOrderText(const parity::LogitParity& parity, const Context& context,
                            const TextOptions& options);
// Schema paritybit.logit-parity/0.
std::string RenderOrderJson(const parity::LogitParity& parity, const Context& context);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_ORDER_REPORT_H_

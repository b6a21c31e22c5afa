// The NLL of a text in two engines, as text and as JSON. Strings out, no printing.
#ifndef PARITYBIT_REPORT_NLL_REPORT_H_
#define PARITYBIT_REPORT_NLL_REPORT_H_

#include <string>

#include "parity/nll_parity.h"
#include "report/crossval_report.h"

namespace pb::report {

// `origin`: what the text is called.
std::string RenderNllText(const parity::NllParity& nll, const std::string& origin, const Context& context,
                          const TextOptions& options);
// Schema paritybit.nll-parity/0.
std::string RenderNllJson(const parity::NllParity& nll, const std::string& origin, const Context& context);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_NLL_REPORT_H_

// What an engine's noise is, as text and as JSON. Strings out, no printing.
#ifndef PARITYBIT_REPORT_NOISE_REPORT_H_
#define PARITYBIT_REPORT_NOISE_REPORT_H_

#include <string>

#include "report/crossval_report.h"
#include "report/receipt.h"
#include "run/self_noise.h"

namespace pb::report {

// Ends with the verdict.
std::string RenderNoiseText(const run::SelfNoise& noise, const Context& context, const TextOptions& options);
// Schema paritybit.noise-run/0; the verdict of a measurement that nothing is wrong with is "ok".
std::string RenderNoiseJson(const run::SelfNoise& noise, const Context& context);

std::string RenderReceipt(const run::SelfNoise& noise, const Context& context, const ReceiptHead& head);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_NOISE_REPORT_H_

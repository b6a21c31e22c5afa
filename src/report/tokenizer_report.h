// Two tokenisers compared, as text and as JSON. Strings out, no printing.
#ifndef PARITYBIT_REPORT_TOKENIZER_REPORT_H_
#define PARITYBIT_REPORT_TOKENIZER_REPORT_H_

#include <string>

#include "parity/tokenizer_parity.h"
#include "report/crossval_report.h"

namespace pb::report {

std::string RenderTokenizerText(const parity::TokenizerParity& parity, const Context& context,
                                const TextOptions& options);
// Schema paritybit.tokenizer-parity/0.
std::string RenderTokenizerJson(const parity::TokenizerParity& parity, const Context& context);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_TOKENIZER_REPORT_H_

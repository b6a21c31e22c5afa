// What a search by injection tells: a sentence, and JSON. Strings out, no printing.
#ifndef PARITYBIT_REPORT_INJECTION_REPORT_H_
#define PARITYBIT_REPORT_INJECTION_REPORT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "inject/injection.h"

namespace pb::report {

// "ffn_gated in all 6 layers", "q_proj in layer 0", "k_proj and v_proj in layers 1-3".
std::string DescribePoints(const std::vector<inject::InjectionPoint>& points, int64_t n_layers);
// One sentence a person understands, figures included.
std::string InjectionSentence(const inject::InjectionResult& result);
nlohmann::ordered_json InjectionJson(const inject::InjectionResult& result);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_INJECTION_REPORT_H_

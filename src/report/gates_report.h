// What the gates made of a receipt, as text and JSON. Strings out, no printing.
#ifndef PARITYBIT_REPORT_GATES_REPORT_H_
#define PARITYBIT_REPORT_GATES_REPORT_H_

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "receipt/again.h"
#include "receipt/gates.h"
#include "report/crossval_report.h"

namespace pb::report {

struct GatesReport {
  std::string path;
  const nlohmann::json* receipt = nullptr;  // null: it could not be read
  std::vector<receipt::Gate> gates;
  std::optional<receipt::Again> again;  // what running it again gave; none: that was not asked for
  compare::Outcome outcome = compare::Outcome::kInvalid;
  std::vector<std::string> notes;
};

// The gates one below the other, each with what it saw; the last line is what they come to.
std::string RenderText(const GatesReport& report, const TextOptions& options);
// Schema paritybit.verify-receipt/0.
std::string RenderJson(const GatesReport& report);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_GATES_REPORT_H_

// What an audit tells, as text and as JSON. Strings out, no printing.
#ifndef PARITYBIT_REPORT_AUDIT_REPORT_H_
#define PARITYBIT_REPORT_AUDIT_REPORT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "audit/audit.h"
#include "report/crossval_report.h"

namespace pb::report {

// Ends with the verdict, the findings and the next commands.
std::string RenderAuditText(const audit::Audit& audit, const Context& context, const TextOptions& options);
// Schema paritybit.audit/0. In points, index "candidate" is the engine, "reference" the arbiter.
std::string RenderAuditJson(const audit::Audit& audit, const Context& context);

// Parts that the receipt has as well.
nlohmann::ordered_json AuditFindingJson(const audit::AuditFinding& finding, class JsonWriter* writer);
nlohmann::ordered_json AuditedPromptJson(const run::PromptRecord& prompt);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_AUDIT_REPORT_H_

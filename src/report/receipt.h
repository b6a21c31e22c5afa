// Receipts of every command that writes one: the evidence, sealed (room receipt says what makes it
// good).
#ifndef PARITYBIT_REPORT_RECEIPT_H_
#define PARITYBIT_REPORT_RECEIPT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "audit/audit.h"
#include "report/crossval_report.h"
#include "report/trace_diff_report.h"

namespace pb::report {

// What a receipt says of the program that wrote it, and of how to run it again.
struct ReceiptHead {
  std::string created;                 // RFC 3339, UTC
  std::string commit;                  // that the program was built from; empty: not known
  std::string sha256;                  // of the program
  std::vector<std::string> arguments;  // the command again, paths absolute; its name first
};

// Schema paritybit.receipt/1 (docs/receipt.schema.json), canonical, with its digest and a newline.
std::string RenderReceipt(const run::Comparison& comparison, const Context& context, const ReceiptHead& head);
std::string RenderReceipt(const audit::Audit& audit, const Context& context, const ReceiptHead& head);
std::string RenderReceipt(const compare::TraceDiff& diff, const TraceDiffContext& traces,
                          const Context& context, const ReceiptHead& head);

// The head of any receipt, to which a command's own evidence is added; and its seal.
nlohmann::ordered_json ReceiptBase(const Context& context, const ReceiptHead& head);
std::string SealReceipt(const nlohmann::ordered_json& receipt);
// An engine as receipts have it.
nlohmann::ordered_json EngineForReceipt(const drive::EngineRecord& engine);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_RECEIPT_H_

// Receipts of self-checks.
#ifndef PARITYBIT_REPORT_SELF_CHECK_RECEIPT_H_
#define PARITYBIT_REPORT_SELF_CHECK_RECEIPT_H_

#include <string>
#include <vector>

#include "report/generated_report.h"
#include "report/receipt.h"
#include "report/self_check_report.h"

namespace pb::report {

// What a self-check was made with, and its cases that were run a second time.
struct SelfCheckEvidence {
  struct Model {
    std::string path, sha256;
    std::vector<int32_t> tokens;  // of the prompt
  };
  std::vector<drive::EngineRecord> engines;  // mutant, native, arbiter; a reference, where there is one
  std::vector<Model> models;
  std::vector<selfcheck::SelfResult> repeated;
};

std::string RenderReceipt(const SelfCheckReport& report, const SelfCheckEvidence& evidence,
                          const Context& context, const ReceiptHead& head);
std::string RenderReceipt(const GeneratedReport& report, const SelfCheckEvidence& evidence,
                          const Context& context, const ReceiptHead& head);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_SELF_CHECK_RECEIPT_H_

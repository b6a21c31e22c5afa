// What the gates of a policy came to, as text, JSON and JUnit. Strings out, no printing.
#ifndef PARITYBIT_REPORT_POLICY_REPORT_H_
#define PARITYBIT_REPORT_POLICY_REPORT_H_

#include <string>
#include <vector>

#include "receipt/gates.h"
#include "report/crossval_report.h"

namespace pb::report {

struct PolicyCase {
  std::string name;
  double seconds = 0;
  std::string what;     // "crossval, native against llama.cpp", or the receipt's path
  std::string digest;   // of its receipt; empty: there is none
  std::string verdict;  // of the receipt; empty: likewise
  std::vector<receipt::Gate> checks;
  std::string baseline;  // "baselines/2026-11-30/NAME.json is new"; empty: none was written

  // The worst of the checks that failed; null: it passed. A case without a check failed.
  const receipt::Gate* failure() const;
};

struct PolicyReport {
  std::string path;
  std::vector<PolicyCase> cases;
  compare::Outcome outcome() const;
};

std::string RenderText(const PolicyReport& report, const TextOptions& options);
// Schema paritybit.gate/0.
std::string RenderJson(const PolicyReport& report);
std::string RenderJunit(const PolicyReport& report);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_POLICY_REPORT_H_

// The eight gates that a receipt has to pass (docs/receipts.md). Pure: what is where the receipt is
// checked comes in as values. A gate passes only for what it saw; what is missing fails it.
#ifndef PARITYBIT_RECEIPT_GATES_H_
#define PARITYBIT_RECEIPT_GATES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compare/reasons.h"
#include "receipt/sealed.h"

namespace pb::receipt {

// A file that a receipt was made with, as it is here.
struct FileHere {
  std::string what;      // "the model", "the candidate's libllama"
  std::string path;      // as recorded
  std::string recorded;  // its SHA-256 then
  std::string found;     // now; empty: there is no such file here
};
// Of a receipt that the schema accepts; `found` is left open.
std::vector<FileHere> FilesOf(const nlohmann::json& receipt);

struct Here {
  int64_t now = 0;                     // seconds since 1970
  std::optional<double> max_age_days;  // none: any age
  std::vector<FileHere> files;
  bool files_must_be_here = false;
  // Files that are other ones by now are told and fail nothing: the receipt is about what was.
  bool as_recorded = false;
  bool require_gpu = false;
};

struct Gate {
  std::string name;
  bool passed = false;
  compare::Outcome outcome = compare::Outcome::kMatch;  // of one that failed
  std::string saw;                                      // a sentence: what it saw, or why it failed
};

// All eight, in order: integrity, computation, coverage, tokens, logits, ops, determinism, identity.
// Of what is no receipt by its schema the first fails and the others were not tried, which is no
// pass.
std::vector<Gate> CheckGates(const Opened& receipt, const Here& here);
// What they come to together: the receipt's own verdict where all pass, else the worst failure.
compare::Outcome OutcomeOf(const std::vector<Gate>& gates, const nlohmann::json& receipt);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_GATES_H_

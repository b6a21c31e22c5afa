// A receipt against another that the same command gave later.
#ifndef PARITYBIT_RECEIPT_AGAIN_H_
#define PARITYBIT_RECEIPT_AGAIN_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "compare/reasons.h"

namespace pb::receipt {

struct Again {
  std::string verdict;                   // of the later run; empty: it gave none
  std::vector<std::string> differences;  // what contradicts the receipt, one sentence each
  std::vector<std::string> notes;        // what differs and contradicts nothing
  compare::Outcome outcome = compare::Outcome::kMatch;
};

// Both valid by the schema. Verdict, tokens and coverage must be the same, and the logits of the
// same engine on the same processor must have the same bits; figures on another one need not.
Again CompareAgain(const nlohmann::json& recorded, const nlohmann::json& again);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_AGAIN_H_

// A CI's policy: gates, each a command to run for its receipt or a receipt to check, and what is
// asked of it. Pure.
#ifndef PARITYBIT_RECEIPT_POLICY_H_
#define PARITYBIT_RECEIPT_POLICY_H_

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "receipt/gates.h"

namespace pb::receipt {

struct GatePolicy {
  std::string name;
  std::vector<std::string> run;  // words of a command that writes a receipt; empty: `receipt` is there
  std::string receipt;           // a path
  std::vector<std::string> verdicts = {"match", "near-tie", "drift", "measured"};  // that pass
  bool logits_only = false;              // ops need not have been compared
  bool user_limits = false;              // limits on KL that a user gave will do
  bool as_recorded = false;              // model and engines may be others by now
  std::map<std::string, double> limits;  // by name: no looser than that
  std::optional<double> max_age_days;
  bool baseline = false;  // held against the newest baseline of its name, and may become one
};

struct Policy {
  std::vector<GatePolicy> gates;
  std::string baselines = "baselines";  // their folder
};

// Of a TOML file as JSON. kMalformed: a key that is not known, a value of another type, a gate
// without a name, two of one name, none at all.
Result<Policy> ReadPolicy(const nlohmann::json& toml);

// What the policy asks beyond the eight gates of the receipt: verdict, scope, limits, reference.
std::vector<Gate> CheckPolicy(const nlohmann::json& receipt, const GatePolicy& policy, bool require_cpp);

// Where a receipt falls behind a baseline: a worse verdict, a looser limit, less that was compared,
// slower beyond the spread of repeats. kInvalid as the outcome: they are not of the same thing.
std::vector<Gate> CheckBaseline(const nlohmann::json& receipt, const nlohmann::json& baseline);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_POLICY_H_

// Baselines: receipts that passed, in FOLDER/DATE/NAME.json.
#ifndef PARITYBIT_CLI_BASELINES_H_
#define PARITYBIT_CLI_BASELINES_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/result.h"

namespace pb::cli {

struct Baseline {
  std::string path;
  nlohmann::json receipt;
};
// Of the newest date; none: there is none of that name. kMalformed: it is not what was written.
Result<std::optional<Baseline>> NewestBaseline(const std::string& folder, const std::string& name);

// Writes today's, and beside it the reason where it falls behind the one before. Returns its path.
Result<std::string> WriteBaseline(const std::string& folder, const std::string& name,
                                  const nlohmann::json& receipt, const std::string& behind,
                                  const std::string& reason);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_BASELINES_H_

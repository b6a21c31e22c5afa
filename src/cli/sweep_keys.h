// What decides the result of a cell, as one digest.
#ifndef PARITYBIT_CLI_SWEEP_KEYS_H_
#define PARITYBIT_CLI_SWEEP_KEYS_H_

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "sweep/plan.h"

namespace pb::cli {

// Names models by their files, checks the words of cells as crossval would, and fills in what the
// plan leaves open: keys and memory.
class CellInputs {
 public:
  // kUsage: crossval would not take its words, or knows no such engine.
  Status Complete(sweep::Cell* cell);

 private:
  // Plugin, libraries and settings of an engine; what is not here is told as absent.
  Result<nlohmann::json> Engine(const std::string& text);
  // This program and the one that engines run in.
  const nlohmann::json& Tool();

  std::map<std::string, nlohmann::json> engines_;
  nlohmann::json tool_;
};

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_SWEEP_KEYS_H_

// A Hugging Face config.json: the activation it declares, and where it contradicts the model file.
#ifndef PARITYBIT_MODEL_CONFIG_H_
#define PARITYBIT_MODEL_CONFIG_H_

#include <filesystem>
#include <string>
#include <vector>

#include "model/model.h"

namespace pb {

struct ConfigJson {
  std::string hidden_act;             // empty: not declared
  std::vector<std::string> findings;  // contradictions to the model file, one sentence each
  bool shape_differs = false;         // layers, widths or heads differ: it describes another model
};

// Reads and compares. Damaged JSON or a field of the wrong type is kMalformed with the path.
Result<ConfigJson> ReadConfigJson(const std::filesystem::path& path, const HyperParameters& params);

}  // namespace pb

#endif  // PARITYBIT_MODEL_CONFIG_H_

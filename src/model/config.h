// A Hugging Face config.json beside what the model file says: each of its fields is compared,
// decides nothing, or is not heard.
#ifndef PARITYBIT_MODEL_CONFIG_H_
#define PARITYBIT_MODEL_CONFIG_H_

#include <filesystem>
#include <string>
#include <vector>

#include "model/hyper.h"
#include "model/keys.h"
#include "model/model.h"

namespace pb {

// What a config.json is read against, and where the outcome goes.
struct ConfigReader {
  const Keys& keys;                  // of the model file
  const Architecture* architecture;  // null: one that is not read here; what all share is compared
  std::string model_name;            // of the file, for messages
  const ModelOptions& options;
  HyperParameters* params;  // null: not known; else takes the activation that the file leaves open
  std::vector<Doubt>* doubts;
};

// Damaged JSON, or a field of the wrong type, is kMalformed with the path; an activation that is
// declared here alone and not offered is kUnsupported.
Status ReadConfigJson(const std::filesystem::path& path, const ConfigReader& reader);

// The fields' table, for the documentation and tests: name, whether it decides anything, what.
struct ConfigFieldText {
  std::string_view field, decides;
  bool nothing;
};
std::vector<ConfigFieldText> ConfigFields();

}  // namespace pb

#endif  // PARITYBIT_MODEL_CONFIG_H_

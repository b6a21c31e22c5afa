// Everything that a model file, a config.json and the user's settings declare, and what of it is in
// doubt: where two of them contradict each other, and what nothing here hears.
#ifndef PARITYBIT_MODEL_DECLARED_H_
#define PARITYBIT_MODEL_DECLARED_H_

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "model/model.h"

namespace pb {

struct Declarations {
  std::optional<HyperParameters> params;  // none: `why_none`
  Error why_none{Code::kUnsupported, ""};
  std::filesystem::path config_path;  // the config.json that was read; empty: none
  std::vector<Doubt> doubts;
};

// An architecture or a value that is not offered leaves out params alone: what is contradicted is
// told of any file. Damage of either file is an error, one of the config.json with its path.
Result<Declarations> ReadDeclarations(const GgufFile& file, const ModelOptions& options);

// All that is in doubt about a file, and a note for each tensor that holds NaN or infinity. Damage
// is an error, what is not offered is none.
Status FindDoubts(const std::filesystem::path& path, const ModelOptions& options, std::vector<Doubt>* doubts);

}  // namespace pb

#endif  // PARITYBIT_MODEL_DECLARED_H_

// What commands that write model files share: the name of a weight type, and the folder of a file.
#ifndef PARITYBIT_CLI_MODEL_FILES_H_
#define PARITYBIT_CLI_MODEL_FILES_H_

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "cli/output.h"
#include "formats/block.h"

namespace pb::cli {

// In any case; kUnsupported names the flag.
Result<BlockType> ParseWeights(std::string name, const char* flag);
// With all folders above it; the empty path is the current one.
Status MakeFolder(const std::filesystem::path& folder);

// Rewrites a model file's linear weights (`embedding`, unless it is empty: embedding and output
// matrix, too), and prints what changed.
struct ConvertArguments {
  OutputArguments output;
  std::string model, weights, embedding, out;
};
Result<int> ConvertModel(const ConvertArguments& args);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_MODEL_FILES_H_

// The documented folder of a scenario, made of what a comparison left: what each engine computed as
// a text, and the traces under the names of that system.
#ifndef PARITYBIT_SWEEP_OUTPUTS_H_
#define PARITYBIT_SWEEP_OUTPUTS_H_

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace pb::sweep {

inline constexpr const char* kOutputFiles[] = {"rs-output.txt", "cpp-output.txt"};
inline constexpr const char* kTraceFolders[] = {"rs-traces", "cpp-traces"};
inline constexpr const char* kKeptTraces = "traces";  // as crossval --keep-traces writes them

// Tokens, forced tokens and the best of the next at each position; side 0 is the candidate.
std::string EngineOutput(const nlohmann::json& receipt, int side);
// Writes both texts, and links the traces that are there.
Status WriteOutputs(const std::filesystem::path& folder, const nlohmann::json& receipt);

}  // namespace pb::sweep

#endif  // PARITYBIT_SWEEP_OUTPUTS_H_

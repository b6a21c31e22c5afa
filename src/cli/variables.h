// The variables that a user of the documented system may have set: what each of them does here, in
// one table. A flag beats a variable, a variable beats what is remembered.
#ifndef PARITYBIT_CLI_VARIABLES_H_
#define PARITYBIT_CLI_VARIABLES_H_

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "run/record.h"
#include "setup/setup.h"

namespace pb::cli {

struct Variable {
  enum Effect {
    kWorks,    // `says`: as which flag
    kIgnored,  // and said where it is set; `says`: what to use instead
    kQuiet,    // ignored, and said by preflight alone: other programs mean it too
    kRefused,  // it would make a failure a pass
  };
  const char* name;
  Effect effect;
  const char* says;
  bool secret = false;  // its value is never shown
};
std::span<const Variable> Variables();

// nullptr when unset or empty.
const char* VariableValue(const char* name);
inline constexpr const char* kModelVariables[] = {"CROSSVAL_GGUF", "BITNET_GGUF"};
inline constexpr const char* kTokenizerVariables[] = {"CROSSVAL_GGUF_TOKENIZER", "BITNET_TOKENIZER"};
// The first of these that is set, as a choice of `key`.
std::optional<run::Choice> FirstVariable(const std::string& key, std::span<const char* const> names);

// --threads by variable: 1 with BITNET_DETERMINISTIC, else the first of GGML_NUM_THREADS,
// RAYON_NUM_THREADS and OMP_NUM_THREADS that is a number of threads.
std::optional<run::Choice> ThreadsVariable();

// Folders with a build of the reference, in the order in which they count.
std::vector<setup::Location> LocationVariables();

// Whether the network is not to be used: by the flag, else by BITNET_OFFLINE, unless that is 0.
bool StaysOffline(bool flag);
// Says on stderr what becomes of the variables that are set and have no effect.
void TellOfVariables();

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_VARIABLES_H_

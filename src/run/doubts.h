// What stands in the way of a plain verdict on a model file before anything is computed:
// declarations that contradict each other or that nobody hears, weights that are not numbers, texts
// that begin with BOS twice.
#ifndef PARITYBIT_RUN_DOUBTS_H_
#define PARITYBIT_RUN_DOUBTS_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "compare/verdict.h"
#include "model/model.h"
#include "run/record.h"

namespace pb::run {

// What the settings of an engine declare of a model (model/model.h: Declare); what they mean for
// the engine it says itself.
ModelOptions DeclaredBy(const host::Settings& settings);

// Our own reader looks at a model file first: a damaged one is no engine's fault. What is in doubt
// about it, and which tensors hold NaN or infinity, is added to `doubts`. One that is not offered
// here is no error.
Status CheckModelFile(const std::filesystem::path& path, const host::Settings& settings,
                      std::vector<Doubt>* doubts);

// Sorts doubts into what keeps a verdict from being a plain pass and what is only told.
// `n_positions`: of the longest sequence; `judged_by_declaration`: an engine that reads the file as
// we do takes part, or the arbiter judges, so keys that are not heard count.
void TellDoubts(const std::vector<Doubt>& doubts, int64_t n_positions, bool judged_by_declaration,
                std::vector<compare::Obstacle>* obstacles, std::vector<std::string>* notes);

// Flags of which each decides the first contradiction: "--set rope.base=10000".
std::vector<std::string> WaysToDecide(const std::vector<Doubt>& doubts);

// Notes of a command that gives no verdict on the model: all that is in doubt. A file that we
// cannot read has none.
std::vector<std::string> NotesOnModel(const std::filesystem::path& path, const host::Settings& settings,
                                      int64_t n_positions);

// Whether an engine reads model files as we do: it tells what it does not hear.
bool ReadsAsDeclared(const drive::EngineRecord& engine);

// Notes on how the ids of a text begin and end, by what the engine says of BOS and EOS; `origin`:
// "--prompt".
void NoteTokens(const drive::EngineRecord& engine, const std::vector<int32_t>& ids, const std::string& origin,
                std::vector<std::string>* notes);

}  // namespace pb::run

#endif  // PARITYBIT_RUN_DOUBTS_H_

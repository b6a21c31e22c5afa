// A build of llama.cpp on this machine: its shared libraries and the headers of exactly that build,
// wherever its maker put them.
#ifndef PARITYBIT_SETUP_BUILD_H_
#define PARITYBIT_SETUP_BUILD_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace pb::setup {

struct Build {
  std::string how;             // "package node-llama-cpp 3.22.1", "BITNET_CPP_DIR"
  std::filesystem::path root;  // what was named or found
  // libllama first, then what it needs of its own kind: what an adapter is linked with
  std::vector<std::filesystem::path> libraries;
  std::vector<std::filesystem::path> include_dirs;  // llama.h, ggml.h
  std::filesystem::path vocabulary_dir;             // ggml-vocab-*.gguf; may be empty
  std::string version;                              // as its package says; empty: the engine is asked
  std::string commit;  // of the sources that it was built from here; empty: not known
  // libllama's folder
  std::filesystem::path library_dir() const { return libraries.front().parent_path(); }
};

// Looks for libllama in the folder and in the places below it where llama.cpp, bitnet.cpp and
// packages of them put it, and for its headers beside it. kNotFound says what is missing and how to
// mend it; kMalformed and kUnsupported: what was found is no library of this machine, or no
// llama.cpp.
Result<Build> ReadBuild(const std::filesystem::path& root, std::string how);

// A file as it was when it was proved.
struct Fingerprint {
  std::filesystem::path file;
  uint64_t bytes = 0;
  int64_t changed_ns = 0;  // time of its last change
  std::string sha256;
};
// Of all libraries of the build: those it is linked with, and those that it may load by itself, beside
// them or where distributions put them, in a folder `ggml` there or one below it.
Result<std::vector<Fingerprint>> Fingerprints(const Build& build);
// Whether the file is there with this size and time of change.
bool IsUnchanged(const Fingerprint& print);
// A digest over the version that the package says, the commit, and the headers' names and contents.
Result<std::string> HeadersDigest(const Build& build);
// A digest over these, and the names and digests of the libraries.
Result<std::string> BuildDigest(const Build& build, const std::vector<Fingerprint>& libraries);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_BUILD_H_

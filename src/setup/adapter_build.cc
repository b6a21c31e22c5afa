// Finds a compiler, compiles the sources in a folder of their digest, and keeps the log of a
// failure.
#include "setup/adapter_build.h"

#include <algorithm>
#include <vector>

#include "base/file.h"
#include "base/sha256.h"
#include "setup/process.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
constexpr double kCompileSeconds = 900;

// -ffp-contract=off: what the adapter computes itself (scales, random rounding) must not depend on the compiler.
const std::vector<std::string>& Options() {
  static const std::vector<std::string> options = {
      "-std=c++20",        "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off",
      "-Wl,--no-undefined"};
  return options;
}

Result<std::vector<fs::path>> FilesIn(const fs::path& dir, std::string_view extension) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    if (entry.path().extension() == extension) files.push_back(entry.path());
  }
  if (files.empty())
    return MakeError(Code::kNotFound, "{}: no *{} files; is paritybit installed whole?", dir.string(),
                     extension);
  std::sort(files.begin(), files.end());
  return files;
}

Result<std::string> Compiler() {
  for (const char* name : {"g++", "c++", "clang++"}) {
    if (const fs::path path = FindProgram(name); !path.empty()) return path.string();
  }
  return MakeError(Code::kNotFound,
                   "no C++ compiler, which compiles the adapter for the reference.\n       install it:  sudo "
                   "apt-get install g++");
}

}  // namespace

fs::path ShareDir() { return (ExecutableDir() / ".." / "share" / "paritybit").lexically_normal(); }

Result<std::string> AdapterDigest(std::string_view reference_digest) {
  std::string all(reference_digest);
  for (const std::string& option : Options()) all += option;
  const std::vector<std::pair<fs::path, const char*>> places = {{ShareDir() / "llama_cpp", ".cc"},
                                                                {ShareDir() / "llama_cpp", ".h"},
                                                                {ShareDir() / "abi", ".h"},
                                                                {ShareDir() / "stages", ".h"}};
  for (const auto& [dir, extension] : places) {
    PB_ASSIGN(const std::vector<fs::path> files, FilesIn(dir, extension));
    for (const fs::path& file : files) {
      PB_ASSIGN(const std::string text, ReadFile(file));
      all += file.filename().string() + '\n' + text;
    }
  }
  return Sha256Hex(std::as_bytes(std::span(all)));
}

Status BuildAdapter(const fs::path& reference, std::string_view version, const fs::path& out) {
  PB_ASSIGN(const std::string compiler, Compiler());
  PB_ASSIGN(const std::vector<fs::path> sources, FilesIn(ShareDir() / "llama_cpp", ".cc"));
  PB_ASSIGN(const std::vector<fs::path> libraries, FilesIn(reference / "lib", ".so"));
  PB_ASSIGN(const WorkDir work, WorkDir::Create(reference));
  std::vector<std::string> command = {compiler};
  command.insert(command.end(), Options().begin(), Options().end());
  command.push_back(fmt::format("-DPB_REFERENCE_VERSION=\"{}\"", version));
  command.push_back("-I" + ShareDir().string());
  command.insert(command.end(), {"-isystem", (reference / "include").string()});
  for (const fs::path& source : sources) command.push_back(source.string());
  for (const fs::path& library : libraries) {
    // One CPU library is chosen at run time; the rest is linked.
    if (library.filename().string().rfind("libggml-cpu-", 0) != 0) command.push_back(library.string());
  }
  const fs::path made = work.path() / "adapter.so";
  command.insert(command.end(), {"-ldl", "-Wl,-rpath,$ORIGIN/../lib", "-o", made.string()});
  PB_TRY(RunProgramOk(command, kCompileSeconds));
  return Replace(made, out);
}

}  // namespace pb::setup

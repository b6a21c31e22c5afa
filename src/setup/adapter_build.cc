// Finds a compiler, compiles the sources in a folder of their digest, and keeps the log of a
// failure.
#include "setup/adapter_build.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/processors.h"
#include "base/sha256.h"
#include "setup/process.h"
#include "setup/record.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
constexpr double kCompileSeconds = 900;

// -ffp-contract=off: what the adapter computes itself (scales, random rounding) must not depend on the compiler.
const std::vector<std::string>& Options() {
  static const std::vector<std::string> options = {"-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden",
                                                   "-ffp-contract=off"};
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

// The flags that the sources of an adapter for this build are compiled with.
std::vector<std::string> CompileFlags(const Build& build) {
  std::vector<std::string> flags = Options();
  if (!build.version.empty()) flags.push_back(fmt::format("-DPB_REFERENCE_VERSION=\"{}\"", build.version));
  if (!build.commit.empty()) flags.push_back(fmt::format("-DPB_REFERENCE_COMMIT=\"{}\"", build.commit));
  flags.push_back("-I" + ShareDir().string());
  for (const fs::path& dir : build.include_dirs) flags.insert(flags.end(), {"-isystem", dir.string()});
  return flags;
}

// Runs the commands, as many at a time as there are processors; the first error.
Status RunAll(const std::vector<std::vector<std::string>>& commands, const SetupOptions& options) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  Status first;
  size_t n_done = 0;
  const auto work = [&] {
    for (size_t i; (i = next++) < commands.size();) {
      const Result<Output> output = RunProgramOk(commands[i], kCompileSeconds);
      const std::lock_guard lock(mutex);
      if (!output.ok() && first.ok()) first = output.error(), next = commands.size();
      if (output.ok() && options.advance) options.advance("compiling", ++n_done, commands.size());
    }
  };
  std::vector<std::thread> threads;
  const size_t n_threads = std::min<size_t>(commands.size(), std::max(1, ProcessorCount()));
  for (size_t i = 1; i < n_threads; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  return first;
}

// The folder of the compiled sources. They depend on the headers alone, so builds of one release
// share them.
Result<fs::path> CompileSources(const std::string& compiler, const Build& build,
                                const SetupOptions& options) {
  PB_ASSIGN(const std::string headers, HeadersDigest(build));
  PB_ASSIGN(const std::string digest, AdapterDigest(headers));
  const fs::path objects = ReferencesDir() / (".objects-" + digest.substr(0, 16));
  std::error_code ignored;
  if (fs::exists(objects, ignored)) return objects;
  PB_ASSIGN(const std::vector<fs::path> sources, FilesIn(ShareDir() / "llama_cpp", ".cc"));
  PB_ASSIGN(const WorkDir work, WorkDir::Create(ReferencesDir()));
  const fs::path made = work.path() / "objects";
  fs::create_directories(made, ignored);
  std::vector<std::vector<std::string>> commands;
  for (const fs::path& source : sources) {
    std::vector<std::string>& command = commands.emplace_back(std::vector<std::string>{compiler});
    const std::vector<std::string> flags = CompileFlags(build);
    command.insert(command.end(), flags.begin(), flags.end());
    command.insert(command.end(), {"-c", source.string(), "-o", (made / source.stem()).string() + ".o"});
  }
  PB_TRY(RunAll(commands, options));
  PB_TRY(Replace(made, objects));
  return objects;
}

// Where the loader finds the libraries: relative to the adapter where both stand in the cache,
// which may be moved.
std::vector<std::string> LoaderPaths(const Build& build, const fs::path& out) {
  std::error_code error;
  const fs::path cache = fs::canonical(ReferencesDir(), error),
                 from = fs::weakly_canonical(out.parent_path(), error);
  std::vector<std::string> paths;
  for (const fs::path& library : build.libraries) {
    const fs::path dir = library.parent_path();
    const fs::path inside = dir.lexically_relative(cache);
    const bool cached = !inside.empty() && *inside.begin() != "..";
    const std::string path = cached ? ("$ORIGIN" / dir.lexically_relative(from)).string() : dir.string();
    if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
  }
  return paths;
}

// --disable-new-dtags: these paths come before LD_LIBRARY_PATH, or two builds of one engine would
// be the same one. --no-as-needed: each library is looked for here, and not by another's own paths.
void AddLinks(const Build& build, const fs::path& out, std::vector<std::string>* command) {
  command->insert(command->end(), {"-Wl,--disable-new-dtags", "-Wl,--no-as-needed"});
  for (const fs::path& library : build.libraries) command->push_back(library.string());
  for (const std::string& path : LoaderPaths(build, out))
    command->insert(command->end(), {"-Xlinker", "-rpath", "-Xlinker", path});
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

Status BuildAdapter(const Build& build, const fs::path& out, const SetupOptions& options) {
  PB_ASSIGN(const std::string compiler, Compiler());
  PB_ASSIGN(const fs::path compiled, CompileSources(compiler, build, options));
  PB_ASSIGN(const std::vector<fs::path> objects, FilesIn(compiled, ".o"));
  std::error_code ignored;
  fs::create_directories(out.parent_path(), ignored);
  PB_ASSIGN(const WorkDir work, WorkDir::Create(out.parent_path()));
  std::vector<std::string> command = {compiler, "-shared", "-Wl,--no-undefined"};
  for (const fs::path& object : objects) command.push_back(object.string());
  AddLinks(build, out, &command);
  const fs::path made = work.path() / "adapter.so";
  command.insert(command.end(), {"-ldl", "-o", made.string()});
  PB_TRY(RunProgramOk(command, kCompileSeconds));
  return Replace(made, out);
}

}  // namespace pb::setup

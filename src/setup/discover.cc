// Asks pkg-config and Python, and looks into the folders of CMake packages and of the loader.
#include "setup/discover.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "setup/process.h"
#include "setup/record.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
constexpr double kAskSeconds = 30;

// The folders of a variable like LD_LIBRARY_PATH.
std::vector<fs::path> FoldersOf(const char* variable, char separator = ':') {
  std::vector<fs::path> folders;
  const char* value = std::getenv(variable);
  std::string_view rest = value ? value : "";
  while (!rest.empty()) {
    const size_t end = rest.find(separator);
    if (const std::string_view folder = rest.substr(0, end); !folder.empty()) folders.emplace_back(folder);
    rest = end == rest.npos ? "" : rest.substr(end + 1);
  }
  return folders;
}

fs::path HomeDir() {
  const char* home = std::getenv("HOME");
  return home ? home : "";
}

// The first line of what a program prints; empty when it fails.
std::string Ask(const std::vector<std::string>& argv) {
  const Result<Output> output = RunProgram(argv, kAskSeconds);
  if (!output.ok() || output->exit_code != 0) return {};
  return output->out.substr(0, output->out.find('\n'));
}

bool HasLlama(const fs::path& dir) {
  std::error_code error;
  for (fs::directory_iterator at(dir, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.starts_with("libllama.") && name.find(".so") != name.npos) return true;
  }
  return false;
}

// lib/cmake/llama/llama-config.cmake of each prefix: the libraries stand in lib.
std::vector<fs::path> CMakePackages() {
  std::vector<fs::path> found, packages = FoldersOf("llama_DIR");
  std::vector<fs::path> prefixes = FoldersOf("CMAKE_PREFIX_PATH");
  prefixes.insert(prefixes.end(), {HomeDir() / ".local", "/usr/local", "/usr"});
  for (const fs::path& prefix : prefixes)
    for (const char* lib : {"lib", "lib64", "lib/x86_64-linux-gnu"})
      packages.push_back(prefix / lib / "cmake/llama");
  std::error_code ignored;
  for (const fs::path& package : packages)
    if (fs::exists(package / "llama-config.cmake", ignored) ||
        fs::exists(package / "llamaConfig.cmake", ignored))
      found.push_back(package.parent_path().parent_path());
  return found;
}

std::vector<fs::path> LoaderFolders() {
  std::vector<fs::path> folders = FoldersOf("LD_LIBRARY_PATH");
  folders.insert(folders.end(), {HomeDir() / ".local/lib", "/usr/local/lib", "/usr/local/lib64",
                                 "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"});
  return folders;
}

// Where the wheel keeps its libraries. The package is looked up, not imported.
fs::path PythonPackage() {
  const std::string dir =
      Ask({"python3", "-c",
           "import importlib.util as u; s = u.find_spec('llama_cpp'); "
           "print(list(s.submodule_search_locations)[0] if s and s.submodule_search_locations else '')"});
  return dir.empty() ? fs::path() : fs::path(dir) / "lib";
}

// Places by folder, each once, none that set-up made itself.
class Places {
 public:
  void Add(std::string how, const fs::path& dir) {
    std::error_code error;
    const fs::path root = fs::canonical(dir, error);
    if (error || dir.empty() || IsOwn(root)) return;
    const auto same = [&](const Place& place) { return place.root == root; };
    if (std::none_of(places_.begin(), places_.end(), same)) places_.push_back({std::move(how), root});
  }
  std::vector<Place> Take() { return std::move(places_); }

 private:
  static bool IsOwn(const fs::path& root) {
    std::error_code error;
    const fs::path relative = root.lexically_relative(fs::weakly_canonical(ReferencesDir(), error));
    return !relative.empty() && *relative.begin() != "..";
  }
  std::vector<Place> places_;
};

}  // namespace

std::vector<Place> DiscoverBuilds() {
  Places places;
  if (const std::string dir = Ask({"pkg-config", "--variable=libdir", "llama"}); HasLlama(dir))
    places.Add("pkg-config llama", dir);
  for (const fs::path& dir : CMakePackages()) places.Add("CMake package llama", dir);
  for (const fs::path& dir : LoaderFolders())
    if (HasLlama(dir)) places.Add("library path", dir);
  if (const fs::path dir = PythonPackage(); HasLlama(dir)) places.Add("llama-cpp-python", dir);
  places.Add("bitnet.cpp's default folder", HomeDir() / ".cache/bitnet_cpp");
  return places.Take();
}

}  // namespace pb::setup

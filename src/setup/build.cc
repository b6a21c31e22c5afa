// Knows the folders in which builds of llama.cpp stand, follows what libraries need, and takes
// fingerprints.
#include "setup/build.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "base/file.h"
#include "base/sha256.h"
#include "setup/elf.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;

// Below a folder that somebody names: an installation, a source tree, its build folder, the layouts
// of bitnet.cpp, and the wheel of llama-cpp-python.
constexpr std::array kLibraryFolders = {"",
                                        "build/bin",
                                        "build/lib",
                                        "lib",
                                        "lib64",
                                        "lib/x86_64-linux-gnu",
                                        "bin",
                                        "build/3rdparty/llama.cpp/build/bin",
                                        "build/3rdparty/llama.cpp/src",
                                        "build/3rdparty/llama.cpp/ggml/src",
                                        "3rdparty/llama.cpp/build/bin",
                                        "3rdparty/llama.cpp/src",
                                        "3rdparty/llama.cpp/ggml/src",
                                        "build/3rdparty/llama.cpp",
                                        "build/src",
                                        "build/ggml/src",
                                        "src",
                                        "ggml/src",
                                        "build",
                                        "llama_cpp/lib"};
// Below a folder that has headers of its own.
constexpr std::array kHeaderFolders = {"include", "ggml/include", "3rdparty/llama.cpp/include",
                                       "3rdparty/llama.cpp/ggml/include", ""};
// What every llama.cpp since 2024 offers, and no other library.
constexpr std::array kLlamaSymbols = {"llama_backend_init", "llama_decode", "llama_tokenize",
                                      "llama_get_logits_ith"};
constexpr int kParents = 2;  // lib/../include, lib/x86_64-linux-gnu/../../include, build/bin/../../include

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::vector<fs::path> FilesOf(const fs::path& dir) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator at(dir, error), end; !error && at != end; at.increment(error))
    files.push_back(at->path());
  std::sort(files.begin(), files.end());
  return files;
}

// "libllama" of libllama.v0.5.0.so and libllama.so.0; empty: no shared library.
std::string StemOf(const fs::path& file) {
  const std::string name = file.filename().string();
  const size_t so = name.find(".so");
  if (so == name.npos || (so + 3 != name.size() && name[so + 3] != '.')) return {};
  return name.substr(0, name.find('.'));
}

bool IsEngineLibrary(const fs::path& file) {
  const std::string stem = StemOf(file);
  return stem == "libllama" || stem == "libbitnet" || stem == "libggml" || stem.starts_with("libggml-");
}

// The libllama of a folder, by its shortest name: that of the link that developers use.
fs::path FindLlama(const fs::path& dir) {
  fs::path best;
  for (const fs::path& file : FilesOf(dir)) {
    if (StemOf(file) != "libllama") continue;
    if (best.empty() || file.native().size() < best.native().size()) best = file;
  }
  return best;
}

// The source tree that CMake configured this build folder, or one above it, from.
fs::path SourceOf(fs::path dir) {
  constexpr std::string_view kKey = "CMAKE_HOME_DIRECTORY:INTERNAL=";
  constexpr int kDepth = 4;  // build/3rdparty/llama.cpp/src
  for (int i = 0; i <= kDepth && dir.has_relative_path(); ++i, dir = dir.parent_path()) {
    const Result<std::string> cache = ReadFile(dir / "CMakeCache.txt", 16 << 20);
    const size_t at = cache.ok() ? cache->find(kKey) : std::string::npos;
    if (at == std::string::npos) continue;
    const size_t begin = at + kKey.size();
    return cache->substr(begin, cache->find('\n', begin) - begin);
  }
  return {};
}

// Where headers of libraries in this folder may stand: the nearest first.
std::vector<fs::path> HeaderRoots(const fs::path& root, const fs::path& library_dir) {
  std::vector<fs::path> roots;
  fs::path dir = library_dir;
  for (int i = 0; i <= kParents && dir.has_relative_path(); ++i, dir = dir.parent_path())
    roots.push_back(dir);
  roots.push_back(root);
  if (const fs::path source = SourceOf(library_dir); !source.empty()) roots.push_back(source);
  return roots;
}

Status FindHeaders(const fs::path& root, Build* build) {
  for (const char* header : {"llama.h", "ggml.h"}) {
    fs::path found;
    for (const fs::path& place : HeaderRoots(root, build->library_dir())) {
      for (const char* folder : kHeaderFolders)
        if (found.empty() && Exists(place / folder / header)) found = (place / folder).lexically_normal();
    }
    if (found.empty())
      return MakeError(Code::kNotFound,
                       "{}: its header {} is not beside it (looked in {} and above for include/), and an "
                       "adapter fits the headers of exactly that build alone.\n"
                       "       mend it:  install the headers with it (cmake --install), or name the source "
                       "tree that it was built from",
                       build->libraries.front().string(), header, build->library_dir().string());
    if (std::find(build->include_dirs.begin(), build->include_dirs.end(), found) == build->include_dirs.end())
      build->include_dirs.push_back(found);
  }
  return {};
}

// Finds a library of this name in one of the folders; empty: none has it.
fs::path FindIn(const std::vector<fs::path>& dirs, const std::string& name) {
  for (const fs::path& dir : dirs)
    if (Exists(dir / name)) return dir / name;
  return {};
}

std::string Listed(const std::vector<fs::path>& dirs) {
  std::string text;
  for (const fs::path& dir : dirs) text += (text.empty() ? "" : ", ") + dir.string();
  return text;
}

// The folders that a library itself looks in, as wheels do whose libraries were gathered.
std::vector<fs::path> OwnFolders(const fs::path& file, std::string_view search) {
  constexpr std::string_view kOrigin = "$ORIGIN";
  std::vector<fs::path> dirs;
  while (!search.empty()) {
    const std::string_view one = search.substr(0, search.find(':'));
    search.remove_prefix(std::min(search.size(), one.size() + 1));
    const std::string below(one.starts_with(kOrigin) ? one.substr(kOrigin.size()) : "");
    if (one.starts_with(kOrigin)) dirs.emplace_back(file.parent_path().string() + below);
    if (one.starts_with('/')) dirs.emplace_back(one);
  }
  for (fs::path& dir : dirs) dir = dir.lexically_normal();
  return dirs;
}

// libllama and, from it on, what each needs of llama.cpp's own.
Status FollowNeeds(const fs::path& llama, const std::vector<fs::path>& dirs, Build* build) {
  std::set<std::string> seen;
  build->libraries = {llama};
  for (size_t i = 0; i < build->libraries.size(); ++i) {
    const fs::path file = build->libraries[i];
    PB_ASSIGN(const ElfLibrary elf, ReadElf(file));
    const std::string soname = elf.soname.empty() ? file.filename().string() : elf.soname;
    if (seen.insert(soname).second && FindIn({file.parent_path()}, soname).empty())
      return MakeError(Code::kNotFound,
                       "{}: it is called {} when it is loaded, and no such file is beside it", file.string(),
                       soname);
    for (const char* symbol : kLlamaSymbols)
      if (i == 0 && !elf.exports.contains(symbol))
        return MakeError(Code::kMalformed, "{}: it does not offer {}, which every llama.cpp has",
                         file.string(), symbol);
    for (const std::string& name : elf.needed) {
      if (!IsEngineLibrary(name) || !seen.insert(name).second) continue;
      fs::path found = FindIn(dirs, name);
      if (found.empty()) found = FindIn(OwnFolders(file, elf.search), name);
      if (found.empty())
        return MakeError(Code::kNotFound, "{}: it needs {}, which is in none of {}", file.string(), name,
                         Listed(dirs));
      build->libraries.push_back(found);
    }
  }
  return {};
}

Error NoLibrary(const fs::path& root) {
  for (const char* folder : kLibraryFolders) {
    const fs::path archive = root / folder / "libllama.a";
    if (Exists(archive))
      return MakeError(Code::kNotFound,
                       "{}: a build without shared libraries, which an adapter cannot load.\n"
                       "       mend it:  configure it with -DBUILD_SHARED_LIBS=ON and build it again",
                       archive.string());
  }
  return MakeError(
      Code::kNotFound,
      "{}: no libllama.so there, nor in build/bin, build/3rdparty/llama.cpp/src, lib or the like "
      "below it",
      root.string());
}

}  // namespace

Result<Build> ReadBuild(const fs::path& named, std::string how) {
  std::error_code error;
  const fs::path root = fs::canonical(named, error);
  if (error) return MakeError(Code::kNotFound, "{}: no such folder", named.string());
  std::vector<fs::path> dirs;
  fs::path llama;
  for (const char* folder : kLibraryFolders) {
    const fs::path dir = *folder ? root / folder : root;
    if (!fs::is_directory(dir, error)) continue;
    dirs.push_back(dir);
    if (llama.empty()) llama = FindLlama(dir);
  }
  if (llama.empty()) return NoLibrary(root);
  dirs.insert(dirs.begin(), llama.parent_path());
  // A folder of libraries alone, in a build of which each part has a folder of its own.
  dirs.push_back((llama.parent_path() / "../ggml/src").lexically_normal());
  Build build;
  build.how = std::move(how);
  build.root = root;
  PB_TRY(FollowNeeds(llama, dirs, &build));
  PB_TRY(FindHeaders(root, &build));
  if (const fs::path models = build.include_dirs.front().parent_path() / "models";
      Exists(models / "ggml-vocab-llama-bpe.gguf"))
    build.vocabulary_dir = models;
  return build;
}

Result<std::vector<Fingerprint>> Fingerprints(const Build& build) {
  std::set<fs::path> files(build.libraries.begin(), build.libraries.end()), dirs;
  for (const fs::path& library : build.libraries) {
    const fs::path own = library.parent_path() / "ggml";
    dirs.insert({library.parent_path(), own});
    for (const fs::path& below : FilesOf(own)) dirs.insert(below);
  }
  for (const fs::path& dir : dirs)
    for (const fs::path& file : FilesOf(dir))
      if (IsEngineLibrary(file)) files.insert(file);
  std::vector<Fingerprint> prints;
  for (const fs::path& file : files) {
    Fingerprint print;
    std::error_code error;
    print.file = file;
    print.bytes = fs::file_size(file, error);
    if (error) return MakeError(Code::kIo, "{}: {}", file.string(), error.message());
    print.changed_ns = fs::last_write_time(file, error).time_since_epoch().count();
    PB_ASSIGN(print.sha256, Sha256File(file));
    prints.push_back(std::move(print));
  }
  return prints;
}

bool IsUnchanged(const Fingerprint& print) {
  std::error_code error;
  if (fs::file_size(print.file, error) != print.bytes || error) return false;
  return fs::last_write_time(print.file, error).time_since_epoch().count() == print.changed_ns && !error;
}

Result<std::string> HeadersDigest(const Build& build) {
  std::string all = build.version + '\n' + build.commit + '\n';
  for (const fs::path& dir : build.include_dirs) {
    for (const fs::path& file : FilesOf(dir)) {
      const std::string name = file.filename().string();
      if (!name.ends_with(".h") || !(name.starts_with("llama") || name.starts_with("gg"))) continue;
      PB_ASSIGN(const std::string digest, Sha256File(file));
      all += name + ' ' + digest + '\n';
    }
  }
  return Sha256Hex(all);
}

Result<std::string> BuildDigest(const Build& build, const std::vector<Fingerprint>& libraries) {
  PB_ASSIGN(std::string all, HeadersDigest(build));
  for (const Fingerprint& print : libraries)
    all += '\n' + print.file.filename().string() + ' ' + print.sha256;
  return Sha256Hex(all);
}

}  // namespace pb::setup

// The table of releases; fetches their packages and unpacks what an adapter needs of them.
#include "setup/release.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/suggest.h"
#include "setup/process.h"
#include "setup/record.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
constexpr double kGitSeconds = 600;

struct Row {
  const char *version, *package, *libraries_sha256, *sources_sha256;
};
// The first is the default. What each of them needs of the adapter is found out from its headers.
constexpr Row kReleases[] = {
    {"v0.5.0", "3.22.1", "0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0",
     "a0d9dd80eacd2ab1cfe71aee57ac8a806487fd70b3d2a38fbec637752d9e5c5f"},
    {"v0.4.0", "3.21.1", "4b5b65a8b2611d8af94349b02d815c0f424a30a0a19aef2be5db25ecfef6730f",
     "7a231d6bafa14142a1cbed9893d4ec5bc6041b2a5f5939a623accaab4203c11f"},
    {"b10361", "3.20.0", "76dbb03706ff469dee148e835e22c536b76c7c2865ac8c26f90739dda58b2dd0",
     "69e17d87f4d4fedde99cc03599b995a032fb67680e7da2d4f082dfdac4f904c9"},
    {"b7347", "3.14.5", "a504a0e872271766572ea426fc94d1d230ce453af433522a2fe78d80e4aed944",
     "9cd9572d8f9ff16f06d08ae3c513e3e9ffa6617b627ff328fe7853029b140974"},
};

// A wheel for another use, of which nothing but libraries and headers is read.
const Release kIk = {"ik-0.1.5",
                     "0.1.5",
                     {PackageClient::kPip, "ik-llama-cpp-python==0.1.5",
                      "52408f31dd05d16ada53b041155f14ec1fee9acd6ab0b4b4f77de04bd565bd67", "25 MB",
                      "cp311 manylinux_2_28_x86_64"},
                     {}};

Release MakeRelease(std::string version, const std::string& package, std::string libraries,
                    std::string sources) {
  return {
      std::move(version),
      package,
      {PackageClient::kNpm, "@node-llama-cpp/linux-x64@" + package, std::move(libraries), "about 11 MB", ""},
      {PackageClient::kNpm, "node-llama-cpp@" + package, std::move(sources), "about 36 MB", ""}};
}

// Three numbers with points: a version of the packages.
bool IsPackageVersion(std::string_view text) {
  return std::count(text.begin(), text.end(), '.') == 2 && text.front() != '.' && text.back() != '.' &&
         text.find("..") == text.npos && text.find_first_not_of("0123456789.") == text.npos;
}

Status CopyFiles(const fs::path& from, const fs::path& to,
                 const std::function<bool(const std::string&)>& take) {
  std::error_code error;
  fs::create_directories(to, error);
  int n = 0;
  for (const auto& entry : fs::directory_iterator(from, error)) {
    if (!entry.is_regular_file() || !take(entry.path().filename().string())) continue;
    fs::copy_file(entry.path(), to / entry.path().filename(), error);
    if (error)
      return MakeError(Code::kIo, "{}: cannot be copied: {}", entry.path().string(), error.message());
    ++n;
  }
  if (n == 0)
    return MakeError(Code::kMalformed, "{}: the package does not hold what was expected", from.string());
  return {};
}

// Of the engine; the others belong to the reference's own tools.
bool IsEngineLibrary(const std::string& name) {
  return (name.starts_with("libllama.") || name.starts_with("libggml")) && name.find(".so") != name.npos;
}
bool IsHeader(const std::string& name) { return name.ends_with(".h"); }
bool IsVocabulary(const std::string& name) { return name.starts_with("ggml-vocab-"); }

Status UnpackLibraries(const Release& release, const fs::path& work, const fs::path& home,
                       const SetupOptions& options) {
  PB_ASSIGN(const fs::path archive, Fetch(release.libraries, work / "fetch-libraries", options));
  PB_TRY(Unpack(archive, work / "libraries"));
  return CopyFiles(work / "libraries/package/bins/linux-x64", home / "lib", IsEngineLibrary);
}

// What the package says of itself: {"tag": "v0.5.0"}.
std::string TagOf(const fs::path& file) {
  const Result<std::string> text = ReadFile(file, 1 << 16);
  return text.ok() ? Text(nlohmann::json::parse(*text, nullptr, false), "tag") : "";
}

Status UnpackSources(const Release& release, const fs::path& work, const fs::path& home,
                     const SetupOptions& options) {
  PB_ASSIGN(const fs::path archive, Fetch(release.sources, work / "fetch-sources", options));
  PB_TRY(Unpack(archive, work / "sources"));
  const fs::path package = work / "sources/package/llama";
  const std::string tree = (work / "tree").string();
  if (options.progress) options.progress("unpacking headers and vocabularies");
  PB_TRY(RunProgramOk({"git", "-c", "advice.detachedHead=false", "clone", "--quiet", "--no-checkout",
                       (package / "gitRelease.bundle").string(), tree},
                      kGitSeconds));
  PB_TRY(RunProgramOk(
      {"git", "-C", tree, "checkout", "--quiet", "HEAD", "--", "include", "ggml/include", "models"},
      kGitSeconds));
  PB_TRY(CopyFiles(work / "tree/include", home / "include", IsHeader));
  PB_TRY(CopyFiles(work / "tree/ggml/include", home / "include", IsHeader));
  PB_TRY(CopyFiles(work / "tree/models", home / "models", IsVocabulary));
  return WriteFileAtomic(home / "version.txt", TagOf(package / "llama.cpp.info.json"));
}

std::string PackagesText(const Release& release) {
  if (release.sources.name.empty())
    return fmt::format("{} {}\n", release.libraries.name, release.libraries.sha256);
  return fmt::format("{} {}\n{} {}\n", release.libraries.name, release.libraries.sha256, release.sources.name,
                     release.sources.sha256);
}

// The packages' content is unpacked whole before it gets its name, so the record of what it came
// from is enough.
bool IsUnpacked(const Release& release) {
  const Result<std::string> packages = ReadFile(ReleaseDir(release) / "packages.txt");
  return packages.ok() && *packages == PackagesText(release);
}

Status FetchPackages(const Release& release, const SetupOptions& options) {
  if (release.libraries.sha256.empty() && options.progress)
    options.progress(
        fmt::format("packages {} are not known to this paritybit: they are believed as they come, and "
                    "remembered by digest",
                    release.package));
  PB_ASSIGN(const WorkDir work, WorkDir::Create(ReferencesDir()));
  const fs::path home = work.path() / "home";
  if (release.sources.name.empty()) {
    PB_ASSIGN(const fs::path archive, Fetch(release.libraries, work.path() / "fetch", options));
    PB_TRY(Unpack(archive, home));
    PB_TRY(WriteFileAtomic(home / "version.txt", release.version));
    PB_TRY(WriteFileAtomic(home / "packages.txt", PackagesText(release)));
    return Replace(home, ReleaseDir(release));
  }
  PB_TRY(UnpackLibraries(release, work.path(), home, options));
  PB_TRY(UnpackSources(release, work.path(), home, options));
  PB_TRY(WriteFileAtomic(home / "packages.txt", PackagesText(release)));
  return Replace(home, ReleaseDir(release));
}

}  // namespace

Result<Release> FindRelease(std::string_view version) {
  for (const Row& row : kReleases)
    if (version == row.version || version == row.package)
      return MakeRelease(row.version, row.package, row.libraries_sha256, row.sources_sha256);
  if (version == kIk.version) return kIk;
  if (IsPackageVersion(version)) return MakeRelease("", std::string(version), "", "");
  const std::vector<std::string> known = KnownReleases();
  return MakeError(Code::kUsage,
                   "--version {}: no such release is known{}\n"
                   "       they are:        {}\n"
                   "       any other:       the version of its npm package node-llama-cpp, as 3.18.1",
                   version, DidYouMean(version, known), fmt::join(known, ", "));
}

std::vector<std::string> KnownReleases() {
  std::vector<std::string> versions;
  for (const Row& row : kReleases) versions.emplace_back(row.version);
  versions.push_back(kIk.version);
  return versions;
}

fs::path ReleaseDir(const Release& release) {
  const char* name = release.sources.name.empty() ? ".package-ik-llama-cpp-" : ".package-node-llama-cpp-";
  return ReferencesDir() / (name + release.package);
}

fs::path BundleOf(const Release& release) {
  return ReferencesDir() / (".bundle-node-llama-cpp-" + release.package) / "llama.cpp.bundle";
}

Status FetchBundle(const Release& release, const SetupOptions& options) {
  std::error_code error;
  if (fs::exists(BundleOf(release), error)) return {};
  PB_ASSIGN(const WorkDir work, WorkDir::Create(ReferencesDir()));
  PB_ASSIGN(const fs::path archive, Fetch(release.sources, work.path() / "fetch", options));
  PB_TRY(Unpack(archive, work.path() / "sources"));
  return Replace(work.path() / "sources/package/llama/gitRelease.bundle", BundleOf(release));
}

Result<Build> FetchRelease(const Release& release, const SetupOptions& options) {
  if (!IsUnpacked(release) || (options.rebuild && !options.offline)) PB_TRY(FetchPackages(release, options));
  const std::string& name = release.libraries.name;
  PB_ASSIGN(
      Build build,
      ReadBuild(ReleaseDir(release),
                "package " + (release.sources.name.empty() ? name : "node-llama-cpp " + release.package)));
  build.version = release.version;
  if (build.version.empty()) {
    PB_ASSIGN(build.version, ReadFile(ReleaseDir(release) / "version.txt"));
  }
  return build;
}

}  // namespace pb::setup

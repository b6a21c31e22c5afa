// llama.cpp as a reference: where it stands in the cache, how it gets there, and what must hold
// before it is remembered.
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/program.h"
#include "base/text.h"
#include "setup/adapter_build.h"
#include "setup/golden_pass.h"
#include "setup/packages.h"
#include "setup/process.h"
#include "setup/setup.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kName[] = "llama.cpp";
constexpr char kVersion[] = "v0.5.0";
constexpr char kSchema[] = "paritybit.reference/1";
constexpr double kGitSeconds = 600;

fs::path ReferencesDir() { return CacheDir() / "references"; }
fs::path Home() { return ReferencesDir() / kName; }

// Each state of the adapter's sources has a place of its own, so that several versions of paritybit
// share one cache.
fs::path AdapterDir(const std::string& digest) { return Home() / ("adapter-" + digest.substr(0, 16)); }
fs::path Record(const std::string& digest) { return AdapterDir(digest) / "reference.json"; }

Reference Describe(const std::string& digest) {
  return {kName, kVersion, AdapterDir(digest) / "llama_cpp.so", {}, Home() / "lib", Home() / "vocabularies"};
}

std::string PackagesDigest() {
  return fmt::format("{} {}", kLlamaCppLibraries.sha256, kLlamaCppSources.sha256);
}

Error NotSetUp(std::string_view why) {
  return MakeError(Code::kNotFound,
                   "no reference named \"{}\" is set up{}.\n"
                   "       set one up:      {} setup-cpp-auto\n"
                   "       or look around:  {} preflight",
                   kName, why, ProgramName(), ProgramName());
}

Error UnknownName(std::string_view name) {
  return MakeError(Code::kUsage, "no reference named \"{}\" is known; known: {}", name, kName);
}

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// A string of the record; empty when it is absent or something else.
std::string Text(const json& record, const char* key) {
  const auto at = record.find(key);
  return at != record.end() && at->is_string() ? at->get<std::string>() : std::string();
}

// The packages' content is unpacked whole before it gets its name, so the record of what it came
// from is enough.
bool HasPackages() {
  const Result<std::string> digest = ReadFile(Home() / "packages.txt");
  return digest.ok() && *digest == PackagesDigest();
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

bool IsEngineLibrary(const std::string& name) {
  const bool common = name.find("-common") != name.npos;  // the reference's own tools
  return name.rfind("lib", 0) == 0 && name.size() > 3 && name.substr(name.size() - 3) == ".so" && !common;
}

bool IsHeader(const std::string& name) { return name.size() > 2 && name.substr(name.size() - 2) == ".h"; }

bool IsVocabulary(const std::string& name) { return name.rfind("ggml-vocab-", 0) == 0; }

Status FetchLibraries(const fs::path& work, const fs::path& home, const SetupOptions& options) {
  PB_ASSIGN(const fs::path archive, Fetch(kLlamaCppLibraries, work / "fetch-libraries", options));
  PB_TRY(Unpack(archive, work / "libraries"));
  return CopyFiles(work / "libraries/package/bins/linux-x64", home / "lib", IsEngineLibrary);
}

Status FetchSources(const fs::path& work, const fs::path& home, const SetupOptions& options) {
  PB_ASSIGN(const fs::path archive, Fetch(kLlamaCppSources, work / "fetch-sources", options));
  PB_TRY(Unpack(archive, work / "sources"));
  const std::string bundle = (work / "sources/package/llama/gitRelease.bundle").string();
  const std::string tree = (work / "tree").string();
  if (options.progress) options.progress("unpacking headers and vocabularies");
  PB_TRY(RunProgramOk(
      {"git", "-c", "advice.detachedHead=false", "clone", "--quiet", "--no-checkout", bundle, tree},
      kGitSeconds));
  PB_TRY(RunProgramOk(
      {"git", "-C", tree, "checkout", "--quiet", "HEAD", "--", "include", "ggml/include", "models"},
      kGitSeconds));
  PB_TRY(CopyFiles(work / "tree/include", home / "include", IsHeader));
  PB_TRY(CopyFiles(work / "tree/ggml/include", home / "include", IsHeader));
  return CopyFiles(work / "tree/models", home / "vocabularies", IsVocabulary);
}

Status FetchPackages(const SetupOptions& options) {
  PB_ASSIGN(const WorkDir work, WorkDir::Create(ReferencesDir()));
  const fs::path home = work.path() / "home";
  PB_TRY(FetchLibraries(work.path(), home, options));
  PB_TRY(FetchSources(work.path(), home, options));
  PB_TRY(WriteFileAtomic(home / "packages.txt", PackagesDigest()));
  return Replace(home, Home());
}

Status Remember(const std::string& adapter_digest, const std::string& proof) {
  const json record = {
      {"schema", kSchema},
      {"name", kName},
      {"version", kVersion},
      {"adapter_digest", adapter_digest},
      {"packages", {std::string(kLlamaCppLibraries.name), std::string(kLlamaCppSources.name)}},
      {"golden_pass", proof}};
  return WriteFileAtomic(Record(adapter_digest), DumpJson(record, 2) + "\n");
}

void Say(const SetupOptions& options, std::string_view line) {
  if (options.progress) options.progress(line);
}

Result<Reference> SetUpLocked(const SetupOptions& options) {
  if (!options.rebuild) {
    if (Result<Reference> found = FindReference(kName); found.ok())
      return found;  // another set-up was quicker
  }
  if (!HasPackages() || (options.rebuild && !options.offline)) PB_TRY(FetchPackages(options));
  PB_ASSIGN(const std::string digest, AdapterDigest(PackagesDigest()));
  std::error_code ignored;
  fs::remove(Record(digest), ignored);  // not remembered while it may be half
  const Reference reference = Describe(digest);
  Say(options, "compiling the adapter");
  PB_TRY(BuildAdapter(Home(), kVersion, reference.plugin));
  Say(options, "proving it with a golden forward pass");
  PB_ASSIGN(const std::string proof, GoldenPass(reference));
  PB_TRY(Remember(digest, proof));
  Say(options, fmt::format("{} {} is ready: {}", kName, kVersion, proof));
  return reference;
}

}  // namespace

std::vector<std::string> KnownReferences() { return {kName}; }

Result<Reference> FindReference(std::string_view name) {
  if (name != kName) return UnknownName(name);
  PB_ASSIGN(const std::string digest, AdapterDigest(PackagesDigest()));
  const Result<std::string> text = ReadFile(Record(digest));
  if (!text.ok()) return NotSetUp("");
  const json record = json::parse(*text, nullptr, false);
  if (!record.is_object() || Text(record, "schema") != kSchema || Text(record, "adapter_digest") != digest) {
    return NotSetUp(": " + Record(digest).string() + " is damaged");
  }
  Reference reference = Describe(digest);
  for (const fs::path& path : {reference.plugin, reference.library_dir, reference.vocabulary_dir}) {
    if (!Exists(path)) return NotSetUp(": " + path.string() + " is gone");
  }
  return reference;
}

Result<Reference> SetUpReference(std::string_view name, const SetupOptions& options) {
  if (name != kName) return UnknownName(name);
  if (!options.rebuild) {
    if (Result<Reference> found = FindReference(kName); found.ok()) return found;
  }
  PB_ASSIGN(const Lock lock, Lock::Take(ReferencesDir() / ".lock", options.progress));
  return SetUpLocked(options);
}

}  // namespace pb::setup

// Sets a reference up: which build is taken, what must hold before it is remembered, and what is
// checked when it is looked up again.
#include <fmt/format.h>

#include <algorithm>

#include "base/file.h"
#include "base/program.h"
#include "base/suggest.h"
#include "setup/adapter_build.h"
#include "setup/build.h"
#include "setup/discover.h"
#include "setup/golden_pass.h"
#include "setup/record.h"
#include "setup/release.h"
#include "setup/setup.h"
#include "setup/source_build.h"
#include "setup/work_dir.h"

namespace pb::setup {
namespace {

namespace fs = std::filesystem;
constexpr char kDefaultName[] = "llama.cpp";

// The command that sets this name up.
std::string Command(std::string_view name) {
  const std::string flag = name == kDefaultName ? "" : fmt::format(" --name {}", name);
  return fmt::format("{} setup-cpp-auto{}", ProgramName(), flag);
}

Error NotSetUp(std::string_view name, std::string_view why) {
  return MakeError(Code::kNotFound,
                   "no reference named \"{}\" is set up{}.\n"
                   "       set one up:      {}\n"
                   "       or look around:  {} preflight",
                   name, why, Command(name), ProgramName());
}

Error UnknownName(std::string_view name) {
  const std::vector<std::string> known = KnownReferences();
  return MakeError(Code::kUsage, "no reference named \"{}\" is known{}; known: {}", name,
                   DidYouMean(name, known), fmt::join(known, ", "));
}

// Letters, digits and ._+-: it is a word of a command line and a folder's name.
Status CheckName(std::string_view name) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '+' || c == '-';
  };
  const bool good = !name.empty() && name.size() <= 64 && name[0] != '.' && name[0] != '-' &&
                    !name.ends_with(".so") && std::all_of(name.begin(), name.end(), fits);
  if (good) return {};
  return MakeError(Code::kUsage,
                   "\"{}\" is no name for a reference: at most 64 letters, digits and . _ + -, the first a "
                   "letter or a digit, and not ending in .so",
                   name);
}

Reference Describe(const Record& record, const std::string& adapter_digest) {
  Reference reference;
  reference.name = record.name;
  reference.version = record.build.version, reference.commit = record.commit;
  reference.how = record.build.how, reference.root = record.build.root;
  reference.plugin = AdapterDir(record.name, adapter_digest) / "llama_cpp.so";
  reference.library_dir = record.build.library_dir();
  reference.vocabulary_dir = record.build.vocabulary_dir;
  reference.digest = record.digest;
  for (const Fingerprint& print : record.libraries)
    reference.libraries.emplace_back(print.file, print.sha256);
  return reference;
}

// What may become the reference, before anybody looked at it.
struct Candidate {
  std::string how;
  fs::path root;
  std::string release;  // a version: it comes by package
  bool source = false;  // cloned and built
  bool chosen = false;  // what keeps it from being used is an error, and nothing else is tried
};

std::string Name(const Candidate& candidate) {
  if (candidate.source) return "its sources";
  return candidate.release.empty() ? fmt::format("{} ({})", candidate.how, candidate.root.string())
                                   : candidate.how;
}

Candidate OfRelease(std::string_view version, bool pinned) {
  return {fmt::format("release {} by package{}", version, pinned ? ", the default" : ""),
          {},
          std::string(version),
          false,
          true};
}

// In the order in which they are tried.
std::vector<Candidate> CandidatesOf(const SetupOptions& options, const Result<Record>& remembered) {
  if (!options.from.empty()) return {{"--from", options.from, "", false, true}};
  if (options.from_source) return {{"fetch-cpp", {}, "", true, true}};
  if (!options.version.empty()) return {OfRelease(options.version, false)};
  if (!options.locations.empty())
    return {{options.locations[0].variable, options.locations[0].path, "", false, true}};
  std::vector<Candidate> candidates;
  if (remembered.ok())
    candidates.push_back(
        {remembered->build.how, remembered->build.root, remembered->release, false, remembered->chosen});
  if (!remembered.ok() || !remembered->chosen)
    for (const Place& place : DiscoverBuilds())
      candidates.push_back({place.how, place.root, "", false, false});
  candidates.push_back(OfRelease(KnownReleases().front(), true));
  return candidates;
}

// Whether what is remembered is what was asked for.
bool IsWhatWasAskedFor(const SetupOptions& options, const Record& record) {
  std::error_code error;
  if (options.from_source) return false;  // its sources may have moved on
  if (!options.from.empty()) return fs::canonical(options.from, error) == record.build.root && !error;
  if (!options.version.empty()) {
    const Result<Release> release = FindRelease(options.version);
    return release.ok() && !record.release.empty() &&
           ReleaseDir(*release).filename() == record.build.root.filename();
  }
  if (!options.locations.empty())
    return fs::canonical(options.locations[0].path, error) == record.build.root && !error;
  return true;
}

// One set-up of one name.
class SetUp {
 public:
  SetUp(std::string_view name, const SetupOptions& options) : name_(name), options_(options) {}

  Result<Reference> Run() {
    const Result<Record> remembered = ReadRecord(name_);
    for (const Candidate& candidate : CandidatesOf(options_, remembered)) {
      Say(fmt::format("{}: trying {}", name_, Name(candidate)));
      Result<Reference> reference = Take(candidate);
      if (reference.ok() || candidate.chosen) return reference;
      const std::string& why = reference.error().message;
      Say(fmt::format("{}: passed over: {}", name_, why.substr(0, why.find('\n'))));
    }
    PB_CHECK(false);  // the last one is always chosen
  }

 private:
  void Say(std::string_view line) const {
    if (options_.progress) options_.progress(line);
  }

  Result<Build> BuildOf(const Candidate& candidate) const {
    if (candidate.source) {
      PB_ASSIGN(const SourceTree tree, BuildSources(options_));
      PB_ASSIGN(Build build, ReadBuild(tree.root, tree.how));
      build.commit = tree.commit;
      return build;
    }
    if (candidate.release.empty()) return ReadBuild(candidate.root, candidate.how);
    PB_ASSIGN(const Release release, FindRelease(candidate.release));
    return FetchRelease(release, options_);
  }

  Result<Reference> Foresee(const Candidate& candidate) const {
    Reference reference;
    reference.name = name_, reference.how = candidate.how, reference.version = candidate.release;
    if (candidate.source) {
      PB_ASSIGN(const SourceTree tree, BuildSources(options_));
      reference.root = tree.root, reference.how = tree.how;
      reference.library_dir = tree.root / "build/bin";
      return reference;
    }
    if (candidate.release.empty()) {
      PB_ASSIGN(const Build build, ReadBuild(candidate.root, candidate.how));
      reference.root = build.root, reference.library_dir = build.library_dir();
    } else {
      PB_ASSIGN(const Release release, FindRelease(candidate.release));
      reference.root = ReleaseDir(release);
      reference.library_dir = reference.root / (release.sources.name.empty() ? "lib64" : "lib");
    }
    return reference;
  }

  Result<Reference> Take(const Candidate& candidate) const {
    if (options_.dry_run) return Foresee(candidate);
    Record record;
    record.name = name_, record.release = candidate.release, record.chosen = candidate.chosen;
    PB_ASSIGN(record.build, BuildOf(candidate));
    PB_ASSIGN(record.libraries, Fingerprints(record.build));
    PB_ASSIGN(record.digest, BuildDigest(record.build, record.libraries));
    PB_ASSIGN(const std::string digest, AdapterDigest(record.digest));
    std::error_code ignored;
    fs::remove(AdapterDir(name_, digest) / "proof.json", ignored);  // none while it may be half
    Reference reference = Describe(record, digest);
    Say(fmt::format("{}: compiling the adapter against {}", name_, record.build.include_dirs[0].string()));
    PB_TRY(BuildAdapter(record.build, reference.plugin, options_));
    Say(fmt::format("{}: proving it with a golden forward pass", name_));
    PB_ASSIGN(const Proof proof, GoldenPass(reference));
    record.commit = reference.commit = proof.commit;
    record.build.version = reference.version = proof.version;
    reference.proof = proof.text;
    PB_TRY(WriteProof(name_, digest, proof.text));
    PB_TRY(WriteRecord(record));
    Say(fmt::format("{}: {} is ready: {}", name_, reference.version, proof.text));
    return reference;
  }

  std::string name_;
  const SetupOptions& options_;
};

// What is remembered, where it is whole and what was asked for.
Result<Reference> FindAskedFor(std::string_view name, const SetupOptions& options) {
  PB_ASSIGN(Reference reference, FindReference(name));
  PB_ASSIGN(const Record record, ReadRecord(name));
  if (IsWhatWasAskedFor(options, record)) return reference;
  return NotSetUp(name, ": another one is");
}

}  // namespace

std::vector<std::string> KnownReferences() {
  std::vector<std::string> names = {kDefaultName};
  for (std::string& name : RecordedNames())
    if (name != kDefaultName) names.push_back(std::move(name));
  return names;
}

Result<Reference> FindReference(std::string_view name) {
  Result<Record> record = CheckName(name).ok() ? ReadRecord(name) : UnknownName(name);
  if (!record.ok()) {
    if (record.error().code == Code::kMalformed) return NotSetUp(name, ": " + record.error().message);
    return name == kDefaultName ? NotSetUp(name, "") : UnknownName(name);
  }
  for (const Fingerprint& print : record->libraries)
    if (!IsUnchanged(print))
      return NotSetUp(name, fmt::format(" as it is now: {} is gone or has changed since it was proved",
                                        print.file.string()));
  PB_ASSIGN(const std::string digest, AdapterDigest(record->digest));
  Reference reference = Describe(*record, digest);
  const Result<std::string> proof = ReadProof(name, digest);
  std::error_code ignored;
  if (!proof.ok() || !fs::exists(reference.plugin, ignored))
    return NotSetUp(name, " for this version of paritybit, which has compiled no adapter for it");
  reference.proof = *proof;
  return reference;
}

Result<Reference> SetUpReference(std::string_view name, const SetupOptions& options) {
  PB_TRY(CheckName(name));
  if (!options.rebuild) {
    if (Result<Reference> found = FindAskedFor(name, options); found.ok()) {
      if (options.progress)
        options.progress(fmt::format("{}: remembered: {} from {} ({})", name, found->version, found->how,
                                     found->root.string()));
      return found;
    }
  }
  if (options.dry_run) return SetUp(name, options).Run();
  PB_ASSIGN(const Lock lock, Lock::Take(ReferencesDir() / ".lock", options.progress));
  if (!options.rebuild) {
    if (Result<Reference> found = FindAskedFor(name, options); found.ok())
      return found;  // another set-up was quicker
  }
  return SetUp(name, options).Run();
}

}  // namespace pb::setup

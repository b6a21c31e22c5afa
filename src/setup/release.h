// Releases of llama.cpp, and of ik_llama.cpp, that come prebuilt as packages, with their headers.
#ifndef PARITYBIT_SETUP_RELEASE_H_
#define PARITYBIT_SETUP_RELEASE_H_

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "setup/build.h"
#include "setup/packages.h"
#include "setup/setup.h"

namespace pb::setup {

struct Release {
  std::string version;  // llama.cpp's own, as "v0.5.0"; empty: the package tells it
  std::string package;  // the packages' version, as "3.22.1"
  Package libraries;    // libllama, libggml, one CPU library per instruction set
  // A git bundle: the sources, headers, vocabularies with test vectors. No name: the libraries' package
  // has the headers, too.
  Package sources;
};

// By llama.cpp's version or the packages'. A version of the packages that this program does not
// know has no digests here. kUsage, with what there is, where it is neither.
Result<Release> FindRelease(std::string_view version);
// All versions, the one that is set up by default first.
std::vector<std::string> KnownReleases();

// The git bundle of its sources, and its fetching where it is not there yet. Of one that has sources.
std::filesystem::path BundleOf(const Release& release);
Status FetchBundle(const Release& release, const SetupOptions& options);

// Where this release stands once it was fetched.
std::filesystem::path ReleaseDir(const Release& release);
// The folder of its libraries and headers: as it is, else fetched, checked and unpacked.
Result<Build> FetchRelease(const Release& release, const SetupOptions& options);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_RELEASE_H_

// llama.cpp from its sources: cloned at one revision with its submodules, configured, built.
#ifndef PARITYBIT_SETUP_SOURCE_BUILD_H_
#define PARITYBIT_SETUP_SOURCE_BUILD_H_

#include <filesystem>
#include <string>

#include "base/result.h"
#include "setup/setup.h"

namespace pb::setup {

struct SourceTree {
  std::filesystem::path root;  // build/ stands in it
  std::string how;             // "fetch-cpp URL at 0123456789ab"
  std::string commit;
};

// Clones what the options' sources name into the cache (no repository named: the sources of the
// default release, by package), checks the revision out, builds it, and keeps the log. A tree that
// was built already is returned as it is, unless force or clean say otherwise. With dry_run nothing
// is done and the commands are said.
// Errors: kUsage (a revision or flags that are none), kNotFound (git, cmake or a compiler is
// missing; no such revision), kIo (it does not build: the compiler's last errors and the log).
Result<SourceTree> BuildSources(const SetupOptions& options);

// The words of a command line: quotes and backslashes as in a shell, nothing else. kUsage: a quote
// that does not end.
Result<std::vector<std::string>> SplitWords(std::string_view text);

}  // namespace pb::setup

#endif  // PARITYBIT_SETUP_SOURCE_BUILD_H_

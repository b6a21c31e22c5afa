// Where tests find the files of this source tree and of its build. Functions, compiled once: no
// test's own command line names a folder of this machine, so that a compiler cache serves every
// checkout.
#ifndef PARITYBIT_TESTS_PATHS_H_
#define PARITYBIT_TESTS_PATHS_H_

#include <string>
#include <string_view>

namespace pb {

// `path` within the source tree: SourcePath("models/heldout.txt").
std::string SourcePath(std::string_view path);
// `path` within the build tree.
std::string BuildPath(std::string_view path);
// An engine plugin of this build: PluginPath("native").
std::string PluginPath(std::string_view name);
// A bundled model: ModelPath("tiny-bitnet-silu", "tq2_0").
std::string ModelPath(std::string_view model, std::string_view type);

}  // namespace pb

#endif  // PARITYBIT_TESTS_PATHS_H_

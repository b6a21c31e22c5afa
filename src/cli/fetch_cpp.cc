// paritybit fetch-cpp: a reference from its sources: cloned, built, proved, remembered.
#include <memory>

#include "cli/command.h"
#include "cli/setup_common.h"
#include "cli/variables.h"

namespace pb::cli {

Action DeclareFetchCpp(Flags& flags) {
  auto args = std::make_shared<SetupArguments>();
  args->from_source = true;
  setup::SourceOptions& source = args->source;
  flags
      .Option("--repo", source.repo,
              "URL, folder or git bundle; else $BITNET_CPP_REPO, else the sources of the default release")
      .Group("Sources");
  flags
      .Option("--rev,--tag", source.rev,
              "branch, tag or commit; else $BITNET_CPP_REV, else the repository's HEAD")
      .Group("Sources");
  flags.Option("--backend", source.backend, "what it computes with")
      .OneOf({"cpu", "cuda"})
      .ShowDefault()
      .Group("Build");
  flags.Option("--cmake-flags", source.cmake_flags, "further words for CMake, as \"-DGGML_NATIVE=OFF\"")
      .Group("Build");
  flags.Option("-j,--jobs", source.jobs, "compilers at a time (default: one for each processor)")
      .Range(1, 1024)
      .Group("Build");
  flags.Switch("--force", source.force, "clone and build again although it is there").Group("Build");
  flags.Switch("--clean", source.clean, "build from nothing; the clone stays").Group("Build");
  AddNameArguments(flags, *args);
  AddOutputArguments(flags, args->output, nullptr);
  return [args] {
    if (const char* repo = VariableValue("BITNET_CPP_REPO"); repo && args->source.repo.empty())
      args->source.repo = repo;
    if (const char* rev = VariableValue("BITNET_CPP_REV"); rev && args->source.rev.empty())
      args->source.rev = rev;
    return RunSetup(*args, {});
  };
}

}  // namespace pb::cli

// paritybit setup-cpp-auto: from nothing to a working reference.
#include <memory>

#include "cli/command.h"
#include "cli/emit.h"
#include "cli/setup_common.h"

namespace pb::cli {

Action DeclareSetupCppAuto(Flags& flags) {
  auto args = std::make_shared<SetupArguments>();
  AddSetupArguments(flags, *args);
  flags
      .Option("--emit", args->emit,
              "stdout has exports for this shell, for other programs; paritybit needs none")
      .OneOf(Shells())
      .Group("Output");
  return [args] { return RunSetup(*args, {}); };
}

}  // namespace pb::cli

// paritybit setup-cpp-auto: from nothing to a working reference.
#include <fmt/core.h>

#include <memory>

#include "cli/command.h"
#include "cli/setup_common.h"

namespace pb::cli {

Action DeclareSetupCppAuto(Flags& flags) {
  auto args = std::make_shared<SetupArguments>();
  AddSetupArguments(flags, *args);
  return [args] { return RunSetup(*args, {}); };
}

}  // namespace pb::cli

// paritybit setup-crossval: a working reference, and a model to compare on.
#include <memory>

#include "cli/command.h"
#include "cli/setup_common.h"

namespace pb::cli {

Action DeclareSetupCrossval(Flags& flags) {
  auto args = std::make_shared<SetupArguments>();
  auto model = std::make_shared<std::string>(setup::KnownModels().front());
  AddSetupArguments(flags, *args);
  flags.Option("--model", *model, "model to fetch").OneOf(setup::KnownModels()).ShowDefault().Group("Set-up");
  return [args, model] { return RunSetup(*args, *model); };
}

}  // namespace pb::cli

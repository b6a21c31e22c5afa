// paritybit setup-crossval: a working reference, and a model to compare on.
#include <memory>

#include "cli/command.h"
#include "cli/setup_common.h"

namespace pb::cli {

Action DeclareSetupCrossval(CLI::App& app) {
  auto args = std::make_shared<SetupArguments>();
  auto model = std::make_shared<std::string>(setup::KnownModels().front());
  AddSetupArguments(app, *args);
  app.add_option("--model", *model, "model to fetch")
      ->check(CLI::IsMember(setup::KnownModels()))
      ->capture_default_str();
  return [args, model] { return RunSetup(*args, *model); };
}

}  // namespace pb::cli

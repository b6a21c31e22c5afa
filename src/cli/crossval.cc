// paritybit crossval: the main job.
#include <memory>

#include "cli/command.h"
#include "cli/crossval_common.h"

namespace pb::cli {

Action DeclareCrossval(CLI::App& app) {
  auto args = std::make_shared<CrossvalArguments>();
  AddCrossvalArguments(app, *args);
  return [args] { return RunCrossval(*args, "crossval"); };
}

}  // namespace pb::cli

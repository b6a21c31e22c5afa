// paritybit crossval: the main job.
#include <memory>

#include "cli/command.h"
#include "cli/crossval_common.h"

namespace pb::cli {

Action DeclareCrossval(Flags& flags) {
  auto args = std::make_shared<CrossvalArguments>();
  AddCrossvalArguments(flags, *args);
  return [args] { return RunCrossval(*args, "crossval"); };
}

}  // namespace pb::cli

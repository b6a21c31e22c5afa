// paritybit crossval: the main job.
#include <memory>

#include "cli/command.h"
#include "cli/crossval_common.h"

namespace pb::cli {

Action DeclareCrossval(Flags& flags) {
  auto args = std::make_shared<CrossvalArguments>();
  AddCrossvalArguments(flags, *args);
  flags.Refuse("--cpp-dir",
               "a reference is set up once: `paritybit setup-cpp-auto --from DIR`, then --reference NAME");
  flags.Refuse("--dry-run", "`paritybit preflight` says what is usable and runs nothing");
  flags.Moot("--release", "there is one build, and it is optimised");
  return [args] { return RunCrossval(*args, "crossval"); };
}

}  // namespace pb::cli

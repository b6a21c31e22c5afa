// paritybit full-crossval: a reference, a model and a comparison in one go.
#include <fmt/core.h>

#include <algorithm>
#include <memory>

#include "base/text.h"
#include "cli/command.h"
#include "cli/crossval_common.h"
#include "cli/next.h"
#include "cli/variables.h"
#include "setup/setup.h"

namespace pb::cli {
namespace {

struct FullArguments {
  CrossvalArguments crossval;
  bool offline = false, force = false;
};

// What is not here yet is fetched; what is, is used as it is.
Status SetUp(FullArguments& args) {
  setup::SetupOptions options;
  options.offline = StaysOffline(args.offline);
  options.rebuild = args.force;
  options.progress = [](std::string_view line) { PrintError(EscapeUnsafe(line) + "\n"); };
  CrossvalArguments& asked = args.crossval;
  const std::vector<std::string> references = setup::KnownReferences();
  if (asked.engines.reference.empty()) asked.engines.reference = references.front();
  PB_ASSIGN(const drive::EngineName reference, drive::ParseEngineName(asked.engines.reference));
  if (std::find(references.begin(), references.end(), reference.name) != references.end()) {
    auto ready = setup::SetUpReference(reference.name, options);
    if (!ready.ok()) return std::move(ready).error();
  }
  const std::vector<std::string> models = setup::KnownModels();
  std::string& model = asked.model.model;
  if (model.empty() && FirstVariable("model", kModelVariables)) return {};
  if (model.empty()) model = models.front();
  std::error_code ignored;
  if (std::filesystem::exists(model, ignored) ||
      std::find(models.begin(), models.end(), model) == models.end())
    return {};
  auto path = setup::FetchModel(model, options);
  return path.ok() ? Status() : Status(std::move(path).error());
}

}  // namespace

Action DeclareFullCrossval(Flags& flags) {
  auto args = std::make_shared<FullArguments>();
  args->crossval.max_tokens = 4;
  AddCrossvalArguments(flags, args->crossval);
  flags.Switch("--offline", args->offline, "use no network; else $BITNET_OFFLINE").Group("Set-up");
  flags.Switch("--force", args->force, "set the reference up again although it is there").Group("Set-up");
  for (const char* flag : {"--id", "--file", "--rev"})
    flags.Refuse(flag,
                 "--model names a file, or a model that is fetched by name; download-model fetches others");
  for (const char* flag : {"--tag", "--repo", "--backend", "--cmake-flags"})
    flags.Refuse(flag, "the reference comes ready; fetch-cpp builds one from a repository");
  return [args] {
    CrossvalArguments& asked = args->crossval;
    if (asked.prompts.empty()) asked.prompts.prompts = {"What is 2+2?"};
    if (Status ready = SetUp(*args); !ready.ok())
      return Fail(asked.output, ready.error(), {{Call("preflight"), "what is usable here"}});
    return RunCrossval(asked, "crossval");
  };
}

}  // namespace pb::cli

// Runs a set-up and prints what it found.
#include "cli/setup_common.h"

#include <fmt/core.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/next.h"
#include "report/json.h"

namespace pb::cli {

void AddSetupArguments(Flags& flags, SetupArguments& args) {
  flags.Option("reference", args.reference, "reference engine")
      .OneOf(setup::KnownReferences())
      .ShowDefault()
      .Group("Set-up");
  flags.Switch("--rebuild", args.rebuild, "do it again although it is there").Group("Set-up");
  flags.Switch("--offline", args.offline, "use no network; else $BITNET_OFFLINE").Group("Set-up");
  AddOutputArguments(flags, args.output, nullptr);
}

int RunSetup(const SetupArguments& args, const std::string& model) {
  const char* offline = std::getenv("BITNET_OFFLINE");
  setup::SetupOptions options;
  options.rebuild = args.rebuild;
  options.offline = args.offline || (offline && *offline && std::string_view(offline) != "0");
  options.progress = [](std::string_view line) { PrintError(EscapeUnsafe(line) + "\n"); };
  auto reference = setup::SetUpReference(args.reference, options);
  if (!reference) return Fail(args.output, reference.error(), {{Call("preflight"), "what is usable here"}});
  auto object = Envelope("paritybit.setup/0", "ok", kExitOk);
  object["reference"] = {{"name", reference->name},
                         {"version", reference->version},
                         {"plugin", reference->plugin.string()},
                         {"library_dir", reference->library_dir.string()}};
  std::string text = fmt::format("{} {} is ready: {}\n", reference->name, reference->version,
                                 reference->library_dir.string());
  if (!model.empty()) {
    auto path = setup::FetchModel(model, options);
    if (!path) return Fail(args.output, path.error(), {{Call("preflight"), "what is usable here"}});
    object["model"] = path->string();
    text += fmt::format("model {} is ready: {}\n", model, path->string());
  }
  const std::string next = Call(fmt::format("crossval --model {} --prompt \"The quick brown fox\"",
                                            model.empty() ? setup::KnownModels().front() : model));
  report::PutNext({{next, "a first comparison"}}, &object);
  if (args.output.json())
    PrintJson(object);
  else
    PrintText(text + "next       " + next + "\n");
  return kExitOk;
}

}  // namespace pb::cli

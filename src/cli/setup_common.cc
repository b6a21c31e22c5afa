// Runs a set-up and prints what it found.
#include "cli/setup_common.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/arguments.h"
#include "cli/emit.h"
#include "cli/next.h"
#include "report/json.h"

namespace pb::cli {
namespace {

using nlohmann::ordered_json;

// A bundled engine of that name would be meant wherever the name stands.
Status CheckName(const std::string& name) {
  for (const std::filesystem::path& plugin : BundledPlugins())
    if (plugin.stem() == name)
      return MakeError(Code::kUsage, "--name {}: an engine that comes with paritybit has this name", name);
  return {};
}

// Variables that name a folder with a build, the first of them that is set.
std::vector<setup::Location> Locations() {
  std::vector<setup::Location> found;
  for (const char* name : {"BITNET_CPP_DIR", "BITNET_CPP_PATH", "LLAMA_CPP_DIR", "BITNET_CROSSVAL_LIBDIR",
                           "LLAMA_CROSSVAL_LIBDIR"})
    if (const char* value = std::getenv(name); value && *value) found.push_back({name, value});
  return found;
}

setup::SetupOptions OptionsOf(const SetupArguments& args) {
  const char* offline = std::getenv("BITNET_OFFLINE");
  setup::SetupOptions options;
  options.rebuild = args.rebuild;
  options.offline = args.offline || (offline && *offline && std::string_view(offline) != "0");
  options.dry_run = args.dry_run;
  options.from = args.from, options.version = args.version;
  options.locations = Locations();
  options.progress = [](std::string_view line) { PrintError(EscapeUnsafe(line) + "\n"); };
  return options;
}

ordered_json JsonOf(const setup::Reference& reference) {
  ordered_json object = {{"name", reference.name},
                         {"version", reference.version},
                         {"commit", reference.commit},
                         {"source", reference.how},
                         {"root", reference.root.string()},
                         {"plugin", reference.plugin.string()},
                         {"library_dir", reference.library_dir.string()},
                         {"digest", reference.digest},
                         {"golden_pass", reference.proof}};
  object["libraries"] = ordered_json::array();
  for (const auto& [file, sha256] : reference.libraries)
    object["libraries"].push_back({{"file", file.string()}, {"sha256", sha256}});
  return object;
}

int RunChecked(const SetupArguments& args, const std::string& model) {
  const setup::SetupOptions options = OptionsOf(args);
  auto reference = setup::SetUpReference(args.name, options);
  if (!reference) return Fail(args.output, reference.error(), {{Call("preflight"), "what is usable here"}});
  auto object = Envelope("paritybit.setup/1", args.dry_run ? "dry-run" : "ok", kExitOk);
  object["reference"] = JsonOf(*reference);
  std::string text = fmt::format("{} {} {}: {}, {}\n", reference->name, reference->version,
                                 args.dry_run ? "would be set up" : "is ready", reference->how,
                                 reference->library_dir.string());
  if (!model.empty() && !args.dry_run) {
    auto path = setup::FetchModel(model, options);
    if (!path) return Fail(args.output, path.error(), {{Call("preflight"), "what is usable here"}});
    object["model"] = path->string();
    text += fmt::format("model {} is ready: {}\n", model, path->string());
  }
  const std::string engine =
      args.name == setup::KnownReferences().front() ? "" : fmt::format(" --reference {}", args.name);
  const std::string next = Call(fmt::format("crossval --model {}{} --prompt \"The quick brown fox\"",
                                            model.empty() ? setup::KnownModels().front() : model, engine));
  report::PutNext({{next, "a first comparison"}}, &object);
  if (args.output.json()) {
    PrintJson(object);
  } else if (!args.emit.empty()) {
    PrintError(EscapeUnsafe(text));
    PrintOut(ExportsOf(args.emit, *reference));
  } else {
    PrintText(text + "next       " + next + "\n");
  }
  return kExitOk;
}

}  // namespace

void AddSetupArguments(Flags& flags, SetupArguments& args) {
  flags.Option("--name", args.name, "what to remember it as; --reference takes this name")
      .ShowDefault()
      .Group("Set-up");
  const std::string releases = fmt::format("{}", fmt::join(setup::KnownReleases(), " "));
  const Flag version =
      flags
          .Option("--version", args.version, "a release by package: " + releases + ", or a package's version")
          .Group("Set-up");
  flags.Option("--from", args.from, "a folder with a build of llama.cpp: libraries and headers")
      .Excludes(version)
      .Group("Set-up");
  flags.Switch("--rebuild", args.rebuild, "do it again although it is there").Group("Set-up");
  flags.Switch("--offline", args.offline, "use no network; else $BITNET_OFFLINE").Group("Set-up");
  flags.Switch("--dry-run", args.dry_run, "say what would be taken, and do nothing").Group("Set-up");
  AddOutputArguments(flags, args.output, nullptr);
}

int RunSetup(const SetupArguments& args, const std::string& model) {
  if (const Status status = CheckName(args.name); !status.ok())
    return Fail(args.output, status.error(), {{Call("preflight"), "what is usable here"}});
  return RunChecked(args, model);
}

}  // namespace pb::cli

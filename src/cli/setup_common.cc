// Runs a set-up and prints what it found.
#include "cli/setup_common.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/arguments.h"
#include "cli/emit.h"
#include "cli/next.h"
#include "cli/progress.h"
#include "cli/variables.h"
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

setup::SetupOptions OptionsOf(const SetupArguments& args) {
  setup::SetupOptions options;
  options.rebuild = args.rebuild;
  options.offline = StaysOffline(args.offline);
  options.dry_run = args.dry_run;
  options.from = args.from, options.version = args.version;
  options.from_source = args.from_source, options.source = args.source;
  options.locations = LocationVariables();
  options.progress = [](std::string_view line) { PrintError(EscapeUnsafe(line) + "\n"); };
  return options;
}

}  // namespace

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

Result<setup::Reference> SetUp(const SetupArguments& args) {
  PB_TRY(CheckName(args.name));
  setup::SetupOptions options = OptionsOf(args);
  Progress progress(args.output, "looking around");
  options.progress = [&](std::string_view line) { progress.Say(line); };
  options.advance = [&](std::string_view what, int64_t done, int64_t total) {
    progress.Update(what, done, total);
  };
  return setup::SetUpReference(args.name, options);
}

int RunSetup(const SetupArguments& args, const std::string& model) {
  const auto reference = SetUp(args);
  if (!reference) return Fail(args.output, reference.error(), {{Call("preflight"), "what is usable here"}});
  auto object = Envelope("paritybit.setup/1", args.dry_run ? "dry-run" : "ok", kExitOk);
  object["reference"] = JsonOf(*reference);
  std::string text = fmt::format("{} {} {}: {}, {}\n", reference->name, reference->version,
                                 args.dry_run ? "would be set up" : "is ready", reference->how,
                                 reference->library_dir.string());
  if (!model.empty() && !args.dry_run) {
    auto path = setup::FetchModel(model, OptionsOf(args));
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

void AddNameArguments(Flags& flags, SetupArguments& args) {
  flags.Option("--name", args.name, "what to remember it as; --reference takes this name")
      .ShowDefault()
      .Group("Set-up");
  flags.Switch("--offline", args.offline, "use no network; else $BITNET_OFFLINE").Group("Set-up");
  flags.Switch("--dry-run", args.dry_run, "say what would be taken, and do nothing").Group("Set-up");
}

void AddSetupArguments(Flags& flags, SetupArguments& args) {
  AddNameArguments(flags, args);
  const std::string releases = fmt::format("{}", fmt::join(setup::KnownReleases(), " "));
  const Flag version =
      flags
          .Option("--version", args.version, "a release by package: " + releases + ", or a package's version")
          .Group("Set-up");
  flags.Option("--from", args.from, "a folder with a build of llama.cpp: libraries and headers")
      .Excludes(version)
      .Group("Set-up");
  flags.Switch("--from-source", args.from_source, "build it from its sources, as fetch-cpp does")
      .Excludes(version)
      .Group("Set-up");
  flags.Switch("--rebuild", args.rebuild, "do it again although it is there").Group("Set-up");
  AddOutputArguments(flags, args.output, nullptr);
}

}  // namespace pb::cli

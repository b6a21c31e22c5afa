// The runs that diverged last, and the last that did not, kept so that `diagnose` and `repro` can
// be called without arguments.
#include "cli/last_run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/kept.h"
#include "base/text.h"
#include "cli/next.h"
#include "report/text_blocks.h"

namespace pb::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
constexpr const char* kSchema = "paritybit.run/1";
constexpr const char* kRemedy = "delete it, and the run before it is explained";
constexpr size_t kMaxBytes = 16 << 20;
constexpr size_t kKept = 8;             // runs that diverged
constexpr size_t kShortPrompts = 2000;  // bytes of all prompts that stand in a command line

// Names sort by time.
constexpr const char *kDiverged = ".diverged.json", *kOther = ".other.json";
fs::path Folder() { return CacheDir() / "runs"; }

std::string Absolute(const std::string& path) {
  std::error_code error;
  if (path.empty()) return path;
  const fs::path absolute = fs::absolute(path, error);
  return error ? path : absolute.string();
}

// "trace=T" and "hf.config=C" work from any folder.
std::string AbsoluteSetting(const std::string& setting) {
  for (const char* key : {"trace=", "hf.config="})
    if (setting.starts_with(key) && setting != "hf.config=none")
      return key + Absolute(setting.substr(std::string_view(key).size()));
  return setting;
}

// An engine named by a path works from any folder, and so do its settings.
std::string AbsoluteEngine(const std::string& spec) {
  std::string absolute;
  for (size_t begin = 0; begin <= spec.size();) {
    const size_t end = std::min(spec.find(',', begin), spec.size());
    const std::string part = spec.substr(begin, end - begin);
    if (begin > 0)
      absolute += "," + AbsoluteSetting(part);
    else
      absolute += part.find('/') == std::string::npos ? part : Absolute(part);
    begin = end + 1;
  }
  return absolute;
}

// The prompts as texts, whatever becomes of the files that they were read from. Where they are
// longer than `short_enough`, as copies in the cache.
PromptArguments LastingPrompts(const PromptArguments& typed, size_t short_enough) {
  auto prompts = ReadPrompts(typed);
  if (!prompts.ok()) return typed;
  PromptArguments lasting;
  size_t n_bytes = 0;
  std::string list;
  bool lines = true;
  for (const run::PromptSpec& prompt : *prompts) {
    n_bytes += prompt.text.size();
    lines = lines && prompt.text.find('\n') == std::string::npos && !prompt.text.ends_with('\r');
    list += prompt.text + "\n";
  }
  if (n_bytes > short_enough && lines) {
    if (const std::string copy = KeepPromptText(list); !copy.empty()) {
      lasting.prompt_lists = {copy};
      return lasting;
    }
  }
  for (const run::PromptSpec& prompt : *prompts) {
    const std::string copy = n_bytes > short_enough ? KeepPromptText(prompt.text) : "";
    if (copy.empty())
      lasting.prompts.push_back(prompt.text);
    else
      lasting.prompt_files.push_back(copy);
  }
  // Files come behind texts: all of one kind keep their order.
  if (!lasting.prompts.empty() && !lasting.prompt_files.empty()) return typed;
  return lasting;
}

CrossvalArguments Lasting(const CrossvalArguments& typed, size_t short_enough = kShortPrompts) {
  CrossvalArguments args = typed;
  if (auto model = ChooseModel(typed.model); model.ok()) args.model.model = model->value;
  for (std::string* path : {&args.model.model, &args.model.tokenizer, &args.reference_model})
    *path = Absolute(*path);
  if (args.model.hf_config != "none") args.model.hf_config = Absolute(args.model.hf_config);
  for (std::string* engine : {&args.engines.candidate, &args.engines.reference})
    *engine = AbsoluteEngine(*engine);
  for (auto* settings : {&args.engines.set, &args.engines.set_reference})
    for (std::string& setting : *settings) setting = AbsoluteSetting(setting);
  args.prompts = LastingPrompts(typed.prompts, short_enough);
  return args;
}

// Text; bytes that are no UTF-8, which JSON cannot hold, as a list of their numbers.
Json Kept(const std::string& text) {
  return EscapeInvalid(text) == text ? Json(text) : Json(std::vector<uint8_t>(text.begin(), text.end()));
}

std::string Restored(const Json& kept) {
  if (kept.is_string()) return kept.get<std::string>();
  const auto bytes = kept.get<std::vector<uint8_t>>();
  return {bytes.begin(), bytes.end()};
}

// Those of a kind, the newest first.
std::vector<fs::path> Entries(std::string_view kind) {
  std::vector<fs::path> entries;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(Folder(), ignored))
    if (entry.path().string().ends_with(kind)) entries.push_back(entry.path());
  std::sort(entries.rbegin(), entries.rend());
  return entries;
}

std::vector<std::string> Words(const CrossvalArguments& args, const PlaceArguments& place,
                               const std::string& command) {
  std::vector<std::string> words = CommandWords(args, command);
  for (std::string& word : PlaceWords(place)) words.push_back(std::move(word));
  return words;
}

struct Ending {
  bool diverged = false;
  std::string verdict, why;  // "diverged", "error"; why: the worst reason
};

void Remember(const CrossvalArguments& args, const PlaceArguments& place, const std::string& command,
              const Ending& ending) {
  using std::chrono::nanoseconds;
  // What bundles an op explains the same run that diagnose does.
  const std::string kept_as = command == "repro" ? "diagnose" : command;
  const auto now =
      std::chrono::duration_cast<nanoseconds>(std::chrono::system_clock::now().time_since_epoch());
  Json words = Json::array();
  for (const std::string& word : Words(ending.diverged ? Lasting(args) : args, place, kept_as))
    words.push_back(Kept(word));
  const char* kind = ending.diverged ? kDiverged : kOther;
  const fs::path entry = Folder() / fmt::format("{:020}-{}{}", now.count(), getpid(), kind);
  WriteCacheEntry(entry, {{"schema", kSchema},
                          {"words", words},
                          {"command", Kept(Call(Words(args, place, kept_as)))},
                          {"unix_seconds", static_cast<double>(now.count()) / 1e9},
                          {"verdict", ending.verdict},
                          {"why", Kept(ending.why)}});
  const std::vector<fs::path> kept = Entries(kind);
  std::error_code ignored;
  for (size_t i = ending.diverged ? kKept : 1; i < kept.size(); ++i) fs::remove(kept[i], ignored);
}

std::string Age(double seconds) {
  struct Unit {
    double seconds;
    const char* name;
  };
  constexpr Unit kUnits[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
  for (const Unit& unit : kUnits) {
    const auto n = static_cast<int64_t>(seconds / unit.seconds);
    if (n > 0) return fmt::format("{} {}{} ago", n, unit.name, n == 1 ? "" : "s");
  }
  return "just now";
}

// What an entry says of its run; throws Json::exception where it is none.
struct Known {
  std::vector<std::string> words;
  std::string command, verdict, why;
  double unix_seconds = 0;

  std::string Told() const {
    const double now =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    std::string loud = verdict;
    for (char& c : loud) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return fmt::format("{}, {}", loud, Age(std::max(0.0, now - unix_seconds)));
  }
};

Result<Known> ReadEntry(const fs::path& path) {
  auto kept = ReadSealed(path, kMaxBytes);
  if (!kept.ok()) return MakeError(kept.error().code, "{}; {}", kept.error().message, kRemedy);
  try {
    const Json& entry = *kept;
    if (entry.at("schema") != kSchema)
      return MakeError(Code::kMalformed, "{}: another schema; {}", path.string(), kRemedy);
    Known known;
    for (const Json& word : entry.at("words")) known.words.push_back(Restored(word));
    known.command = Restored(entry.at("command"));
    known.why = Restored(entry.at("why"));
    entry.at("verdict").get_to(known.verdict);
    entry.at("unix_seconds").get_to(known.unix_seconds);
    return known;
  } catch (const Json::exception& error) {
    return MakeError(Code::kMalformed, "{}: {}; {}", path.string(), error.what(), kRemedy);
  }
}

// The last run of all, where it is younger than the one that is explained.
std::string LaterRun(const fs::path& explained) {
  const std::vector<fs::path> others = Entries(kOther);
  if (others.empty() || others[0].filename() < explained.filename()) return "";
  auto later = ReadEntry(others[0]);
  if (!later.ok()) return "";
  return fmt::format("A later run is not explained: {} ({}{})", later->command, later->Told(),
                     later->why.empty() ? "" : ": " + later->why);
}

Error NothingToExplain() {
  std::string message =
      "no comparison has diverged here yet, so there is nothing to diagnose: say what to compare with "
      "--model, --reference and --prompt";
  if (const std::string later = LaterRun({}); !later.empty()) message += ".\n       " + later;
  return MakeError(Code::kNotFound, "{}", message);
}

bool SaysWhat(const CrossvalArguments& args) {
  const CrossvalArguments unsaid;
  return !args.model.model.empty() || !args.model.hf_config.empty() || !args.prompts.empty() ||
         !args.engines.reference.empty() || !args.engines.set.empty() ||
         !args.engines.set_reference.empty() || !args.reference_model.empty() ||
         args.engines.candidate != unsaid.engines.candidate || args.max_tokens != unsaid.max_tokens;
}

}  // namespace

std::vector<std::string> LastingWords(const CrossvalArguments& args, const std::string& command) {
  return CommandWords(Lasting(args, std::string::npos), command);
}

void RememberRun(const CrossvalArguments& args, const PlaceArguments& place, const std::string& command,
                 const compare::Verdict& verdict) {
  Ending ending{diagnose::IsDivergence(verdict), compare::OutcomeName(verdict.outcome), ""};
  if (compare::ExitCode(verdict.outcome) != kExitOk && !verdict.reasons.empty())
    ending.why = verdict.reasons[0].text;
  Remember(args, place, command, ending);
}

void RememberFailure(const CrossvalArguments& args, const PlaceArguments& place, const std::string& command,
                     const Error& error) {
  if (ExitCodeOf(error.code) == kExitUsage) return;  // nothing was run
  Remember(args, place, command, {false, "error", error.message});
}

Result<std::string> UseLastRunIfNoneIsSaid(CrossvalArguments* args, PlaceArguments* place) {
  if (SaysWhat(*args)) return std::string();
  const std::vector<fs::path> entries = Entries(kDiverged);
  if (entries.empty()) return NothingToExplain();
  PB_ASSIGN(const Known known, ReadEntry(entries[0]));
  CrossvalArguments last;
  PlaceArguments place_of_last;
  const Status read = ReadWords(known.words, [&](Flags& flags) {
    AddCrossvalArguments(flags, last);
    AddPlaceArguments(flags, place_of_last);
  });
  if (!read.ok())
    return MakeError(Code::kMalformed, "{}: {}; {}", entries[0].string(), read.error().message, kRemedy);
  last.output = args->output;
  if (args->engines.threads) last.engines.threads = args->engines.threads;
  if (args->engines.timeout_seconds) last.engines.timeout_seconds = args->engines.timeout_seconds;
  if (args->engines.memory_mib) last.engines.memory_mib = args->engines.memory_mib;
  *args = std::move(last);
  if (place->stage.empty()) *place = place_of_last;
  std::string told = fmt::format("{}  ({})", known.command, known.Told());
  if (const std::string later = LaterRun(entries[0]); !later.empty())
    told += fmt::format("\n{:<{}}{}", "", report::kLabel, later);
  return told;
}

}  // namespace pb::cli

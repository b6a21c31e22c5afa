// paritybit clean-cache: shows what the cache holds and how large it is, asks, and removes it.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/suggest.h"
#include "cli/command.h"
#include "cli/next.h"
#include "cli/output.h"
#include "report/json.h"
#include "setup/cache_folder.h"

namespace pb::cli {
namespace {

using setup::CacheItem;

struct CleanArguments {
  OutputArguments output;
  std::vector<std::string> only;
  bool yes = false, dry_run = false;
};

std::string SizeText(uint64_t bytes) {
  constexpr std::pair<const char*, double> kUnits[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}};
  for (const auto& [name, size] : kUnits)
    if (static_cast<double>(bytes) >= size) return fmt::format("{:.1f} {}", double(bytes) / size, name);
  return fmt::format("{} bytes", bytes);
}

// What is to go: all that is known, or what was named.
Result<std::vector<CacheItem>> Chosen(const std::vector<CacheItem>& items,
                                      const std::vector<std::string>& only) {
  std::vector<CacheItem> chosen;
  std::vector<std::string> names;
  for (const CacheItem& item : items) {
    if (!item.known()) continue;
    names.push_back(item.name);
    if (only.empty() || std::find(only.begin(), only.end(), item.name) != only.end()) chosen.push_back(item);
  }
  for (const std::string& name : only)
    if (std::find(names.begin(), names.end(), name) == names.end())
      return MakeError(Code::kUsage, "--only {}: no part of this cache{}; it holds: {}", name,
                       DidYouMean(name, names),
                       names.empty() ? "nothing" : fmt::format("{}", fmt::join(names, " ")));
  return chosen;
}

bool AskUser() {
  PrintError("Delete this? [y/N] ");
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

uint64_t BytesOf(const std::vector<CacheItem>& items) {
  uint64_t bytes = 0;
  for (const CacheItem& item : items) bytes += item.bytes;
  return bytes;
}

std::string Listing(const std::filesystem::path& cache, const std::vector<CacheItem>& items,
                    const std::vector<CacheItem>& chosen) {
  if (chosen.empty()) return fmt::format("The cache is empty: {}\n", cache.string());
  std::string text = fmt::format("{} in {} can be deleted:\n", SizeText(BytesOf(chosen)), cache.string());
  for (const CacheItem& item : chosen)
    text += fmt::format("  {:<14} {:>10}  {} file{}  {}{}\n", item.name, SizeText(item.bytes), item.n_files,
                        item.n_files == 1 ? "" : "s", item.what,
                        item.is_link ? " (a link: what it points to stays)" : "");
  for (const CacheItem& item : items)
    if (!item.known()) text += fmt::format("  {:<14} {:>10}  stays: not paritybit's\n", item.name, "");
  return text;
}

Result<int> Clean(const CleanArguments& args) {
  if (args.yes && args.dry_run)
    return MakeError(Code::kUsage, "--yes deletes and --dry-run only shows: say which");
  const std::filesystem::path cache = CacheDir();
  PB_ASSIGN(const std::vector<CacheItem> items, setup::ListCache(cache));
  PB_ASSIGN(const std::vector<CacheItem> chosen, Chosen(items, args.only));
  if (!args.output.json()) PrintText(Listing(cache, items, chosen));
  // A program that reads JSON is asked nothing.
  const bool asked = !args.yes && !args.dry_run && !args.output.json() && !chosen.empty();
  const bool remove = args.yes || (asked && AskUser());
  if (remove)
    for (const CacheItem& item : chosen) PB_TRY(setup::RemoveFromCache(cache, item.name));
  if (!args.output.json()) {
    if (!chosen.empty())
      PrintOut(remove ? fmt::format("deleted {}\n", SizeText(BytesOf(chosen))) : "nothing was deleted\n");
    return kExitOk;
  }
  auto object = Envelope("paritybit.clean-cache/0", "ok", kExitOk);
  object["cache"] = cache.string();
  object["bytes"] = BytesOf(chosen);
  object["deleted"] = remove;
  object["items"] = nlohmann::ordered_json::array();
  for (const CacheItem& item : chosen)
    object["items"].push_back({{"name", item.name},
                               {"what", item.what},
                               {"bytes", item.bytes},
                               {"files", item.n_files},
                               {"is_link", item.is_link}});
  if (!remove && !chosen.empty()) report::PutNext({{Call("clean-cache --yes"), "deletes it"}}, &object);
  PrintJson(object);
  return kExitOk;
}

}  // namespace

Action DeclareCleanCache(Flags& flags) {
  auto args = std::make_shared<CleanArguments>();
  flags.Option("--only", args->only, "this part alone, as models or noise; may be repeated")
      .OneValue()
      .Group("What to delete");
  flags.Switch("-y,--yes", args->yes, "delete without asking").Group("What to delete");
  flags.Switch("--dry-run", args->dry_run, "only show what would be deleted").Group("What to delete");
  AddOutputArguments(flags, args->output, nullptr);
  return [args] {
    auto exit_code = Clean(*args);
    return exit_code ? *exit_code : Fail(args->output, exit_code.error());
  };
}

}  // namespace pb::cli

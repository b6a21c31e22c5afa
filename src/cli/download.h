// What the commands share that fetch from a hub.
#ifndef PARITYBIT_CLI_DOWNLOAD_H_
#define PARITYBIT_CLI_DOWNLOAD_H_

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cli/flags.h"
#include "cli/output.h"
#include "hub/hub.h"

namespace pb::cli {

struct HubArguments {
  OutputArguments output;
  std::string base_url = hub::kDefaultBase, revision = "main", sha256;
  bool force = false, offline = false, quiet = false, events = false;
  int retries = 3;
  double timeout = 1800;
};
// --base-url, --rev, --sha256, --force, --offline, --retries, --timeout, --no-progress, --json, and
// the output's.
void AddHubArguments(Flags& flags, HubArguments& args);

struct HubFile {
  std::string id, file;
  std::filesystem::path target;
};
// Fetches them one after the other, and prints what came of it; `check` is asked of each before it
// gets its name. The exit code.
int FetchFromHub(const HubArguments& args, const std::vector<HubFile>& files,
                 const std::function<Status(const std::filesystem::path&)>& check, const std::string& next);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_DOWNLOAD_H_

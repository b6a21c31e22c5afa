// What the set-up commands share.
#ifndef PARITYBIT_CLI_SETUP_COMMON_H_
#define PARITYBIT_CLI_SETUP_COMMON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/output.h"
#include "setup/setup.h"

namespace pb::cli {

struct SetupArguments {
  OutputArguments output;
  std::string name = setup::KnownReferences().front();
  std::string from, version, emit;
  bool rebuild = false, offline = false, dry_run = false, from_source = false;
  setup::SourceOptions source;
};
// --name --offline --dry-run.
void AddNameArguments(Flags& flags, SetupArguments& args);
void AddSetupArguments(Flags& flags, SetupArguments& args);
// Sets up the reference and tells on stderr how far it is.
Result<setup::Reference> SetUp(const SetupArguments& args);
// All that is known of a reference that is set up.
nlohmann::ordered_json JsonOf(const setup::Reference& reference);
// Sets up the reference and, where `model` is not empty, fetches it; returns the exit code.
int RunSetup(const SetupArguments& args, const std::string& model);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_SETUP_COMMON_H_

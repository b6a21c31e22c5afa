// What the set-up commands share.
#ifndef PARITYBIT_CLI_SETUP_COMMON_H_
#define PARITYBIT_CLI_SETUP_COMMON_H_

#include <string>

#include "cli/output.h"
#include "setup/setup.h"

namespace pb::cli {

struct SetupArguments {
  OutputArguments output;
  std::string name = setup::KnownReferences().front();
  std::string from, version, emit;
  bool rebuild = false, offline = false, dry_run = false;
};
void AddSetupArguments(Flags& flags, SetupArguments& args);
// Sets up the reference and, where `model` is not empty, fetches it; returns the exit code.
int RunSetup(const SetupArguments& args, const std::string& model);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_SETUP_COMMON_H_

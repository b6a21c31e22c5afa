// What this build is: version, commit, compiler, instruction sets, formats, pinned reference.
#ifndef PARITYBIT_CLI_VERSION_H_
#define PARITYBIT_CLI_VERSION_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace pb::cli {

// "paritybit 0.1.0 (33e5131d7a9b)": one line, without the commit where it is not known.
std::string VersionLine();
// One object of all that is known, and the same for people, line by line.
nlohmann::ordered_json BuildFacts();
std::string BuildText(const nlohmann::ordered_json& facts);

// `paritybit --version [-v] [--format json]`; argv as main has it. Returns the exit code.
int PrintVersion(int argc, char** argv);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_VERSION_H_

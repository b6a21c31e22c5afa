// The help pages, laid out for the width at hand: 80 columns are filled, 60 still read.
#ifndef PARITYBIT_CLI_HELP_H_
#define PARITYBIT_CLI_HELP_H_

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"

namespace CLI {
class App;
}

namespace pb::cli {

// What a command takes, as every page of it shows it.
struct HelpFlag {
  std::string names;  // "-m, --model TEXT"
  std::string text;   // with its default
};
struct HelpGroup {
  std::string heading;
  std::vector<HelpFlag> flags;
};
// What holds for every command comes last.
std::vector<HelpGroup> GroupsOf(const CLI::App& declared);
// " A B": the words that a command takes by their place.
std::string WordsOf(const CLI::App& declared);
// Exit codes, and what each says.
std::span<const std::pair<const char*, const char*>> ExitCodes();
inline constexpr const char* kPurpose =
    "Proves that one LLM inference engine computes what another computes, or says where they part.";

// Columns of a help page on stdout: those of the terminal, and never more than 80.
size_t HelpWidth();
// `paritybit --help`: the commands and the exit codes.
std::string HelpOfAll(std::span<const Command> commands, size_t width);
// `paritybit COMMAND --help`: its flags, group by group, and an example that can be pasted.
std::string HelpOf(const Command& command, const CLI::App& declared, size_t width);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_HELP_H_

// The help pages, laid out for the width at hand: 80 columns are filled, 60 still read.
#ifndef PARITYBIT_CLI_HELP_H_
#define PARITYBIT_CLI_HELP_H_

#include <cstddef>
#include <span>
#include <string>

#include "cli/command.h"

namespace CLI {
class App;
}

namespace pb::cli {

// Columns of a help page on stdout: those of the terminal, and never more than 80.
size_t HelpWidth();
// `paritybit --help`: the commands and the exit codes.
std::string HelpOfAll(std::span<const Command> commands, size_t width);
// `paritybit COMMAND --help`: its flags, group by group, and an example that can be pasted.
std::string HelpOf(const Command& command, const CLI::App& declared, size_t width);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_HELP_H_

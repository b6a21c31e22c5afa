// Lays out the help pages. What CLI11 prints by itself does not break lines.
#include "cli/help.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <algorithm>

#include "base/program.h"
#include "cli/output.h"
#include "report/escape.h"

namespace pb::cli {
namespace {

constexpr size_t kNames = 27;   // columns before what is said of a flag
constexpr size_t kNarrow = 72;  // below that it stands on lines of its own

// A name and what is said of it, beside each other or below each other.
std::string Entry(const std::string& name, const std::string& text, size_t width, size_t column) {
  const size_t indent = width < kNarrow ? 6 : column;
  std::string out = "  " + name;
  if (width < kNarrow || report::Columns(out) + 2 > column)
    out += "\n" + std::string(indent, ' ');
  else
    out.resize(column, ' ');
  return out + report::Wrap(text, width, indent) + "\n";
}

// What stands for a value: N for a whole number, X for any, else what may be given.
std::string ValueName(const CLI::Option& option) {
  const std::string name = option.get_type_name();
  if (name == "INT" || name == "UINT") return "N";
  return name == "FLOAT" ? "X" : name;
}

// "-m, --model TEXT"; what has no flag is named by its place. Of several long names, the others
// being the documented system's, the first.
std::string NamesOf(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  if (!option.get_lnames().empty()) names.push_back("--" + option.get_lnames().front());
  if (names.empty()) return option.get_name(true);
  std::string text = fmt::format("{}", fmt::join(names, ", "));
  if (option.get_items_expected_max() > 0) text += " " + ValueName(option);
  return text;
}

std::string TextOf(const CLI::Option& option) {
  std::string text = option.get_description();
  if (option.get_required()) text += " (required)";
  if (!option.get_default_str().empty()) text += fmt::format(" (default {})", option.get_default_str());
  return text;
}

// Broken before flags, so that the lines together are one command.
std::string Example(const std::string& example, size_t width) {
  std::string out;
  size_t column = 2;
  const std::string line = ProgramName() + example.substr(example.find(' '));
  for (size_t begin = 0; begin < line.size();) {
    const size_t end = std::min(line.find(" --", begin + 1), line.size());
    const std::string part = line.substr(begin, end - begin);
    constexpr size_t kContinued = 2;  // " \"
    if (column + part.size() + kContinued > width && !out.empty()) {
      out += " \\\n     ";
      column = 5;
    }
    out += part;
    column += part.size();
    begin = end;
  }
  return "Example:\n  " + out + "\n";
}

}  // namespace

std::vector<HelpGroup> GroupsOf(const CLI::App& declared) {
  std::vector<HelpGroup> groups;
  for (const CLI::Option* option : declared.get_options()) {
    const std::string& heading = option->get_group();
    if (heading.empty()) continue;
    auto group = std::find_if(groups.begin(), groups.end(), [&](auto& g) { return g.heading == heading; });
    if (group == groups.end()) group = groups.insert(group, {heading, {}});
    group->flags.push_back({NamesOf(*option), TextOf(*option)});
  }
  std::rotate(groups.begin(), groups.begin() + 1, groups.end());
  return groups;
}

std::string WordsOf(const CLI::App& declared) {
  std::string words;
  for (const CLI::Option* option : declared.get_options())
    if (option->get_lnames().empty() && option->get_snames().empty()) words += " " + option->get_name(true);
  return words;
}

std::span<const std::pair<const char*, const char*>> ExitCodes() {
  static constexpr std::pair<const char*, const char*> kExitCodes[] = {
      {"0", "match, drift or near-tie"},
      {"1", "diverged"},
      {"2", "usage"},
      {"3", "incomplete or invalid: not everything could be judged"},
      {"4", "an engine failed"},
      {"5", "the environment: files, network, disk, limits"},
      {"70", "a bug in paritybit"},
      {"125", "never: git bisect takes it as \"skip\""},
      {"129, 130, 143", "ended by SIGHUP, SIGINT, SIGTERM"},
  };
  return kExitCodes;
}

size_t HelpWidth() { return std::min<size_t>(80, static_cast<size_t>(TerminalWidth(STDOUT_FILENO))); }

std::string HelpOfAll(std::span<const Command> commands, size_t width) {
  constexpr size_t kColumn = 22;
  std::string out = report::Wrap(kPurpose, width, 0);
  out += fmt::format("\n\nUsage: {} COMMAND [FLAGS]\n\nCommands:\n", ProgramName());
  for (const Command& command : commands) out += Entry(command.name, command.summary, width, kColumn);
  out += "\nFlags:\n";
  out += Entry("-h, --help", "this page; behind a command, what it takes, with an example", width, kColumn);
  out += Entry("--version", "the version; with -v all that this build is", width, kColumn);
  out += "\nExit codes:\n";
  for (const auto& [code, text] : ExitCodes()) out += Entry(code, text, width, kColumn);
  return out;
}

std::string HelpOf(const Command& command, const CLI::App& declared, size_t width) {
  std::string out = report::Wrap(fmt::format("{}: {}", command.name, command.summary), width, 0);
  out += fmt::format("\n\nUsage: {} {}{} [FLAGS]\n", ProgramName(), command.name, WordsOf(declared));
  for (const HelpGroup& group : GroupsOf(declared)) {
    out += fmt::format("\n{}:\n", group.heading);
    for (const HelpFlag& flag : group.flags) out += Entry(flag.names, flag.text, width, kNames);
  }
  return out + "\n" + Example(command.example, width);
}

}  // namespace pb::cli

// Declares every command, parses the arguments, and runs the one that was named.
#include "cli/cli.h"

#include <fmt/core.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cerrno>
#include <exception>
#include <map>
#include <new>
#include <string>
#include <system_error>

#include "base/program.h"
#include "base/suggest.h"
#include "base/system_error.h"
#include "cli/bisect.h"
#include "cli/command.h"
#include "cli/help.h"
#include "cli/next.h"
#include "cli/output.h"
#include "cli/variables.h"
#include "cli/version.h"

namespace pb::cli {
namespace {

// The format asked for, before or in spite of CLI11's parsing: errors honour it too.
OutputArguments ScanOutput(int argc, char** argv) {
  OutputArguments output;
  for (int i = 1; i < argc; ++i) {
    std::string_view arg = argv[i];
    if (arg == "--") break;
    if (arg == "--format=json" ||
        (arg == "--format" && i + 1 < argc && std::string_view(argv[i + 1]) == "json"))
      output.format = "json";
  }
  return output;
}

// The help of a command; empty: of all.
run::NextCommand Help(std::string_view command = {}) {
  return {Call(command.empty() ? "--help" : fmt::format("{} --help", command)), "what there is to say"};
}

std::vector<std::string> Names(std::span<const Command> commands) {
  std::vector<std::string> names;
  for (const Command& command : commands) names.emplace_back(command.name);
  return names;
}

// What is left over of the arguments, the first of it: a flag that there is not, or a word too much.
std::string Unexpected(const CLI::App& command, const std::vector<std::string>& left) {
  const std::string name = left.empty() ? "" : left[0].substr(0, left[0].find('='));
  if (!name.starts_with('-')) return fmt::format("`{}` is one word too much", name);
  std::vector<std::string> known;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& flag : option->get_lnames()) known.push_back("--" + flag);
  const std::string of = command.get_parent() ? " of " + command.get_name() : "";
  return fmt::format("{} is no flag{}{}", name, of, DidYouMean(name, known));
}

int RunCommand(int argc, char** argv, const OutputArguments& output) {
  if (const std::string why = argc > 1 ? WhyUnsupported(argv[1]) : std::string(); !why.empty())
    return FailWith(output, kExitUsage, "error", "unsupported", "unsupported: " + why, {Help()});
  if (argc > 1 && std::string_view(argv[1]) == "--version") return PrintVersion(argc, argv);
  if (argc < 2) return FailWith(output, kExitUsage, "error", "usage", "no command is named", {Help()});
  if (std::string_view(argv[1]) == "help") {  // as others have it: `help COMMAND`
    static char flag[] = "--help";
    std::vector<char*> asked{argv[0]};
    if (argc > 2) asked.push_back(argv[2]);
    asked.push_back(flag);
    return RunCommand(static_cast<int>(asked.size()), asked.data(), output);
  }
  auto commands = Commands();
  if (argc > 1 && argv[1][0] != '-' && std::none_of(commands.begin(), commands.end(), [&](const Command& c) {
        return std::string_view(c.name) == argv[1];
      }))
    return FailWith(output, kExitUsage, "error", "usage",
                    fmt::format("`{}` is no command{}", argv[1], DidYouMean(argv[1], Names(commands))),
                    {Help()});
  CLI::App app("", "paritybit");
  app.require_subcommand(1);
  std::map<const CLI::App*, std::pair<const Command*, Action>> actions;
  for (const Command& command : commands) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    sub->set_help_flag("-h,--help", "this page");
    Flags flags(*sub);
    actions[sub] = {&command, command.declare(flags)};
  }
  const auto chosen = [&]() -> const CLI::App* {
    return app.get_subcommands().empty() ? nullptr : app.get_subcommands().front();
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    PrintOut(chosen() ? HelpOf(*actions.at(chosen()).first, *chosen(), HelpWidth())
                      : HelpOfAll(commands, HelpWidth()));
    return ReportLostOutput(kExitOk);
  } catch (const CLI::ExtrasError&) {
    const CLI::App& of = chosen() ? *chosen() : app;
    return FailWith(output, kExitUsage, "error", "usage", Unexpected(of, of.remaining()),
                    {Help(chosen() ? argv[1] : "")});
  } catch (const CLI::ParseError& error) {
    // A flag that there is not says more than what is missing: it may be that, misspelt.
    std::vector<std::string> left = chosen() ? chosen()->remaining() : std::vector<std::string>();
    std::erase_if(left, [](const std::string& word) { return !word.starts_with('-'); });
    const std::string text = left.empty() ? error.what() : Unexpected(*chosen(), left);
    return FailWith(output, kExitUsage, "error", "usage", text, {Help(chosen() ? argv[1] : "")});
  }
  const auto& [command, action] = actions.at(app.get_subcommands().front());
  if (!RefusedFlag().empty())
    return FailWith(output, kExitUsage, "error", "usage", RefusedFlag(), {Help(argv[1])});
  HandleInterrupts(output.json(), command->kept);
  if (std::string_view(command->name) != "preflight") TellOfVariables();
  const int exit_code = ReportLostOutput(action());
  TellCacheTrouble();
  return exit_code;
}

// No exception gets out.
int RunGuarded(int argc, char** argv) {
  PrepareStreams();
  if (argc > 0) NameProgram(argv[0]);
  OutputArguments output = ScanOutput(argc, argv);
  try {
    return RunCommand(argc, argv, output);
  } catch (const std::bad_alloc&) {
    return FailWith(output, kExitEnvironment, "error", "io", ErrnoText(ENOMEM));
  } catch (const std::system_error& error) {  // a thread, a file or a folder that cannot be had
    const std::string limit = LimitText(error.code().value());
    return FailWith(output, kExitEnvironment, "error", "io",
                    limit.empty() ? error.what() : fmt::format("{} ({})", error.what(), limit));
  } catch (const std::exception& error) {
    return FailWith(
        output, kExitBug, "error", "bug",
        fmt::format("this is a bug in paritybit, please report it with the command line: {}", error.what()));
  }
}

}  // namespace

int Main(int argc, char** argv) {
  const int exit_code = RunGuarded(argc, argv);
  return AsksForBisect(argc, argv) ? BisectCode(exit_code) : exit_code;
}

}  // namespace pb::cli

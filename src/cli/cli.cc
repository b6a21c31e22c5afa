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
#include <sstream>
#include <string>
#include <system_error>

#include "base/program.h"
#include "base/system_error.h"
#include "cli/command.h"
#include "cli/next.h"
#include "cli/output.h"

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

int RunCommand(int argc, char** argv, const OutputArguments& output) {
  if (argc > 1 && IsUnsupportedCommand(argv[1]))
    return FailWith(output, kExitUsage, "error", "unsupported",
                    fmt::format("unsupported: `{}` is not in this version", argv[1]), {Help()});
  auto commands = Commands();
  if (argc > 1 && argv[1][0] != '-' && std::none_of(commands.begin(), commands.end(), [&](const Command& c) {
        return std::string_view(c.name) == argv[1];
      }))
    return FailWith(output, kExitUsage, "error", "usage", fmt::format("`{}` is no command", argv[1]),
                    {Help()});
  CLI::App app(
      "Proves that one LLM inference engine computes what another computes, or says where they part.",
      "paritybit");
  app.set_version_flag("--version", std::string("paritybit " PB_VERSION));
  app.require_subcommand(1);
  app.footer(
      "`paritybit COMMAND --help` explains a command, with an example.\n"
      "Exit codes: 0 match, drift or near-tie; 1 diverged; 2 usage; 3 incomplete or\n"
      "invalid; 4 an engine failed; 5 environment; 70 a bug in paritybit; 129, 130,\n"
      "143 ended by SIGHUP, SIGINT, SIGTERM; never 125, git bisect's \"skip\".");
  std::map<const CLI::App*, std::pair<const Command*, Action>> actions;
  for (const Command& command : commands) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    sub->footer(fmt::format("Example:\n  {}", command.example));
    Flags flags(*sub);
    actions[sub] = {&command, command.declare(flags)};
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    std::ostringstream out, err;
    const int exit_code = app.exit(success, out, err);
    PrintOut(out.str());
    return ReportLostOutput(exit_code);
  } catch (const CLI::ParseError& error) {
    const char* command = app.get_subcommands().empty() ? "" : argv[1];
    return FailWith(output, kExitUsage, "error", "usage", error.what(), {Help(command)});
  }
  const auto& [command, action] = actions.at(app.get_subcommands().front());
  HandleInterrupts(output.json(), command->kept);
  const int exit_code = ReportLostOutput(action());
  TellCacheTrouble();
  return exit_code;
}

}  // namespace

int Main(int argc, char** argv) {
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

}  // namespace pb::cli

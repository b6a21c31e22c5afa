// paritybit completion: what a shell needs to complete commands, flags and their values, written
// from the very table that the commands are parsed by.
#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/output.h"
#include "setup/setup.h"

namespace pb::cli {
namespace {

// One flag as a shell completes it.
struct Completed {
  std::vector<std::string> names;    // "-m" "--model", as the help shows them; none: by position
  std::vector<std::string> choices;  // of its value
  std::string help;
  bool takes_value = false;
  bool closed = false;  // nothing but the choices may be given
};

struct CompletedCommand {
  std::string name, summary;
  std::vector<Completed> flags;
};

std::vector<std::string> Split(std::string_view text, char at) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(at), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

// What may be given where the parser itself does not limit it.
std::vector<std::string> Suggested(const std::string& flag) {
  std::vector<std::string> words;
  if (flag == "--model" || flag == "--reference-model") {
    words = setup::KnownModels();
    for (const std::string& name : BundledModelNames()) words.push_back(name);
  }
  if (flag == "--candidate" || flag == "--reference" || flag == "--reference-b" || flag == "--engine") {
    words = {"native", "oracle"};
    const std::vector<std::string> references = setup::KnownReferences();
    words.insert(words.end(), references.begin(), references.end());
  }
  return words;
}

Completed Read(const CLI::Option& option) {
  Completed flag;
  for (const std::string& name : option.get_snames()) flag.names.push_back("-" + name);
  if (!option.get_lnames().empty()) flag.names.push_back("--" + option.get_lnames().front());
  flag.takes_value = option.get_items_expected_max() > 0;
  flag.help = option.get_description();
  const std::string type = option.get_type_name();
  flag.closed = !type.empty() && type != "TEXT" && type != "INT" && type != "UINT" && type != "FLOAT";
  if (flag.closed)
    flag.choices = Split(type, '|');
  else if (!flag.names.empty())
    flag.choices = Suggested(flag.names.back());
  return flag;
}

std::vector<CompletedCommand> ReadCommands() {
  std::vector<CompletedCommand> out;
  for (const Command& command : Commands()) {
    CLI::App app("", command.name);
    app.set_help_flag("-h,--help", "this page");
    Flags flags(app);
    const Action keeps_targets = command.declare(flags);
    CompletedCommand read{command.name, command.summary, {}};
    for (const CLI::Option* option : app.get_options())
      if (!option->get_group().empty()) read.flags.push_back(Read(*option));  // else no help shows it
    out.push_back(std::move(read));
  }
  return out;
}

std::string CommandNames(const std::vector<CompletedCommand>& commands) {
  std::vector<std::string> names;
  for (const CompletedCommand& command : commands) names.push_back(command.name);
  return fmt::format("{}", fmt::join(names, " "));
}

// The patterns of a bash case: "crossval --model|crossval -m".
std::string BashPattern(const std::string& command, const Completed& flag) {
  std::vector<std::string> patterns;
  for (const std::string& name : flag.names) patterns.push_back(fmt::format("'{} {}'", command, name));
  return fmt::format("{}", fmt::join(patterns, "|"));
}

std::string Bash(const std::vector<CompletedCommand>& commands) {
  std::string values, words;
  for (const CompletedCommand& command : commands) {
    std::vector<std::string> names, by_position;
    for (const Completed& flag : command.flags) {
      names.insert(names.end(), flag.names.begin(), flag.names.end());
      if (flag.names.empty())
        by_position.insert(by_position.end(), flag.choices.begin(), flag.choices.end());
      else if (flag.takes_value)
        values += fmt::format("    {}) takes=1; values='{}'; files={} ;;\n", BashPattern(command.name, flag),
                              fmt::join(flag.choices, " "), flag.closed ? 0 : 1);
    }
    words += fmt::format("    {}) flags='{}'; values='{}'; files={} ;;\n", command.name,
                         fmt::join(names, " "), fmt::join(by_position, " "), by_position.empty() ? 1 : 0);
  }
  return fmt::format(R"(# Completion of paritybit for bash: source <(paritybit completion bash)
_paritybit() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}}
  local values='' flags='' takes=0 files=1
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W '{} --help --version' -- "$cur")
    return
  fi
  # --flag=value comes in three words.
  if [ "$cur" = = ]; then
    cur=''
  elif [ "$prev" = = ]; then
    prev=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  case "$command $prev" in
{}  esac
  if [ "$takes" -eq 0 ]; then
    case "$command" in
{}    esac
    [[ $cur == -* ]] && values=$flags files=0
  fi
  mapfile -t COMPREPLY < <(
    compgen -W "$values" -- "$cur"
    if [ "$files" -eq 1 ]; then compgen -f -- "$cur"; fi
  )
}}
complete -o filenames -F _paritybit paritybit
)",
                     CommandNames(commands), values, words);
}

// Between single quotes of a shell, without what _arguments or fish would take as its own.
std::string Quoted(const std::string& text, std::string_view special) {
  std::string out;
  for (char c : text) {
    if (c == '\'') {
      out += "'\\''";
      continue;
    }
    if (special.find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string Zsh(const std::vector<CompletedCommand>& commands) {
  constexpr std::string_view kSpecial = "[]:\\";
  std::string names, cases;
  for (const CompletedCommand& command : commands) {
    names += fmt::format("    '{}:{}'\n", command.name, Quoted(command.summary, ":\\"));
    cases += fmt::format("    {}) _arguments -s", command.name);
    for (const Completed& flag : command.flags) {
      const std::string words = fmt::format("{}", fmt::join(flag.choices, " "));
      const std::string value =
          flag.choices.empty() ? ":value:_files"
          : flag.closed        ? fmt::format(":value:({})", words)
                        : fmt::format(":value:_alternative \"w\\:word\\:({})\" \"f\\:file\\:_files\"", words);
      for (const std::string& name : flag.names)
        cases += fmt::format(" \\\n      '*{}[{}]{}'", name, Quoted(flag.help, kSpecial),
                             flag.takes_value ? value : "");
      if (flag.names.empty()) cases += fmt::format(" \\\n      '*{}'", value);
    }
    cases += " ;;\n";
  }
  return fmt::format(R"(#compdef paritybit
# Completion of paritybit for zsh: source <(paritybit completion zsh), behind compinit
_paritybit() {{
  local -a commands
  commands=(
{}  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{}  esac
}}
compdef _paritybit paritybit
)",
                     names, cases);
}

std::string Fish(const std::vector<CompletedCommand>& commands) {
  std::string out =
      "# Completion of paritybit for fish: paritybit completion fish | source\n"
      "complete -c paritybit -f -n __fish_use_subcommand -l help -d 'this page'\n"
      "complete -c paritybit -f -n __fish_use_subcommand -l version -d 'the version'\n";
  for (const CompletedCommand& command : commands) {
    out += fmt::format("complete -c paritybit -f -n __fish_use_subcommand -a {} -d '{}'\n", command.name,
                       Quoted(command.summary, "\\"));
    for (const Completed& flag : command.flags) {
      out += fmt::format("complete -c paritybit -n '__fish_seen_subcommand_from {}'", command.name);
      for (const std::string& name : flag.names)
        out += name.starts_with("--") ? fmt::format(" -l {}", name.substr(2))
                                      : fmt::format(" -s {}", name.substr(1));
      if (flag.takes_value && !flag.names.empty()) out += flag.closed ? " -x" : " -r";
      if (!flag.choices.empty()) out += fmt::format(" -a '{}'", fmt::join(flag.choices, " "));
      out += fmt::format(" -d '{}'\n", Quoted(flag.help, "\\"));
    }
  }
  return out;
}

int Complete(const std::string& shell, const OutputArguments& output) {
  const std::vector<CompletedCommand> commands = ReadCommands();
  const std::string script = shell == "bash"  ? Bash(commands)
                             : shell == "zsh" ? Zsh(commands)
                                              : Fish(commands);
  if (!output.json()) {
    PrintOut(script);
    return kExitOk;
  }
  auto object = Envelope("paritybit.completion/0", "ok", kExitOk);
  object["shell"] = shell;
  object["script"] = script;
  PrintJson(object);
  return kExitOk;
}

}  // namespace

Action DeclareCompletion(Flags& flags) {
  struct Arguments {
    OutputArguments output;
    std::string shell;
  };
  auto args = std::make_shared<Arguments>();
  flags.Option("shell", args->shell, "the shell to complete in")
      .OneOf({"bash", "zsh", "fish"})
      .Required()
      .Group("Shell");
  AddOutputArguments(flags, args->output, nullptr);
  return [args] { return Complete(args->shell, args->output); };
}

}  // namespace pb::cli

// Lays the help out as manual pages: one of the program, and one of each command.
#include "cli/man.h"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "cli/command.h"
#include "cli/help.h"
#include "cli/variables.h"
#include "report/escape.h"

namespace pb::cli {
namespace {

// Characters of a text line, which escapes make longer: lines stay below the 80 that man(7) wants.
constexpr size_t kLine = 60;

// One line of text in which man(7) finds nothing to obey, and shells' signs stay what they are.
std::string EscapeLine(std::string_view line) {
  std::string out = line.starts_with('.') || line.starts_with('\'') ? "\\&" : "";
  for (const char c : line) {
    switch (c) {
      case '\\':
        out += "\\e";
        break;
      case '-':
        out += "\\-";
        break;
      case '\'':
        out += "\\(aq";
        break;
      case '`':
        out += "\\(ga";
        break;
      case '^':
        out += "\\(ha";
        break;
      case '~':
        out += "\\(ti";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// Text that man(7) fills.
std::string Text(std::string_view text, size_t width = kLine) {
  std::string out;
  const std::string wrapped = report::Wrap(std::string(text), width, 0);
  for (std::string_view rest = wrapped; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    out += EscapeLine(rest.substr(0, end)) + "\n";
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return out;
}

std::string Entry(std::string_view name, std::string_view text) {
  return fmt::format(".TP\n\\fB{}\\fR\n{}", EscapeLine(name), Text(text));
}

// "-m, --model TEXT" with the value's name in italics.
std::string FlagEntry(const HelpFlag& flag) {
  const size_t last = flag.names.rfind(' ');
  const bool has_value = last != flag.names.npos && flag.names[last - 1] != ',';
  const std::string_view names = std::string_view(flag.names).substr(0, has_value ? last : flag.names.npos);
  std::string head = fmt::format("\\fB{}\\fR", EscapeLine(names));
  if (has_value) head += fmt::format(" \\fI{}\\fR", EscapeLine(flag.names.substr(last + 1)));
  return fmt::format(".TP\n{}\n{}", head, Text(flag.text));
}

std::string Head(std::string_view name, std::string_view summary, std::string_view date) {
  std::string upper(name);
  for (char& c : upper)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return fmt::format(".TH {} 1 {} \"paritybit {}\" \"paritybit\"\n.SH NAME\n{} \\- {}", EscapeLine(upper),
                     date, PB_VERSION, EscapeLine(name), Text(summary, kLine - name.size()));
}

// An example line, broken before flags, as it can be pasted.
std::string Example(std::string_view example) {
  std::string out = ".nf\n";
  size_t column = 0;
  for (size_t begin = 0; begin < example.size();) {
    const size_t end = std::min(example.find(" --", begin + 1), example.size());
    const std::string_view part = example.substr(begin, end - begin);
    if (column > 0 && column + part.size() > kLine) {
      out += " \\e\n    ";
      column = 4;
    }
    out += EscapeLine(part);
    column += part.size();
    begin = end;
  }
  return out + "\n.fi\n";
}

std::string PageOf(const Command& command, std::string_view date) {
  CLI::App app("", command.name);
  app.set_help_flag("-h,--help", "what this page says");
  Flags flags(app);
  const Action keeps_targets = command.declare(flags);
  std::string page = Head(fmt::format("paritybit-{}", command.name), command.summary, date);
  page += fmt::format(".SH SYNOPSIS\n\\fBparitybit {}\\fR\n[\\fIFLAGS\\fR]\n",
                      EscapeLine(command.name + WordsOf(app)));
  page += ".SH OPTIONS\n";
  for (const HelpGroup& group : GroupsOf(app)) {
    page += fmt::format(".SS {}\n", EscapeLine(group.heading));
    for (const HelpFlag& flag : group.flags) page += FlagEntry(flag);
  }
  page += ".SH EXIT STATUS\nThat of\n.BR paritybit (1).\n.SH EXAMPLES\n" + Example(command.example);
  return page + ".SH SEE ALSO\n.BR paritybit (1)\n";
}

std::string MainPage(std::string_view date) {
  std::string page =
      Head("paritybit", "check that one LLM inference engine computes what another computes", date);
  page += ".SH SYNOPSIS\n\\fBparitybit\\fR\n\\fICOMMAND\\fR\n[\\fIFLAGS\\fR]\n.SH DESCRIPTION\n";
  page += Text(kPurpose);
  page += Text(
      "Each command has a page of its own: man paritybit-COMMAND; the same stands in paritybit COMMAND "
      "--help.");
  page += ".SH COMMANDS\n";
  std::string see_also;
  for (const Command& command : Commands()) {
    page += Entry(command.name, command.summary);
    see_also += fmt::format("{}.BR {} (1)", see_also.empty() ? "" : ",\n",
                            EscapeLine(fmt::format("paritybit-{}", command.name)));
  }
  page += ".SH OPTIONS\n" + Entry("-h, --help", "what this page says; behind a command, what it takes");
  page += Entry("--version",
                "the version; with -v commit, compiler, instruction sets, formats and the pinned reference");
  page += ".SH EXIT STATUS\n";
  for (const auto& [code, text] : ExitCodes()) page += Entry(code, text);
  page += ".SH ENVIRONMENT\n";
  for (const Variable& variable : Variables())
    if (variable.effect == Variable::kWorks) page += Entry(variable.name, variable.says);
  page += ".SH FILES\n" + Entry("~/.cache/paritybit",
                                "that folder, where neither PARITYBIT_CACHE nor XDG_CACHE_HOME says another");
  page += ".SH EXAMPLES\n";
  for (const char* example :
       {"paritybit setup-cpp-auto",
        "paritybit crossval --model tiny-bitnet-relu2 --reference llama.cpp --prompt \"And God said\"",
        "paritybit diagnose"})
    page += Example(example);
  return page + ".SH SEE ALSO\n" + see_also + "\n";
}

}  // namespace

std::map<std::string, std::string> ManualPages(const std::string& date) {
  std::map<std::string, std::string> pages{{"paritybit", MainPage(date)}};
  for (const Command& command : Commands())
    pages[fmt::format("paritybit-{}", command.name)] = PageOf(command, date);
  return pages;
}

}  // namespace pb::cli

// Chooses each file's format by its kind or its ending, and writes it whole.
#include "cli/report_files.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/file.h"
#include "base/text.h"
#include "cli/output.h"
#include "cli/receipts.h"
#include "report/ci_report.h"
#include "report/page_report.h"

namespace pb::cli {
namespace {

struct Kind {
  const char* name;
  const char* ending;  // of files that need no kind; empty: it has to be named
  std::string (*render)(const report::Summary&);
};
std::string JsonOf(const report::Summary& summary) { return summary.json; }
constexpr Kind kKinds[] = {
    {"html", ".html", report::RenderPage},
    {"junit", ".xml", report::RenderJunit},
    {"sarif", ".sarif", report::RenderSarif},
    {"markdown", ".md", report::RenderMarkdown},
    {"json", ".json", JsonOf},
    {"github", "", report::RenderAnnotations},
    {"node-graph", "", report::RenderNodeGraph},
    {"node-data", "", report::RenderNodeData},
};

// What commands with a page of tables write.
constexpr std::string_view kTableKinds[] = {"html", "markdown", "json"};
bool IsTableKind(std::string_view name) {
  return std::ranges::find(kTableKinds, name) != std::end(kTableKinds);
}

struct Target {
  const Kind* kind;
  std::string path;
  bool is_stdout() const { return path.size() == 1 && path[0] == '-'; }
};

// `tables`: of a command with a page of tables, for what is offered.
Result<Target> Parse(const std::string& text, bool tables = false) {
  const size_t equals = text.find('=');
  for (const Kind& kind : kKinds)
    if (equals != std::string::npos && text.compare(0, equals, kind.name) == 0 && equals + 1 < text.size())
      return Target{&kind, text.substr(equals + 1)};
  for (const Kind& kind : kKinds)
    if (*kind.ending && text.size() > std::string_view(kind.ending).size() && text.ends_with(kind.ending))
      return Target{&kind, text};
  std::vector<std::string> names, endings;
  for (const Kind& kind : kKinds) {
    if (tables && !IsTableKind(kind.name)) continue;
    names.emplace_back(kind.name);
    if (*kind.ending) endings.emplace_back(kind.ending);
  }
  return MakeError(Code::kUsage,
                   "--report {}: its ending tells no format; one of {}, or KIND=FILE with one of {}", text,
                   fmt::join(endings, " "), fmt::join(names, " "));
}

// Writes one of them. The exit code of a command that ended with `exit_code`.
int Write(const Target& target, const std::string& rendered, int exit_code) {
  if (target.is_stdout()) {
    PrintOut(rendered);
    return exit_code;
  }
  const Status written = WriteFileAtomic(target.path, rendered);
  if (written.ok()) return exit_code;
  PrintError(fmt::format("error: the report: {}\n", EscapeUnsafe(written.error().message)));
  return exit_code == kExitOk ? kExitEnvironment : exit_code;
}

}  // namespace

void AddReportArgument(Flags& flags, std::vector<std::string>& reports) {
  flags
      .Option("--report", reports,
              "write a report, its format by the ending: .html (one page for people), .md, .xml (JUnit), "
              ".sarif, .json; or KIND=FILE, KIND also github (annotations), node-graph and node-data (Model "
              "Explorer), FILE also -, stdout; may be repeated")
      .OneValue()
      .Group("Output");
}

Status CheckReports(const std::vector<std::string>& reports, const OutputArguments& output) {
  for (const std::string& text : reports) {
    PB_ASSIGN(const Target target, Parse(text));
    if (!target.is_stdout())
      PB_TRY(CheckReceiptPath(target.path));
    else if (output.json())
      return MakeError(Code::kUsage, "--report {}: --format json is alone on stdout", text);
  }
  return {};
}

bool WantsTokenErrors(const std::vector<std::string>& reports) {
  return std::ranges::any_of(reports, [](const std::string& text) {
    auto target = Parse(text);
    return target.ok() && target->kind->render == report::RenderPage;
  });
}

int WriteReports(const std::vector<std::string>& reports, report::Summary summary, std::string again,
                 int exit_code) {
  summary.created = TimeText(NowSeconds());
  summary.again = std::move(again);
  for (const std::string& text : reports)
    if (auto target = Parse(text); target.ok())  // else CheckReports has told
      exit_code = Write(*target, target->kind->render(summary), exit_code);
  return exit_code;
}

void AddTableReportArgument(Flags& flags, std::vector<std::string>& reports) {
  flags
      .Option("--report", reports,
              "write a report, its format by the ending: .html (one page for people), .md, .json; or "
              "KIND=FILE, KIND being html, markdown or json, FILE also -, stdout; may be repeated")
      .OneValue()
      .Group("Output");
}

Status CheckTableReports(const std::vector<std::string>& reports, std::string_view command,
                         const OutputArguments& output) {
  for (const std::string& text : reports) {
    PB_ASSIGN(const Target target, Parse(text, true));
    if (!IsTableKind(target.kind->name))
      return MakeError(Code::kUsage, "--report {}: {} has no report of the kind {}; it has {}", text, command,
                       target.kind->name, fmt::join(kTableKinds, ", "));
  }
  return CheckReports(reports, output);
}

int WriteTableReports(const std::vector<std::string>& reports, report::TablePage page,
                      const std::string& markdown, int exit_code) {
  page.created = TimeText(NowSeconds());
  for (const std::string& text : reports) {
    const auto target = Parse(text);
    if (!target.ok()) continue;  // which CheckTableReports has told
    const std::string_view kind = target->kind->name;
    exit_code = Write(*target,
                      kind == "html"       ? report::RenderTablePage(page)
                      : kind == "markdown" ? markdown
                                           : page.json,
                      exit_code);
  }
  return exit_code;
}

}  // namespace pb::cli

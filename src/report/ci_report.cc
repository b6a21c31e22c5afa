// JUnit's test cases and GitHub's annotations of a run.
#include "report/ci_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "report/escape.h"
#include "report/junit.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

// Without the marks that keep words together in a terminal.
std::string Plain(std::string_view text) { return Wrap(text, std::string::npos, 0); }

std::string Verdict(const Summary& s) { return VerdictWord(s.verdict->outcome, false); }

std::string Lines(const Summary& s, std::string out) {
  if (!s.headline.place.empty()) out += "\n" + Plain(s.headline.place);
  for (const compare::Reason& r : s.verdict->reasons)
    out += fmt::format("\n{}: {}", compare::ReasonName(r.code), r.text);
  for (const std::string& line : s.evidence) out += "\n" + line;
  if (!s.again.empty()) out += "\n$ " + s.again;
  return out;
}

// One case for each prompt's logits.
void LogitsCases(const Summary& s, std::vector<JunitCase>* cases) {
  std::map<int32_t, std::pair<int64_t, int64_t>> prompts;  // positions, those beyond a limit
  for (const compare::LogitsRow& row : *s.rows) {
    auto& [n, n_beyond] = prompts[row.prompt];
    ++n, n_beyond += row.above_limit || !row.finite;
  }
  for (const auto& [prompt, counts] : prompts) {
    JunitCase c{fmt::format("logits of prompt {}", prompt), 0, "", ""};
    if (!s.passed() && counts.second > 0)
      c.failure = fmt::format("{} of {} positions are beyond a limit", counts.second, counts.first);
    cases->push_back(std::move(c));
  }
}

// One case for each op, over all layers.
void OpCases(const Summary& s, std::vector<JunitCase>* cases) {
  std::map<int32_t, std::vector<const compare::PointRow*>> stages;
  for (const compare::PointRow& point : s.points) stages[point.stage].push_back(&point);
  for (const auto& [stage, points] : stages) {
    JunitCase c{"op " + OpName(stage, -1, {}), 0, "", ""};
    size_t n = 0;
    for (const compare::PointRow* point : points) {
      if (!point->is_defect() || s.passed()) continue;
      if (n++ == 0)
        c.failure = WorstText(*point);
      else
        c.details += "\n" + WorstText(*point);
    }
    if (n > 1) c.details = c.failure + c.details;
    cases->push_back(std::move(c));
  }
}

// Of a workflow command: https://docs.github.com/actions/reference/workflow-commands
std::string Data(std::string_view text, bool is_property) {
  std::string out;
  for (const char c : text) {
    if (c == '%')
      out += "%25";
    else if (c == '\r')
      out += "%0D";
    else if (c == '\n')
      out += "%0A";
    else if (is_property && c == ':')
      out += "%3A";
    else if (is_property && c == ',')
      out += "%2C";
    else
      out += c;
  }
  return out;
}

}  // namespace

std::string RenderJunit(const Summary& s) {
  std::vector<JunitCase> cases;
  JunitCase verdict{"verdict", s.wall_seconds, "", ""};
  if (!s.passed()) {
    verdict.failure = Verdict(s) + ": " + Plain(s.headline.sentence);
    verdict.details = Lines(s, Plain(s.headline.sentence));
  }
  cases.push_back(std::move(verdict));
  const compare::Coverage& coverage = s.verdict->coverage;
  JunitCase compared{"coverage", 0, "", ""};
  if (!s.passed() && (coverage.compared == 0 || coverage.compared < coverage.expected))
    compared.failure = fmt::format("{} of {} {} were compared", coverage.compared, coverage.expected,
                                   coverage.unit.empty() ? "points" : coverage.unit);
  cases.push_back(std::move(compared));
  if (s.rows) LogitsCases(s, &cases);
  OpCases(s, &cases);
  return RenderJunit("paritybit " + s.command, cases);
}

std::string RenderAnnotations(const Summary& s) {
  // What GitHub shows of one step.
  constexpr size_t kMost = 10;
  const char* kind = s.passed() ? "notice" : "error";
  std::string out = fmt::format("::{} title={}::{}\n", kind,
                                Data(fmt::format("paritybit {}: {}", s.command, Verdict(s)), true),
                                Data(Lines(s, Plain(s.headline.sentence)), false));
  if (s.passed()) return out;
  const auto& reasons = s.verdict->reasons;
  for (size_t i = 1; i < std::min(reasons.size(), kMost); i++)
    out += fmt::format("::{} title={}::{}\n", compare::ExitCode(reasons[i].outcome) == 0 ? "notice" : kind,
                       Data(compare::ReasonName(reasons[i].code), true), Data(reasons[i].text, false));
  return out;
}

}  // namespace pb::report

// Lays out the table of generated defects, its goals and what was missed.
#include "report/generated_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "report/escape.h"
#include "report/json.h"
#include "report/self_check_report.h"
#include "report/table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using selfcheck::GeneratedRow;
using selfcheck::GeneratedTable;
using selfcheck::SelfResult;
using Json = nlohmann::ordered_json;

constexpr size_t kMissesShown = 20;

std::string Known(const std::string& commit) { return commit.empty() ? "not known" : commit; }

const char* WordOf(int exit_code) {
  return exit_code == 0 ? "ALL GOALS HOLD" : exit_code == 1 ? "FAILED" : "INCOMPLETE";
}

// What is not as it should be, in a few words.
std::string MissText(const SelfResult& r) {
  if (!r.error.empty()) return "could not be run: " + r.error;
  if (r.benign) return fmt::format("false alarm ({}): {}", r.verdict, r.place);
  if (!r.detected) return fmt::format("not found ({})", r.verdict);
  std::string text = r.found_by == "plain" ? "" : fmt::format("found by '{}'", r.found_by);
  auto add = [&text](std::string_view part) { text += text.empty() ? part : fmt::format("; {}", part); };
  if (!r.exact) add(fmt::format("placed at {}", r.place.empty() ? "no op" : r.place));
  if (!r.blamed) add(fmt::format("blame: {}", r.blame));
  if (r.match != "right") {
    // Alternatives are for the machine.
    const size_t end = r.truth.find(" | ");
    const std::string more = end == std::string::npos ? "" : ", or what comes to the same";
    add(fmt::format("{}: said {}, true is {}{}", r.match, r.said, r.truth.substr(0, end), more));
  }
  return text;
}

std::vector<std::string> Cells(const GeneratedRow& r) {
  std::vector<std::string> cells = {r.kind};
  for (int64_t n :
       {r.n, r.plain, r.found, r.placed, r.blamed, r.right, r.partial, r.nothing, r.wrong, r.skipped})
    cells.push_back(std::to_string(n));
  return cells;
}

std::vector<GeneratedRow> RowsOf(const GeneratedTable& t) {
  std::vector<GeneratedRow> rows = t.rows;
  rows.push_back(t.total);
  return rows;
}

std::string Commits(const GeneratedReport& r) {
  return fmt::format("variations of commit {}; defects of commit {}, version {} of the generator",
                     Known(r.variations_commit), Known(r.defects_commit), r.version);
}

std::string TableText(const GeneratedTable& t) {
  std::string out =
      "| kind | defects | plain | found | placed | blamed | right | partial | nothing | wrong | not counted "
      "|\n"
      "|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const GeneratedRow& row : RowsOf(t)) out += fmt::format("| {} |\n", fmt::join(Cells(row), " | "));
  return out;
}

std::string Goals(const GeneratedTable& t) {
  std::string out;
  for (const selfcheck::Goal& goal : t.goals)
    out += fmt::format("- {}: {}\n", goal.holds ? "holds" : "missed", goal.text);
  return out;
}

Json RowJson(const GeneratedRow& r) {
  return {{"kind", r.kind},
          {"defects", r.n},
          {"found_plain", r.plain},
          {"found", r.found},
          {"placed", r.placed},
          {"blamed_right", r.blamed},
          {"placed_and_blamed", r.both},
          {"right", r.right},
          {"partial", r.partial},
          {"nothing", r.nothing},
          {"wrong", r.wrong},
          {"not_counted", r.skipped},
          {"failed", r.failed}};
}

Json ResultJson(const SelfResult& r) {
  Json j = {{"case", r.key},          {"kind", r.kind},
            {"defect", r.defect},     {"benign", r.benign},
            {"verdict", r.verdict},   {"detected", r.detected},
            {"found_by", r.found_by}, {"exact_op", r.exact},
            {"place", r.place},       {"blamed_right", r.blamed},
            {"blame", r.blame},       {"truth", r.truth},
            {"said", r.said},         {"match", r.match},
            {"named_as", r.named_as}, {"not_counted", r.skipped},
            {"error", r.error}};
  j["bound_ratio"] = std::isfinite(r.bound_ratio) ? Json(r.bound_ratio) : Json(nullptr);
  return j;
}

PageTable KindsTable(const GeneratedTable& t) {
  PageTable table{"kinds",
                  "What is found, by kind of defect",
                  "plain: found by a short prompt; found: that, or the code paths beside it; right, partial, "
                  "nothing, wrong: what is concluded, against what is true.",
                  {{"kind"}},
                  {}};
  for (const char* name : {"defects", "plain", "found", "placed", "blamed", "right", "partial", "nothing",
                           "wrong", "not counted"})
    table.columns.push_back({name, true});
  for (const GeneratedRow& row : RowsOf(t)) {
    const std::vector<std::string> cells = Cells(row);
    table.rows.emplace_back(cells.begin(), cells.end());
  }
  return table;
}

PageTable GoalsTable(const GeneratedTable& t) {
  PageTable table{"goals", "Goals", "", {{"goal"}, {"outcome"}}, {}};
  for (const selfcheck::Goal& goal : t.goals)
    table.rows.push_back({goal.text, goal.holds ? PageCell("holds", "good") : PageCell("missed", "bad")});
  return table;
}

PagePart MissPart(const SelfResult& r, size_t i) {
  PagePart part = MissedCase(r, i, r.match == "right" ? "told wrongly" : r.match, MissText(r));
  for (const auto& [name, value] : {std::pair{"said", r.said}, {"true is", r.truth}})
    if (!value.empty()) part.facts.emplace_back(name, value);
  return part;
}

}  // namespace

TablePage GeneratedPage(const GeneratedReport& report, const Context& context) {
  const GeneratedTable& t = report.table;
  TablePage page;
  page.command = "self-check", page.tool_version = context.tool_version;
  page.word = WordOf(report.exit_code);
  page.sentence = fmt::format(
      "{} defects that nobody listed: {} found, {} placed, {} concluded wrongly; {} harmless "
      "changes: {} false alarms",
      t.total.n, t.total.found, t.total.placed, t.total.wrong, t.n_benign, t.n_alarms);
  page.place_name = "What was run";
  page.place = fmt::format("{}, in {:.0f} s; {}", report.what, report.wall_seconds, Commits(report));
  page.tables = {GoalsTable(t), KindsTable(t),
                 HarmlessTable(t.n_benign, t.n_alarms, t.n_unchanged, t.n_benign_failed)};
  page.parts_title = "What is not as a goal has it";
  for (size_t i = 0; i < t.misses.size(); i++) page.parts.push_back(MissPart(*t.misses[i], i));
  page.json = RenderGeneratedJson(report);
  return page;
}

std::string RenderGeneratedText(const GeneratedReport& report, const TextOptions& options) {
  const GeneratedTable& t = report.table;
  const auto width = static_cast<size_t>(options.width);
  Table table({{"kind", true, 0, 18},
               {"defects"},
               {"plain", false, 4},
               {"found"},
               {"placed"},
               {"blamed"},
               {"right"},
               {"partial", false, 3},
               {"nothing", false, 2},
               {"wrong"},
               {"too small", false, 1}});
  for (const GeneratedRow& row : RowsOf(t)) table.Row(Cells(row));
  std::string out = table.Render(width);
  auto line = [&](const std::string& text, size_t indent) {
    out += std::string(indent, ' ') + Wrap(EscapeLines(text), width, indent + 2) + "\n";
  };
  line(
      "plain: found by a short prompt; found: that, or the code paths beside it; right, partial, nothing, "
      "wrong: "
      "what is concluded, against what is true",
      2);
  line(fmt::format("harmless changes: {} change bits, {} false alarms; {} change nothing", t.n_benign,
                   t.n_alarms, t.n_unchanged),
       0);
  for (size_t i = 0; i < std::min(kMissesShown, t.misses.size()); i++)
    line(fmt::format("{}: {}", t.misses[i]->key, MissText(*t.misses[i])), 2);
  if (t.misses.size() > kMissesShown)
    line(fmt::format("and {} more (--format json)", t.misses.size() - kMissesShown), 2);
  line(fmt::format("{} in {:.0f} s; {}", report.what, report.wall_seconds, Commits(report)), 0);
  for (const selfcheck::Goal& goal : t.goals)
    line(fmt::format("{}: {}", goal.holds ? "goal holds" : "goal missed", goal.text), 0);
  out += fmt::format("{}  (exit {})\n", WordOf(report.exit_code), report.exit_code);
  return out;
}

std::string RenderGeneratedMarkdown(const GeneratedReport& report) {
  const GeneratedTable& t = report.table;
  std::string out =
      fmt::format("{}, {}: {}.\n\n{}\n{} harmless changes change bits: {} false alarms.\n\n{}", report.date,
                  report.what, Commits(report), TableText(t), t.n_benign, t.n_alarms, Goals(t));
  if (t.misses.empty()) return out;
  out += "\n| case | what is not as it should be |\n|---|---|\n";
  for (const SelfResult* r : t.misses) {
    std::string what = MissText(*r);
    std::replace(what.begin(), what.end(), '|', '/');
    std::replace(what.begin(), what.end(), '\n', ' ');
    out += fmt::format("| {} | {} |\n", r->key, what);
  }
  return out;
}

std::string RenderGeneratedJson(const GeneratedReport& report) {
  const GeneratedTable& t = report.table;
  Json j = {{"schema", "paritybit.self-check-generated/0"},
            {"verdict", report.exit_code == 0   ? "match"
                        : report.exit_code == 1 ? "failed"
                                                : "incomplete"},
            {"scope", "local"},
            {"exit_code", report.exit_code}};
  j["reasons"] = Json::array();
  for (const selfcheck::Goal& goal : t.goals)
    if (!goal.holds)
      j["reasons"].push_back(
          {{"code", compare::ReasonName(compare::ReasonCode::kGoalMissed)}, {"text", goal.text}});
  PutNext({}, &j);
  j["what"] = report.what, j["wall_seconds"] = report.wall_seconds;
  j["generator_version"] = report.version;
  j["variations_commit"] = report.variations_commit, j["defects_commit"] = report.defects_commit;
  j["goals"] = Json::array();
  for (const selfcheck::Goal& goal : t.goals)
    j["goals"].push_back({{"text", goal.text}, {"holds", goal.holds}});
  j["total"] = RowJson(t.total);
  j["kinds"] = Json::array();
  for (const GeneratedRow& row : t.rows) j["kinds"].push_back(RowJson(row));
  j["wrong_at_most"] = selfcheck::UpperLimit(t.total.wrong, t.total.n);
  j["harmless"] = {{"change_bits", t.n_benign},
                   {"false_alarms", t.n_alarms},
                   {"change_nothing", t.n_unchanged},
                   {"failed", t.n_benign_failed},
                   {"false_alarms_at_most", selfcheck::UpperLimit(t.n_alarms, t.n_benign)}};
  j["cases"] = Json::array();
  for (const SelfResult& r : report.results) j["cases"].push_back(ResultJson(r));
  return DumpJson(j, 2) + "\n";
}

std::string AddMeasurement(const std::string& page, const GeneratedReport& report) {
  const std::string heading = fmt::format("## Generator {}\n", report.version);
  const std::string later = "### Later measurements\n";
  std::string out = page;
  if (out.empty())
    out =
        "# Defects that nobody listed\n\n"
        "Written by `paritybit self-check --generated --record`. Of each version of the generator "
        "(`plugins/mutant/draw.h`) the first\nmeasurement is held out: nobody who wrote what is looked for "
        "had seen the defects of its seed. It stays; what\nwas measured after that knows them, and stands "
        "beside it. "
        "docs/numerics.md defines the columns.\n";
  const size_t at = out.find(heading);
  if (at == std::string::npos) {
    if (!out.ends_with('\n')) out += "\n";
    return out + fmt::format("\n{}\n### First measurement: held out\n\n{}", heading,
                             RenderGeneratedMarkdown(report));
  }
  size_t end = out.find("\n## ", at + heading.size());
  if (end == std::string::npos)
    end = out.size();
  else
    end += 1;
  while (end > at && out[end - 1] == '\n') end--;
  std::string line = "\n";
  if (out.substr(at, end - at).find(later) == std::string::npos)
    line += fmt::format(
        "\n{}\n| date | variations | defects of | counted | plain | found | placed | blamed | right | "
        "partial | "
        "nothing | wrong | false alarms |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        later);
  const GeneratedRow& r = report.table.total;
  constexpr size_t kDigits = 12;
  line += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} of {} |", report.date,
                      Known(report.variations_commit).substr(0, kDigits), report.what, r.n, r.plain, r.found,
                      r.placed, r.blamed, r.right, r.partial, r.nothing, r.wrong, report.table.n_alarms,
                      report.table.n_benign);
  const std::string rest = out.substr(end);
  return out.substr(0, end) + line + (rest.empty() ? "\n" : rest);
}

}  // namespace pb::report

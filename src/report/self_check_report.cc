// Lays out the matrix, the misses and the goals that broke.
#include "report/self_check_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/program.h"
#include "base/text.h"
#include "report/escape.h"
#include "report/json.h"
#include "report/table.h"
#include "report/text_blocks.h"

namespace pb::report {
namespace {

using selfcheck::SelfMatrix;
using selfcheck::SelfResult;
using selfcheck::SelfRow;
using Json = nlohmann::ordered_json;

constexpr size_t kMissesShown = 20;

std::string Spots(const SelfRow& r) { return r.spots ? fmt::format("{}/{}", r.spots_right, r.spots) : "-"; }

const char* VerdictOf(int exit_code) {
  return exit_code == 0 ? "match" : exit_code == 1 ? "failed" : "incomplete";
}

// What went wrong in a case, in a few words.
std::string MissText(const SelfResult& r) {
  if (!r.error.empty()) return "could not be run: " + r.error;
  if (r.benign) return fmt::format("false alarm ({}): {}", r.verdict, r.place);
  if (!r.detected) return fmt::format("not detected ({})", r.verdict);
  std::string text;
  auto add = [&text](std::string_view part) { text += text.empty() ? part : fmt::format("; {}", part); };
  if (!r.exact) add(fmt::format("placed at {}", r.place.empty() ? "no op" : r.place));
  if (!r.spot.value_or(true)) add("row or head wrong");
  if (!r.blamed) add(fmt::format("blame: {}", r.blame));
  if (!r.named) add(r.named_as.empty() ? "not named" : fmt::format("named as {}", r.named_as));
  return text;
}

std::string Percent(int64_t n, int64_t of) {
  return of > 0 ? fmt::format("{:.1f} %", 100 * static_cast<double>(n) / static_cast<double>(of)) : "-";
}

// One sentence for people: how much was seen.
std::string Summary(const SelfCheckReport& report) {
  const SelfMatrix& m = report.matrix;
  const SelfRow& t = m.total;
  return fmt::format(
      "{} defects ({} different ones): {} detected, {} placed at the exact op (with its row or head), {} "
      "blamed right, {} "
      "named; {} harmless changes: {} false alarms",
      t.n, m.n_names, Percent(t.detected, t.n), Percent(t.exact, t.n), Percent(t.blamed, t.n),
      Percent(t.named, t.n), m.n_benign, m.n_alarms);
}

Json RowJson(const SelfRow& r) {
  return {{"kind", r.kind},
          {"defects", r.n},
          {"detected", r.detected},
          {"exact_op", r.exact},
          {"within_one", r.within_one},
          {"with_row_or_head", r.spots},
          {"row_or_head_right", r.spots_right},
          {"blamed_right", r.blamed},
          {"named_right", r.named},
          {"not_counted", r.skipped},
          {"failed", r.failed}};
}

}  // namespace

Json CaseJson(const SelfResult& r) {
  Json j = {{"case", r.key},
            {"kind", r.kind},
            {"defect", r.defect},
            {"benign", r.benign},
            {"verdict", r.verdict},
            {"detected", r.detected},
            {"exact_op", r.exact},
            {"within_one", r.within_one},
            {"blamed_right", r.blamed},
            {"named_right", r.named},
            {"place", r.place},
            {"blame", r.blame},
            {"named_as", r.named_as},
            {"not_counted", r.skipped},
            {"error", r.error}};
  j["row_or_head_right"] = r.spot ? Json(*r.spot) : Json(nullptr);
  j["bound_ratio"] = std::isfinite(r.bound_ratio) ? Json(r.bound_ratio) : Json(nullptr);
  return j;
}

namespace {

const char* WordOf(int exit_code) {
  return exit_code == 0 ? "ALL GOALS HOLD" : exit_code == 1 ? "FAILED" : "INCOMPLETE";
}

// A goal, told by the words that the sentence of its breach has.
struct KnownGoal {
  const char* breach;
  std::string text, seen;
  int64_t asked;  // of how many
};

// Those that were asked, with what was seen; a breach is told in its own words.
PageTable GoalsTable(const SelfCheckReport& report) {
  const SelfMatrix& m = report.matrix;
  const SelfRow& t = m.total;
  const auto n_cases = static_cast<int64_t>(report.results.size());
  const int64_t n_failed = t.failed + m.n_benign_failed;
  const auto of = [](int64_t n, int64_t all) { return fmt::format("{} of {}", n, all); };
  std::vector<KnownGoal> known = {
      {"defects are detected", "defects are detected", of(t.detected, t.n), t.n},
      {"defects are placed", "defects are placed at the exact op, with its row or head", of(t.exact, t.n),
       t.n},
      {"defects are blamed", "defects are blamed on the engine that has them", of(t.blamed, t.n), t.n},
      {"raise an alarm", "harmless changes raise no alarm", of(m.n_benign - m.n_alarms, m.n_benign),
       m.n_benign},
      {"could not be run", "cases can be run", of(n_cases - n_failed, n_cases), n_cases},
  };
  if (report.whole) {
    known.push_back(
        {"different defects count", "enough different defects count", std::to_string(m.n_names), 1});
    known.push_back({"harmless changes change bits", "enough harmless changes change bits",
                     std::to_string(m.n_benign), 1});
  }
  PageTable table{"goals", "Goals", "docs/numerics.md has the share that each asks for.", {}, {}};
  table.columns = {{"goal"}, {"seen", true}, {"outcome"}};
  std::vector<std::string> broken = m.broken_goals;
  for (const KnownGoal& goal : known) {
    const auto breach = std::find_if(broken.begin(), broken.end(), [&](const std::string& sentence) {
      return sentence.find(goal.breach) != std::string::npos;
    });
    const bool holds = breach == broken.end();
    table.rows.push_back({goal.text, goal.seen,
                          !holds            ? PageCell("missed", "bad", *breach)
                          : goal.asked == 0 ? PageCell("not judged", "open")
                                            : PageCell("holds", "good")});
    if (!holds) broken.erase(breach);
  }
  for (const std::string& sentence : broken) table.rows.push_back({sentence, "", PageCell("missed", "bad")});
  return table;
}

// n, in the colour of a shortfall where it is less than it should be.
PageCell Count(int64_t n, int64_t of) {
  return n < of ? PageCell(std::to_string(n), "bad", fmt::format("{} short", of - n))
                : PageCell(std::to_string(n));
}

PageTable KindsTable(const SelfMatrix& m) {
  PageTable table{"kinds",
                  "What is found, by kind of defect",
                  "Defects that count: their local error is at least ten times its bound. A figure below "
                  "their number is marked. docs/numerics.md defines the columns.",
                  {{"kind"},
                   {"defects", true},
                   {"detected", true},
                   {"exact op", true},
                   {"within one op", true},
                   {"row or head", true},
                   {"blamed right", true},
                   {"named right", true},
                   {"not counted", true}},
                  {}};
  std::vector<SelfRow> rows = m.rows;
  rows.push_back(m.total);
  for (const SelfRow& r : rows)
    table.rows.push_back({r.kind, std::to_string(r.n), Count(r.detected, r.n), Count(r.exact, r.n),
                          std::to_string(r.within_one), PageCell(Spots(r)), Count(r.blamed, r.n),
                          Count(r.named, r.n), std::to_string(r.skipped)});
  return table;
}

PageTable UnseenTable(const SelfMatrix& m) {
  PageTable table{"unseen",
                  "What is not counted, and why",
                  "Defects whose effect is too small, or none, on these models.",
                  {{"defect"}, {"why it does not count"}, {"cases", true}},
                  {}};
  for (const auto& [what, n] : m.unseen) {
    const size_t colon = what.find(": ");
    table.rows.push_back({what.substr(0, colon), what.substr(colon + 2), std::to_string(n)});
  }
  return table;
}

PagePart MissPart(const SelfResult& r, size_t i) {
  PagePart part = MissedCase(r, i, "told wrongly", MissText(r));
  if (!r.named_as.empty()) part.facts.emplace_back("named as", r.named_as);
  if (!r.benign && r.error.empty() && std::isfinite(r.bound_ratio))
    part.facts.emplace_back("its error", fmt::format("{:.3g} times its bound", r.bound_ratio));
  part.commands = {
      {fmt::format("{} self-check --filter {}", ProgramName(), ShellQuote(r.key)), "this case alone"}};
  return part;
}

}  // namespace

PageTable HarmlessTable(int64_t n_changed, int64_t n_alarms, int64_t n_unchanged, int64_t n_failed) {
  PageTable table{
      "harmless",
      "Harmless changes",
      "Sums in another order, roundings of another kind: what two correct engines differ in. None "
      "may raise an alarm.",
      {{"what"}, {"changes", true}},
      {}};
  table.rows = {
      {"change bits", std::to_string(n_changed)},
      {"of them false alarms", n_alarms > 0 ? PageCell(std::to_string(n_alarms), "bad") : PageCell("0")},
      {"change nothing", std::to_string(n_unchanged)},
      {"could not be run", std::to_string(n_failed)}};
  return table;
}

PagePart MissedCase(const SelfResult& r, size_t i, const std::string& how, std::string text) {
  PagePart part;
  part.id = fmt::format("miss-{}", i), part.title = r.key;
  part.state = !r.error.empty() ? PageCell("could not be run", "open")
               : r.benign       ? PageCell("false alarm", "bad")
               : !r.detected    ? PageCell("not found", "bad")
                                : PageCell(how, "bad");
  part.text = std::move(text);
  for (const auto& [name, value] : {std::pair{"kind", r.kind},
                                    {"defect", r.defect},
                                    {"found by", r.found_by},
                                    {"verdict", r.verdict},
                                    {"placed at", r.place},
                                    {"blame", r.blame}})
    if (!value.empty()) part.facts.emplace_back(name, value);
  return part;
}

TablePage SelfCheckPage(const SelfCheckReport& report, const Context& context) {
  const SelfMatrix& m = report.matrix;
  TablePage page;
  page.command = "self-check", page.tool_version = context.tool_version;
  page.word = WordOf(report.exit_code);
  page.sentence = Summary(report);
  page.place_name = "What was run";
  page.place = fmt::format("{}, in {:.0f} s", report.what, report.wall_seconds);
  page.tables = {GoalsTable(report), KindsTable(m),
                 HarmlessTable(m.n_benign, m.n_alarms, m.n_unchanged, m.n_benign_failed), UnseenTable(m)};
  page.parts_title = "What it gets wrong";
  page.parts_about = "Cases that were missed, placed, blamed or named wrongly, and false alarms.";
  for (size_t i = 0; i < m.misses.size(); i++) page.parts.push_back(MissPart(*m.misses[i], i));
  page.json = RenderSelfCheckJson(report, context);
  return page;
}

std::string RenderSelfCheckText(const SelfCheckReport& report, const TextOptions& options) {
  const SelfMatrix& m = report.matrix;
  const auto width = static_cast<size_t>(options.width);
  Table table({{"kind", true, 0, 16},
               {"defects"},
               {"found"},
               {"exact op"},
               {"next to", false, 4},
               {"row/head", false, 3},
               {"blamed"},
               {"named"},
               {"too small", false, 2}});
  std::vector<SelfRow> rows = m.rows;
  rows.push_back(m.total);
  for (const SelfRow& r : rows)
    table.Row({r.kind, std::to_string(r.n), std::to_string(r.detected), std::to_string(r.exact),
               std::to_string(r.within_one), Spots(r), std::to_string(r.blamed), std::to_string(r.named),
               std::to_string(r.skipped)});
  std::string out = table.Render(width);
  auto line = [&](const std::string& text, size_t indent) {
    out += std::string(indent, ' ') + Wrap(EscapeLines(text), width, indent + 2) + "\n";
  };
  line("too small: not counted, as their error is below ten times its bound", 2);
  line(fmt::format("harmless changes: {} change bits, {} false alarms; {} change nothing", m.n_benign,
                   m.n_alarms, m.n_unchanged),
       0);
  for (size_t i = 0; i < std::min(kMissesShown, m.misses.size()); i++)
    line(fmt::format("{}: {}", m.misses[i]->key, MissText(*m.misses[i])), 2);
  if (m.misses.size() > kMissesShown)
    line(fmt::format("and {} more (--format json)", m.misses.size() - kMissesShown), 2);
  line(fmt::format("{} in {:.0f} s: {}", report.what, report.wall_seconds, Summary(report)), 0);
  for (const std::string& goal : m.broken_goals) line("goal missed: " + goal, 0);
  out += fmt::format("{}  (exit {})\n", WordOf(report.exit_code), report.exit_code);
  return out;
}

std::string RenderSelfCheckMarkdown(const SelfCheckReport& report, const Context& context) {
  const SelfMatrix& m = report.matrix;
  std::string out = fmt::format(
      "# What paritybit sees: the self-check\n\n"
      "Written by `paritybit self-check --format markdown` (version {}): {}.\n\n{}.\n\n"
      "The mutant (`plugins/mutant`) is the native engine with one op computed wrongly. Each defect is "
      "committed in several layers "
      "of six models,\nand each case is a whole comparison with its diagnosis. A defect counts where its "
      "local error is at least "
      "ten times its bound.\ndocs/numerics.md defines the columns.\n\n"
      "| kind | defects | detected | exact op | within one op | row or head | blamed right | named right | "
      "not counted |\n"
      "|---|---|---|---|---|---|---|---|---|\n",
      context.tool_version, report.what, Summary(report));
  std::vector<SelfRow> rows = m.rows;
  rows.push_back(m.total);
  for (const SelfRow& r : rows)
    out += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", r.kind, r.n, r.detected, r.exact,
                       r.within_one, Spots(r), r.blamed, r.named, r.skipped);
  out += fmt::format(
      "\n## Harmless changes\n\n{} change bits: one step up or down of every output, sums in another order "
      "and precision, other "
      "formulas, random\nrounding{}. {} false alarms. {} more change no bit.\n",
      m.n_benign,
      report.reference.empty()
          ? ""
          : fmt::format(", and {}'s libraries, batches and random rounding", report.reference),
      m.n_alarms, m.n_unchanged);
  out += "\n## What it does not see\n\n";
  if (m.unseen.empty()) out += "Every defect of the catalogue counts.\n";
  if (!m.unseen.empty()) out += "| defect | why it does not count | cases |\n|---|---|---|\n";
  for (const auto& [what, n] : m.unseen)
    out += fmt::format("| {} | {} | {} |\n", what.substr(0, what.find(": ")),
                       what.substr(what.find(": ") + 2), n);
  out += "\n## What it gets wrong\n\n";
  if (m.misses.empty()) out += "Nothing.\n";
  if (!m.misses.empty()) out += "| case | what |\n|---|---|\n";
  for (const SelfResult* r : m.misses) out += fmt::format("| {} | {} |\n", r->key, MissText(*r));
  return out;
}

std::string RenderSelfCheckJson(const SelfCheckReport& report, const Context&) {
  const SelfMatrix& m = report.matrix;
  Json j = {{"schema", "paritybit.self-check/0"},
            {"verdict", VerdictOf(report.exit_code)},
            {"scope", "local"},
            {"exit_code", report.exit_code}};
  j["reasons"] = Json::array();
  for (const std::string& goal : m.broken_goals)
    j["reasons"].push_back({{"code", compare::ReasonName(compare::ReasonCode::kGoalMissed)}, {"text", goal}});
  PutNext({}, &j);
  j["what"] = report.what, j["summary"] = Summary(report), j["wall_seconds"] = report.wall_seconds;
  j["total"] = RowJson(m.total);
  j["different_defects"] = m.n_names;
  j["kinds"] = Json::array();
  for (const SelfRow& row : m.rows) j["kinds"].push_back(RowJson(row));
  j["harmless"] = {{"change_bits", m.n_benign},
                   {"false_alarms", m.n_alarms},
                   {"change_nothing", m.n_unchanged},
                   {"failed", m.n_benign_failed}};
  j["cases"] = Json::array();
  for (const SelfResult& r : report.results) j["cases"].push_back(CaseJson(r));
  return DumpJson(j, 2) + "\n";
}

}  // namespace pb::report

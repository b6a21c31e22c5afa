// Lays out the cells of a sweep as a page: a grid of verdicts, a table of figures, and each cell
// with what goes on from it.
#include "cli/sweep_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/crossval_common.h"
#include "cli/next.h"
#include "compare/reasons.h"
#include "report/text_blocks.h"
#include "sweep/summary.h"

namespace pb::cli {
namespace {

using report::PageCell;
using sweep::Cell;
using sweep::CellResult;

std::string IdOf(size_t i) { return fmt::format("cell-{}", i); }

std::string TextOf(const nlohmann::json& figures, const char* key) {
  return figures.is_object() && figures.contains(key) && figures[key].is_string()
             ? figures[key].get<std::string>()
             : "";
}

std::string Compared(const CellResult& r) {
  const std::string compared = Figure(r.figures, "compared");
  if (compared.empty()) return "";
  return fmt::format("{} of {} {}", compared, Figure(r.figures, "expected"), TextOf(r.figures, "unit"));
}

std::string Seconds(const CellResult& r) {
  return r.state == sweep::kNotRun ? "" : fmt::format("{:.1f}", r.wall_seconds);
}

std::string Peak(const CellResult& r) { return r.peak_mib > 0 ? fmt::format("{:.0f}", r.peak_mib) : ""; }

// What one row of the grid has in common.
std::vector<std::string> RowKey(const Cell& c) {
  return {c.model, c.engines, c.settings, c.model_path, c.candidate, c.reference};
}

// A row for each model, pair of engines and settings, a column for each scenario.
report::PageTable Grid(const SweepRun& run) {
  report::PageTable grid;
  grid.id = "grid", grid.title = "All cells";
  grid.about = "Each verdict leads to its cell.";
  std::vector<std::string> scenarios;
  std::vector<std::vector<std::string>> keys;  // in the order of the plan
  std::map<std::pair<std::vector<std::string>, std::string>, size_t> cells;
  for (size_t i = 0; i < run.cells.size(); ++i) {
    const Cell& cell = run.cells[i];
    if (std::ranges::find(scenarios, cell.scenario) == scenarios.end()) scenarios.push_back(cell.scenario);
    if (std::ranges::find(keys, RowKey(cell)) == keys.end()) keys.push_back(RowKey(cell));
    cells[{RowKey(cell), cell.scenario}] = i;
  }
  const bool settings = std::ranges::any_of(run.cells, [](const Cell& c) { return !c.settings.empty(); });
  grid.columns = {{"model"}, {"engines"}};
  if (settings) grid.columns.push_back({"settings"});
  for (const std::string& scenario : scenarios) grid.columns.push_back({scenario});
  for (const std::vector<std::string>& key : keys) {
    const std::string pair = fmt::format("{} against {}", key[4], key[5]);
    std::vector<PageCell> row{key[0].empty() ? key[3] : key[0],
                              key[1].empty() ? PageCell(pair) : PageCell(key[1], "", pair)};
    if (settings) row.emplace_back(key[2]);
    for (const std::string& scenario : scenarios) {
      const auto cell = cells.find({key, scenario});
      if (cell == cells.end()) {
        row.emplace_back();
        continue;
      }
      const CellResult& r = run.results[cell->second];
      const std::string seconds = Seconds(r);
      row.emplace_back(r.state, VerdictOf(r.state), seconds.empty() ? "" : seconds + " s",
                       IdOf(cell->second));
    }
    grid.rows.push_back(std::move(row));
  }
  return grid;
}

report::PageTable Figures(const SweepRun& run) {
  report::PageTable table;
  table.id = "figures", table.title = "Figures";
  table.about =
      "KL in nats, of the worst position. Memory is that of the largest process of a cell, resident, in MiB.";
  table.columns = {{"cell"},           {"verdict"}, {"positions", true}, {"compared", true},  {"blame"},
                   {"worst KL", true}, {"s", true}, {"MiB", true},       {"first divergence"}};
  for (size_t i = 0; i < run.cells.size(); ++i) {
    const CellResult& r = run.results[i];
    const std::string place = TextOf(r.figures, "first_divergence");
    table.rows.push_back({{r.name, "", "", IdOf(i)},
                          {r.state, VerdictOf(r.state)},
                          Figure(r.figures, "n_positions"),
                          Compared(r),
                          TextOf(r.figures, "blame"),
                          Figure(r.figures, "worst_kl"),
                          Seconds(r),
                          Peak(r),
                          {place, "", place.empty() && r.exit_code != kExitOk ? r.why : ""}});
  }
  return table;
}

report::PagePart Part(const SweepRun& run, size_t i) {
  const Cell& cell = run.cells[i];
  const CellResult& r = run.results[i];
  report::PagePart part;
  part.id = IdOf(i), part.title = r.name, part.state = {r.state, VerdictOf(r.state)};
  part.text = r.why;
  const auto fact = [&](const char* name, const std::string& value) {
    if (!value.empty()) part.facts.emplace_back(name, value);
  };
  fact("first divergence", TextOf(r.figures, "first_divergence"));
  fact("blame", TextOf(r.figures, "blame"));
  fact("compared", Compared(r));
  fact("scenario", cell.scenario);
  fact("model", cell.model_path);
  fact("candidate", cell.candidate);
  fact("reference", cell.reference);
  fact("settings", cell.settings);
  fact("exit code", std::to_string(r.exit_code));
  fact("threads", fmt::format("{} of each engine", cell.threads));
  const std::string peak = Peak(r);
  fact("memory", fmt::format("{}reckoned with {:.0f} MiB", peak.empty() ? "" : peak + " MiB at most, ",
                             cell.memory_mib));
  if (r.state != sweep::kNotRun) {
    fact("time", fmt::format("{} s, from {} on {}{}", Seconds(r), r.started, r.host,
                             run.kept.count(r.name) ? "; kept from an earlier call" : ""));
    fact("folder", run.folder.cell(r.name).string());
  }
  for (auto& [command, purpose] : sweep::NextOf(run.folder, cell, r, run.again))
    part.commands.push_back({std::move(command), std::move(purpose)});
  // What came to no end is told how to go on with the sweep, and not by itself.
  const std::string alone = Call(cell.words);
  if (std::ranges::none_of(part.commands, [&](const auto& next) { return next.command == alone; }))
    part.commands.push_back({alone, "this cell alone"});
  return part;
}

}  // namespace

report::TablePage SweepPage(const SweepRun& run) {
  const CellResult& worst = *sweep::Worst(run.results);
  const std::string verdict = VerdictOf(worst.state);
  const auto outcome = compare::FindOutcome(verdict);
  report::TablePage page;
  page.command = "sweep", page.tool_version = MakeContext("sweep").tool_version;
  page.again = run.again;
  page.word = outcome ? report::VerdictWord(*outcome, false) : "ERROR";
  page.sentence = sweep::Sentence(run.results);
  const std::string place = TextOf(worst.figures, "first_divergence");
  page.place_name = worst.exit_code == kExitOk ? "What was run" : "Where";
  page.place = worst.exit_code == kExitOk
                   ? fmt::format("{} comparisons, {} of them kept from an earlier call", run.cells.size(),
                                 run.kept.size())
                   : fmt::format("{}{}{}", worst.name, place.empty() ? "" : ": ", place);
  page.tables = {Grid(run), Figures(run)};
  page.parts_title = "Each cell", page.parts_about = "A comparison each, with what goes on from it.";
  for (size_t i = 0; i < run.cells.size(); ++i) page.parts.push_back(Part(run, i));
  page.json = SweepJson(run);
  return page;
}

}  // namespace pb::cli

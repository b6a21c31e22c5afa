// Lays out the cells of a sweep.
#include "cli/sweep_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "compare/reasons.h"
#include "report/escape.h"
#include "report/json.h"
#include "report/table.h"
#include "report/text_blocks.h"
#include "sweep/database.h"
#include "sweep/summary.h"

namespace pb::cli {
namespace {

using compare::Outcome;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::vector<run::NextCommand> NextOf(const SweepRun& run) {
  std::vector<run::NextCommand> next;
  const sweep::CellResult* worst = sweep::Worst(run.results);
  if (!worst || worst->exit_code == kExitOk) return next;
  const size_t index = static_cast<size_t>(worst - run.results.data());
  for (auto& [command, purpose] : sweep::NextOf(run.folder, run.cells[index], *worst, run.again))
    next.push_back({std::move(command), std::move(purpose)});
  return next;
}

std::string Text(const SweepRun& run) {
  report::TextOptions options;
  options.width = TerminalWidth(STDOUT_FILENO), options.colour = UseColour(STDOUT_FILENO);
  std::string out = report::LabelledLine(
      "sweep",
      fmt::format("{} cell{} in {}, {} of them from before", run.cells.size(),
                  run.cells.size() == 1 ? "" : "s", run.folder.root.string(), run.kept.size()),
      options.width);
  report::Table table({{"cell", true, 0, 60},
                       {"verdict", true},
                       {"positions", false, 3},
                       {"points", false, 3},
                       {"worst KL", false, 2},
                       {"s", false, 4},
                       {"", true, 1, 60, 12}},
                      2);
  for (const sweep::CellResult& r : run.results)
    table.Row({report::Escape(r.name), r.state, Figure(r.figures, "n_positions"),
               Figure(r.figures, "compared"), Figure(r.figures, "worst_kl"),
               r.state == sweep::kNotRun ? "" : fmt::format("{:.1f}", r.wall_seconds),
               r.exit_code == kExitOk ? "" : report::EscapeLines(r.why)});
  out += "\n" + table.Render(static_cast<size_t>(options.width)) + "\n";
  out += report::LabelledLine("summary", (run.folder.root / sweep::kSummaryFile).string(), options.width);
  out += report::LabelledLine("database", (run.folder.root / sweep::kDatabaseFile).string(), options.width);
  const sweep::CellResult* worst = sweep::Worst(run.results);
  const std::string verdict = VerdictOf(worst->state);
  const auto outcome = compare::FindOutcome(verdict);
  out += fmt::format("\n{}  {}{}\n", outcome ? report::VerdictWord(*outcome, options.colour) : "ERROR",
                     sweep::Sentence(run.results),
                     worst->exit_code == kExitOk ? "" : fmt::format("  (exit {})", worst->exit_code));
  return out + report::NextLines(NextOf(run), options);
}

Json CellJson(const SweepRun& run, size_t i) {
  const sweep::Cell& cell = run.cells[i];
  const sweep::CellResult& r = run.results[i];
  const bool was_run = r.state != sweep::kNotRun;
  return {{"name", cell.name},
          {"key", cell.key},
          {"scenario", cell.scenario},
          {"model", cell.model},
          {"engines", cell.engines},
          {"settings", cell.settings},
          {"state", r.state},
          {"exit_code", r.exit_code},
          {"why", r.why},
          {"from_before", run.kept.count(cell.name) > 0},
          {"folder", was_run ? Json(run.folder.cell(cell.name).string()) : Json(nullptr)},
          {"command", r.command},
          {"started", was_run ? Json(r.started) : Json(nullptr)},
          {"host", was_run ? Json(r.host) : Json(nullptr)},
          {"wall_seconds", was_run ? Json(r.wall_seconds) : Json(nullptr)},
          {"memory_mib", cell.memory_mib},
          {"peak_mib", r.peak_mib > 0 ? Json(r.peak_mib) : Json(nullptr)},
          {"figures", Json(r.figures)}};
}

Json Object(const SweepRun& run) {
  const sweep::CellResult* worst = sweep::Worst(run.results);
  Json object = Envelope("paritybit.sweep/0", VerdictOf(worst->state), worst->exit_code);
  for (const sweep::CellResult& r : run.results)
    if (r.exit_code != kExitOk)
      object["reasons"].push_back(
          {{"outcome", VerdictOf(r.state)}, {"code", r.state}, {"text", r.name + ": " + r.why}});
  if (object["reasons"].empty())
    object["reasons"].push_back({{"outcome", VerdictOf(worst->state)},
                                 {"code", worst->state},
                                 {"text", sweep::Sentence(run.results)}});
  report::PutNext(NextOf(run), &object);
  object["folder"] = run.folder.root.string();
  object["executor"] = run.executor;
  object["n_cells"] = run.cells.size();
  object["n_from_before"] = run.kept.size();
  object["cells"] = Json::array();
  for (size_t i = 0; i < run.cells.size(); ++i) object["cells"].push_back(CellJson(run, i));
  return object;
}

}  // namespace

std::string VerdictOf(const std::string& state) {
  if (state == sweep::kError || compare::FindOutcome(state)) return state;
  return compare::OutcomeName(state == sweep::kStalled ? Outcome::kEngineFailed : Outcome::kIncomplete);
}

std::string Figure(const nlohmann::json& figures, const char* key) {
  if (!figures.is_object() || !figures.contains(key) || !figures[key].is_number()) return "";
  const nlohmann::json& value = figures[key];
  return value.is_number_integer() ? value.dump() : fmt::format("{:.3g}", value.get<double>());
}

int SweepRun::exit_code() const { return sweep::Worst(results)->exit_code; }

std::string SweepJson(const SweepRun& run) { return DumpJson(Object(run), 2) + "\n"; }

void PrintSweep(const SweepRun& run, const OutputArguments& output) {
  if (output.json())
    PrintOut(SweepJson(run));
  else
    PrintText(Text(run));
}

}  // namespace pb::cli

// Lays the summary out in Markdown.
#include "sweep/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/program.h"
#include "base/text.h"
#include "sweep/outputs.h"

namespace pb::sweep {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

std::string Line(const std::vector<std::string>& words) {
  std::string line = ProgramName();
  for (const std::string& word : words) line += " " + ShellQuote(word);
  return line;
}

// A cell of a table: no bars, no line ends.
std::string Plain(const std::string& text) {
  std::string out;
  for (const char c : EscapeUnsafe(text)) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string Figure(const Json& figures, const char* key) {
  if (!figures.is_object() || !figures.contains(key)) return "";
  const Json& value = figures[key];
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "NO";
  if (value.is_number_integer()) return value.dump();
  if (value.is_number()) return fmt::format("{:.3g}", value.get<double>());
  return value.is_string() ? value.get<std::string>() : "";
}

std::string Loud(std::string state) {
  for (char& c : state) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return state;
}

std::string Row(const CellResult& r) {
  const Json& f = r.figures;
  std::string compared = Figure(f, "compared");
  if (!compared.empty()) compared += " of " + Figure(f, "expected") + " " + Figure(f, "unit");
  std::string row = "|";
  for (const std::string& cell :
       {r.name, r.state, Figure(f, "tokens_equal"), Figure(f, "n_positions"), compared,
        Figure(f, "least_cosine"), Figure(f, "worst_kl"), Figure(f, "first_divergence"),
        r.state == kNotRun ? std::string() : fmt::format("{:.1f}", r.wall_seconds)})
    row += " " + Plain(cell) + " |";
  return row + "\n";
}

bool HasBothTraces(const fs::path& folder) {
  std::error_code ignored;
  return std::all_of(std::begin(kTraceFolders), std::end(kTraceFolders),
                     [&](const char* name) { return fs::exists(folder / name / "manifest.json", ignored); });
}

}  // namespace

std::vector<Next> NextOf(const Folder& folder, const Cell& cell, const CellResult& r,
                         const std::string& again) {
  std::vector<Next> next;
  const fs::path at = folder.cell(cell.name);
  if (r.state == kNotRun) return {{again, "goes on with the cells that have no result"}};
  if (r.state == kTimedOut)
    return {{fmt::format("{} --timeout {:.0f}", again, 4 * r.timeout), "runs it again, with more time"}};
  if (HasBothTraces(at))
    next.emplace_back(
        Line({"trace-diff", (at / kTraceFolders[0]).string(), (at / kTraceFolders[1]).string()}),
        "where the two traces part");
  std::vector<std::string> words = cell.words;
  if (r.state == "diverged") {
    std::vector<std::string> diagnose = words;
    diagnose[0] = "diagnose";
    next.emplace_back(Line(diagnose), "which op, and whose fault");
  }
  next.emplace_back(Line(words), "this cell alone");
  return next;
}

std::string Sentence(std::span<const CellResult> results) {
  std::map<int, std::pair<std::string, size_t>> states;  // the worst last
  for (const CellResult& r : results) {
    auto& [state, n] = states[Badness(r.state)];
    state = r.state;
    ++n;
  }
  if (states.size() == 1 && results.size() > 1)
    return fmt::format("all {} cells: {}", results.size(), states.begin()->second.first);
  std::string out;
  for (auto state = states.rbegin(); state != states.rend(); ++state)
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", state->second.second, state->second.first);
  return fmt::format("{} cell{}: {}", results.size(), results.size() == 1 ? "" : "s", out);
}

std::string RenderSummary(const Folder& folder, std::span<const Cell> cells,
                          std::span<const CellResult> results, const std::string& again) {
  const CellResult* worst = Worst(results);
  std::string out = fmt::format("# Sweep\n\n{}.", Sentence(results));
  if (worst)
    out += fmt::format(" The worst is {}: {} (exit {}).", worst->name, Loud(worst->state), worst->exit_code);
  out +=
      "\n\n| cell | verdict | tokens equal | positions | compared | least cosine | worst KL | first "
      "divergence "
      "| s |\n|---|---|---|---|---|---|---|---|---|\n";
  for (const CellResult& r : results) out += Row(r);
  out += "\n## What to do next\n";
  bool any = false;
  for (size_t i = 0; i < cells.size(); ++i) {
    const CellResult& r = results[i];
    if (r.exit_code == 0) continue;
    any = true;
    out += fmt::format("\n### {}: {}\n\n{}\n", cells[i].name, Loud(r.state), Plain(r.why));
    for (const auto& [command, purpose] : NextOf(folder, cells[i], r, again))
      out += fmt::format("\n{}:\n\n    {}\n", purpose, command);
  }
  if (!any) out += "\nNothing: every cell passed.\n";
  return out;
}

}  // namespace pb::sweep

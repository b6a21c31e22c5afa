// Lays out what the page reads of tables (web/src/data.ts).
#include "report/table_page.h"

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "page/page.h"

namespace pb::report {
namespace {

using Json = nlohmann::ordered_json;

Json CellJson(const PageCell& cell) {
  if (cell.tone.empty() && cell.more.empty() && cell.leads_to.empty()) return cell.text;
  return {{"text", cell.text}, {"tone", cell.tone}, {"more", cell.more}, {"leads_to", cell.leads_to}};
}

Json TableJson(const PageTable& table) {
  Json columns = Json::array(), rows = Json::array();
  for (const PageColumn& column : table.columns)
    columns.push_back({{"name", column.name}, {"is_number", column.is_number}});
  for (const std::vector<PageCell>& cells : table.rows) {
    Json row = Json::array();
    for (const PageCell& cell : cells) row.push_back(CellJson(cell));
    rows.push_back(std::move(row));
  }
  return {{"id", table.id},
          {"title", table.title},
          {"about", table.about},
          {"columns", std::move(columns)},
          {"rows", std::move(rows)}};
}

Json PartJson(const PagePart& part) {
  Json facts = Json::array(), commands = Json::array();
  for (const auto& [name, value] : part.facts) facts.push_back(Json::array({name, value}));
  for (const run::NextCommand& next : part.commands)
    commands.push_back({{"command", next.command}, {"purpose", next.purpose}});
  return {{"id", part.id},     {"title", part.title},       {"state", CellJson(part.state)},
          {"text", part.text}, {"facts", std::move(facts)}, {"commands", std::move(commands)}};
}

}  // namespace

std::string RenderTablePage(const TablePage& p) {
  Json page{{"command", p.command},
            {"tool_version", p.tool_version},
            {"created", p.created},
            {"again", p.again},
            {"word", p.word},
            {"sentence", p.sentence},
            {"place_name", p.place_name},
            {"place", p.place},
            {"stages", Json::array()},
            {"token_text", Json::object()},
            {"grids", {{"local", Json::array()}, {"accumulated", Json::array()}}},
            {"n_left_out", 0},
            {"tables", Json::array()},
            {"parts", {{"title", p.parts_title}, {"about", p.parts_about}, {"list", Json::array()}}}};
  for (const PageTable& table : p.tables) page["tables"].push_back(TableJson(table));
  for (const PagePart& part : p.parts) page["parts"]["list"].push_back(PartJson(part));
  return page::Render(p.word + " - paritybit " + p.command,
                      "{\"page\":" + DumpJson(page) + ",\"report\":" + p.json + "}");
}

}  // namespace pb::report
